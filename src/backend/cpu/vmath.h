/* Elementary functions on single floats for loops that the compiler vectorises. Every step is a correctly rounded
 * operation (fused multiply-adds are written out), so that the vector loop, its scalar tail and any two compilers give
 * the same bits. */
#ifndef FAVOR_BACKEND_VMATH_H
#define FAVOR_BACKEND_VMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t vmath_bits(float f)
{
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	return bits;
}

static inline float vmath_float(uint32_t bits)
{
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

/* e^x within 2 ulp for -87.33 <= x <= 88.72; 0 below (no denormal results: they cost a hundred cycles each), infinity
 * above, NaN stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2;  e^r = 1 + r + r^2 P(r), P a minimax polynomial of
 * degree 4. */
static inline float vexp(float x)
{
	const float to_integer = 0x1.8p23f; /* adding it rounds to the nearest integer, left in the low bits */
	float shifted = fmaf(x, 0x1.715476p0f, to_integer), n = shifted - to_integer;
	float r = fmaf(n, -0x1.62e400p-1f, x);
	r = fmaf(n, -0x1.7f7d1cp-20f, r);
	float p = 0x1.6a23cep-10f;
	p = fmaf(p, r, 0x1.123a20p-7f);
	p = fmaf(p, r, 0x1.5558f2p-5f);
	p = fmaf(p, r, 0x1.555492p-3f);
	p = fmaf(p, r, 0x1.fffffcp-2f);
	p = fmaf(p * r, r, r) + 1.0f;
	float y = vmath_float(vmath_bits(p) + (vmath_bits(shifted) << 23)); /* p 2^n */
	y = x < -87.33f ? 0.0f : y;
	return x <= 88.722832f ? y : x + INFINITY;
}

#endif
