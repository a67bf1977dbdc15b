/* A backend that passes every operation on to another one and can take its time: where a phase's time goes, op by op
 * and shape by shape. Nothing in the other backend knows of it. */
#ifndef FAVOR_BENCH_PROFILE_H
#define FAVOR_BENCH_PROFILE_H

#include "backend/backend.h"

#include <stdio.h>

/* All calls of one op with one shape in one phase. */
struct profile_line {
	const char *op;
	int phase;
	int64_t m, n, k; /* products: rows, outputs, inputs; else rows, columns, 0 */
	int64_t calls;
	double seconds, flops, bytes;
};

struct profile {
	struct backend backend; /* first: ops get a pointer to it, and find the rest behind it */
	struct backend *inner;  /* borrowed */
	int phase;              /* under which calls are counted */
	struct profile_line *lines;
	int count, capacity;
};

/* p->backend is then `inner`, untimed. The number of threads is not changed any more. */
void profile_init(struct profile *p, struct backend *inner);
void profile_free(struct profile *p);
/* Timed calls go through one more function and two looks at the clock: about 0.1 us. */
void profile_on(struct profile *p, int on);
/* The lines of a phase, most time first, per run of `runs`; phase_seconds is a run's time with the profile on. `peak`
 * in float32 operations a second. */
void profile_print(struct profile *p, FILE *f, int phase, double phase_seconds, int runs, double peak);

#endif
