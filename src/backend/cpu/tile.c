/* Register blocking: up to TILE_ROWS rows by TILE_VECTORS vectors of the result stay in registers while k runs; each
 * step loads TILE_VECTORS vectors of b and broadcasts one element of a per row. Called by attention and product.c.
 */
#include "backend/cpu/tile.h"

#include "backend/cpu/vec.h"

/* 6 x 4 accumulators of the 32 registers of AVX-512, 6 x 2 of the 16 of AVX2 and SSE; 2 x 4 of few rows, so that
 * enough sums are under way at once. */
enum { TILE_ROWS = 6, TILE_VECTORS = TILE_LANES == 16 ? 4 : 2, FEW_ROWS = 2, VECTORS_MAX = 4 };

typedef float quad __attribute__((vector_size(16)));
typedef float quad_anywhere __attribute__((vector_size(16), aligned(4), may_alias));

/* One register block; rows and vectors are constants where it is inlined. */
ALWAYS_INLINE void block(int rows, int vectors, float *c, int64_t c_row, const float *a, int64_t a_row, int64_t a_col,
                         const float *b, int64_t b_row, int64_t depth, int accumulate)
{
	vec sum[TILE_ROWS][VECTORS_MAX];
	for (int i = 0; i < rows; i++)
		for (int v = 0; v < vectors; v++)
			sum[i][v] = accumulate ? vec_load(c + i * c_row + v * TILE_LANES) : (vec){0};
#pragma GCC unroll 2
	for (int64_t k = 0; k < depth; k++) {
		vec right[VECTORS_MAX];
		for (int v = 0; v < vectors; v++)
			right[v] = vec_load_once(b + k * b_row + v * TILE_LANES);
		for (int i = 0; i < rows; i++) {
			vec left = vec_all(a[i * a_row + k * a_col]);
			for (int v = 0; v < vectors; v++)
				sum[i][v] = vec_fused(left, right[v], sum[i][v]);
		}
	}
	for (int i = 0; i < rows; i++)
		for (int v = 0; v < vectors; v++)
			vec_store(c + i * c_row + v * TILE_LANES, sum[i][v]);
}

#define BLOCK(rows, vectors)                                                                                           \
	case rows * 8 + vectors:                                                                                           \
		block(rows, vectors, c, c_row, a, a_row, a_col, b, b_row, depth, accumulate);                                  \
		break
#define BLOCKS(vectors)                                                                                                \
	BLOCK(1, vectors);                                                                                                 \
	BLOCK(2, vectors);                                                                                                 \
	BLOCK(3, vectors);                                                                                                 \
	BLOCK(4, vectors);                                                                                                 \
	BLOCK(5, vectors);                                                                                                 \
	BLOCK(6, vectors)

static void block_of(int64_t rows, int64_t vectors, float *c, int64_t c_row, const float *a, int64_t a_row,
                     int64_t a_col, const float *b, int64_t b_row, int64_t depth, int accumulate)
{
	switch (rows * 8 + vectors) {
		BLOCKS(1);
		BLOCKS(2);
#if defined __AVX512F__
		BLOCKS(3);
		BLOCKS(4);
#else
		BLOCK(1, 3);
		BLOCK(2, 3);
		BLOCK(1, 4);
		BLOCK(2, 4);
#endif
	}
}

/* How many of `left` to take at once: at most `most`, and without a small rest at the end (8 are 4 + 4, not 6 + 2). */
static int64_t share(int64_t left, int64_t most)
{
	int64_t parts = (left + most - 1) / most;
	return (left + parts - 1) / parts;
}

void tile_product(float *c, int64_t c_row, const float *a, int64_t a_row, int64_t a_col, const float *b, int64_t b_row,
                  int64_t rows, int64_t cols, int64_t depth, int accumulate)
{
	for (int64_t left = cols / TILE_LANES; left > 0;) {
		int64_t vectors = share(left, rows <= FEW_ROWS ? VECTORS_MAX : TILE_VECTORS);
		int64_t take;
		for (int64_t i = 0; i < rows; i += take) {
			take = share(rows - i, TILE_ROWS);
			block_of(take, vectors, c + i * c_row, c_row, a + i * a_row, a_row, a_col, b, b_row, depth, accumulate);
		}
		left -= vectors;
		b += vectors * TILE_LANES;
		c += vectors * TILE_LANES;
	}
}

