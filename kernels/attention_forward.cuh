// The sums of a tile's rows over the keys that they see: on tensor cores (attend_tile), and in plain float32 (attend_rows). Both
// serve attention.cu and attention_decode.cu, which give them their Work:
//   rows              in the tile
//   walk              the keys, a KeyWalk
//   query_row(r)      the row of q where tile row r is, head(r): its head among the `group` heads of the key head
//   sees(block, r)    how many keys of a block row r sees
//   SPLIT             the keys are one chunk
//   put_row(r, m, l), put(r, column, o...)
// A row's sums do not depend on its place in the tile nor on the other rows.
#pragma once

#include "attention_mma.cuh"

namespace kernels
{

// ---- on tensor cores

// The sums of two rows of a fragment: m in units of log 2; l of this lane's columns alone, until sum_lanes.
template <int D> struct RowSums {
	float m[2], l[2], o[D / 8][4];
	__device__ __forceinline__ void clear_all()
	{
		m[0] = m[1] = -INFINITY;
		l[0] = l[1] = 0;
		clear(o);
	}
	__device__ __forceinline__ void sum_lanes()
	{
#pragma unroll
		for (int h = 0; h < 2; h++) {
			l[h] = __fadd_rn(l[h], __shfl_xor_sync(ALL_LANES, l[h], 1));
			l[h] = __fadd_rn(l[h], __shfl_xor_sync(ALL_LANES, l[h], 2));
		}
	}
	__device__ __forceinline__ void merge(const RowSums &other)
	{
#pragma unroll
		for (int h = 0; h < 2; h++) {
			const Merge f = Merge::of<true>(m[h], l[h], other.m[h], other.l[h]);
#pragma unroll
			for (int n = 0; n < D / 8; n++)
#pragma unroll
				for (int i = 2 * h; i < 2 * h + 2; i++)
					o[n][i] = f.sum(o[n][i], other.o[n][i]);
		}
	}
};

// Scores s of a block become p = 2^(x - m), hidden ones 0; m, l and o are brought up to date, but for the block's own values.
template <int D>
__device__ __forceinline__ void weigh(float (&s)[TILE / 8][4], RowSums<D> &sums, const int (&sees)[2], float scale2)
{
	const int column = this_lane() % 4 * 2;
	if (min(sees[0], sees[1]) < TILE) {
#pragma unroll
		for (int n = 0; n < TILE / 8; n++)
#pragma unroll
			for (int i = 0; i < 4; i++)
				if (n * 8 + column + i % 2 >= sees[i / 2])
					s[n][i] = -INFINITY;
	}
#pragma unroll
	for (int h = 0; h < 2; h++) {
		float most = -INFINITY;
#pragma unroll
		for (int n = 0; n < TILE / 8; n++)
			most = fmaxf(most, fmaxf(s[n][2 * h], s[n][2 * h + 1]));
		most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 1));
		most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, 2));
		most = fmaxf(sums.m[h], __fmul_rn(most, scale2));
		const float from = reference(most), keep = exp_2<true>(__fadd_rn(sums.m[h], -from));
		float sum = 0;
#pragma unroll
		for (int n = 0; n < TILE / 8; n++)
#pragma unroll
			for (int i = 2 * h; i < 2 * h + 2; i++) {
				s[n][i] = exp_2<true>(fmaf(s[n][i], scale2, -from));
				sum = __fadd_rn(sum, s[n][i]);
			}
		sums.l[h] = fmaf(sums.l[h], keep, sum);
		sums.m[h] = most;
#pragma unroll
		for (int n = 0; n < D / 8; n++)
#pragma unroll
			for (int i = 2 * h; i < 2 * h + 2; i++)
				sums.o[n][i] = __fmul_rn(sums.o[n][i], keep);
	}
}

// Shared memory of attend_tile, bytes: the rows of q, then `buffers` blocks of keys and of values.
template <int D> constexpr size_t attend_tile_bytes(int buffers)
{
	return (size_t)(1 + 2 * buffers) * TILE_ELEMENTS<D> * sizeof(bf16);
}
// A whole attention hides its copies behind other blocks of threads and its own products; a chunk alone has its copies begun early.
template <class Work> constexpr int BUFFERS = Work::SPLIT ? 2 : 1;

