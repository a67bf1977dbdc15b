/* Products by oneDNN. The one room's corner that sees its API; it covers versions 2 (Debian 12) and 3.
 *
 * A primitive is compiled for one shape and one number of threads; primitives are kept in a hash table by all that they
 * depend on. Only oneDNN's "brg" kernels give a row the same bits whatever the number of rows and threads
 * (tests/backend/test_matmul.c), so no others are used. */
#ifndef FAVOR_BACKEND_CPU_ONEDNN_H
#define FAVOR_BACKEND_CPU_ONEDNN_H

#include <stddef.h>
#include <stdint.h>

/* How a matrix lies in memory: dense rows, dense columns, or in the layout that oneDNN likes best for it. */
enum order { BY_ROWS, BY_COLUMNS, PACKED };

/* c[m,n] = a[m,k] b[k,n] + bias[n] + c: all that a primitive depends on. */
struct product {
	int64_t m, n, k;
	int64_t a, b;             /* enum order; c lies by rows */
	int64_t bias, accumulate; /* 0 or 1 */
};

struct onednn;
struct onednn_primitive;

struct onednn *onednn_new(void);
void onednn_destroy(struct onednn *d); /* NULL is fine */
/* Whether this machine has kernels that keep rows independent at all. */
int onednn_keeps_rows(struct onednn *d);
/* From now on any kernel will do, whether it keeps rows independent or not: to compare with, never to compute with. */
void onednn_allow_all(struct onednn *d);
/* Drops all primitives: they plan their split over threads when they are made. */
void onednn_forget(struct onednn *d);
/* The compiled product; NULL if there is no kernel for it that keeps rows independent. Valid until the next call. */
struct onednn_primitive *onednn_for(struct onednn *d, const struct product *key);
/* Runs on OpenMP's current number of threads. */
void onednn_run(struct onednn *d, struct onednn_primitive *p, const float *a, const float *b, const float *bias,
                float *c);
/* The packed layout of a weight [n, k], a function of n and k alone: one copy serves any number of rows. */
size_t onednn_packed_bytes(struct onednn *d, int64_t n, int64_t k);
/* `to`: 64-byte aligned. */
void onednn_pack(struct onednn *d, float *to, const float *weight, int64_t n, int64_t k);

#endif