void tile_product_ragged(float *c, int64_t c_row, const float *a, int64_t a_row, const float *b, int64_t b_row,
                         int64_t rows, const int32_t *cols, int64_t depth)
{
	for (int64_t first = 0, end; first < rows; first = end) {
		int64_t width = -1; /* of rows [first, end), which go together while it stays the same */
		for (end = first; end < rows;) {
			int64_t next = end + TILE_ROWS < rows ? end + TILE_ROWS : rows;
			int32_t most = 0;
			for (int64_t r = end; r < next; r++)
				most = cols[r] > most ? cols[r] : most;
			if (width >= 0 && width != tile_padded(most))
				break;
			width = tile_padded(most);
			end = next;
		}
		tile_product(c + first * c_row, c_row, a + first * a_row, a_row, 1, b, b_row, end - first, width, depth, 0);
	}
}

static void transpose_4x4(float *to, int64_t width, const float *from, int64_t stride)
{
	quad r0 = *(const quad_anywhere *)from, r1 = *(const quad_anywhere *)(from + stride);
	quad r2 = *(const quad_anywhere *)(from + 2 * stride), r3 = *(const quad_anywhere *)(from + 3 * stride);
	quad a = __builtin_shufflevector(r0, r1, 0, 4, 1, 5), b = __builtin_shufflevector(r2, r3, 0, 4, 1, 5);
	quad c = __builtin_shufflevector(r0, r1, 2, 6, 3, 7), d = __builtin_shufflevector(r2, r3, 2, 6, 3, 7);
	*(quad_anywhere *)to = __builtin_shufflevector(a, b, 0, 1, 4, 5);
	*(quad_anywhere *)(to + width) = __builtin_shufflevector(a, b, 2, 3, 6, 7);
	*(quad_anywhere *)(to + 2 * width) = __builtin_shufflevector(c, d, 0, 1, 4, 5);
	*(quad_anywhere *)(to + 3 * width) = __builtin_shufflevector(c, d, 2, 3, 6, 7);
}

#if defined __AVX2__ && defined __FMA__
typedef float oct __attribute__((vector_size(32)));
typedef float oct_anywhere __attribute__((vector_size(32), aligned(4), may_alias));

/* Elements first .. first + 3 of rows i and i + 4. */
ALWAYS_INLINE oct two_quads(const float *from, int64_t stride, int i, int first)
{
	quad low = *(const quad_anywhere *)(from + i * stride + first),
	     high = *(const quad_anywhere *)(from + (i + 4) * stride + first);
	return __builtin_shufflevector(low, high, 0, 1, 2, 3, 4, 5, 6, 7);
}

static void transpose_8x8(float *to, int64_t width, const float *from, int64_t stride)
{
	for (int half = 0; half < 8; half += 4, to += 4 * width) {
		oct r0 = two_quads(from, stride, 0, half), r1 = two_quads(from, stride, 1, half);
		oct r2 = two_quads(from, stride, 2, half), r3 = two_quads(from, stride, 3, half);
		oct a = __builtin_shufflevector(r0, r1, 0, 8, 1, 9, 4, 12, 5, 13);
		oct b = __builtin_shufflevector(r2, r3, 0, 8, 1, 9, 4, 12, 5, 13);
		oct c = __builtin_shufflevector(r0, r1, 2, 10, 3, 11, 6, 14, 7, 15);
		oct d = __builtin_shufflevector(r2, r3, 2, 10, 3, 11, 6, 14, 7, 15);
		*(oct_anywhere *)to = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13);
		*(oct_anywhere *)(to + width) = __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
		*(oct_anywhere *)(to + 2 * width) = __builtin_shufflevector(c, d, 0, 1, 8, 9, 4, 5, 12, 13);
		*(oct_anywhere *)(to + 3 * width) = __builtin_shufflevector(c, d, 2, 3, 10, 11, 6, 7, 14, 15);
	}
}
#endif

void tile_transpose(float *to, int64_t width, const float *from, int64_t stride, int64_t rows, int64_t cols)
{
	int64_t whole = 0;
#if defined __AVX2__ && defined __FMA__
	if (cols % 8 == 0)
		for (; whole + 8 <= rows; whole += 8)
			for (int64_t j = 0; j < cols; j += 8)
				transpose_8x8(to + j * width + whole, width, from + whole * stride + j, stride);
#endif
	for (; whole + 4 <= rows; whole += 4)
		for (int64_t j = 0; j < cols; j += 4)
			transpose_4x4(to + j * width + whole, width, from + whole * stride + j, stride);
	for (int64_t j = 0; j < cols && whole < width; j++)
		for (int64_t i = whole; i < width; i++)
			to[j * width + i] = i < rows ? from[i * stride + j] : 0.0f;
}

void tile_copy(float *to, int64_t width, const float *from, int64_t stride, int64_t rows, int64_t cols, float factor)
{
	for (int64_t i = 0; i < rows; i++, to += width, from += stride) {
		for (int64_t j = 0; j < cols; j++)
			to[j] = factor * from[j];
		for (int64_t j = cols; j < width; j++)
			to[j] = 0;
	}
}
