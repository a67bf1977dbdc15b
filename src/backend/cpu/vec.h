/* One vector register of floats, as wide as the machine has them, for the dense kernels (tile.c, own_product.c). */
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

/* From bfloat16. */
ALWAYS_INLINE vec vec_widen(const uint16_t *from)
{
#if defined __AVX2__ && !defined __AVX512F__
	return (vec)_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)from)), 16);
#endif
	typedef uint16_t halves __attribute__((vector_size(2 * TILE_LANES)));
	typedef uint32_t words __attribute__((vector_size(4 * TILE_LANES)));
	halves h;
	memcpy(&h, from, sizeof h);
	return (vec)(__builtin_convertvector(h, words) << 16);
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

#endif
