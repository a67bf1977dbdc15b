/* Elementary functions on single floats for loops that the compiler vectorises. Every step is a correctly rounded
 * operation (fused multiply-adds are written out), so that the vector loop, its scalar tail and any two compilers give the
 * same bits. */
#ifndef FAVOR_BACKEND_VMATH_H
#define FAVOR_BACKEND_VMATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

static inline int32_t vmath_bits(float f)
{
	int32_t bits;
	memcpy(&bits, &f, sizeof bits);
	return bits;
}

static inline float vmath_power_of_two(int32_t n) /* -126 <= n <= 127 */
{
	uint32_t bits = (uint32_t)(n + 127) << 23;
	float f;
	memcpy(&f, &bits, sizeof f);
	return f;
}

/* e^x within 2 ulp (denormal results too); 0 below -104, infinity above 88.73, NaN stays NaN.
 * x = n ln 2 + r with |r| <= ln 2 / 2;  e^r = 1 + r + r^2 P(r), P of degree 4, minimax on that interval. */
static inline float vexp(float x)
{
	const float to_integer = 0x1.8p23f; /* adding it rounds to the nearest integer, left in the low bits */
	float in = x < -104.0f ? -104.0f : x;
	in = in > 89.0f ? 89.0f : in;
	float shifted = fmaf(in, 0x1.715476p0f, to_integer), n = shifted - to_integer;
	float r = fmaf(n, -0x1.62e400p-1f, in);
	r = fmaf(n, -0x1.7f7d1cp-20f, r);
	float p = 0x1.6a23cep-10f;
	p = fmaf(p, r, 0x1.123a20p-7f);
	p = fmaf(p, r, 0x1.5558f2p-5f);
	p = fmaf(p, r, 0x1.555492p-3f);
	p = fmaf(p, r, 0x1.fffffcp-2f);
	p = fmaf(p * r, r, r) + 1.0f;
	/* 2^n in two factors: n reaches -150 and 128; the first product is exact, so the result is rounded once */
	int32_t e = vmath_bits(shifted) - vmath_bits(to_integer), half = e >> 1;
	return p * vmath_power_of_two(half) * vmath_power_of_two(e - half);
}

#endif
