// Attention's gradients: D = do . o for each row; dq by tiles of rows, as attention.cu has them; dk and dv by items, each a tile of keys and
// some rows that see it, whose sums go to scratch; then each key's sums are added in order.
#include "attention_backward.cuh"

namespace kernels
{
namespace
{

constexpr int REDUCE_THREADS = 256;

// products[head, row] = do . o, a warp each
template <class T>
__global__ void __launch_bounds__(ATTENTION_THREADS)
	output_products(float *products, const T *dout, int64_t dout_stride, const T *o, int64_t o_stride, int64_t rows, int heads, int depth)
{
	const int64_t pair = (int64_t)blockIdx.x * (ATTENTION_THREADS / 32) + threadIdx.x / 32;
	if (pair >= rows * heads)
		return;
	const int64_t row = pair / heads, head = pair % heads;
	float sum = 0;
	for (int c = (int)threadIdx.x % 32; c < depth; c += 32)
		sum = fmaf(to_float(dout[row * dout_stride + head * depth + c]), to_float(o[row * o_stride + head * depth + c]), sum);
	sum = warp_sum(sum);
	if (threadIdx.x % 32 == 0)
		products[head * rows + row] = sum;
}

template <int D>
__global__ void __launch_bounds__(ATTENTION_THREADS, 2)
	query_gradient_on_tensor_cores(BackwardInput<bf16> b, Gradient<bf16> dq, TrainingLists lists)
{
	const int tile = (int)(blockIdx.x / (unsigned)b.in.kv_heads), kv_head = (int)(blockIdx.x % (unsigned)b.in.kv_heads);
	query_gradient_tile<D>(b, dq, QueryWork<bf16>(b.in, lists, tile, kv_head));
}

template <int D>
__global__ void __launch_bounds__(ATTENTION_THREADS, 2)
	key_gradient_on_tensor_cores(BackwardInput<bf16> b, float *sums, TrainingLists lists)
{
	const int item = (int)(blockIdx.x / (unsigned)b.in.kv_heads), kv_head = (int)(blockIdx.x % (unsigned)b.in.kv_heads);
	key_gradient_tile<D>(b, sums_of(sums, item, kv_head, b.in.kv_heads, b.in.depth), kv_head, KeyWork(lists, item));
}

template <class T>
__global__ void __launch_bounds__(ATTENTION_THREADS)
	query_gradient_plain(BackwardInput<T> b, Gradient<T> dq, TrainingLists lists)
{
	const int tile = (int)(blockIdx.x / (unsigned)b.in.kv_heads), kv_head = (int)(blockIdx.x % (unsigned)b.in.kv_heads),
			  first = (int)blockIdx.y * PLAIN_TILE;
	const QueryWork<T> work(b.in, lists, tile, kv_head);
	if (first < work.rows)
		query_gradient_rows(b, dq, work, first);
}

template <class T>
__global__ void __launch_bounds__(ATTENTION_THREADS)
	key_gradient_plain(BackwardInput<T> b, float *sums, TrainingLists lists)
{
	const int item = (int)(blockIdx.x / (unsigned)b.in.kv_heads), kv_head = (int)(blockIdx.x % (unsigned)b.in.kv_heads),
			  first = (int)blockIdx.y * PLAIN_TILE;
	const KeyWork work(lists, item);
	if (first < work.tile.keys)
		key_gradient_rows(b, sums_of(sums, item, kv_head, b.in.kv_heads, b.in.depth), kv_head, work, first);
}

// dk and dv of a tile's keys: the sums of its items, in order. A block of threads has a tile and a key head, and dk (blockIdx.y 0) or dv.
template <class T>
__global__ void __launch_bounds__(REDUCE_THREADS)
	add_key_sums(Gradient<T> dk, Gradient<T> dv, const float *sums, TrainingLists lists, int kv_heads, int depth, float scale)
{
	const int kv_head = (int)(blockIdx.x % (unsigned)kv_heads);
	const KeyTile tile = lists.key_tiles[blockIdx.x / (unsigned)kv_heads];
	const bool values = blockIdx.y;
	const Gradient<T> to = {values ? dv.at : dk.at, values ? dv.stride : dk.stride, dk.accumulate};
	const int64_t step = (int64_t)kv_heads * 2 * TILE * depth; // from item to item
	const float *from = sums + ((int64_t)tile.first_item * kv_heads + kv_head) * 2 * TILE * depth + (values ? TILE * depth : 0);
	for (int e = (int)threadIdx.x * 2; e < tile.keys * depth; e += REDUCE_THREADS * 2) {
		float x = 0, y = 0;
		for (int i = 0; i < tile.items; i++) {
			const float2 two = wide_access<const float2>(from + i * step + e);
			x = __fadd_rn(x, two.x);
			y = __fadd_rn(y, two.y);
		}
		const int64_t row = (int64_t)tile.key + e / depth, column = (int64_t)kv_head * depth + e % depth;
		to.put(row, column, values ? x : __fmul_rn(x, scale));
		to.put(row, column + 1, values ? y : __fmul_rn(y, scale));
	}
}

// Where the items' sums begin in scratch, after [heads, q_rows] products.
int64_t sums_begin(const struct kernel_attention &a)
{
	return blocks_for(a.heads * a.q_rows, 4) * 4;
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int64_t kernel_attention_backward_scratch(const struct kernel_attention *a, const struct kernel_attention_plan *plan)
{
	return sums_begin(*a) + (int64_t)plan->key_items * a->kv_heads * 2 * TILE * a->head_dim;
}

extern "C" int kernel_attention_backward(void *dq, int64_t dq_stride, void *dk, int64_t dk_stride, void *dv, int64_t dv_stride,
                                         int accumulate, const void *dout, int64_t dout_stride, const void *o, int64_t o_stride,
                                         const float *lse, const struct kernel_attention *a,
                                         const struct kernel_attention_plan *plan, float *scratch, kernel_stream stream)
{
	const int64_t tiles = plan->tiles * a->kv_heads, items = plan->key_items * a->kv_heads, key_tiles = plan->key_tiles * a->kv_heads,
				  products = blocks_for(a->q_rows * a->heads, ATTENTION_THREADS / 32);
	if (!good_shape(*a) || !planned_for(*plan, *a) || tiles > INT32_MAX || items > INT32_MAX || key_tiles > INT32_MAX ||
	    products > INT32_MAX)
		return BAD_SIZE;
	const TrainingLists lists = lists_of(*plan);
	const dim3 threads(ATTENTION_THREADS);
	const bool fast = on_tensor_cores(*a) && whole_packs(dout, dout_stride);
	return with_type(a->type, [&](auto element) {
		using T = decltype(element);
		float *const sums = scratch ? scratch + sums_begin(*a) : nullptr; // none is wanted where there is nothing to do
		const BackwardInput<T> b = {input_of<T>(*a), (const T *)dout, dout_stride, lse, scratch};
		const Gradient<T> to_q = {(T *)dq, dq_stride, accumulate != 0}, to_k = {(T *)dk, dk_stride, accumulate != 0},
						  to_v = {(T *)dv, dv_stride, accumulate != 0};
		int code = 0;
		if (tiles)
			code = launch(output_products<T>, dim3((unsigned)products), threads, 0, stream, scratch, b.dout, dout_stride, (const T *)o,
			              o_stride, a->q_rows, (int)a->heads, (int)a->head_dim);
		if constexpr (sizeof(T) == sizeof(bf16)) {
			if (fast && !code)
				code = with_depth(a->head_dim, [&](auto depth) {
					constexpr int D = decltype(depth)::value;
					int failed = 0;
					if (tiles)
						failed = launch(query_gradient_on_tensor_cores<D>, dim3((unsigned)tiles), threads, backward_tile_bytes<D>(), stream,
						                b, to_q, lists);
					if (items && !failed)
						failed = launch(key_gradient_on_tensor_cores<D>, dim3((unsigned)items), threads, backward_tile_bytes<D>(), stream,
						                b, sums, lists);
					return failed;
				});
		}
		if (!fast && tiles && !code)
			code = launch(query_gradient_plain<T>, dim3((unsigned)tiles, TILE / PLAIN_TILE), threads, query_gradient_bytes(a->head_dim),
			              stream, b, to_q, lists);
		if (!fast && items && !code)
			code = launch(key_gradient_plain<T>, dim3((unsigned)items, TILE / PLAIN_TILE), threads, key_gradient_bytes(a->head_dim),
			              stream, b, sums, lists);
		if (key_tiles && !code)
			code = launch(add_key_sums<T>, dim3((unsigned)key_tiles, 2), dim3(REDUCE_THREADS), 0, stream, to_k, to_v,
			              (const float *)sums, lists, (int)a->kv_heads, (int)a->head_dim, a->scale);
		return code;
	});
}
