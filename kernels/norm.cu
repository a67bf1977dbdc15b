// RMSNorm and LayerNorm, forward and backward. A row belongs to a warp (up to 512 columns; then 8 rows share a block) or to a
// block of 128 or 256 threads; it is read again for each pass over it, which its cache serves.
//
// Backward: a block walks over rows and keeps its sums of dweight and dbias in shared memory, where each thread owns its
// columns; then it writes them to scratch [block][cols], and column_sum adds the blocks' in order. Which rows a block has
// depends on the size alone.
#include "column_sum.cuh"
#include "device.cuh"

namespace kernels
{
namespace
{

constexpr int WIDTH = 4;     // elements that a thread moves at once
constexpr int WARP_ROWS = 8; // rows of a block whose rows are warps

// LAYER: LayerNorm, else RMSNorm (mean and bias are NULL then).
template <bool LAYER, class T, int THREADS, bool WIDE>
__global__ void __launch_bounds__(THREADS == 32 ? 32 * WARP_ROWS : THREADS)
	norm_forward(T *y, int64_t y_stride, float *mean, float *rstd, const float *x, int64_t x_stride, const float *weight,
                 const float *bias, float eps, int64_t rows, int cols)
{
	SHARED_ARRAY(float, partial, THREADS / 32);
	int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y;
	if (row >= rows)
		return; /* a whole warp */
	x += row * x_stride;
	y += row * y_stride;
	const int first = (int)threadIdx.x * WIDTH, step = THREADS * WIDTH;
	float v[WIDTH], w[WIDTH], m = 0, squares = 0;
	if constexpr (LAYER) {
		float sum = 0;
		for (int k = first; k < cols; k += step) {
			load_part<WIDE>(v, x + k, cols - k);
#pragma unroll
			for (int i = 0; i < WIDTH; i++)
				sum += v[i];
		}
		m = row_sum<THREADS>(sum, partial) / (float)cols;
	}
	for (int k = first; k < cols; k += step) {
		load_part<WIDE>(v, x + k, cols - k);
#pragma unroll
		for (int i = 0; i < WIDTH; i++)
			squares += WIDE || i < cols - k ? (v[i] - m) * (v[i] - m) : 0.0f;
	}
	float r = 1.0f / sqrtf(row_sum<THREADS>(squares, partial) / (float)cols + eps);
	if (threadIdx.x == 0) {
		rstd[row] = r;
		if constexpr (LAYER)
			mean[row] = m;
	}
	for (int k = first; k < cols; k += step) {
		load_part<WIDE>(v, x + k, cols - k);
		load_part<WIDE>(w, weight + k, cols - k);
#pragma unroll
		for (int i = 0; i < WIDTH; i++)
			v[i] = (v[i] - m) * r * w[i];
		if constexpr (LAYER) {
			load_part<WIDE>(w, bias + k, cols - k);
#pragma unroll
			for (int i = 0; i < WIDTH; i++)
				v[i] += w[i];
		}
		store_part<WIDE>(y + k, v, cols - k);
	}
}

// With n = (x - mean) rstd and g = weight dy: dx += rstd (g - mean(g) - n mean(g n)), without mean(g) for RMSNorm;
// dweight = sum dy n, dbias = sum dy. partials: [2][gridDim.x][cols] (dweight, then dbias), or NULL.
template <bool LAYER, class T, int THREADS, bool WIDE>
__global__ void __launch_bounds__(THREADS == 32 ? 32 * WARP_ROWS : THREADS)
	norm_backward(float *dx, int64_t dx_stride, float *partials, const T *dy, int64_t dy_stride, const float *x,
                  int64_t x_stride, const float *weight, const float *mean, const float *rstd, int64_t rows, int cols)
{
	SHARED_ARRAY(float, partial, THREADS / 32);
	const int first = (int)threadIdx.x * WIDTH, step = THREADS * WIDTH;
	float *own_weight = nullptr, *own_bias = nullptr; // this row of threads' sums
	if (partials) {
		DYNAMIC_SHARED(float, sums); // [blockDim.y][cols] of dweight, for LayerNorm the same of dbias
		own_weight = sums + (int64_t)threadIdx.y * cols;
		own_bias = own_weight + (int64_t)blockDim.y * cols;
		const float zeros[WIDTH] = {};
		for (int k = first; k < cols; k += step) {
			store_part<WIDE>(own_weight + k, zeros, cols - k);
			if constexpr (LAYER)
				store_part<WIDE>(own_bias + k, zeros, cols - k);
		}
	}
	for (int64_t row = (int64_t)blockIdx.x * blockDim.y + threadIdx.y; row < rows; row += (int64_t)gridDim.x * blockDim.y) {
		const float *xr = x + row * x_stride;
		const T *dyr = dy + row * dy_stride;
		float *dxr = dx + row * dx_stride;
		const float r = rstd[row];
		float m = 0, sum_g = 0, sum_gn = 0, v[WIDTH], d[WIDTH], w[WIDTH], o[WIDTH];
		if constexpr (LAYER)
			m = mean[row];
		for (int k = first; k < cols; k += step) {
			load_part<WIDE>(v, xr + k, cols - k);
			load_part<WIDE>(d, dyr + k, cols - k);
			load_part<WIDE>(w, weight + k, cols - k);
#pragma unroll
			for (int i = 0; i < WIDTH; i++) {
				float g = w[i] * d[i];
				sum_g += g;
				sum_gn += g * ((v[i] - m) * r);
			}
		}
		const float mean_gn = row_sum<THREADS>(sum_gn, partial) / (float)cols;
		const float mean_g = LAYER ? row_sum<THREADS>(sum_g, partial) / (float)cols : 0.0f;
		for (int k = first; k < cols; k += step) {
			load_part<WIDE>(v, xr + k, cols - k);
			load_part<WIDE>(d, dyr + k, cols - k);
			load_part<WIDE>(w, weight + k, cols - k);
			load_part<WIDE>(o, dxr + k, cols - k);
			float n[WIDTH];
#pragma unroll
			for (int i = 0; i < WIDTH; i++) {
				n[i] = (v[i] - m) * r;
				o[i] += r * (w[i] * d[i] - mean_g - n[i] * mean_gn);
			}
			store_part<WIDE>(dxr + k, o, cols - k);
			if (partials) {
				load_part<WIDE>(o, own_weight + k, cols - k);
#pragma unroll
				for (int i = 0; i < WIDTH; i++)
					o[i] += d[i] * n[i];
				store_part<WIDE>(own_weight + k, o, cols - k);
			}
			if (LAYER && partials) {
				load_part<WIDE>(o, own_bias + k, cols - k);
#pragma unroll
				for (int i = 0; i < WIDTH; i++)
					o[i] += d[i];
				store_part<WIDE>(own_bias + k, o, cols - k);
			}
		}
	}
	if (!partials)
		return;
	__syncthreads();
	DYNAMIC_SHARED(float, sums);
	const int thread = (int)(threadIdx.y * blockDim.x + threadIdx.x), threads = (int)(blockDim.x * blockDim.y);
	for (int which = 0; which < (LAYER ? 2 : 1); which++)
		for (int k = thread; k < cols; k += threads) {
			float sum = 0;
			for (int y = 0; y < (int)blockDim.y; y++)
				sum += sums[((int64_t)which * blockDim.y + y) * cols + k];
			partials[((int64_t)which * gridDim.x + blockIdx.x) * cols + k] = sum;
		}
}

int64_t backward_blocks(int64_t rows, int64_t cols)
{
	int64_t blocks = cols <= 512 ? blocks_for(rows, WARP_ROWS) : rows, most = 264; // two for each of 132 multiprocessors
	return blocks < most ? blocks : most;
}

template <bool LAYER, class T>
int forward(T *y, int64_t y_stride, float *mean, float *rstd, const float *x, int64_t x_stride, const float *weight,
            const float *bias, float eps, int64_t rows, int64_t cols, cudaStream_t stream)
{
	if (rows < 0 || cols < 0 || cols > INT32_MAX)
		return BAD_SIZE;
	if (!rows || !cols)
		return 0;
	bool wide = cols % WIDTH == 0 && packs<WIDTH>(y, y_stride) && packs<WIDTH>(x, x_stride) &&
	            packs<WIDTH>(weight, WIDTH) && (!LAYER || packs<WIDTH>(bias, WIDTH));
	auto run = [&](auto threads, auto wide_access) {
		constexpr int THREADS = decltype(threads)::value, ROWS = THREADS == 32 ? WARP_ROWS : 1;
		constexpr bool WIDE = decltype(wide_access)::value;
		return launch(norm_forward<LAYER, T, THREADS, WIDE>, dim3((unsigned)blocks_for(rows, ROWS)), dim3(THREADS, ROWS), 0,
		              stream, y, y_stride, mean, rstd, x, x_stride, weight, bias, eps, rows, (int)cols);
	};
	return with_row_threads(cols, wide, run);
}

template <bool LAYER, class T>
int backward(float *dx, int64_t dx_stride, float *dweight, float *dbias, const T *dy, int64_t dy_stride, const float *x,
             int64_t x_stride, const float *weight, const float *mean, const float *rstd, float *scratch, int64_t rows,
             int64_t cols, cudaStream_t stream)
{
	if (rows < 0 || cols < 0 || cols > KERNEL_NORM_COLS)
		return BAD_SIZE;
	if (!rows || !cols)
		return 0;
	bool sums = dweight || dbias;
	bool wide = cols % WIDTH == 0 && packs<WIDTH>(dx, dx_stride) && packs<WIDTH>(dy, dy_stride) &&
	            packs<WIDTH>(x, x_stride) && packs<WIDTH>(weight, WIDTH);
	int64_t blocks = backward_blocks(rows, cols);
	auto run = [&](auto threads, auto wide_access) {
		constexpr int THREADS = decltype(threads)::value, ROWS = THREADS == 32 ? WARP_ROWS : 1;
		constexpr bool WIDE = decltype(wide_access)::value;
		size_t shared = sums ? (size_t)(LAYER ? 2 : 1) * ROWS * (size_t)cols * sizeof(float) : 0;
		return launch(norm_backward<LAYER, T, THREADS, WIDE>, dim3((unsigned)blocks), dim3(THREADS, ROWS), shared, stream,
		              dx, dx_stride, sums ? scratch : nullptr, dy, dy_stride, x, x_stride, weight, mean, rstd, rows,
		              (int)cols);
	};
	int code = with_row_threads(cols, wide, run);
	if (!code && dweight)
		code = add_column_sums(dweight, scratch, blocks, cols, stream);
	if (!code && dbias)
		code = add_column_sums(dbias, scratch + blocks * cols, blocks, cols, stream);
	return code;
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int64_t kernel_norm_scratch(int64_t rows, int64_t cols)
{
	return 2 * backward_blocks(rows, cols) * cols;
}

extern "C" int kernel_rmsnorm(void *y, enum kernel_type type, int64_t y_stride, float *rstd, const float *x,
                              int64_t x_stride, const float *weight, float eps, int64_t rows, int64_t cols,
                              kernel_stream stream)
{
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		return forward<false>((T *)y, y_stride, nullptr, rstd, x, x_stride, weight, nullptr, eps, rows, cols, stream);
	});
}

extern "C" int kernel_layernorm(void *y, enum kernel_type type, int64_t y_stride, float *mean, float *rstd,
                                const float *x, int64_t x_stride, const float *weight, const float *bias, float eps,
                                int64_t rows, int64_t cols, kernel_stream stream)
{
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		return forward<true>((T *)y, y_stride, mean, rstd, x, x_stride, weight, bias, eps, rows, cols, stream);
	});
}

extern "C" int kernel_rmsnorm_backward(float *dx, int64_t dx_stride, float *dweight, const void *dy,
                                       enum kernel_type type, int64_t dy_stride, const float *x, int64_t x_stride,
                                       const float *weight, const float *rstd, float *scratch, int64_t rows,
                                       int64_t cols, kernel_stream stream)
{
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		return backward<false>(dx, dx_stride, dweight, nullptr, (const T *)dy, dy_stride, x, x_stride, weight, nullptr,
		                       rstd, scratch, rows, cols, stream);
	});
}

extern "C" int kernel_layernorm_backward(float *dx, int64_t dx_stride, float *dweight, float *dbias, const void *dy,
                                         enum kernel_type type, int64_t dy_stride, const float *x, int64_t x_stride,
                                         const float *weight, const float *mean, const float *rstd, float *scratch,
                                         int64_t rows, int64_t cols, kernel_stream stream)
{
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		return backward<true>(dx, dx_stride, dweight, dbias, (const T *)dy, dy_stride, x, x_stride, weight, mean, rstd,
		                      scratch, rows, cols, stream);
	});
}
