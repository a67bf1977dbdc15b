#include "data/faults.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void faults_add(struct faults *f, const char *format, ...)
{
	if (f->count < FAULTS_SHOWN) {
		va_list args;
		va_start(args, format);
		char text[FAVOR_ERROR_MAX];
		vsnprintf(text, sizeof text, format, args);
		va_end(args);
		f->text[f->count] = favor_strdup(text);
	}
	f->count++;
}

int faults_report(const struct faults *f, struct favor_error *e, const char *title, const char *what)
{
	if (f->count == 0)
		return 0;
	if (f->count == 1)
		return favor_fail(e, "%s", f->text[0]);
	char message[FAVOR_ERROR_MAX], more[48];
	int64_t shown = 0;
	int room = (int)sizeof message - (int)sizeof more; /* for the last line */
	int used = snprintf(message, (size_t)room, "%s: %" PRId64 " %s:", title, f->count, what);
	if (used >= room)
		used = room - 1;
	while (shown < f->count && shown < FAULTS_SHOWN) {
		int n = (int)strlen(f->text[shown]) + 3;
		if (used + n >= room)
			break;
		used += snprintf(message + used, sizeof message - (size_t)used, "\n  %s", f->text[shown++]);
	}
	more[0] = '\0';
	if (shown < f->count)
		snprintf(more, sizeof more, "\n  and %" PRId64 " more", f->count - shown);
	return favor_fail(e, "%s%s", message, more);
}

void faults_free(struct faults *f)
{
	for (int i = 0; i < FAULTS_SHOWN; i++)
		free(f->text[i]);
	*f = (struct faults){0};
}
