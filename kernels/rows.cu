// Gathering and scattering of rows: embedding look-up, image features into the text, and their backward.
#include "elementwise.cuh"

namespace kernels
{
namespace
{

// Row i of a list must lie among `limit` rows; negative means "skip". Returns whether there is something to do.
__device__ __forceinline__ bool is_row(const char *op, int64_t i, int row, int64_t limit)
{
	if (row >= limit)
		device_trap("%s: entry %lld of the list is row %d of %lld\n", op, (long long)i, row, (long long)limit);
	return row >= 0;
}

template <class Y, class X> struct Gather {
	Y *y;
	const X *x;
	const int *rows;
	int64_t y_stride, x_stride, x_rows;
	template <bool WIDE> __device__ void run(int64_t i, int64_t k, int left) const
	{
		const int row = rows[i];
		if (!is_row("gather_rows", i, row, x_rows))
			return;
		float v[ELEMENTS];
		load_part<WIDE>(v, x + row * x_stride + k, left);
		store_part<WIDE>(y + i * y_stride + k, v, left);
	}
};

template <class Y, class X> struct Scatter {
	Y *y;
	const X *x;
	const int *rows;
	int64_t y_stride, x_stride, y_rows;
	template <bool WIDE> __device__ void run(int64_t i, int64_t k, int left) const
	{
		const int row = rows[i];
		if (!is_row("scatter_rows", i, row, y_rows))
			return;
		float v[ELEMENTS];
		load_part<WIDE>(v, x + i * x_stride + k, left);
		store_part<WIDE>(y + row * y_stride + k, v, left);
	}
};

constexpr int ADD_THREADS = 256;

// Block i serves the row that entry i names, if no earlier entry names it: it looks through the later entries for more of the same,
// ADD_THREADS at a time, and adds what they bring in their order. So a row has one writer, and its sum one order.
template <class X>
__global__ void __launch_bounds__(ADD_THREADS)
	scatter_add(float *y, int64_t y_stride, int64_t y_rows, const X *x, int64_t x_stride, const int *rows, int64_t n,
                int64_t cols)
{
	SHARED_ARRAY(int, found, ADD_THREADS); // offsets of entries with this row, ascending
	SHARED_ARRAY(int, warp_count, ADD_THREADS / 32);
	SHARED_ARRAY(int, earlier, 1);
	const int64_t i = blockIdx.x;
	const int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32, row = rows[i];
	if (!is_row("scatter_rows_add", i, row, y_rows))
		return; // all threads alike
	if (thread == 0)
		earlier[0] = 0;
	__syncthreads();
	for (int64_t j = thread; j < i; j += ADD_THREADS)
		if (rows[j] == row)
			atomicMax(&earlier[0], 1);
	__syncthreads();
	if (earlier[0])
		return;
	float *to = y + row * y_stride;
	for (int64_t first = i; first < n; first += ADD_THREADS) {
		const int64_t j = first + thread;
		const bool same = j < n && rows[j] == row;
		const unsigned lanes = __ballot_sync(ALL_LANES, same);
		if (lane == 0)
			warp_count[warp] = __popc(lanes);
		__syncthreads();
		int before = 0, all = 0;
#pragma unroll
		for (int w = 0; w < ADD_THREADS / 32; w++) {
			before += w < warp ? warp_count[w] : 0;
			all += warp_count[w];
		}
		if (same)
			found[before + __popc(lanes & ((1u << lane) - 1))] = thread;
		__syncthreads();
		for (int64_t k = thread; all && k < cols; k += ADD_THREADS) {
			float sum = to[k];
			for (int f = 0; f < all; f++)
				sum += to_float(x[(first + found[f]) * x_stride + k]);
			to[k] = sum;
		} // found is written again behind the next round's first barrier
	}
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int kernel_gather_rows(void *y, int64_t y_stride, enum kernel_type y_type, const void *x, int64_t x_stride,
                                  enum kernel_type x_type, int64_t x_rows, const int32_t *rows, int64_t n, int64_t cols,
                                  kernel_stream stream)
{
	return with_type(y_type, [&](auto y_element) {
		return with_type(x_type, [&](auto x_element) {
			using Y = decltype(y_element);
			using X = decltype(x_element);
			Gather<Y, X> op = {(Y *)y, (const X *)x, rows, y_stride, x_stride, x_rows};
			return run_elementwise(op, n, cols, packs<ELEMENTS>(op.y, y_stride) && packs<ELEMENTS>(op.x, x_stride), false,
			                       stream);
		});
	});
}

extern "C" int kernel_scatter_rows(void *y, int64_t y_stride, enum kernel_type y_type, int64_t y_rows, const void *x,
                                   int64_t x_stride, enum kernel_type x_type, const int32_t *rows, int64_t n,
                                   int64_t cols, kernel_stream stream)
{
	return with_type(y_type, [&](auto y_element) {
		return with_type(x_type, [&](auto x_element) {
			using Y = decltype(y_element);
			using X = decltype(x_element);
			Scatter<Y, X> op = {(Y *)y, (const X *)x, rows, y_stride, x_stride, y_rows};
			return run_elementwise(op, n, cols, packs<ELEMENTS>(op.y, y_stride) && packs<ELEMENTS>(op.x, x_stride), false,
			                       stream);
		});
	});
}

extern "C" int kernel_scatter_rows_add(float *y, int64_t y_stride, int64_t y_rows, const void *x, int64_t x_stride,
                                       enum kernel_type x_type, const int32_t *rows, int64_t n, int64_t cols,
                                       kernel_stream stream)
{
	if (n < 0 || cols < 0 || n > INT32_MAX)
		return BAD_SIZE;
	if (!n || !cols)
		return 0;
	return with_type(x_type, [&](auto element) {
		using X = decltype(element);
		return launch(scatter_add<X>, dim3((unsigned)n), dim3(ADD_THREADS), 0, stream, y, y_stride, y_rows, (const X *)x,
		              x_stride, rows, n, cols);
	});
}
