/* The small dense kernel under attention: tiles that fit the first two caches, in vectors as wide as the machine has them.
 *
 * Every element of a result is one chain of fused multiply-adds in ascending order of the summed index, whatever the
 * shape of the tile around it; that is what makes decode, prefill and training agree to the bit. */
#ifndef FAVOR_BACKEND_CPU_TILE_H
#define FAVOR_BACKEND_CPU_TILE_H

#include <stdint.h>

/* Floats in a vector register. Widths of tiles are padded to a multiple. */
#if defined __AVX512F__
enum { TILE_LANES = 16 };
#elif defined __AVX2__ && defined __FMA__
enum { TILE_LANES = 8 };
#else
enum { TILE_LANES = 4 };
#endif

static inline int64_t tile_padded(int64_t n)
{
	return (n + TILE_LANES - 1) / TILE_LANES * TILE_LANES;
}

/* c[rows, cols] = (accumulate ? c : 0) + a[rows, depth] b[depth, cols]. cols: a multiple of TILE_LANES. Element (i, k)
 * of a is a[i * a_row + k * a_col]; rows of b and c lie b_row and c_row apart. */
void tile_product(float *c, int64_t c_row, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t b_row,
                  int64_t rows, int64_t cols, int64_t depth, int accumulate);

/* c[r, j] = a[r, :] b[:, j] for j < cols[r]; columns behind them may be computed too, up to a multiple of TILE_LANES.
 * Rows that see few keys of a block cost little. */
void tile_product_ragged(float *c, int64_t c_row, const float *a, int64_t a_row, const float *b, int64_t b_row,
                         int64_t rows, const int32_t *cols, int64_t depth);

/* to[j, i] = from[i, j] for i < rows, j < cols (a multiple of 4), and 0 for rows <= i < width (a multiple of 4). Rows
 * of `from` lie `stride` apart, rows of `to` width. */
void tile_transpose(float *to, int64_t width, const float *from, int64_t stride, int64_t rows, int64_t cols);

/* to[i, j] = factor * from[i, j] for j < cols, 0 for cols <= j < width; rows of `to` lie width apart. */
void tile_copy(float *to, int64_t width, const float *from, int64_t stride, int64_t rows, int64_t cols, float factor);

#endif
