// Attention's products on tensor cores. A tile in shared memory is TILE rows of D bfloat16, padded by 16 bytes a row, so that the eight
// rows that ldmatrix reads together lie in different banks. Four warps, 16 rows each. In a fragment of sums c[n][i] a lane has rows
// g = lane / 4 (i < 2) and g + 8 of its warp's, columns 8 n + 2 (lane % 4) + i % 2.
#pragma once

#include "attention.cuh"
#include "mma.cuh"

namespace kernels
{

constexpr int WARPS = ATTENTION_THREADS / 32, WARP_ROWS = TILE / WARPS;
static_assert(WARP_ROWS == 16, "a warp has the rows of one product");

template <int D> constexpr int TILE_STRIDE = D + 8;
template <int D> constexpr int TILE_ELEMENTS = TILE * TILE_STRIDE<D>;

__device__ __forceinline__ int this_lane()
{
	return (int)threadIdx.x % 32;
}
__device__ __forceinline__ int this_warp()
{
	return (int)threadIdx.x / 32;
}

// Begins to copy a tile: row(r) is where row r lies, null for a row of zeros; columns from `depth` on become zero. Not committed.
template <int D, class Row> __device__ __forceinline__ void copy_tile(bf16 *tile, int depth, const bf16 *anything, Row row)
{
	constexpr int PACKS = D / 8;
	for (int i = (int)threadIdx.x; i < TILE * PACKS; i += ATTENTION_THREADS) {
		const int r = i / PACKS, column = i % PACKS * 8;
		const bf16 *from = row(r);
		const bool there = from && column < depth;
		copy_async_16_part(tile + r * TILE_STRIDE<D> + column, there ? from + column : anything, there ? 16 : 0);
	}
}

// Keys (or values) of a block of the walk.
template <int D>
__device__ __forceinline__ void copy_keys(bf16 *tile, int depth, const bf16 *matrix, int64_t stride, int kv_head,
                                          int64_t key, int keys)
{
	const bf16 *first = matrix + key * stride + (int64_t)kv_head * depth;
	copy_tile<D>(tile, depth, matrix, [=](int r) { return r < keys ? first + r * stride : nullptr; });
}

// x = 0
template <int N> __device__ __forceinline__ void clear(float (&x)[N][4])
{
#pragma unroll
	for (int n = 0; n < N; n++)
#pragma unroll
		for (int i = 0; i < 4; i++)
			x[n][i] = 0;
}

// The A operand: 16 rows from `rows` on, columns [16 step, + 16).
template <int D> __device__ __forceinline__ void row_fragment(uint32_t (&a)[4], const bf16 *rows, int step)
{
	const int lane = this_lane();
	ldmatrix_x4(a, rows + lane % 16 * TILE_STRIDE<D> + step * 16 + lane / 16 * 8);
}

// s[., 16 N] += A columns^T, where `columns` are rows of a tile; one step of 16 of the sum's dimension.
template <int D, int N>
__device__ __forceinline__ void add_scores(float (&s)[2 * N][4], const uint32_t (&a)[4], const bf16 *columns, int step)
{
	const int lane = this_lane();
#pragma unroll
	for (int n = 0; n < N; n++) {
		uint32_t b[4];
		ldmatrix_x4(b, columns + (n * 16 + lane / 16 * 8 + lane % 8) * TILE_STRIDE<D> + step * 16 + lane / 8 % 2 * 8);
		const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
		mma_16x8x16(s[2 * n], a, low);
		mma_16x8x16(s[2 * n + 1], a, high);
	}
}

// s[16, 16 N] = rows columns^T
template <int D, int N>
__device__ __forceinline__ void scores(float (&s)[2 * N][4], const bf16 *rows, const bf16 *columns)
{
	clear(s);
#pragma unroll
	for (int step = 0; step < D / 16; step++) {
		uint32_t a[4];
		row_fragment<D>(a, rows, step);
		add_scores<D, N>(s, a, columns, step);
	}
}

// o[16, D] += p values, where p[16, 16 N] is in the form that scores leaves it, rounded to bfloat16, and values are 16 N rows of a tile
template <int D, int N>
__device__ __forceinline__ void add_product(float (&o)[D / 8][4], const float (&p)[2 * N][4], const bf16 *values)
{
	const int lane = this_lane();
#pragma unroll
	for (int step = 0; step < N; step++) {
		const uint32_t a[4] = {pack_bf16(p[2 * step][0], p[2 * step][1]), pack_bf16(p[2 * step][2], p[2 * step][3]),
		                       pack_bf16(p[2 * step + 1][0], p[2 * step + 1][1]),
		                       pack_bf16(p[2 * step + 1][2], p[2 * step + 1][3])};
#pragma unroll
		for (int n = 0; n < D / 16; n++) {
			uint32_t b[4];
			ldmatrix_x4_transposed(b, values + (step * 16 + lane % 16) * TILE_STRIDE<D> + n * 16 + lane / 16 * 8);
			const uint32_t low[2] = {b[0], b[1]}, high[2] = {b[2], b[3]};
			mma_16x8x16(o[2 * n], a, low);
			mma_16x8x16(o[2 * n + 1], a, high);
		}
	}
}

} // namespace kernels
