/* Reading files that somebody else may have made: no file is taken that is none (a pipe would wait for ever), nothing
 * is allocated beyond a limit, and a line that never ends is an error instead of all memory. And making folders. */
#ifndef FAVOR_BASE_FILE_H
#define FAVOR_BASE_FILE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Opens a regular file for reading. NULL with "PATH: why". The caller closes it. */
FILE *file_open(const char *path, struct favor_error *e);
/* The same; what is opened must lie below `folder` (an absolute path without symbolic links, as realpath gives it),
 * links followed. folder NULL: anywhere. `remedy` ends the message if it does not. */
FILE *file_open_below(const char *path, const char *folder, const char *remedy, struct favor_error *e);
/* All of a regular file of at most `limit` bytes, and a NUL behind it. Owned by the caller; NULL with a message that
 * names the path. */
char *file_read(const char *path, size_t limit, size_t *n, struct favor_error *e);

/* Makes a folder and those above it, as far as they are not there. -1 with "FOLDER: the folder can't be made: why", which
 * `remedy` ends. */
int file_make_folders(const char *path, const char *remedy, struct favor_error *e);

/* Lines of a file one by one. Zero-initialise but for file and limit; lines_free at the end (it does not close the
 * file). */
struct lines {
	FILE *file;   /* borrowed */
	size_t limit; /* bytes of the longest line that is taken, its end included */
	char *text; /* the line, its '\n' included (the last one may have none), with a NUL behind it; valid until the next
	               call */
	size_t n;
	int64_t number; /* of the line, from 1 */
	int64_t start;  /* bytes of the file before it, from where reading began */
	/* own */
	char *buffer;
	size_t capacity, at, end;
	char held;
};
enum { LINES_END = 0, LINES_ONE = 1, LINES_LONG = -1, LINES_FAILED = -2 };
/* LINES_LONG: the line is longer than the limit; LINES_FAILED: errno says why. After both, and after the end, no
 * further call. */
int lines_next(struct lines *l);
/* Message for a result below 0: "PATH:LINE: ...". Returns -1. */
int lines_fail(const struct lines *l, int result, const char *path, struct favor_error *e);
void lines_free(struct lines *l);

#endif
