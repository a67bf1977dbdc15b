// Stands in for the CUDA toolkit's header of this name where kernels are compiled for the CPU: the part of CUDA C++ and
// of the runtime that kernels/ uses, with the meaning that the CUDA programming guide gives it. See emulation.h.
#pragma once

#include "cuda_runtime_api.h"
#include "emulation.h"

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __restrict__ __restrict
#define __launch_bounds__(...)

using std::isfinite;
using std::isinf;
using std::isnan;

using dim3 = emulation::Dim3;

struct alignas(8) float2 {
	float x, y;
};
struct alignas(16) float4 {
	float x, y, z, w;
};
struct alignas(16) uint4 {
	unsigned x, y, z, w;
};

// Where a call stands in the source; the defaults of the functions below are evaluated at the caller.
#define EMULATION_HERE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#define threadIdx  (emulation::thread_index())
#define blockIdx   (emulation::block_index())
#define blockDim   (emulation::block_size())
#define gridDim    (emulation::grid_size())
#define warpSize   32

// ---- barriers

inline void __syncthreads(EMULATION_HERE)
{
	emulation::sync_block({file, line});
}
inline void __syncwarp(unsigned mask = ~0u, EMULATION_HERE)
{
	emulation::sync_warp(mask, {file, line});
}
inline void __threadfence()
{
}

// ---- exchange inside a warp: no memory barrier, as on the device

template <class T> T __shfl_sync(unsigned mask, T value, int lane, int width = 32, EMULATION_HERE)
{
	int self = (int)emulation::lane(), base = self & ~(width - 1);
	T its;
	emulation::warp_exchange(mask, &value, sizeof value, (unsigned)(base + (lane & (width - 1))), &its, {file, line});
	return its;
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int flip, int width = 32, EMULATION_HERE)
{
	int self = (int)emulation::lane(), from = self ^ flip;
	T its;
	emulation::warp_exchange(mask, &value, sizeof value, (unsigned)(from < (self & ~(width - 1)) + width ? from : self), &its,
	                         {file, line});
	return its;
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATION_HERE)
{
	int self = (int)emulation::lane(), from = self - (int)delta;
	T its;
	emulation::warp_exchange(mask, &value, sizeof value, (unsigned)(from >= (self & ~(width - 1)) ? from : self), &its,
	                         {file, line});
	return its;
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = 32, EMULATION_HERE)
{
	int self = (int)emulation::lane(), from = self + (int)delta;
	T its;
	emulation::warp_exchange(mask, &value, sizeof value, (unsigned)(from < (self & ~(width - 1)) + width ? from : self), &its,
	                         {file, line});
	return its;
}
inline unsigned __ballot_sync(unsigned mask, int predicate, EMULATION_HERE)
{
	unsigned all[32], mine = predicate != 0, result = 0;
	emulation::warp_gather(mask, &mine, sizeof mine, all, {file, line});
	for (int i = 0; i < 32; i++)
		result |= mask >> i & 1 ? all[i] << i : 0;
	return result;
}
inline int __any_sync(unsigned mask, int predicate, EMULATION_HERE)
{
	return __ballot_sync(mask, predicate, file, line) != 0;
}
inline int __all_sync(unsigned mask, int predicate, EMULATION_HERE)
{
	return __ballot_sync(mask, predicate, file, line) == mask;
}

// ---- atomics: threads run one at a time, so that a plain update is atomic; ThreadSanitizer is told so

template <class T> T atomicAdd(T *at, typename std::common_type<T>::type value)
{
	emulation::atomic_begin(at);
	T old = *at;
	*at = (T)(old + value);
	emulation::atomic_end(at);
	return old;
}
template <class T> T atomicMax(T *at, typename std::common_type<T>::type value)
{
	emulation::atomic_begin(at);
	T old = *at;
	*at = old < value ? value : old;
	emulation::atomic_end(at);
	return old;
}
template <class T> T atomicMin(T *at, typename std::common_type<T>::type value)
{
	emulation::atomic_begin(at);
	T old = *at;
	*at = value < old ? value : old;
	emulation::atomic_end(at);
	return old;
}

// ---- arithmetic

inline unsigned __float_as_uint(float x)
{
	unsigned bits;
	memcpy(&bits, &x, sizeof bits);
	return bits;
}
inline float __uint_as_float(unsigned bits)
{
	float x;
	memcpy(&x, &bits, sizeof x);
	return x;
}
inline unsigned __umulhi(unsigned a, unsigned b)
{
	return (unsigned)((uint64_t)a * b >> 32);
}
inline int __popc(unsigned x)
{
	return __builtin_popcount(x);
}
inline int __ffs(int x)
{
	return __builtin_ffs(x);
}
inline int __clz(int x)
{
	return x ? __builtin_clz((unsigned)x) : 32;
}
inline float __fmul_rn(float a, float b)
{
	return a * b;
}
inline float __fadd_rn(float a, float b)
{
	return a + b;
}
inline float rsqrtf(float x)
{
	return (float)(1 / std::sqrt((double)x));
}
template <class T> T __ldg(const T *p)
{
	return *p;
}
template <class A, class B> auto min(A a, B b) -> typename std::common_type<A, B>::type
{
	return b < a ? b : a;
}
template <class A, class B> auto max(A a, B b) -> typename std::common_type<A, B>::type
{
	return a < b ? b : a;
}

// ---- the runtime: host calls

enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };

struct cudaFuncAttributes {
	int maxDynamicSharedSizeBytes;
};

template <class Kernel> cudaError_t cudaFuncSetAttribute(Kernel *kernel, cudaFuncAttribute, int bytes)
{
	return (cudaError_t)emulation::remember(emulation::allow_shared((const void *)kernel, bytes) ? cudaErrorInvalidValue
	                                                                                             : cudaSuccess);
}
template <class Kernel> cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *attributes, Kernel *kernel)
{
	attributes->maxDynamicSharedSizeBytes = emulation::allowed_shared((const void *)kernel);
	return cudaSuccess;
}
