// Attention for prefill, training and vision: a block of threads has a tile of rows and walks over all keys that they see.
#include "attention_forward.cuh"

namespace kernels
{
namespace
{

template <class T> struct Output {
	T *o;
	int64_t stride;
	float *lse; // may be null
};

template <class T> struct WholeWork {
	enum { SPLIT = false };
	const Segment segment;
	const int rows, kv_head, depth;
	const int64_t q_rows;
	const Stack stack;
	const KeyWalk walk;
	const Output<T> out;

	__device__ WholeWork(const AttentionInput<T> &in, const Output<T> &output, const TrainingLists &lists, int tile, int head)
		: segment(lists.segments[lists.tiles[tile].segment]), rows(lists.tiles[tile].rows), kv_head(head), depth(in.depth),
		  q_rows(in.q_rows), stack(lists.tiles[tile].first, in.group),
		  walk(segment.prefix_start, segment.prefix_len, segment.kv_start, own_keys(segment, stack.query_of(rows - 1))),
		  out(output)
	{
	}
	__device__ int64_t query_row(int r) const
	{
		return (int64_t)segment.q_start + stack.query_of(r);
	}
	__device__ int head(int r) const
	{
		return stack.head_of(r);
	}
	__device__ int sees(int block, int r) const
	{
		const int keys = walk.keys(block);
		return walk.is_own(block) ? min(own_keys(segment, stack.query_of(r)) - walk.offset(block), keys) : keys;
	}
	__device__ T *at(int r) const
	{
		return out.o + query_row(r) * out.stride + ((int64_t)kv_head * stack.group + head(r)) * depth;
	}
	__device__ void put_row(int r, float m, float l) const
	{
		if (out.lse)
			out.lse[((int64_t)kv_head * stack.group + head(r)) * q_rows + query_row(r)] = log_sum(m, l);
	}
	__device__ void put(int r, int column, float o, float l) const
	{
		at(r)[column] = from_float<T>(__fmul_rn(o, inverse_sum(l)));
	}
	// Rows `row` and row + 8 of a warp's fragment. `staging` is the tile of q, of which nobody needs this warp's rows any more: through
	// it, rows go out 16 bytes at a time.
	template <int D>
	__device__ __forceinline__ void put_fragment(bf16 *staging, int row, const float (&m)[2], const float (&l)[2],
	                                             const float (&o)[D / 8][4]) const
	{
		const int lane = this_lane(), mine = this_warp() * WARP_ROWS;
#pragma unroll
		for (int h = 0; h < 2; h++) {
			const float inverse = inverse_sum(l[h]);
#pragma unroll
			for (int n = 0; n < D / 8; n++) {
				const uint32_t pair = pack_bf16(__fmul_rn(o[n][2 * h], inverse), __fmul_rn(o[n][2 * h + 1], inverse));
				memcpy(staging + (row + 8 * h) * TILE_STRIDE<D> + n * 8 + lane % 4 * 2, &pair, sizeof pair);
			}
			if (lane % 4 == 0 && row + 8 * h < rows)
				put_row(row + 8 * h, m[h], l[h]);
		}
		__syncwarp();
		constexpr int PACKS = D / 8;
		for (int i = lane; i < WARP_ROWS * PACKS; i += 32) {
			const int r = mine + i / PACKS, column = i % PACKS * 8;
			if (r < rows && column < depth)
				wide_access<uint4>(at(r) + column) = wide_access<const uint4>(staging + r * TILE_STRIDE<D> + column);
		}
	}
};

template <int D>
__global__ void __launch_bounds__(ATTENTION_THREADS, 2)
	attention_on_tensor_cores(AttentionInput<bf16> in, Output<bf16> out, TrainingLists lists)
{
	const int tile = (int)(blockIdx.x / (unsigned)in.kv_heads), kv_head = (int)(blockIdx.x % (unsigned)in.kv_heads);
	attend_tile<D>(in, kv_head, WholeWork<bf16>(in, out, lists, tile, kv_head));
}

template <class T>
__global__ void __launch_bounds__(ATTENTION_THREADS)
	attention_plain(AttentionInput<T> in, Output<T> out, TrainingLists lists)
{
	const int tile = (int)(blockIdx.x / (unsigned)in.kv_heads), kv_head = (int)(blockIdx.x % (unsigned)in.kv_heads),
			  first = (int)blockIdx.y * PLAIN_ROWS;
	const WholeWork<T> work(in, out, lists, tile, kv_head);
	if (first < work.rows)
		attend_rows(in, kv_head, work, first);
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int kernel_attention(void *o, int64_t o_stride, float *lse, const struct kernel_attention *a,
                                const struct kernel_attention_plan *plan, kernel_stream stream)
{
	if (!good_shape(*a) || !planned_for(*plan, *a) || plan->tiles * a->kv_heads > INT32_MAX)
		return BAD_SIZE;
	if (!plan->tiles)
		return 0;
	const TrainingLists lists = lists_of(*plan);
	const unsigned blocks = (unsigned)(plan->tiles * a->kv_heads);
	if (on_tensor_cores(*a) && whole_packs(o, o_stride))
		return with_depth(a->head_dim, [&](auto depth) {
			constexpr int D = decltype(depth)::value;
			return launch(attention_on_tensor_cores<D>, dim3(blocks), dim3(ATTENTION_THREADS), attend_tile_bytes<D>(1), stream,
			              input_of<bf16>(*a), Output<bf16>{(bf16 *)o, o_stride, lse}, lists);
		});
	return with_type(a->type, [&](auto element) {
		using T = decltype(element);
		return launch(attention_plain<T>, dim3(blocks, TILE / PLAIN_ROWS), dim3(ATTENTION_THREADS),
		              attend_rows_bytes(a->head_dim), stream, input_of<T>(*a), Output<T>{(T *)o, o_stride, lse}, lists);
	});
}
