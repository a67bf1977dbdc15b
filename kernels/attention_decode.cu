// Attention in decoding: a block of threads has a chunk of keys. Of a shared prefix, the rows of all segments that share it are stacked, so
// that its keys and values are read once for up to TILE rows; of own keys, a segment's rows. Each leaves its rows' (m, l, o) as partial
// sums, which decode_merge adds in the order in which attention.cu meets them.
//
// Partials count by segment in the plan's order, then by chunk: those of the prefix, then those of own keys. In scratch:
// (m, l)[partials, heads], then o[partials, heads, depth].
#include "attention_forward.cuh"

namespace kernels
{
namespace
{

constexpr int CHUNK = KERNEL_ATTENTION_CHUNK;

__host__ __device__ __forceinline__ int chunks_of(int keys)
{
	return (keys + CHUNK - 1) / CHUNK;
}

// How many own keys a segment has now.
struct OwnKeys {
	const int32_t *kv_len;
	int64_t step;
	__device__ int of(int index) const
	{
		return kv_len[index * step];
	}
};

struct Partials {
	float2 *ml;
	float *o;
};

inline Partials partials_in(float *scratch, const struct kernel_decode_plan &plan)
{
	return {reinterpret_cast<float2 *>(scratch), scratch + 2 * (int64_t)plan.partials * plan.heads};
}

template <class T> struct ChunkWork {
	enum { SPLIT = true };
	const DecodeLists lists;
	const DecodeItem item;
	const int position; // in the order, of the first row's segment
	const Segment segment;
	const int keys, rows, kv_head, kv_heads, depth; // keys: of the chunk; 0 if it does not exist yet
	const Stack stack;
	const KeyWalk walk;
	const Partials out;

	__device__ ChunkWork(const AttentionInput<T> &in, const Partials &partials, const DecodeLists &plan, OwnKeys own,
	                     int which, int head)
		: lists(plan), item(plan.items[which]), position(item.first / in.group), segment(plan.segments[plan.order[position]]),
		  keys(item.rows ? (item.own ? own_now(segment, own, plan.order[position]) : segment.prefix_len) - item.chunk * CHUNK : 0),
		  rows(item.rows), kv_head(head), kv_heads(in.kv_heads), depth(in.depth), stack(item.first, in.group),
		  walk(segment.prefix_start + item.chunk * CHUNK, item.own ? 0 : min(keys, CHUNK), segment.kv_start + item.chunk * CHUNK,
	           item.own ? min(keys, CHUNK) : 0),
		  out(partials)
	{
	}
	static __device__ int own_now(const Segment &s, OwnKeys own, int index)
	{
		const int now = own.of(index);
		if (now > s.kv_len)
			device_trap("attention_decode: segment %d has %d own keys, planned were %d\n", index, now, s.kv_len);
		return now;
	}
	__device__ int64_t query_row(int r) const
	{
		return lists.segments[lists.order[stack.query_of(r)]].q_start;
	}
	__device__ int head(int r) const
	{
		return stack.head_of(r);
	}
	__device__ int sees(int block, int) const
	{
		return walk.keys(block);
	}
	__device__ int64_t partial(int r) const
	{
		const int chunk = item.chunk + (item.own ? chunks_of(segment.prefix_len) : 0);
		return ((int64_t)lists.first_partial[stack.query_of(r)] + chunk) * kv_heads * stack.group +
		       (int64_t)kv_head * stack.group + head(r);
	}
	__device__ void put_row(int r, float m, float l) const
	{
		out.ml[partial(r)] = {m, l};
	}
	__device__ void put(int r, int column, float o, float) const
	{
		out.o[partial(r) * depth + column] = o;
	}
	template <int D>
	__device__ __forceinline__ void put_fragment(bf16 *, int row, const float (&m)[2], const float (&l)[2],
	                                             const float (&o)[D / 8][4]) const
	{
		const int lane = this_lane();
#pragma unroll
		for (int h = 0; h < 2; h++) {
			if (row + 8 * h >= rows)
				continue;
			float *to = out.o + partial(row + 8 * h) * depth;
			if (lane % 4 == 0)
				put_row(row + 8 * h, m[h], l[h]);
#pragma unroll
			for (int n = 0; n < D / 8; n++) {
				const int column = n * 8 + lane % 4 * 2;
				if (column < depth)
					wide_access<float2>(to + column) = {o[n][2 * h], o[n][2 * h + 1]};
			}
		}
	}
};

template <int D>
__global__ void __launch_bounds__(ATTENTION_THREADS)
	decode_on_tensor_cores(AttentionInput<bf16> in, Partials out, DecodeLists lists, OwnKeys own)
{
	const int item = (int)(blockIdx.x / (unsigned)in.kv_heads), kv_head = (int)(blockIdx.x % (unsigned)in.kv_heads);
	const ChunkWork<bf16> work(in, out, lists, own, item, kv_head);
	if (work.keys > 0)
		attend_tile<D>(in, kv_head, work);
}

template <class T>
__global__ void __launch_bounds__(ATTENTION_THREADS)
	decode_plain(AttentionInput<T> in, Partials out, DecodeLists lists, OwnKeys own)
{
	const int item = (int)(blockIdx.x / (unsigned)in.kv_heads), kv_head = (int)(blockIdx.x % (unsigned)in.kv_heads),
			  first = (int)blockIdx.y * PLAIN_ROWS;
	const ChunkWork<T> work(in, out, lists, own, item, kv_head);
	if (work.keys > 0 && first < work.rows)
		attend_rows(in, kv_head, work, first);
}

// A warp merges the partials of one segment's head.
template <class T, bool FAST>
__global__ void __launch_bounds__(ATTENTION_THREADS)
	decode_merge(T *o, int64_t o_stride, float *lse, int64_t q_rows, Partials from, DecodeLists lists, OwnKeys own,
                 int segments, int heads, int depth)
{
	const int64_t pair = (int64_t)blockIdx.x * (ATTENTION_THREADS / 32) + threadIdx.x / 32;
	if (pair >= (int64_t)segments * heads)
		return;
	const int position = (int)(pair / heads), head = (int)(pair % heads), lane = (int)threadIdx.x % 32;
	const int index = lists.order[position];
	const Segment s = lists.segments[index];
	if (!s.q_len)
		return;
	constexpr int COLUMNS = KERNEL_HEAD_DIM / 32; // of a lane
	const int chunks = chunks_of(s.prefix_len) + chunks_of(max(own.of(index), 0));
	float m = -INFINITY, l = 0, sum[COLUMNS] = {};
	for (int c = 0; c < chunks; c++) {
		const int64_t at = ((int64_t)lists.first_partial[position] + c) * heads + head;
		const float2 ml = from.ml[at];
		const Merge f = Merge::of<FAST>(m, l, ml.x, ml.y);
#pragma unroll
		for (int i = 0; i < COLUMNS; i++)
			if (lane + 32 * i < depth)
				sum[i] = f.sum(sum[i], from.o[at * depth + lane + 32 * i]);
	}
	const float inverse = inverse_sum(l);
	T *to = o + s.q_start * o_stride + (int64_t)head * depth;
#pragma unroll
	for (int i = 0; i < COLUMNS; i++)
		if (lane + 32 * i < depth)
			to[lane + 32 * i] = from_float<T>(__fmul_rn(sum[i], inverse));
	if (lse && lane == 0)
		lse[head * q_rows + s.q_start] = log_sum(m, l);
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int64_t kernel_attention_decode_scratch(const struct kernel_attention *a, const struct kernel_decode_plan *plan)
{
	return (int64_t)plan->partials * plan->heads * (2 + a->head_dim);
}

extern "C" int kernel_attention_decode(void *o, int64_t o_stride, float *lse, const struct kernel_attention *a,
                                       const struct kernel_decode_plan *plan, const int32_t *kv_len, int64_t kv_len_step,
                                       float *scratch, kernel_stream stream)
{
	if (!good_shape(*a) || !planned_for(*plan, *a) || plan->items * a->kv_heads > INT32_MAX ||
	    plan->segments * a->heads > INT32_MAX)
		return BAD_SIZE;
	if (!plan->segments)
		return 0;
	const DecodeLists lists = lists_of(*plan);
	const Partials partials = partials_in(scratch, *plan);
	const OwnKeys own = {kv_len, kv_len_step};
	const unsigned blocks = (unsigned)(plan->items * a->kv_heads);
	const bool fast = on_tensor_cores(*a) && whole_packs(o, o_stride); // as kernel_attention chooses
	int code = 0;
	if (blocks && fast)
		code = with_depth(a->head_dim, [&](auto depth) {
			constexpr int D = decltype(depth)::value;
			return launch(decode_on_tensor_cores<D>, dim3(blocks), dim3(ATTENTION_THREADS),
			              attend_tile_bytes<D>(BUFFERS<ChunkWork<bf16>>), stream, input_of<bf16>(*a), partials, lists, own);
		});
	else if (blocks)
		code = with_type(a->type, [&](auto element) {
			using T = decltype(element);
			return launch(decode_plain<T>, dim3(blocks, TILE / PLAIN_ROWS), dim3(ATTENTION_THREADS),
			              attend_rows_bytes(a->head_dim), stream, input_of<T>(*a), partials, lists, own);
		});
	if (code)
		return code;
	const dim3 merges((unsigned)blocks_for(plan->segments * a->heads, ATTENTION_THREADS / 32));
	return with_type(a->type, [&](auto element) {
		using T = decltype(element);
		auto run = [&](auto kernel) {
			return launch(kernel, merges, dim3(ATTENTION_THREADS), 0, stream, (T *)o, o_stride, lse, a->q_rows, partials, lists,
			              own, plan->segments, (int)a->heads, (int)a->head_dim);
		};
		return fast ? run(decode_merge<T, true>) : run(decode_merge<T, false>);
	});
}