template <int D, class Work>
__device__ __forceinline__ void attend_tile(const AttentionInput<bf16> &in, int kv_head, const Work &work)
{
	DYNAMIC_SHARED(bf16, shared);
	bf16 *const q = shared, *const k = q + TILE_ELEMENTS<D>, *const v = k + BUFFERS<Work> * TILE_ELEMENTS<D>;
	const int blocks = work.walk.count(), mine = this_warp() * WARP_ROWS, row = mine + this_lane() / 4;
	auto copy_block = [&](bf16 *to, const bf16 *matrix, int64_t stride, int block) {
		if (block < blocks)
			copy_keys<D>(to + block % BUFFERS<Work> * TILE_ELEMENTS<D>, in.depth, matrix, stride, kv_head,
			             work.walk.row(block), work.walk.keys(block));
		commit_copies(); // an empty group too: how many there are is known
	};
	copy_tile<D>(q, in.depth, in.q, [&](int r) {
		return r < work.rows ? in.q + work.query_row(r) * in.q_stride +
		                           ((int64_t)kv_head * in.group + work.head(r)) * in.depth
		                     : nullptr;
	});

	RowSums<D> total, chunk;
	total.clear_all();
	chunk.clear_all();
	float s[TILE / 8][4];
	const bool busy = mine < work.rows;
	auto weigh_block = [&](int block) {
		const int sees[2] = {row < work.rows ? work.sees(block, row) : 0, row + 8 < work.rows ? work.sees(block, row + 8) : 0};
		weigh(s, chunk, sees, in.scale2);
	};
	copy_block(k, in.k, in.k_stride, 0);
	if constexpr (Work::SPLIT) {
		copy_block(v, in.v, in.v_stride, 0);
		copy_block(k, in.k, in.k_stride, 1);
		copy_block(v, in.v, in.v_stride, 1);
		for (int block = 0; block < blocks; block++) {
			const int buffer = block % BUFFERS<Work> * TILE_ELEMENTS<D>;
			wait_copies<3>();
			__syncthreads();
			if (busy) {
				scores<D, TILE / 16>(s, q + mine * TILE_STRIDE<D>, k + buffer);
				weigh_block(block);
			}
			wait_copies<2>();
			__syncthreads();
			if (busy)
				add_product<D, TILE / 16>(chunk.o, s, v + buffer);
			__syncthreads();
			copy_block(k, in.k, in.k_stride, block + 2);
			copy_block(v, in.v, in.v_stride, block + 2);
		}
		wait_copies<0>();
		chunk.sum_lanes();
		work.template put_fragment<D>(q, row, chunk.m, chunk.l, chunk.o);
	} else {
		wait_copies<0>();
		__syncthreads();
		for (int block = 0; block < blocks; block++) {
			copy_block(v, in.v, in.v_stride, block);
			if (busy)
				scores<D, TILE / 16>(s, q + mine * TILE_STRIDE<D>, k);
			__syncthreads();
			copy_block(k, in.k, in.k_stride, block + 1);
			if (busy)
				weigh_block(block);
			wait_copies<1>();
			__syncthreads();
			if (busy) {
				add_product<D, TILE / 16>(chunk.o, s, v);
				if (work.walk.ends_chunk(block)) {
					chunk.sum_lanes();
					total.merge(chunk);
					chunk.clear_all();
				}
			}
			wait_copies<0>();
			__syncthreads();
		}
		work.template put_fragment<D>(q, row, total.m, total.l, total.o);
	}
}

// ---- plain

constexpr int PLAIN_ROWS = 16; // of a tile, that a block of threads has

// Shared memory of attend_rows, bytes.
inline size_t attend_rows_bytes(int64_t depth)
{
	return (size_t)(3 * PLAIN_ROWS * depth + TILE * (depth + 1) + PLAIN_ROWS * (TILE + 6)) * sizeof(float);
}

