/* What the CPU backend owns between calls. Behind struct backend's `state`; created and destroyed by backend_cpu.c. */
#ifndef FAVOR_BACKEND_CPU_STATE_H
#define FAVOR_BACKEND_CPU_STATE_H

#include "backend/backend.h"

struct matmul_state;

/* Whose logits the scratch memory still holds: all rows of the last head_logprob, whose backward usually comes next.
 * lse NULL: nobody's. */
struct head_call {
	const float *h, *w, *lse;
	int64_t rows, vocabulary;
};

struct cpu_state {
	struct matmul_state *matmul; /* owned: packed weights */
	void *scratch;               /* owned: see cpu_scratch; free() it */
	size_t scratch_bytes;
	struct head_call logits; /* in scratch */
};

/* At least `bytes` of memory for the length of one op, 64-byte aligned, contents undefined. Grows on demand and is
 * kept. The next call may move it: an op asks once, and calls no other op that asks while it still needs it. The
 * products (cpu_linear and its backward) never ask. */
void *cpu_scratch(struct backend *b, size_t bytes);

#endif
