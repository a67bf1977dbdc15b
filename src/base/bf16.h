/* bfloat16: the upper half of a float's bits. */
#ifndef FAVOR_BASE_BF16_H
#define FAVOR_BASE_BF16_H

#include <stdint.h>
#include <string.h>

/* Nearest, ties to even; NaN stays NaN. */
static inline uint16_t bf16_of(float f)
{
	uint32_t u;
	memcpy(&u, &f, sizeof u);
	uint32_t rounded = (u + 0x7fff + (u >> 16 & 1)) >> 16, nan = u >> 16 | 0x40;
	return (uint16_t)((u & 0x7fffffff) > 0x7f800000 ? nan : rounded);
}

static inline float bf16_float(uint16_t h)
{
	uint32_t u = (uint32_t)h << 16;
	float f;
	memcpy(&f, &u, sizeof f);
	return f;
}

/* The nearest number that bfloat16 has. */
static inline float bf16_round(float f)
{
	return bf16_float(bf16_of(f));
}

/* Two of them, the first in the lower half. */
static inline uint32_t bf16_pair(float first, float second)
{
	return bf16_of(first) | (uint32_t)bf16_of(second) << 16;
}

#endif