// Tile rows [first, first + PLAIN_ROWS). Keys that a row does not see are left out of its sums.
template <class T, class Work>
__device__ __forceinline__ void attend_rows(const AttentionInput<T> &in, int kv_head, const Work &work, int first)
{
	DYNAMIC_SHARED(float, shared);
	const int depth = in.depth, thread = (int)threadIdx.x, elements = PLAIN_ROWS * depth;
	float *const q = shared, *const chunk_o = q + elements, *const o = chunk_o + elements, *const keys = o + elements,
	             *const p = keys + TILE * (depth + 1), *const chunk_m = p + PLAIN_ROWS * TILE, *const chunk_l = chunk_m + PLAIN_ROWS,
	             *const m = chunk_l + PLAIN_ROWS, *const l = m + PLAIN_ROWS, *const keep = l + PLAIN_ROWS,
	             *const add = keep + PLAIN_ROWS;
	auto load_block = [&](const T *matrix, int64_t stride, int block) {
		const int count = work.walk.keys(block);
		const T *from = matrix + work.walk.row(block) * stride + (int64_t)kv_head * depth;
		for (int e = thread; e < TILE * depth; e += ATTENTION_THREADS) {
			const int key = e / depth, column = e % depth;
			keys[key * (depth + 1) + column] = key < count ? to_float(from[key * stride + column]) : 0.0f;
		}
	};
	for (int e = thread; e < elements; e += ATTENTION_THREADS) {
		const int r = first + e / depth, column = e % depth;
		q[e] = r < work.rows ? to_float(in.q[work.query_row(r) * in.q_stride +
		                                     ((int64_t)kv_head * in.group + work.head(r)) * depth + column])
		                     : 0.0f;
		chunk_o[e] = o[e] = 0;
	}
	if (thread < PLAIN_ROWS) {
		chunk_m[thread] = m[thread] = -INFINITY;
		chunk_l[thread] = l[thread] = 0;
	}
	auto seen = [&](int block, int r) { return first + r < work.rows ? work.sees(block, first + r) : 0; };
	for (int block = 0; block < work.walk.count(); block++) {
		load_block(in.k, in.k_stride, block);
		__syncthreads();
		for (int r = thread / TILE; r < PLAIN_ROWS; r += ATTENTION_THREADS / TILE) {
			const int key = thread % TILE;
			float s = 0;
			for (int c = 0; c < depth; c++)
				s = fmaf(q[r * depth + c], keys[key * (depth + 1) + c], s);
			p[r * TILE + key] = key < seen(block, r) ? s : -INFINITY;
		}
		__syncthreads();
		load_block(in.v, in.v_stride, block);
		const int lane = thread % 32;
		for (int r = thread / 32; r < PLAIN_ROWS; r += ATTENTION_THREADS / 32) {
			float low = p[r * TILE + lane], high = p[r * TILE + lane + 32], most = fmaxf(low, high);
#pragma unroll
			for (int flip = 16; flip; flip /= 2)
				most = fmaxf(most, __shfl_xor_sync(ALL_LANES, most, flip));
			const float before = chunk_m[r];
			most = fmaxf(before, __fmul_rn(most, in.scale2));
			const float from = reference(most), factor = exp_2<false>(__fadd_rn(before, -from));
			low = exp_2<false>(fmaf(low, in.scale2, -from));
			high = exp_2<false>(fmaf(high, in.scale2, -from));
			p[r * TILE + lane] = low;
			p[r * TILE + lane + 32] = high;
			const float sum = warp_sum(__fadd_rn(low, high));
			__syncwarp();
			if (lane == 0) {
				chunk_l[r] = fmaf(chunk_l[r], factor, sum);
				chunk_m[r] = most;
				keep[r] = factor;
			}
		}
		__syncthreads();
		for (int e = thread; e < elements; e += ATTENTION_THREADS) {
			const int r = e / depth, column = e % depth, count = seen(block, r);
			float x = __fmul_rn(chunk_o[e], keep[r]);
			for (int key = 0; key < count; key++)
				x = fmaf(p[r * TILE + key], keys[key * (depth + 1) + column], x);
			chunk_o[e] = x;
		}
		__syncthreads();
		if (work.walk.ends_chunk(block)) {
			if (thread < PLAIN_ROWS) {
				const Merge f = Merge::of<false>(m[thread], l[thread], chunk_m[thread], chunk_l[thread]);
				keep[thread] = f.a;
				add[thread] = f.b;
				chunk_m[thread] = -INFINITY;
				chunk_l[thread] = 0;
			}
			__syncthreads();
			for (int e = thread; e < elements; e += ATTENTION_THREADS) {
				const int r = e / depth;
				o[e] = Merge{keep[r], add[r]}.sum(o[e], chunk_o[e]);
				chunk_o[e] = 0;
			}
		}
	}
	__syncthreads();
	for (int e = thread; e < elements; e += ATTENTION_THREADS) {
		const int r = e / depth, column = e % depth;
		if (first + r < work.rows)
			work.put(first + r, column, o[e], l[r]);
	}
	if (thread < PLAIN_ROWS && first + thread < work.rows)
		work.put_row(first + thread, m[thread], l[thread]);
}

} // namespace kernels
