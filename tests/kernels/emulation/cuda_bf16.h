// Stands in for the CUDA toolkit's header of this name: the bfloat16 type and its conversions, rounding to nearest even.
#pragma once

#include "cuda_runtime.h"

struct __nv_bfloat16 {
	unsigned short bits;
};
struct alignas(4) __nv_bfloat162 {
	__nv_bfloat16 x, y;
};

inline float __bfloat162float(__nv_bfloat16 x)
{
	return __uint_as_float((unsigned)x.bits << 16);
}
inline __nv_bfloat16 __float2bfloat16_rn(float x)
{
	unsigned bits = __float_as_uint(x);
	if ((bits & 0x7fffffff) > 0x7f800000)
		return {0x7fff};
	return {(unsigned short)((bits + 0x7fff + (bits >> 16 & 1)) >> 16)};
}
inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
	return {__float2bfloat16_rn(x), __float2bfloat16_rn(y)};
}
