// Sums over many rows or elements: gradients of biases, the norm of all gradients.
#include "column_sum.cuh"

namespace kernels
{
namespace
{

constexpr int SQUARE_THREADS = 256, SQUARE_ELEMENTS = 4;

__device__ __forceinline__ double warp_sum_double(double x)
{
#pragma unroll
	for (int flip = 16; flip; flip /= 2)
		x += __shfl_xor_sync(ALL_LANES, x, flip);
	return x;
}

// A part of n elements is summed in pieces of so many, at most KERNEL_SQUARES_PIECES: a function of n alone, and so the order of its sum.
__host__ __device__ inline int64_t piece_length(int64_t n)
{
	constexpr int64_t STEP = SQUARE_THREADS * SQUARE_ELEMENTS, LEAST = 4 * STEP;
	const int64_t even = (n + KERNEL_SQUARES_PIECES - 1) / KERNEL_SQUARES_PIECES;
	return even > LEAST ? (even + STEP - 1) / STEP * STEP : LEAST;
}

// partials[part * KERNEL_SQUARES_PIECES + piece] = the piece's sum; blocks behind a part's last piece have nothing to do
__global__ void __launch_bounds__(SQUARE_THREADS) squares(double *partials, const float *x, const int64_t *bounds)
{
	SHARED_ARRAY(double, partial, SQUARE_THREADS / 32);
	const int64_t first = bounds[blockIdx.y], last = bounds[blockIdx.y + 1], length = piece_length(last - first);
	const int64_t begin = first + blockIdx.x * length, end = min(last, begin + length);
	if (begin >= end)
		return;
	const bool wide = (uintptr_t)(x + begin) % 16 == 0;
	double sum = 0;
	for (int64_t i = begin + (int)threadIdx.x * SQUARE_ELEMENTS; i < end; i += SQUARE_THREADS * SQUARE_ELEMENTS) {
		float v[SQUARE_ELEMENTS];
		const int64_t left = end - i;
		if (wide && left >= SQUARE_ELEMENTS)
			load(v, x + i);
		else
			load_part<false>(v, x + i, left < SQUARE_ELEMENTS ? (int)left : SQUARE_ELEMENTS);
#pragma unroll
		for (int e = 0; e < SQUARE_ELEMENTS; e++)
			sum += (double)v[e] * v[e];
	}
	sum = warp_sum_double(sum);
	if (threadIdx.x % 32 == 0)
		partial[threadIdx.x / 32] = sum;
	__syncthreads();
	sum = 0;
	for (int w = 0; w < SQUARE_THREADS / 32; w++)
		sum += partial[w];
	if (threadIdx.x == 0)
		partials[blockIdx.y * KERNEL_SQUARES_PIECES + blockIdx.x] = sum;
}

// out[part] = the sum of its pieces: one warp a part
__global__ void __launch_bounds__(32) sum_pieces(double *out, const double *partials, const int64_t *bounds)
{
	const int64_t n = bounds[blockIdx.x + 1] - bounds[blockIdx.x], length = piece_length(n);
	const int pieces = (int)((n + length - 1) / length);
	double sum = 0;
	for (int i = (int)threadIdx.x; i < pieces; i += 32)
		sum += partials[blockIdx.x * KERNEL_SQUARES_PIECES + i];
	sum = warp_sum_double(sum);
	if (threadIdx.x == 0)
		out[blockIdx.x] = sum;
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

extern "C" int64_t kernel_sum_squares_plan(const int64_t *bounds, int64_t parts)
{
	int64_t pieces = 0;
	for (int64_t i = 0; i < parts; i++) {
		const int64_t n = bounds[i + 1] - bounds[i];
		if (n < 0)
			return -1;
		const int64_t own = blocks_for(n, piece_length(n));
		pieces = own > pieces ? own : pieces;
	}
	return pieces;
}

extern "C" int kernel_sum_squares(double *out, const float *x, const int64_t *bounds, int64_t parts, int64_t pieces, double *scratch,
                                  kernel_stream stream)
{
	if (parts < 0 || parts > KERNEL_SQUARES_PARTS || pieces < 0 || pieces > KERNEL_SQUARES_PIECES)
		return BAD_SIZE;
	if (!parts)
		return 0;
	if (pieces) {
		int code = launch(squares, dim3((unsigned)pieces, (unsigned)parts), dim3(SQUARE_THREADS), 0, stream, scratch, x, bounds);
		if (code)
			return code;
	}
	return launch(sum_pieces, dim3((unsigned)parts), dim3(32), 0, stream, out, scratch, bounds);
}
