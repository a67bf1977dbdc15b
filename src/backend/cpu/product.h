/* The dense product under all layers. Libraries' products give a row other bits with another number of rows, or only
 * promise the same ones on some machines; this one gives the same bits by construction, and is as fast
 * (bench/bench_matmul.c).
 *
 * The right operand is packed into panels of PANEL columns, [columns / PANEL][k][PANEL], zeros behind the last column:
 * what the kernel reads next lies next. Weights are packed once per policy version, other operands for one product. */
#ifndef FAVOR_BACKEND_CPU_PRODUCT_H
#define FAVOR_BACKEND_CPU_PRODUCT_H

#include "backend/cpu/tile.h"

#include <stddef.h>
#include <stdint.h>

enum { PANEL = 2 * TILE_LANES };

/* What the operands are made of: floats, or pairs of bfloat16 that follow each other in k, the first in the lower half.
 * The kernel goes through both in the same way. */
union product_word {
	float number;
	uint32_t pair;
};

/* Words of k numbers, as pairs; an odd k's last pair ends with 0. */
static inline int64_t product_pairs(int64_t k)
{
	return (k + 1) / 2;
}
static inline int64_t product_panels(int64_t columns)
{
	return (columns + PANEL - 1) / PANEL;
}
/* Words of the packed right operand of k words. */
static inline int64_t product_packed_words(int64_t k, int64_t columns)
{
	return product_panels(columns) * PANEL * k;
}
/* Packs b[k, n], whose element (i, j) is b[i * b_row + j * b_col]; one of the strides is 1. `to`: 64-byte aligned. */
void product_pack(union product_word *to, const float *b, int64_t b_row, int64_t b_col, int64_t k, int64_t n, int threads);
/* The same for pairs, rounded to bfloat16: [columns / PANEL][product_pairs(k)][PANEL]. */
void product_pack_pairs(union product_word *to, const float *b, int64_t b_row, int64_t b_col, int64_t k, int64_t n, int threads);
/* The left operand as pairs: a[m, k] of contiguous rows becomes to[m][product_pairs(k)]; */
void product_pair_columns(union product_word *to, const float *a, int64_t a_row, int64_t m, int64_t k, int threads);
/* a[m, k] of contiguous columns, a_col apart, becomes to[product_pairs(k)][m]. */
void product_pair_rows(union product_word *to, const float *a, int64_t a_col, int64_t m, int64_t k, int threads);

/* c[m,n] = a[m,k] b[k,n] + bias[n] + c. Strides in words; one of a's is 1; rows of c are contiguous. */
struct product {
	int64_t m, n, k; /* k: words */
	int pairs;       /* what words are */
	const union product_word *a;
	int64_t a_row, a_col;
	const union product_word *panels; /* of b */
	const float *bias;            /* may be NULL */
	float *c;
	int64_t c_row;
	int accumulate; /* 0: without "+ c" */
};

/* Every element is one chain of fused multiply-adds in ascending order of k (of a pair, the second number comes first:
 * vec_fused_pairs) that starts from c, the bias, their sum or 0: its bits depend on its row of a, its column of b and
 * that start alone. */
void product_run(const struct product *p, int threads);

#endif
