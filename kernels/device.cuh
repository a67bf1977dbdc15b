// What all kernels share: the element types, loads and stores of several elements at once, sums over a warp and a block,
// shared memory, launching. One source for nvcc and for the CPU: the toolkit's headers are included by their names, and
// the tests put stand-ins in their place (tests/kernels/emulation). Only four things need a word of their own here:
// shared arrays, traps, wide accesses and launches.
#pragma once

#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <stdint.h>
#include <stdio.h>

#include "kernels.h"

// SHARED_ARRAY(T, name, n): T name[n] in the block's shared memory. DYNAMIC_SHARED(T, name): the bytes that the launch asked for.
// Once a function; contents are undefined at first.
// device_trap(format, ...): says what is wrong and fails the launch.
#ifdef __CUDACC__
#define SHARED_ARRAY(T, name, n) __shared__ T name[n]
#define DYNAMIC_SHARED(T, name)                                                                                        \
	extern __shared__ __align__(128) unsigned char dynamic_shared_bytes[];                                             \
	T *name = reinterpret_cast<T *>(dynamic_shared_bytes)
#define device_trap(...) (printf(__VA_ARGS__), __trap())
#else
#define SHARED_ARRAY(T, name, n)                                                                                       \
	static const char name##_site = 0;                                                                                 \
	T(&name)[n] = *static_cast<T(*)[n]>(emulation::shared_array(&name##_site, sizeof(T[n]), alignof(T), {__FILE__, __LINE__}))
#define DYNAMIC_SHARED(T, name) T *name = static_cast<T *>(emulation::dynamic_shared())
#define device_trap(...) emulation::trap(__VA_ARGS__)
#endif

namespace kernels
{

using bf16 = __nv_bfloat16;

constexpr unsigned ALL_LANES = 0xffffffffu;

// ---- elements

__device__ __forceinline__ float to_float(float x)
{
	return x;
}
__device__ __forceinline__ float to_float(bf16 x)
{
	return __bfloat162float(x);
}

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x)
{
	return x;
}
template <> __device__ __forceinline__ bf16 from_float<bf16>(float x)
{
	return __float2bfloat16_rn(x);
}

// What lies at p, by one access of all its bytes. p is aligned to them: a GPU stops the kernel if it is not.
template <class Access, class T> __device__ __forceinline__ Access &wide_access(T *p)
{
#ifndef __CUDACC__
	emulation::aligned(p, alignof(Access));
#endif
	return *reinterpret_cast<Access *>(p);
}

// N elements that are moved by accesses of up to 16 bytes.
template <class T, int N> struct Pack {
	static constexpr int BYTES = N * (int)sizeof(T), ACCESS = BYTES < 16 ? BYTES : 16, PER_ACCESS = ACCESS / (int)sizeof(T);
	struct alignas(ACCESS) Access {
		T element[PER_ACCESS];
	};
};

// x[0..N) = the N elements at p, which is aligned to min(16, N sizeof(T)) bytes.
template <int N, class T> __device__ __forceinline__ void load(float (&x)[N], const T *p)
{
	using P = Pack<T, N>;
#pragma unroll
	for (int a = 0; a < N / P::PER_ACCESS; a++) {
		typename P::Access access = wide_access<const typename P::Access>(p + a * P::PER_ACCESS);
#pragma unroll
		for (int i = 0; i < P::PER_ACCESS; i++)
			x[a * P::PER_ACCESS + i] = to_float(access.element[i]);
	}
}

template <int N, class T> __device__ __forceinline__ void store(T *p, const float (&x)[N])
{
	using P = Pack<T, N>;
#pragma unroll
	for (int a = 0; a < N / P::PER_ACCESS; a++) {
		typename P::Access access;
#pragma unroll
		for (int i = 0; i < P::PER_ACCESS; i++)
			access.element[i] = from_float<T>(x[a * P::PER_ACCESS + i]);
		wide_access<typename P::Access>(p + a * P::PER_ACCESS) = access;
	}
}

// The same where alignment allows no such access (WIDE false), or the row has only `left` elements more: those beyond are 0, and
// not stored. Which thread has which elements, and so the order of sums, does not depend on WIDE.
template <bool WIDE, int N, class T> __device__ __forceinline__ void load_part(float (&x)[N], const T *p, int left)
{
	if constexpr (WIDE) {
		load(x, p);
	} else {
#pragma unroll
		for (int i = 0; i < N; i++)
			x[i] = i < left ? to_float(p[i]) : 0.0f;
	}
}

template <bool WIDE, int N, class T> __device__ __forceinline__ void store_part(T *p, const float (&x)[N], int left)
{
	if constexpr (WIDE) {
		store(p, x);
	} else {
#pragma unroll
		for (int i = 0; i < N; i++)
			if (i < left)
				p[i] = from_float<T>(x[i]);
	}
}

// Whether rows that begin at p and lie `stride` elements apart can be read N elements at a time.
template <int N, class T> inline bool packs(const T *p, int64_t stride)
{
	return (uintptr_t)p % Pack<T, N>::ACCESS == 0 && stride * (int64_t)sizeof(T) % Pack<T, N>::ACCESS == 0;
}

// ---- sums: all threads get the same bits, in an order that depends on nothing but the number of threads

__device__ __forceinline__ float warp_sum(float x)
{
#pragma unroll
	for (int flip = 16; flip; flip /= 2)
		x += __shfl_xor_sync(ALL_LANES, x, flip);
	return x;
}

// Over the block's first dimension, THREADS wide (a multiple of 32); blockDim.y rows of threads are summed apart if THREADS is 32,
// else there is one. partial: THREADS / 32 floats of shared memory, free again on return.
template <int THREADS> __device__ __forceinline__ float row_sum(float x, float *partial)
{
	x = warp_sum(x);
	if constexpr (THREADS > 32) {
		constexpr int WARPS = THREADS / 32;
		if (threadIdx.x % 32 == 0)
			partial[threadIdx.x / 32] = x;
		__syncthreads();
		x = 0;
#pragma unroll
		for (int w = 0; w < WARPS; w++)
			x += partial[w];
		__syncthreads();
	}
	return x;
}

// ---- launching

inline int64_t blocks_for(int64_t n, int64_t per_block)
{
	return (n + per_block - 1) / per_block;
}

// A block may have 48 KiB of shared memory, its arrays counted in, unless more is opted in to. No kernel here has more than this in arrays.
constexpr size_t SHARED_ARRAYS = 8 * 1024, SHARED_FREELY = 48 * 1024 - SHARED_ARRAYS;

// Runs kernel<<<grid, block, shared, stream>>>(arguments...); returns a cudaError_t. Opts in to as much shared memory as is wanted. What a kernel
// has been allowed is never lowered: a recorded launch of it may want more than this one.
template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t shared, cudaStream_t stream,
           Arguments... arguments)
{
	if (shared > SHARED_FREELY) {
		cudaFuncAttributes now;
		cudaError_t code = cudaFuncGetAttributes(&now, kernel);
		const int allowed = now.maxDynamicSharedSizeBytes, most = (int)shared > allowed ? (int)shared : allowed;
		if (code == cudaSuccess)
			code = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
		if (code != cudaSuccess) {
			cudaGetLastError(); // or the next launch would be taken for the one that failed
			return (int)code;
		}
	}
#ifdef __CUDACC__
	kernel<<<grid, block, shared, stream>>>(static_cast<Parameters>(arguments)...);
	return (int)cudaGetLastError();
#else
	const emulation::Argument list[] = {{&arguments, sizeof arguments}...};
	emulation::run({reinterpret_cast<const void *>(kernel), grid, block, shared, stream,
	                [=] { kernel(static_cast<Parameters>(arguments)...); }},
	               list, sizeof...(arguments));
	return (int)cudaGetLastError();
#endif
}

constexpr int BAD_SIZE = (int)cudaErrorInvalidValue;

template <int N> struct Constant {
	static constexpr int value = N;
};

// run(T()) for the element type that `type` names.
template <class Run> int with_type(enum kernel_type type, Run run)
{
	switch (type) {
	case KERNEL_F32: return run(float());
	case KERNEL_BF16: return run(bf16());
	}
	return BAD_SIZE;
}

// run(threads of a row, whether accesses are wide) as constants, for rows of `cols` columns.
template <class Run> int with_row_threads(int64_t cols, bool wide, Run run)
{
	if (wide)
		return cols <= 512    ? run(Constant<32>(), Constant<true>())
		       : cols <= 2048 ? run(Constant<128>(), Constant<true>())
		                      : run(Constant<256>(), Constant<true>());
	return cols <= 512    ? run(Constant<32>(), Constant<false>())
	       : cols <= 2048 ? run(Constant<128>(), Constant<false>())
	                      : run(Constant<256>(), Constant<false>());
}

} // namespace kernels
