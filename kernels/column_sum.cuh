// Sums over the rows of a matrix, in an order that depends on its size alone.
#pragma once

#include "device.cuh"

namespace kernels
{

constexpr int SUM_LINES = 8; // warps of a block, which take rows in turns

// out[chunk][cols] (= or, with ADD, +=) the sum of rows [chunk * chunk_rows, + chunk_rows) of x, one column a lane.
template <class T, bool ADD>
__global__ void __launch_bounds__(32 * SUM_LINES)
	column_sum(float *out, const T *x, int64_t stride, int64_t rows, int64_t cols, int64_t chunk_rows)
{
	SHARED_ARRAY(float, sums, SUM_LINES * 32);
	const int64_t column = (int64_t)blockIdx.x * 32 + threadIdx.x, begin = (int64_t)blockIdx.y * chunk_rows;
	const int64_t end = min(rows, begin + chunk_rows);
	float sum = 0;
	if (column < cols)
		for (int64_t row = begin + threadIdx.y; row < end; row += SUM_LINES)
			sum += to_float(x[row * stride + column]);
	sums[threadIdx.y * 32 + threadIdx.x] = sum;
	__syncthreads();
	if (threadIdx.y == 0 && column < cols) {
		sum = sums[threadIdx.x];
#pragma unroll
		for (int line = 1; line < SUM_LINES; line++)
			sum += sums[line * 32 + threadIdx.x];
		float *to = out + blockIdx.y * cols + column;
		*to = ADD ? *to + sum : sum;
	}
}

// out[cols] += column sums of partials[rows][cols]
inline int add_column_sums(float *out, const float *partials, int64_t rows, int64_t cols, cudaStream_t stream)
{
	return launch(column_sum<float, true>, dim3((unsigned)blocks_for(cols, 32)), dim3(32, SUM_LINES), 0, stream, out,
	              partials, cols, rows, cols, rows);
}

} // namespace kernels
