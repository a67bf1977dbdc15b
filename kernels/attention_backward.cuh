// What attention's gradients share, on tensor cores and in plain float32. With p = 2^(x - lse), D = do . o, ds = p (do . v - D):
//   dq_i = scale sum_j ds_ij k_j,   dk_j = scale sum_i ds_ij q_i,   dv_j = sum_i p_ij do_i
// Scores are computed again, once for dq and once for dk and dv, so that no two blocks of threads add to the same number.
#pragma once

#include "attention_mma.cuh"

namespace kernels
{

template <class T> struct BackwardInput {
	AttentionInput<T> in;
	const T *dout;
	int64_t dout_stride;
	const float *lse, *products; // [heads, q_rows]: lse, D
};

template <class T> struct Gradient {
	T *at;
	int64_t stride;
	bool accumulate;
	__device__ __forceinline__ void put(int64_t row, int64_t column, float x) const
	{
		T *to = at + row * stride + column;
		*to = from_float<T>(accumulate ? __fadd_rn(to_float(*to), x) : x);
	}
};

// A tile of rows for dq: what attention.cu's has.
template <class T> struct QueryWork {
	const Segment segment;
	const int rows, kv_head, depth;
	const int64_t q_rows;
	const Stack stack;
	const KeyWalk walk;

	__device__ QueryWork(const AttentionInput<T> &in, const TrainingLists &lists, int tile, int head)
		: segment(lists.segments[lists.tiles[tile].segment]), rows(lists.tiles[tile].rows), kv_head(head), depth(in.depth),
		  q_rows(in.q_rows), stack(lists.tiles[tile].first, in.group),
		  walk(segment.prefix_start, segment.prefix_len, segment.kv_start, own_keys(segment, stack.query_of(rows - 1)))
	{
	}
	__device__ int64_t query_row(int r) const
	{
		return (int64_t)segment.q_start + stack.query_of(r);
	}
	__device__ int64_t head(int r) const
	{
		return (int64_t)kv_head * stack.group + stack.head_of(r);
	}
	__device__ int sees(int block, int r) const
	{
		const int keys = walk.keys(block);
		return walk.is_own(block) ? min(own_keys(segment, stack.query_of(r)) - walk.offset(block), keys) : keys;
	}
	__device__ int64_t at_lse(int r) const
	{
		return head(r) * q_rows + query_row(r);
	}
};

// An item of keys: a tile of keys, and rows of a segment that see them.
struct KeyWork {
	const KeyItem item;
	const KeyTile tile;
	const Segment segment;
	__device__ KeyWork(const TrainingLists &lists, int which)
		: item(lists.key_items[which]), tile(lists.key_tiles[item.tile]), segment(lists.segments[item.segment])
	{
	}
	// How many of the tile's keys a query sees.
	__device__ int limit(int query) const
	{
		return item.own ? min(own_keys(segment, query) - (tile.key - segment.kv_start), tile.keys) : tile.keys;
	}
};

// An item's sums in scratch: [2, TILE, depth], dk before it is scaled, then dv.
__device__ __forceinline__ float *sums_of(float *scratch, int64_t item, int kv_head, int kv_heads, int depth)
{
	return scratch + (item * kv_heads + kv_head) * 2 * TILE * depth;
}

// ---- on tensor cores

template <int D> constexpr size_t backward_tile_bytes()
{
	return 4 * (size_t)TILE_ELEMENTS<D> * sizeof(bf16) + 3 * TILE * sizeof(float);
}

// s, dp -> p, ds (in their places); sees(n, i): whether the fragment's element is seen, minus(n, i): its row's lse in units of log 2
template <int N, class Sees, class Lse, class Product>
__device__ __forceinline__ void differentiate(float (&s)[N][4], float (&dp)[N][4], float scale2, Sees sees, Lse lse, Product product)
{
#pragma unroll
	for (int n = 0; n < N; n++)
#pragma unroll
		for (int i = 0; i < 4; i++) {
			const float p = sees(n, i) ? exp_2<true>(fmaf(s[n][i], scale2, -lse(n, i))) : 0.0f;
			dp[n][i] = __fmul_rn(p, __fadd_rn(dp[n][i], -product(n, i)));
			s[n][i] = p;
		}
}

template <int D>
__device__ __forceinline__ void query_gradient_tile(const BackwardInput<bf16> &b, const Gradient<bf16> &dq, const QueryWork<bf16> &work)
{
	DYNAMIC_SHARED(bf16, shared);
	bf16 *const q = shared, *const dout = q + TILE_ELEMENTS<D>, *const k = dout + TILE_ELEMENTS<D>, *const v = k + TILE_ELEMENTS<D>;
	const AttentionInput<bf16> &in = b.in;
	const int blocks = work.walk.count(), mine = this_warp() * WARP_ROWS, row = mine + this_lane() / 4;
	const int column = this_lane() % 4 * 2;
	auto copy_rows = [&](bf16 *to, const bf16 *matrix, int64_t stride) {
		copy_tile<D>(to, in.depth, matrix, [&](int r) {
			return r < work.rows ? matrix + work.query_row(r) * stride + work.head(r) * in.depth : nullptr;
		});
	};
	auto copy_block = [&](bf16 *to, const bf16 *matrix, int64_t stride, int block) {
		if (block < blocks)
			copy_keys<D>(to, in.depth, matrix, stride, work.kv_head, work.walk.row(block), work.walk.keys(block));
		commit_copies();
	};
	copy_rows(q, in.q, in.q_stride);
	copy_rows(dout, b.dout, b.dout_stride);
	copy_block(k, in.k, in.k_stride, 0);
	copy_block(v, in.v, in.v_stride, 0);
	float lse[2] = {}, product[2] = {};
#pragma unroll
	for (int h = 0; h < 2; h++)
		if (row + 8 * h < work.rows) {
			lse[h] = __fmul_rn(b.lse[work.at_lse(row + 8 * h)], LOG2_E);
			product[h] = b.products[work.at_lse(row + 8 * h)];
		}
	const bool busy = mine < work.rows;
	float sum[D / 8][4], s[TILE / 8][4], ds[TILE / 8][4];
	clear(sum);
	for (int block = 0; block < blocks; block++) {
		wait_copies<0>();
		__syncthreads();
		if (busy) {
			scores<D, TILE / 16>(s, q + mine * TILE_STRIDE<D>, k);
			scores<D, TILE / 16>(ds, dout + mine * TILE_STRIDE<D>, v);
		}
		__syncthreads();
		copy_block(v, in.v, in.v_stride, block + 1);
		if (busy) {
			const int sees[2] = {row < work.rows ? work.sees(block, row) : 0, row + 8 < work.rows ? work.sees(block, row + 8) : 0};
			differentiate(
				s, ds, in.scale2, [&](int n, int i) { return n * 8 + column + i % 2 < sees[i / 2]; },
				[&](int, int i) { return lse[i / 2]; }, [&](int, int i) { return product[i / 2]; });
			add_product<D, TILE / 16>(sum, ds, k);
		}
		__syncthreads();
		copy_block(k, in.k, in.k_stride, block + 1);
	}
	wait_copies<0>();
#pragma unroll
	for (int h = 0; h < 2; h++) {
		const int r = row + 8 * h;
		if (r >= work.rows)
			continue;
#pragma unroll
		for (int n = 0; n < D / 8; n++)
#pragma unroll
			for (int i = 0; i < 2; i++)
				if (n * 8 + column + i < in.depth)
					dq.put(work.query_row(r), work.head(r) * in.depth + n * 8 + column + i, __fmul_rn(sum[n][2 * h + i], in.scale));
	}
}

// A warp has 16 keys; the item's rows pass by, TILE at a time. Scores are transposed: a fragment's rows are keys.
template <int D>
__device__ __forceinline__ void key_gradient_tile(const BackwardInput<bf16> &b, float *to, int kv_head, const KeyWork &work)
{
	constexpr int HALF = TILE / 2; // rows that a warp has scores of at a time: registers are few
	DYNAMIC_SHARED(bf16, shared);
	bf16 *const k = shared, *const v = k + TILE_ELEMENTS<D>, *const q = v + TILE_ELEMENTS<D>, *const dout = q + TILE_ELEMENTS<D>;
	float *const lse = reinterpret_cast<float *>(dout + TILE_ELEMENTS<D>), *const product = lse + TILE;
	int *const limit = reinterpret_cast<int *>(product + TILE);
	const AttentionInput<bf16> &in = b.in;
	const int mine = this_warp() * WARP_ROWS, key = mine + this_lane() / 4, column = this_lane() % 4 * 2;
	copy_keys<D>(k, in.depth, in.k, in.k_stride, kv_head, work.tile.key, work.tile.keys);
	copy_keys<D>(v, in.depth, in.v, in.v_stride, kv_head, work.tile.key, work.tile.keys);
	float dk[D / 8][4], dv[D / 8][4];
	clear(dk);
	clear(dv);
	for (int first = 0; first < work.item.rows; first += TILE) {
		const int rows = min(work.item.rows - first, TILE);
		const Stack stack(work.item.first + first, in.group);
		auto copy_rows = [&](bf16 *tile, const bf16 *matrix, int64_t stride) {
			copy_tile<D>(tile, in.depth, matrix, [&](int r) {
				return r < rows ? matrix + ((int64_t)work.segment.q_start + stack.query_of(r)) * stride +
				                      ((int64_t)kv_head * in.group + stack.head_of(r)) * in.depth
				                : nullptr;
			});
		};
		copy_rows(q, in.q, in.q_stride);
		copy_rows(dout, b.dout, b.dout_stride);
		commit_copies();
		if (threadIdx.x < TILE) {
			const int r = (int)threadIdx.x;
			const int64_t at = ((int64_t)kv_head * in.group + stack.head_of(r)) * in.q_rows + work.segment.q_start + stack.query_of(r);
			lse[r] = r < rows ? __fmul_rn(b.lse[at], LOG2_E) : 0.0f;
			product[r] = r < rows ? b.products[at] : 0.0f;
			limit[r] = r < rows ? work.limit(stack.query_of(r)) : 0;
		}
		wait_copies<0>();
		__syncthreads();
		if (mine < work.tile.keys)
			for (int from = 0; from < rows; from += HALF) {
				float p[HALF / 8][4], ds[HALF / 8][4];
				scores<D, HALF / 16>(p, k + mine * TILE_STRIDE<D>, q + from * TILE_STRIDE<D>);
				scores<D, HALF / 16>(ds, v + mine * TILE_STRIDE<D>, dout + from * TILE_STRIDE<D>);
				auto of_row = [&](const auto *x, int n, int i) { return x[from + n * 8 + column + i % 2]; };
				differentiate(
					p, ds, in.scale2, [&](int n, int i) { return key + i / 2 * 8 < of_row(limit, n, i); },
					[&](int n, int i) { return of_row(lse, n, i); }, [&](int n, int i) { return of_row(product, n, i); });
				add_product<D, HALF / 16>(dv, p, dout + from * TILE_STRIDE<D>);
				add_product<D, HALF / 16>(dk, ds, q + from * TILE_STRIDE<D>);
			}
		__syncthreads();
	}
#pragma unroll
	for (int h = 0; h < 2; h++) {
		if (key + 8 * h >= work.tile.keys)
			continue;
		float *row = to + (key + 8 * h) * in.depth;
#pragma unroll
		for (int n = 0; n < D / 8; n++)
			if (n * 8 + column < in.depth) {
				wide_access<float2>(row + n * 8 + column) = {dk[n][2 * h], dk[n][2 * h + 1]};
				wide_access<float2>(row + TILE * in.depth + n * 8 + column) = {dv[n][2 * h], dv[n][2 * h + 1]};
			}
	}
}

// ---- plain

constexpr int PLAIN_TILE = 16; // rows, and keys of an item that a block of threads has
constexpr int PLAIN_KEYS = 32; // keys that rows meet at a time

inline size_t query_gradient_bytes(int64_t depth)
{
	return (size_t)(3 * PLAIN_TILE * depth + 2 * PLAIN_KEYS * (depth + 1) + PLAIN_TILE * PLAIN_KEYS) * sizeof(float);
}

// Rows [first, first + PLAIN_TILE) of the tile.
template <class T>
__device__ __forceinline__ void query_gradient_rows(const BackwardInput<T> &b, const Gradient<T> &dq, const QueryWork<T> &work, int first)
{
	DYNAMIC_SHARED(float, shared);
	const AttentionInput<T> &in = b.in;
	const int depth = in.depth, elements = PLAIN_TILE * depth, thread = (int)threadIdx.x;
	float *const q = shared, *const dout = q + elements, *const sum = dout + elements, *const k = sum + elements,
	             *const v = k + PLAIN_KEYS * (depth + 1), *const ds = v + PLAIN_KEYS * (depth + 1);
	for (int e = thread; e < elements; e += ATTENTION_THREADS) {
		const int r = first + e / depth, c = e % depth;
		const bool there = r < work.rows;
		q[e] = there ? to_float(in.q[work.query_row(r) * in.q_stride + work.head(r) * depth + c]) : 0.0f;
		dout[e] = there ? to_float(b.dout[work.query_row(r) * b.dout_stride + work.head(r) * depth + c]) : 0.0f;
		sum[e] = 0;
	}
	for (int block = 0; block < work.walk.count(); block++)
		for (int from = 0; from < work.walk.keys(block); from += PLAIN_KEYS) {
			const int count = min(work.walk.keys(block) - from, PLAIN_KEYS);
			for (int e = thread; e < PLAIN_KEYS * depth; e += ATTENTION_THREADS) {
				const int key = e / depth, c = e % depth;
				const int64_t row = work.walk.row(block) + from + key, at = (int64_t)work.kv_head * depth + c;
				k[key * (depth + 1) + c] = key < count ? to_float(in.k[row * in.k_stride + at]) : 0.0f;
				v[key * (depth + 1) + c] = key < count ? to_float(in.v[row * in.v_stride + at]) : 0.0f;
			}
			__syncthreads();
			for (int e = thread; e < PLAIN_TILE * PLAIN_KEYS; e += ATTENTION_THREADS) {
				const int r = e / PLAIN_KEYS, key = e % PLAIN_KEYS;
				float s = 0, dp = 0, x = 0;
				if (first + r < work.rows && from + key < work.sees(block, first + r)) {
					for (int c = 0; c < depth; c++) {
						s = fmaf(q[r * depth + c], k[key * (depth + 1) + c], s);
						dp = fmaf(dout[r * depth + c], v[key * (depth + 1) + c], dp);
					}
					const int64_t at = work.at_lse(first + r);
					x = exp_2<false>(fmaf(s, in.scale2, -__fmul_rn(b.lse[at], LOG2_E))) * (dp - b.products[at]);
				}
				ds[e] = x;
			}
			__syncthreads();
			for (int e = thread; e < elements; e += ATTENTION_THREADS) {
				const int r = e / depth, c = e % depth;
				float x = sum[e];
				for (int key = 0; key < count; key++)
					x = fmaf(ds[r * PLAIN_KEYS + key], k[key * (depth + 1) + c], x);
				sum[e] = x;
			}
			__syncthreads();
		}
	for (int e = thread; e < elements; e += ATTENTION_THREADS) {
		const int r = first + e / depth, c = e % depth;
		if (r < work.rows)
			dq.put(work.query_row(r), work.head(r) * depth + c, __fmul_rn(sum[e], in.scale));
	}
}

inline size_t key_gradient_bytes(int64_t depth)
{
	return (size_t)(4 * PLAIN_TILE * (depth + 1) + 2 * PLAIN_TILE * depth + 2 * PLAIN_TILE * PLAIN_TILE) * sizeof(float);
}

// Keys [first, first + PLAIN_TILE) of the item's tile.
template <class T>
__device__ __forceinline__ void key_gradient_rows(const BackwardInput<T> &b, float *to, int kv_head, const KeyWork &work, int first)
{
	DYNAMIC_SHARED(float, shared);
	const AttentionInput<T> &in = b.in;
	const int depth = in.depth, stride = depth + 1, elements = PLAIN_TILE * depth, thread = (int)threadIdx.x;
	float *const k = shared, *const v = k + PLAIN_TILE * stride, *const q = v + PLAIN_TILE * stride, *const dout = q + PLAIN_TILE * stride,
	             *const dk = dout + PLAIN_TILE * stride, *const dv = dk + elements, *const p = dv + elements,
	             *const ds = p + PLAIN_TILE * PLAIN_TILE;
	for (int e = thread; e < elements; e += ATTENTION_THREADS) {
		const int key = first + e / depth, c = e % depth;
		const int64_t row = (int64_t)work.tile.key + key, at = (int64_t)kv_head * depth + c;
		k[e / depth * stride + c] = key < work.tile.keys ? to_float(in.k[row * in.k_stride + at]) : 0.0f;
		v[e / depth * stride + c] = key < work.tile.keys ? to_float(in.v[row * in.v_stride + at]) : 0.0f;
		dk[e] = dv[e] = 0;
	}
	for (int at_row = 0; at_row < work.item.rows; at_row += PLAIN_TILE) {
		const int rows = min(work.item.rows - at_row, PLAIN_TILE);
		const Stack stack(work.item.first + at_row, in.group);
		for (int e = thread; e < rows * depth; e += ATTENTION_THREADS) {
			const int r = e / depth, c = e % depth;
			const int64_t row = (int64_t)work.segment.q_start + stack.query_of(r),
						  at = ((int64_t)kv_head * in.group + stack.head_of(r)) * depth + c;
			q[r * stride + c] = to_float(in.q[row * in.q_stride + at]);
			dout[r * stride + c] = to_float(b.dout[row * b.dout_stride + at]);
		}
		__syncthreads();
		for (int e = thread; e < rows * PLAIN_TILE; e += ATTENTION_THREADS) {
			const int r = e / PLAIN_TILE, key = e % PLAIN_TILE;
			float s = 0, dp = 0, weight = 0;
			if (first + key < work.limit(stack.query_of(r))) {
				for (int c = 0; c < depth; c++) {
					s = fmaf(q[r * stride + c], k[key * stride + c], s);
					dp = fmaf(dout[r * stride + c], v[key * stride + c], dp);
				}
				const int64_t at = ((int64_t)kv_head * in.group + stack.head_of(r)) * in.q_rows + work.segment.q_start + stack.query_of(r);
				weight = exp_2<false>(fmaf(s, in.scale2, -__fmul_rn(b.lse[at], LOG2_E)));
				dp -= b.products[at];
			}
			p[e] = weight;
			ds[e] = weight * dp;
		}
		__syncthreads();
		for (int e = thread; e < elements; e += ATTENTION_THREADS) {
			const int key = e / depth, c = e % depth;
			float x = dk[e], y = dv[e];
			for (int r = 0; r < rows; r++) {
				x = fmaf(ds[r * PLAIN_TILE + key], q[r * stride + c], x);
				y = fmaf(p[r * PLAIN_TILE + key], dout[r * stride + c], y);
			}
			dk[e] = x;
			dv[e] = y;
		}
		__syncthreads();
	}
	for (int e = thread; e < elements; e += ATTENTION_THREADS) {
		const int key = first + e / depth, c = e % depth;
		if (key < work.tile.keys) {
			to[key * depth + c] = dk[e];
			to[(TILE + key) * depth + c] = dv[e];
		}
	}
}

} // namespace kernels
