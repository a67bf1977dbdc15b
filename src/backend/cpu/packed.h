/* Packed copies of weights, kept until the weights change: reading a weight in the order that the kernel wants it is
 * most of a product's time when there are few rows. */
#ifndef FAVOR_BACKEND_CPU_PACKED_H
#define FAVOR_BACKEND_CPU_PACKED_H

#include <stddef.h>
#include <stdint.h>

struct packed_weights;

struct packed_weights *packed_weights_new(void);
void packed_weights_destroy(struct packed_weights *s); /* NULL is fine */
/* Which weight, [n, k] dense at `from`, packed for whom. */
enum packed_layout { PACKED_FLOATS, PACKED_PAIRS };
struct packed_key {
	const float *from; /* borrowed */
	int64_t n, k;
	enum packed_layout layout;
};

/* Its copy, NULL if there is none that is still true. */
void *packed_weights_find(const struct packed_weights *s, const struct packed_key *key);
/* Room for a copy of `bytes` bytes (for one key always the same), 64-byte aligned, which the caller fills; NULL if it
 * would take more memory than allowed, or between two lendings. */
void *packed_weights_add(struct packed_weights *s, const struct packed_key *key, size_t bytes);
/* No copy is true any more; the memory is kept for those to come. */
void packed_weights_stale(struct packed_weights *s);
/* Frees copies of weights that overlap these bytes. */
void packed_weights_forget(struct packed_weights *s, const void *from, size_t bytes);
/* Copies to come lie in that memory, borrowed, as far as it goes; those in memory that was lent before are forgotten. NULL:
 * it is taken back, for work that is not worth copies: none are added until memory is lent again. */
void packed_weights_lend(struct packed_weights *s, void *memory, size_t bytes);
/* What all copies together may take, lent memory apart. */
int64_t packed_weights_most(void);
/* What they take, lent memory apart. */
size_t packed_weights_bytes(const struct packed_weights *s);

#endif
