#include "app/doctor.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

static const char *const LEVELS[] = {"good", "note", "warning", "BROKEN"};

void find(struct findings *f, enum doctor_level level, const char *check, const char *change, const char *format, ...)
{
	char text[FAVOR_ERROR_MAX];
	va_list args;
	va_start(args, format);
	vsnprintf(text, sizeof text, format, args);
	va_end(args);
	f->list = favor_realloc(f->list, (size_t)(f->count + 1) * sizeof *f->list);
	f->list[f->count++] =
		(struct finding){level, check, favor_strdup(text), change && *change ? favor_strdup(change) : NULL};
}

int findings_count(const struct findings *f, enum doctor_level level)
{
	int n = 0;
	for (int i = 0; i < f->count; i++)
		n += f->list[i].level == level;
	return n;
}

void findings_print(const struct findings *f, FILE *out)
{
	for (int i = 0; i < f->count; i++) {
		const struct finding *one = &f->list[i];
		fprintf(out, "%-8s %-9s %s\n", LEVELS[one->level], one->check, one->text);
		if (one->change)
			fprintf(out, "%18s -> %s\n", "", one->change);
	}
}

void findings_free(struct findings *f)
{
	for (int i = 0; i < f->count; i++) {
		free(f->list[i].text);
		free(f->list[i].change);
	}
	free(f->list);
	*f = (struct findings){0};
}
