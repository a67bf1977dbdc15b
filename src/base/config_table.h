/* The option table behind config.h, for the files config*.c (and their test) alone: one row an option, from which
 * parsing, validation, defaults, help and printing are made. */
#ifndef FAVOR_BASE_CONFIG_TABLE_H
#define FAVOR_BASE_CONFIG_TABLE_H

#include "base/config.h"

#include <stddef.h>

enum option_kind {
	OPTION_BOOL, /* int */
	OPTION_INT32,
	OPTION_INT64,
	OPTION_UINT64, /* any; min and max are not looked at */
	OPTION_FLOAT,
	OPTION_DOUBLE,
	OPTION_ENUM,
	OPTION_STRING,
	OPTION_LIST /* struct string_list */
};

struct option {
	const char *key; /* "learner.lr" */
	enum option_kind kind;
	size_t offset;            /* in struct config */
	const char *fallback;     /* the default, as text of YAML; lists are empty by default */
	double min, max;          /* numbers; both included unless above is set */
	int above;                /* 1: the value must be greater than min */
	const char *const *names; /* enum: by value, NULL at the end; string: if not NULL, the texts allowed besides "" */
	int required;             /* string: "" is refused */
	const char *help;
};

extern const struct option config_options[];
extern const int config_option_count;
enum { CONFIG_OPTIONS_MAX = 96 }; /* room for arrays by option; checked at compile time */

/* Index of the row with that key, or -1. */
int option_find(const char *key);
/* 1 if some key starts with `path` and a dot, or path is "" (the top). */
int option_is_section(const char *path);
/* The key that most resembles `path`, or NULL if none comes near. */
const char *option_nearest(const char *path);
/* The names of options and sections in a section ("": at the top): "steps, lr, ...". New string, owned by the caller. */
char *option_names(const char *section);
/* "a number > 0 and <= 10": what a value must be. New string, owned by the caller. */
char *option_valid(const struct option *o);

/* Sets the value from the text of a scalar (lists: not this way). quoted: it stood in quotes, so is text and never a
 * number. -1 with "found ..., valid is ..." (no place, no key: the caller puts them in front). */
int option_set(const struct option *o, struct config *c, const char *text, int quoted, struct favor_error *e);
void option_set_default(const struct option *o, struct config *c);
/* The value as text (for enums the name), not quoted; lists give NULL. New string, owned by the caller. */
char *option_text(const struct option *o, const struct config *c);

void string_list_clear(struct string_list *l);
void string_list_add(struct string_list *l, const char *item);

/* Where an option's value came from. */
struct option_origin {
	int serial;         /* 0 = the default; else 1 + number of the source (file, first argument, ...) */
	const char *source; /* borrowed: the file's name or the argument */
	int line;           /* from 1; 0: source is an argument */
};
/* New string, owned by the caller: "conf.yaml:7", "argument \"learner.lr=1\"" or "the default". */
char *option_origin_text(const struct option_origin *o);

/* config_read.c: applies a YAML text to *c. prefix is "" for a file; for an argument its key, whose value the text is.
 * Notes where each option came from in origins[CONFIG_OPTIONS_MAX]. */
struct config_source {
	int serial;
	const char *name; /* the file's name or the whole argument */
	int is_argument;
	const char *prefix;
	const char *text;
	size_t size;
};
int config_read(struct config *c, const struct config_source *s, struct option_origin *origins, struct favor_error *e);

/* config_check.c: what must hold between options. */
int config_check(const struct config *c, const struct option_origin *origins, struct favor_error *e);

#endif
