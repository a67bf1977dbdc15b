/* A product with this project's own kernel, for machines on which oneDNN has none that keeps rows independent.
 *
 * The right operand is packed into panels of PANEL columns, [columns / PANEL][k][PANEL], zeros behind the last column:
 * what the kernel reads next lies next. Weights are packed once per policy version, other operands for one product. */
#ifndef FAVOR_BACKEND_CPU_OWN_PRODUCT_H
#define FAVOR_BACKEND_CPU_OWN_PRODUCT_H

#include "backend/cpu/tile.h"

#include <stddef.h>
#include <stdint.h>

enum { PANEL = 2 * TILE_LANES };

static inline int64_t own_panels(int64_t columns)
{
	return (columns + PANEL - 1) / PANEL;
}
/* Floats of the packed right operand. */
static inline int64_t own_packed_floats(int64_t k, int64_t columns)
{
	return own_panels(columns) * PANEL * k;
}
/* Packs b[k, n], whose element (i, j) is b[i * b_row + j * b_col]; one of the strides is 1. `to`: 64-byte aligned. */
void own_pack(float *to, const float *b, int64_t b_row, int64_t b_col, int64_t k, int64_t n, int threads);
/* The same, rounded to bfloat16. */
void own_pack_narrow(uint16_t *to, const float *b, int64_t b_row, int64_t b_col, int64_t k, int64_t n, int threads);

/* c[m,n] = a[m,k] b[k,n] + bias[n] + c. Strides in elements; one of a's is 1; rows of c are contiguous. */
struct own_product {
	int64_t m, n, k;
	const float *a, *bias; /* bias may be NULL */
	int64_t a_row, a_col;
	const float *panels;    /* of b; or */
	const uint16_t *narrow; /* the same in bfloat16: only for a_col == 1 */
	float *c;
	int64_t c_row;
	int accumulate; /* 0: without "+ c" */
};

/* Every element is one chain of fused multiply-adds in ascending order of k that starts from c, the bias, their sum or
 * 0: its bits depend on its row of a, its column of b and that start alone. */
void own_product_run(const struct own_product *p, int threads);

#endif
