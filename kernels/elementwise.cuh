// How kernels run that treat elements one by one: an operation is a value with pointers in it; a thread gives it ELEMENTS consecutive
// elements of a row at a time. Nothing depends on how elements are dealt to threads.
#pragma once

#include "device.cuh"

namespace kernels
{

constexpr int ELEMENTS = 8;

// op.run<WIDE>(row, k, left): elements [k, k + min(ELEMENTS, left)) of a row; WIDE: all ELEMENTS, by wide accesses.
template <bool WIDE, class Op> __global__ void __launch_bounds__(256) elementwise(Op op, int64_t rows, int64_t cols)
{
	const int64_t k = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * ELEMENTS, left = cols - k;
	if (left <= 0)
		return;
	for (int64_t row = (int64_t)blockIdx.y * blockDim.y + threadIdx.y; row < rows; row += (int64_t)gridDim.y * blockDim.y) {
		if (WIDE && left >= ELEMENTS)
			op.template run<WIDE>(row, k, ELEMENTS);
		else
			op.template run<false>(row, k, left < ELEMENTS ? (int)left : ELEMENTS);
	}
}

// wide: every row of every operand can be accessed ELEMENTS at a time. flat: rows follow one another without a gap in every operand,
// and no operand differs between columns: the whole is treated as one row.
template <class Op> int run_elementwise(Op op, int64_t rows, int64_t cols, bool wide, bool flat, cudaStream_t stream)
{
	if (rows < 0 || cols < 0)
		return BAD_SIZE;
	if (!rows || !cols)
		return 0;
	if (flat) {
		cols *= rows;
		rows = 1;
	}
	int64_t groups = blocks_for(cols, ELEMENTS);
	unsigned width = 1;
	while (width < 256 && width < groups)
		width *= 2;
	unsigned height = 256 / width;
	int64_t across = blocks_for(groups, width), down = blocks_for(rows, height);
	if (across > INT32_MAX)
		return BAD_SIZE;
	dim3 grid((unsigned)across, (unsigned)(down < 65535 ? down : 65535)), block(width, height);
	return wide ? launch(elementwise<true, Op>, grid, block, 0, stream, op, rows, cols)
	            : launch(elementwise<false, Op>, grid, block, 0, stream, op, rows, cols);
}

} // namespace kernels
