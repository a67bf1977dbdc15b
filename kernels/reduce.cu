// Sums over many rows or elements: gradients of biases, the norm of all gradients.
#include "column_sum.cuh"

namespace kernels
{
namespace
{

constexpr int SQUARE_THREADS = 256, SQUARE_ELEMENTS = 4;

__device__ __forceinline__ double block_sum_double(double x, double *partial)
{
#pragma unroll
	for (int flip = 16; flip; flip /= 2)
		x += __shfl_xor_sync(ALL_LANES, x, flip);
	if (threadIdx.x % 32 == 0)
		partial[threadIdx.x / 32] = x;
	__syncthreads();
	x = 0;
	for (int w = 0; w < SQUARE_THREADS / 32; w++)
		x += partial[w];
	return x;
}

// partials[block] = sum of squares of x[block * per_block, + per_block)
template <bool WIDE>
__global__ void __launch_bounds__(SQUARE_THREADS)
	squares(double *partials, const float *x, int64_t n, int64_t per_block)
{
	SHARED_ARRAY(double, partial, SQUARE_THREADS / 32);
	const int64_t begin = blockIdx.x * per_block, end = min(n, begin + per_block);
	double sum = 0;
	for (int64_t i = begin + (int)threadIdx.x * SQUARE_ELEMENTS; i < end; i += SQUARE_THREADS * SQUARE_ELEMENTS) {
		float v[SQUARE_ELEMENTS];
		const int64_t left = end - i;
		if (WIDE && left >= SQUARE_ELEMENTS)
			load(v, x + i);
		else
			load_part<false>(v, x + i, left < SQUARE_ELEMENTS ? (int)left : SQUARE_ELEMENTS);
#pragma unroll
		for (int e = 0; e < SQUARE_ELEMENTS; e++)
			sum += (double)v[e] * v[e];
	}
	sum = block_sum_double(sum, partial);
	if (threadIdx.x == 0)
		partials[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(SQUARE_THREADS) sum_partials(double *out, const double *partials, int n, int accumulate)
{
	SHARED_ARRAY(double, partial, SQUARE_THREADS / 32);
	double sum = 0;
	for (int i = (int)threadIdx.x; i < n; i += SQUARE_THREADS)
		sum += partials[i];
	sum = block_sum_double(sum, partial);
	if (threadIdx.x == 0)
		*out = accumulate ? *out + sum : sum;
}

// Rows that one block of the first stage sums.
int64_t chunk_rows(int64_t rows)
{
	int64_t least = 64, most = 256; // rows a chunk, chunks
	return blocks_for(rows, most) > least ? blocks_for(rows, most) : least;
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int64_t kernel_bias_gradient_scratch(int64_t rows, int64_t cols)
{
	int64_t chunks = rows > 0 ? blocks_for(rows, chunk_rows(rows)) : 0;
	return chunks > 1 ? chunks * cols : 0;
}

extern "C" int kernel_bias_gradient(float *dbias, const void *dy, int64_t dy_stride, enum kernel_type type,
                                    float *scratch, int64_t rows, int64_t cols, kernel_stream stream)
{
	if (rows < 0 || cols < 0)
		return BAD_SIZE;
	if (!rows || !cols)
		return 0;
	const int64_t per_chunk = chunk_rows(rows), chunks = blocks_for(rows, per_chunk);
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		dim3 grid((unsigned)blocks_for(cols, 32), (unsigned)chunks), block(32, SUM_LINES);
		if (chunks == 1)
			return launch(column_sum<T, true>, grid, block, 0, stream, dbias, (const T *)dy, dy_stride, rows, cols,
			              per_chunk);
		int code = launch(column_sum<T, false>, grid, block, 0, stream, scratch, (const T *)dy, dy_stride, rows, cols,
		                  per_chunk);
		return code ? code : add_column_sums(dbias, scratch, chunks, cols, stream);
	});
}

extern "C" int kernel_sum_squares(double *out, const float *x, int64_t n, int accumulate, double *scratch,
                                  kernel_stream stream)
{
	if (n < 0)
		return BAD_SIZE;
	const int64_t step = SQUARE_THREADS * SQUARE_ELEMENTS;
	int64_t blocks = blocks_for(n, 4 * step);
	if (blocks > KERNEL_SUM_SQUARES_SCRATCH)
		blocks = KERNEL_SUM_SQUARES_SCRATCH;
	if (blocks) {
		int64_t per_block = blocks_for(blocks_for(n, blocks), step) * step;
		blocks = blocks_for(n, per_block);
		auto kernel = packs<SQUARE_ELEMENTS>(x, SQUARE_ELEMENTS) ? squares<true> : squares<false>;
		int code = launch(kernel, dim3((unsigned)blocks), dim3(SQUARE_THREADS), 0, stream, scratch, x, n, per_block);
		if (code)
			return code;
	}
	return launch(sum_partials, dim3(1), dim3(SQUARE_THREADS), 0, stream, out, scratch, (int)blocks, accumulate);
}
