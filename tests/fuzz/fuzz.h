/* What the fuzz targets share. A target is one function, LLVMFuzzerTestOneInput (libFuzzer's name), that gives bytes to
 * a parser and aborts if what comes back breaks a promise. With -Dfuzz=true it is linked to libFuzzer; in other builds
 * to replay.c, which runs it over the seeds (tests/fuzz/seeds) and over what was found before (tests/fuzz/found), so
 * that every finding stays a test in every build.
 *
 * Inputs of several files are one input: the files one after the other, with FUZZ_CUT between them. */
#ifndef FAVOR_TESTS_FUZZ_H
#define FAVOR_TESTS_FUZZ_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

#define FUZZ_CUT "\n--8<--\n"
enum { FUZZ_PARTS = 4 };

/* gcc and clang say it differently. */
#ifdef __SANITIZE_ADDRESS__
#define FUZZ_ASAN 1
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define FUZZ_ASAN 1
#endif
#endif

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz_part {
	const char *data; /* borrowed, not NUL-terminated */
	size_t n;
};
/* Cuts the input; parts that are not there are empty. Returns how many there are, at least 1; the last one holds all
 * that is left. */
int fuzz_parts(const uint8_t *data, size_t size, struct fuzz_part parts[FUZZ_PARTS]);
/* New NUL-terminated copy, owned by the caller. */
char *fuzz_text(struct fuzz_part part);

/* The process's own folder in memory (/dev/shm) or $TMPDIR, removed at the end. Borrowed. */
const char *fuzz_folder(void);
/* folder/name (borrowed text, valid until the next call with the same name). fuzz_write makes the file, fuzz_remove
 * takes it away. */
const char *fuzz_path(const char *name);
const char *fuzz_write(const char *name, struct fuzz_part content);
void fuzz_remove(const char *name);

/* Aborts with file and line where a promise is broken. */
#define FUZZ_WANT(condition)                                                                                           \
	do {                                                                                                               \
		if (!(condition))                                                                                              \
			fuzz_broken(__FILE__, __LINE__, #condition);                                                               \
	} while (0)
_Noreturn void fuzz_broken(const char *file, int line, const char *condition);
/* A refusal says why, in one message without a line end, and names the file (part of it). */
void fuzz_want_message(const struct favor_error *e, const char *names);

#endif
