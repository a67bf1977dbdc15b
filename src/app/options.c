#include "app/options.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void help(const struct option *options, int count, const char *usage)
{
	static const char *const VALUE[] = {"", " TEXT", " TEXT", " N", " X"};
	printf("usage: favor %s\n", usage);
	for (int i = 0; i < count; i++) {
		char left[64];
		snprintf(left, sizeof left, "%s%s", options[i].name, VALUE[options[i].type]);
		printf("  %-22s %s\n", left, options[i].help);
	}
}

static int number(const struct option *o, const char *text, struct favor_error *e)
{
	char *end;
	errno = 0;
	if (o->type == OPTION_INT) {
		long long v = strtoll(text, &end, 10);
		if (errno || end == text || *end)
			return favor_fail(e, "%s: \"%s\" is no whole number", o->name, text);
		if ((double)v < o->low || (double)v > o->high)
			return favor_fail(e, "%s: %lld is outside [%.0f, %.0f]", o->name, v, o->low, o->high);
		*(int64_t *)o->to = v;
		return 0;
	}
	double v = strtod(text, &end);
	if (end == text || *end || !isfinite(v))
		return favor_fail(e, "%s: \"%s\" is no number", o->name, text);
	if (v < o->low || v > o->high)
		return favor_fail(e, "%s: %g is outside [%g, %g]", o->name, v, o->low, o->high);
	*(double *)o->to = v;
	return 0;
}

int options_parse(int argc, char **argv, const struct option *options, int count, const char **positional, int max,
                  int *positional_count, const char *usage, struct favor_error *e)
{
	*positional_count = 0;
	for (int i = 1; i < argc; i++) {
		const struct option *o = NULL;
		const char *value = strchr(argv[i], '=');
		const size_t length = value ? (size_t)(value - argv[i]) : strlen(argv[i]);
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			help(options, count, usage);
			return 1;
		}
		if (strncmp(argv[i], "--", 2)) {
			if (*positional_count == max)
				return favor_fail(e, "unexpected argument \"%s\"; usage: favor %s", argv[i], usage);
			positional[(*positional_count)++] = argv[i];
			continue;
		}
		for (int k = 0; k < count; k++)
			if (strlen(options[k].name) == length && !strncmp(argv[i], options[k].name, length))
				o = &options[k];
		if (!o)
			return favor_fail(e, "there is no option %.*s; usage: favor %s", (int)length, argv[i], usage);
		if (o->type == OPTION_FLAG) {
			if (value)
				return favor_fail(e, "%s takes no value; usage: favor %s", o->name, usage);
			*(int *)o->to = 1;
			continue;
		}
		if (!value && ++i == argc)
			return favor_fail(e, "%s needs a value; usage: favor %s", o->name, usage);
		value = value ? value + 1 : argv[i];
		if (o->type == OPTION_TEXT)
			*(const char **)o->to = value;
		else if (o->type == OPTION_LIST) {
			struct option_list *l = o->to;
			l->items = favor_realloc(l->items, (size_t)(l->count + 1) * sizeof *l->items);
			l->items[l->count++] = value;
		} else if (number(o, value, e))
			return -1;
	}
	return 0;
}
