/* One vector register of floats, as wide as the machine has them, for the dense kernels (tile.c, product.c). */
#ifndef FAVOR_BACKEND_CPU_VEC_H
#define FAVOR_BACKEND_CPU_VEC_H

#include "backend/cpu/tile.h"

#include <math.h>
#include <string.h>
#if defined __AVX512F__ || (defined __AVX2__ && defined __FMA__)
#include <immintrin.h>
#endif

typedef float vec __attribute__((vector_size(4 * TILE_LANES)));
typedef float vec_anywhere __attribute__((vector_size(4 * TILE_LANES), aligned(4), may_alias));

#define ALWAYS_INLINE static inline __attribute__((always_inline))

ALWAYS_INLINE vec vec_load(const float *from)
{
	return (vec) * (const vec_anywhere *)from;
}

/* The same, into a register, to be used several times: compilers that fold the load into each use make the load ports
 * the limit. */
ALWAYS_INLINE vec vec_load_once(const float *from)
{
	vec v = vec_load(from);
#if defined __AVX512F__
	__asm__("" : "+v"(v));
#elif defined __AVX2__ && defined __FMA__
	__asm__("" : "+x"(v));
#endif
	return v;
}

ALWAYS_INLINE void vec_store(float *to, vec v)
{
	*(vec_anywhere *)to = v;
}

ALWAYS_INLINE vec vec_all(float x)
{
	return x - (vec){0};
}

/* a b + c, rounded once. Spelled out, because compilers differ in where they contract a product and a sum. */
ALWAYS_INLINE vec vec_fused(vec a, vec b, vec c)
{
#if defined __AVX512F__
	return (vec)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined __AVX2__ && defined __FMA__
	return (vec)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
	for (int l = 0; l < TILE_LANES; l++)
		c[l] = fmaf(a[l], b[l], c[l]);
	return c;
#endif
}

/* Lanes that each hold a pair of bfloat16, the first in the lower half. */
typedef uint32_t vec_words __attribute__((vector_size(4 * TILE_LANES)));

ALWAYS_INLINE vec vec_all_pairs(uint32_t pair)
{
	return (vec)(pair - (vec_words){0});
}

/* a.second b.second + (a.first b.first + c)'s parts in the order of the instruction: first the second numbers are
 * multiplied and added, rounded once, then the first ones. (Intel's manual, VDPBF16PS. The instruction takes subnormal
 * numbers as 0, which this does not.) */
ALWAYS_INLINE vec vec_fused_pairs(vec a, vec b, vec c)
{
#if defined __AVX512BF16__
	return (vec)_mm512_dpbf16_ps((__m512)c, (__m512bh)a, (__m512bh)b);
#else
	const vec_words second = (vec_words){0} + 0xffff0000u;
	c = vec_fused((vec)((vec_words)a & second), (vec)((vec_words)b & second), c);
	return vec_fused((vec)((vec_words)a << 16), (vec)((vec_words)b << 16), c);
#endif
}

#endif
