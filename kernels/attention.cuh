// What attention's kernels and its planner share: how a plan's list lies, which keys a row sees, and the merging of chunks.
//
// Rows. All query heads of a key head are stacked: of a segment, row r is query r / group, head r % group of them. A tile is up
// to TILE consecutive rows of one segment (or, in decoding, of neighbours that share a prefix), whose queries, scores and sums
// one block of threads holds. It walks over the keys in blocks of TILE.
//
// Scores are kept in units of log 2: x = s scale log2 e, p = 2^(x - m).
#pragma once

#include "device.cuh"

namespace kernels
{

constexpr int TILE = 64;            // rows of a tile, keys of a block
constexpr int CHUNK_BLOCKS = KERNEL_ATTENTION_CHUNK / TILE;
constexpr int ATTENTION_THREADS = 128;
constexpr int MAX_GROUP = 128;      // query heads of a key head
constexpr float LOG2_E = 1.44269504088896341f, LN_2 = 0.693147180559945309f;

using Segment = kernel_segment;

// Rows [first, first + rows) of a segment. keys: how many the last of them sees.
struct AttentionTile {
	int32_t segment, first, rows, keys;
};
// For the gradients of keys: rows [key, key + keys) of k and v, all seen by the same segments (but for causality). Their sums are made
// by items [first_item, first_item + items), each over some rows of one segment, and then added in order.
struct KeyTile {
	int32_t key, keys, first_item, items;
};
// Rows [first, first + rows) of a segment, which see the tile's keys from its prefix or from its own keys.
struct KeyItem {
	int32_t tile, segment, own, first, rows;
};
// Decoding. Rows count through the plan's order of segments, `group` a segment. The keys are those of a chunk of the first one's prefix,
// or of its own keys.
struct DecodeItem {
	int32_t first, rows, chunk, own;
};

// int32 numbers of a list's parts, which follow one another: segments, then tiles, key tiles, key items; or segments, then order[],
// first_partial[], items.
template <class T> constexpr int32_t INTS = (int32_t)(sizeof(T) / sizeof(int32_t));

struct TrainingLists {
	const Segment *segments;
	const AttentionTile *tiles;
	const KeyTile *key_tiles;
	const KeyItem *key_items;
};
struct DecodeLists {
	const Segment *segments;
	const int32_t *order;         // order[i]: a segment; those that share a prefix are neighbours; those without a query come last
	const int32_t *first_partial; // of order[i]
	const DecodeItem *items;
};

inline TrainingLists lists_of(const struct kernel_attention_plan &plan)
{
	TrainingLists l;
	const int32_t *at = plan.list;
	l.segments = reinterpret_cast<const Segment *>(at);
	at += (int64_t)plan.segments * INTS<Segment>;
	l.tiles = reinterpret_cast<const AttentionTile *>(at);
	at += (int64_t)plan.tiles * INTS<AttentionTile>;
	l.key_tiles = reinterpret_cast<const KeyTile *>(at);
	at += (int64_t)plan.key_tiles * INTS<KeyTile>;
	l.key_items = reinterpret_cast<const KeyItem *>(at);
	return l;
}

inline DecodeLists lists_of(const struct kernel_decode_plan &plan)
{
	DecodeLists l;
	const int32_t *at = plan.list;
	l.segments = reinterpret_cast<const Segment *>(at);
	at += (int64_t)plan.segments * INTS<Segment>;
	l.order = at;
	at += plan.segments;
	l.first_partial = at;
	at += plan.segments;
	l.items = reinterpret_cast<const DecodeItem *>(at);
	return l;
}

// What kernels are given of the matrices.
template <class T> struct AttentionInput {
	const T *q, *k, *v;
	int64_t q_stride, k_stride, v_stride, q_rows;
	int depth, group, kv_heads;
	float scale, scale2; // scale2: times log2 e
};

template <class T> AttentionInput<T> input_of(const struct kernel_attention &a)
{
	return {(const T *)a.q,
	        (const T *)a.k,
	        (const T *)a.v,
	        a.q_stride,
	        a.k_stride,
	        a.v_stride,
	        a.q_rows,
	        (int)a.head_dim,
	        (int)(a.heads / a.kv_heads),
	        (int)a.kv_heads,
	        a.scale,
	        a.scale * LOG2_E};
}

inline bool good_heads(int64_t heads, int64_t kv_heads)
{
	return kv_heads > 0 && heads > 0 && heads % kv_heads == 0 && heads / kv_heads <= MAX_GROUP && heads <= INT32_MAX / 1024;
}

inline bool good_shape(const struct kernel_attention &a)
{
	return good_heads(a.heads, a.kv_heads) && a.head_dim >= 2 && a.head_dim <= KERNEL_HEAD_DIM && a.head_dim % 2 == 0 &&
	       a.scale > 0;
}

template <class Plan> bool planned_for(const Plan &plan, const struct kernel_attention &a)
{
	return plan.heads == a.heads && plan.kv_heads == a.kv_heads && plan.q_rows == a.q_rows && plan.k_rows == a.k_rows;
}

// ---- rows

// Consecutive rows from `first` on: which query (counted from the segment's first, or segment in the order) and which head
// they are. One division, then a multiplication a row: rows + group < 65536 / group.
struct Stack {
	int query, head, group;
	unsigned reciprocal;
	__device__ Stack(int first, int heads_of_key)
		: query(first / heads_of_key), head(first % heads_of_key), group(heads_of_key),
		  reciprocal(65536u / (unsigned)heads_of_key + 1)
	{
	}
	__device__ int query_of(int row) const
	{
		return query + steps(row);
	}
	__device__ int head_of(int row) const
	{
		return head + row - steps(row) * group;
	}

private:
	__device__ int steps(int row) const
	{
		return (int)((unsigned)(head + row) * reciprocal >> 16);
	}
};

// How many of a segment's own keys its query i sees (at most 0: none).
__device__ __forceinline__ int own_keys(const Segment &s, int i)
{
	return s.causal ? min(i + s.kv_len - s.q_len + 1, s.kv_len) : s.kv_len;
}

// The keys that a tile's rows see: a stretch of the prefix, then one of own keys. Their blocks, one after the other.
struct KeyWalk {
	int prefix, prefix_keys, prefix_blocks, own, own_keys, own_blocks;
	__device__ KeyWalk(int prefix_start, int prefix_length, int own_start, int own_length)
		: prefix(prefix_start), prefix_keys(max(prefix_length, 0)), prefix_blocks((prefix_keys + TILE - 1) / TILE), own(own_start),
		  own_keys(max(own_length, 0)), own_blocks((own_keys + TILE - 1) / TILE)
	{
	}
	__device__ int count() const
	{
		return prefix_blocks + own_blocks;
	}
	__device__ bool is_own(int block) const
	{
		return block >= prefix_blocks;
	}
	__device__ int offset(int block) const // in its stretch
	{
		return (is_own(block) ? block - prefix_blocks : block) * TILE;
	}
	__device__ int64_t row(int block) const
	{
		return (int64_t)(is_own(block) ? own : prefix) + offset(block);
	}
	__device__ int keys(int block) const
	{
		return min((is_own(block) ? own_keys : prefix_keys) - offset(block), TILE);
	}
	__device__ bool ends_chunk(int block) const
	{
		return offset(block) / TILE % CHUNK_BLOCKS == CHUNK_BLOCKS - 1 || block + 1 == prefix_blocks || block + 1 == count();
	}
};

// ---- sums. Every operation is named, so that no compiler contracts it here and not there: forward and decoding must agree.

// FAST: the special function unit's 2^x (2 ulp; denormals are 0), as everything on tensor cores has.
template <bool FAST> __device__ __forceinline__ float exp_2(float x)
{
#ifdef __CUDACC__
	if constexpr (FAST) {
		float y;
		asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
		return y;
	}
#endif
	return exp2f(x);
}

// What is subtracted from a row's scores before 2^x: their maximum, or 0 if it has none.
__device__ __forceinline__ float reference(float most)
{
	return most == -INFINITY ? 0.0f : most;
}

// A row's sum over some keys is (m, l, o): l = sum 2^(x - m), o = sum 2^(x - m) v. Two such are merged: m = max(m, m'), and with
// the two factors l = l a + l' b, o = o a + o' b.
struct Merge {
	float a, b;
	template <bool FAST> static __device__ __forceinline__ Merge of(float &m, float &l, float m2, float l2)
	{
		const float most = fmaxf(m, m2), from = reference(most);
		Merge f;
		f.a = exp_2<FAST>(__fadd_rn(m, -from));
		f.b = exp_2<FAST>(__fadd_rn(m2, -from));
		l = f.sum(l, l2);
		m = most;
		return f;
	}
	__device__ __forceinline__ float sum(float x, float x2) const
	{
		return fmaf(x2, b, __fmul_rn(x, a));
	}
};

// What o is multiplied with in the end.
__device__ __forceinline__ float inverse_sum(float l)
{
	return l > 0 ? 1.0f / l : 0.0f;
}

__device__ __forceinline__ float log_sum(float m, float l)
{
	return l > 0 ? __fmul_rn(__fadd_rn(m, log2f(l)), LN_2) : -INFINITY;
}

// Whether the tensor cores' kernels can read (and write) rows of heads there.
inline bool whole_packs(const void *p, int64_t stride)
{
	return (uintptr_t)p % 16 == 0 && stride % 8 == 0;
}

inline bool on_tensor_cores(const struct kernel_attention &a)
{
	return a.type == KERNEL_BF16 && a.head_dim % 8 == 0 && a.head_dim <= 128 && whole_packs(a.q, a.q_stride) &&
	       whole_packs(a.k, a.k_stride) && whole_packs(a.v, a.v_stride);
}

// run(D) as a constant: the smallest dimension that the tensor cores' kernels are made for and that heads of `depth` fit.
template <class Run> int with_depth(int64_t depth, Run run)
{
	return depth <= 32   ? run(Constant<32>())
	       : depth <= 64 ? run(Constant<64>())
	       : depth <= 80 ? run(Constant<80>())
	                     : run(Constant<128>());
}

} // namespace kernels
