/* Philox4x32-10: ten rounds of multiply and key on a 128-bit counter. */
#include "base/rng.h"

#include <math.h>

void rng_words(uint64_t seed, enum rng_domain domain, uint64_t index, uint32_t response, uint32_t position,
               uint32_t words[4])
{
	uint32_t c0 = position, c1 = response, c2 = (uint32_t)index,
	         c3 = (uint32_t)(index >> 32) ^ ((uint32_t)domain << 24);
	uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
	for (int round = 0; round < 10; round++) {
		uint64_t p0 = (uint64_t)0xD2511F53u * c0, p1 = (uint64_t)0xCD9E8D57u * c2;
		uint32_t n0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0, n2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
		c1 = (uint32_t)p1;
		c3 = (uint32_t)p0;
		c0 = n0;
		c2 = n2;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	words[0] = c0;
	words[1] = c1;
	words[2] = c2;
	words[3] = c3;
}

static double unit53(uint32_t a, uint32_t b)
{
	return (double)((((uint64_t)a << 32) | b) >> 11) * 0x1.0p-53;
}

double rng_uniform(uint64_t seed, enum rng_domain domain, uint64_t index, uint32_t response, uint32_t position)
{
	uint32_t w[4];
	rng_words(seed, domain, index, response, position, w);
	return unit53(w[0], w[1]);
}

double rng_normal(uint64_t seed, enum rng_domain domain, uint64_t index, uint32_t response, uint32_t position)
{
	uint32_t w[4];
	rng_words(seed, domain, index, response, position, w);
	double u = 1.0 - unit53(w[0], w[1]); /* in (0, 1]: the logarithm is finite */
	return sqrt(-2.0 * log(u)) * cos(6.283185307179586 * unit53(w[2], w[3]));
}

void rng_permutation(uint64_t seed, enum rng_domain domain, uint64_t index, uint32_t n, uint32_t *order)
{
	for (uint32_t i = 0; i < n; i++)
		order[i] = i;
	for (uint32_t i = n; i > 1; i--) {
		uint32_t j = (uint32_t)(rng_uniform(seed, domain, index, 0, i) * i);
		uint32_t t = order[i - 1];
		order[i - 1] = order[j];
		order[j] = t;
	}
}
