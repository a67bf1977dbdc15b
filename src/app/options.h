/* Options of the small commands: --name value pairs from one table, with the same errors everywhere. */
#ifndef FAVOR_APP_OPTIONS_H
#define FAVOR_APP_OPTIONS_H

#include "base/error.h"

#include <stdint.h>

enum option_type { OPTION_FLAG, OPTION_TEXT, OPTION_LIST, OPTION_INT, OPTION_REAL };

struct option_list {
	int count;
	const char **items; /* into argv; owned array */
};

struct option {
	const char *name; /* "--model" */
	enum option_type type;
	void *to;         /* int * (flag), const char ** , struct option_list *, int64_t *, double * */
	double low, high; /* of numbers */
	const char *help;
};

/* Parses argv[1..]: "--name value" or "--name=value"; what is no option goes to positional (at most max). --help prints `usage`
 * and the table and returns 1. -1 on error. */
int options_parse(int argc, char **argv, const struct option *options, int count, const char **positional, int max,
                  int *positional_count, const char *usage, struct favor_error *e);

#endif
