/* Two kinds of error (docs/ARCHITECTURE.md):
 *  - bad input: a function returns -1 and fills a struct favor_error with one message that names the file, the place in
 *    it and what to do. The caller passes it up; main prints it and leaves with exit code 2.
 *  - a broken world (MPI, memory, a library that refuses): favor_die ends the whole job with one message. */
#ifndef FAVOR_BASE_ERROR_H
#define FAVOR_BASE_ERROR_H

#include <stdarg.h>
#include <stddef.h>

enum { FAVOR_ERROR_MAX = 2048 };

struct favor_error {
	char message[FAVOR_ERROR_MAX]; /* without a line end; "" while nothing went wrong */
};

/* Writes the message (cut to fit) and returns -1, so that `return favor_fail(e, "...")` reads well. e may be NULL. */
int favor_fail(struct favor_error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Puts "prefix: " in front of a message that is already there, and returns -1. */
int favor_fail_prefix(struct favor_error *e, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* What favor_die says of this process, and how it ends the job. The one state that belongs to the process as a whole.
 */
struct favor_process {
	int rank, ranks;
	const char *role;            /* borrowed, static text: "rollout", "learner", ... */
	const char *phase;           /* borrowed, static text: "start", "rollout", "backward", ... */
	long long step;              /* -1 before the first step */
	long long sample;            /* index of the group in hand; -1: none */
	void (*abort_job)(int code); /* NULL: exit(code); the comm room sets it to end all ranks */
	void (*leaves)(void);        /* called before this process ends alone, in the hope that it ends the job; NULL: nothing to do */
	struct fault *faults;        /* to happen on purpose (fault.h); NULL: none */
	volatile int stuck;          /* the main thread is: abort_job runs on another one and must not wait for it */
	int alone_if_stuck;          /* then only this process ends: the others can do without it */
	void (*alive)(void *arg);    /* see favor_alive; the comm room sets it */
	void *alive_arg;
};
struct favor_process *favor_process(void);

/* A long piece of work without waits of its own (reading a model, writing a checkpoint) calls this every second or so:
 * other ranks then know that this one works. Cheap. Main thread only. */
void favor_alive(void);

/* Prints "favor: rank R (role) on HOST, phase P, step S, sample N: message" to stderr and ends the whole job with code 1
 * (without a sample in hand its part is left out). */
_Noreturn void favor_die(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* malloc/calloc/realloc/strdup that never return NULL: out of memory ends the job. The caller owns and free()s. */
void *favor_malloc(size_t bytes);
void *favor_calloc(size_t count, size_t size);
void *favor_realloc(void *p, size_t bytes);
char *favor_strdup(const char *s);
/* printf into a new string, owned by the caller. */
char *favor_format(const char *format, ...) __attribute__((format(printf, 1, 2), nonnull(1), returns_nonnull));

#endif
