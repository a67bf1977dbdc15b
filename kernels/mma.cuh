// Tensor cores: each instruction in one function, which on the CPU exchanges the fragments through the warp and does what PTX's
// documentation says. All lanes of a warp call together.
//
// Fragments of mma.m16n8k16 (g = lane / 4, q = lane % 4; two bfloat16 a register, the one with the lower index in the low half):
//   A[16,16], 4 registers: a[0] row g, columns 2q, 2q+1 | a[1] row g+8, the same | a[2] row g, columns 2q+8, 2q+9 | a[3] row g+8, ..
//   B[16,8],  2 registers: b[0] rows 2q, 2q+1 of column g | b[1] rows 2q+8, 2q+9 of column g
//   C[16,8],  4 floats:    c[0], c[1] row g, columns 2q, 2q+1 | c[2], c[3] row g+8, the same
#pragma once

#include <cuda_pipeline.h>

#include "device.cuh"

namespace kernels
{

// Two numbers as a register of a fragment, rounded to nearest even.
__device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
	__nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
	uint32_t bits;
	memcpy(&bits, &pair, sizeof bits);
	return bits;
}

#ifndef __CUDACC__
inline float fragment_value(uint32_t pair, int which)
{
	return __uint_as_float(which ? pair & 0xffff0000u : pair << 16);
}
// The address that a lane gave ldmatrix.
inline const void *row_address(const unsigned char *given, int lane)
{
	const void *row;
	memcpy(&row, given + lane * emulation::GATHER_STRIDE, sizeof row);
	return emulation::aligned(row, 16);
}
#endif

// c += A B in float32
__device__ __forceinline__ void mma_16x8x16(float (&c)[4], const uint32_t (&a)[4], const uint32_t (&b)[2])
{
#ifdef __CUDACC__
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
	             "{%0, %1, %2, %3};"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
	struct alignas(emulation::GATHER_STRIDE) Fragments {
		uint32_t a[4], b[2];
	} mine;
	memcpy(mine.a, a, sizeof mine.a);
	memcpy(mine.b, b, sizeof mine.b);
	const Fragments *all = reinterpret_cast<const Fragments *>(
		emulation::warp_view(ALL_LANES, &mine, sizeof mine.a + sizeof mine.b, {__FILE__, __LINE__}));
	const int g = (int)emulation::lane() / 4, q = (int)emulation::lane() % 4;
	float sum[4] = {};
	for (int k = 0; k < 16; k++) {
		const int owner = k % 8 / 2; // q of the lane that has this k
		for (int i = 0; i < 4; i++) {
			const int row = g + i / 2 * 8, column = 2 * q + i % 2;
			sum[i] += fragment_value(all[row % 8 * 4 + owner].a[row / 8 + k / 8 * 2], k % 2) *
			          fragment_value(all[column * 4 + owner].b[k / 8], k % 2);
		}
	}
	for (int i = 0; i < 4; i++)
		c[i] += sum[i];
#endif
}

// Four 8x8 matrices of bfloat16 from shared memory: lane i gives the address (16-byte aligned) of row i % 8 of matrix i / 8;
// r[m] = row g, columns 2q, 2q+1 of matrix m. So the A fragment of a row-major 16x16 tile is had with lane i at row i % 16, column
// i / 16 * 8.
__device__ __forceinline__ void ldmatrix_x4(uint32_t (&r)[4], const void *row)
{
#ifdef __CUDACC__
	uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
	             : "r"(address)
	             : "memory");
#else
	const unsigned char *rows = emulation::warp_view(ALL_LANES, &row, sizeof row, {__FILE__, __LINE__});
	const int g = (int)emulation::lane() / 4, q = (int)emulation::lane() % 4;
	for (int m = 0; m < 4; m++)
		r[m] = static_cast<const uint32_t *>(row_address(rows, m * 8 + g))[q];
#endif
}

// The same with each matrix transposed: r[m] = rows 2q, 2q+1 of column g of matrix m.
__device__ __forceinline__ void ldmatrix_x4_transposed(uint32_t (&r)[4], const void *row)
{
#ifdef __CUDACC__
	uint32_t address = (uint32_t)__cvta_generic_to_shared(row);
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
	             : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
	             : "r"(address)
	             : "memory");
#else
	const unsigned char *rows = emulation::warp_view(ALL_LANES, &row, sizeof row, {__FILE__, __LINE__});
	const int g = (int)emulation::lane() / 4, q = (int)emulation::lane() % 4;
	for (int m = 0; m < 4; m++) {
		uint32_t low = static_cast<const uint16_t *>(row_address(rows, m * 8 + 2 * q))[g];
		uint32_t high = static_cast<const uint16_t *>(row_address(rows, m * 8 + 2 * q + 1))[g];
		r[m] = low | high << 16;
	}
#endif
}

// ---- copies from global to shared memory that run while the thread goes on (cp.async): 16 aligned bytes each. Commit ends a group;
// wait_copies<N> waits for all of this thread's groups but the newest N; other threads see them after a barrier.

__device__ __forceinline__ void copy_async_16(void *shared, const void *global)
{
	__pipeline_memcpy_async(shared, global, 16);
}
// Only the first `bytes` (0 to 16) are read; the rest becomes 0.
__device__ __forceinline__ void copy_async_16_part(void *shared, const void *global, int bytes)
{
	__pipeline_memcpy_async(shared, global, 16, 16 - (size_t)bytes);
}
__device__ __forceinline__ void commit_copies()
{
	__pipeline_commit();
}
template <int N> __device__ __forceinline__ void wait_copies()
{
	__pipeline_wait_prior(N);
}

} // namespace kernels
