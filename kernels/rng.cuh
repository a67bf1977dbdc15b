// Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011), the same draws to the bit as those of the CPU.
#pragma once

#include "device.cuh"

namespace kernels
{

// Uniform in [0, 1) with 53 bits, for one counter.
__device__ __forceinline__ double uniform_draw(uint64_t seed, uint32_t domain, uint64_t index, uint32_t response,
                                               uint32_t position)
{
	uint32_t c0 = position, c1 = response, c2 = (uint32_t)index, c3 = (uint32_t)(index >> 32) ^ (domain << 24);
	uint32_t k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
#pragma unroll
	for (int round = 0; round < 10; round++) {
		const uint32_t high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
		const uint32_t high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
		c0 = high1 ^ c1 ^ k0;
		c1 = low1;
		c2 = high0 ^ c3 ^ k1;
		c3 = low0;
		k0 += 0x9E3779B9u;
		k1 += 0xBB67AE85u;
	}
	return (double)((((uint64_t)c0 << 32) | c1) >> 11) * 0x1.0p-53;
}

} // namespace kernels
