// The weights of a row of logits, and their exact sums. The weight of z is e = exp(z - max z) as a float; weights are summed as integers
// (units of 2^-45; a float of 2^-21 or more is a whole number of them, smaller ones are rounded to it). So a sum has the same bits in
// whatever order and by whatever threads it is taken, atomics included, and a row's log-probability is the same wherever it is
// computed from the same logits. A row may have fewer than 2^19 logits: then no sum overflows.
#pragma once

#include "device.cuh"

namespace kernels
{

constexpr int64_t MAX_VOCABULARY = (1 << 19) - 1;

// e^x within 2 ulp for x <= 0, every step correctly rounded, so that CPU and GPU agree to the bit; 0 below -87.33 (no denormals), NaN
// stays NaN. x = n ln 2 + r with |r| <= ln 2 / 2;  e^r = 1 + r + r^2 P(r), P of degree 4.
__device__ __forceinline__ float exp_weight(float x)
{
	const float to_integer = 0x1.8p23f; // adding it rounds to the nearest integer, left in the low bits
	const float shifted = fmaf(x, 0x1.715476p0f, to_integer), n = __fadd_rn(shifted, -to_integer);
	float r = fmaf(n, -0x1.62e400p-1f, x);
	r = fmaf(n, -0x1.7f7d1cp-20f, r);
	float p = 0x1.6a23cep-10f;
	p = fmaf(p, r, 0x1.123a20p-7f);
	p = fmaf(p, r, 0x1.5558f2p-5f);
	p = fmaf(p, r, 0x1.555492p-3f);
	p = fmaf(p, r, 0x1.fffffcp-2f);
	p = __fadd_rn(fmaf(__fmul_rn(p, r), r, r), 1.0f);
	const float y = __uint_as_float(__float_as_uint(p) + (__float_as_uint(shifted) << 23));
	if (x >= -87.33f)
		return y;
	return x < -87.33f ? 0.0f : x;
}

// x >= 0 in units of 2^-45; what is no number counts as 0.
__device__ __forceinline__ unsigned long long to_units(float x)
{
	return x > 0 ? (unsigned long long)rintf(x * 0x1p45f) : 0;
}
__device__ __forceinline__ double from_units(unsigned long long sum)
{
	return (double)sum * 0x1p-45;
}

// Integers in the order of the floats; what is no number, and -infinity, come first. -0 is 0.
__device__ __forceinline__ unsigned ordered(float x)
{
	const unsigned bits = __float_as_uint(x + 0.0f);
	if (!(x > -INFINITY))
		return 0x007fffff; // -infinity's
	return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
__device__ __forceinline__ float from_ordered(unsigned key)
{
	return __uint_as_float(key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// What a row's softmax needs; all threads of the block have the same.
struct SoftmaxRow {
	float max;                // of z; -infinity if no z is a number
	int best;                 // its first place; 0 if there is none
	unsigned long long units; // sum of weights
	double lse, entropy;      // log sum exp z; NaN both if some z is no number, or the largest is not finite
	bool finite;              // lse is a number
};

__device__ __forceinline__ unsigned long long warp_sum(unsigned long long x)
{
#pragma unroll
	for (int flip = 16; flip; flip /= 2)
		x += __shfl_xor_sync(ALL_LANES, x, flip);
	return x;
}

// Statistics of z = logits / temperature for a block of THREADS threads (its first dimension; a multiple of 32).
// memory: THREADS / 32 * 3 words of shared memory; the first THREADS / 32 are free again on return, the others behind a barrier.
template <int THREADS>
__device__ SoftmaxRow softmax_row(const float *logits, int vocabulary, float temperature, unsigned long long *memory)
{
	constexpr int WARPS = THREADS / 32;
	const int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32;
	unsigned long long *best = memory, *units = memory + WARPS, *spread = memory + 2 * WARPS;

	// the largest z and, of equal ones, the lowest id: one maximum over (key, ~id)
	unsigned long long first = 0;
	for (int i = thread; i < vocabulary; i += THREADS) {
		const unsigned long long candidate = (unsigned long long)ordered(logits[i] / temperature) << 32 | (unsigned)~i;
		first = candidate > first ? candidate : first;
	}
#pragma unroll
	for (int flip = 16; flip; flip /= 2) {
		const unsigned long long other = __shfl_xor_sync(ALL_LANES, first, flip);
		first = other > first ? other : first;
	}
	if (lane == 0)
		best[warp] = first;
	__syncthreads();
#pragma unroll
	for (int w = 0; w < WARPS; w++)
		first = best[w] > first ? best[w] : first;

	SoftmaxRow row;
	row.max = from_ordered((unsigned)(first >> 32));
	row.best = (int)~(unsigned)first;

	// entropy = log sum e - sum p (z - max): both sums are of numbers that are not negative (e (max - z) <= 1/e)
	unsigned long long sum = 0, weighted = 0;
	bool numbers = true;
	for (int i = thread; i < vocabulary; i += THREADS) {
		const float below = logits[i] / temperature - row.max, e = exp_weight(below);
		numbers = numbers && e >= 0;
		sum += to_units(e);
		weighted += to_units(e > 0 ? -(e * below) : 0.0f);
	}
	sum = warp_sum(sum);
	weighted = warp_sum(weighted);
	numbers = __all_sync(ALL_LANES, numbers);
	if (lane == 0) {
		units[warp] = sum;
		spread[warp] = numbers ? weighted : ~0ull; // more than any sum can be
	}
	__syncthreads();
	sum = weighted = 0;
	row.finite = true;
#pragma unroll
	for (int w = 0; w < WARPS; w++) {
		sum += units[w];
		weighted += spread[w];
		row.finite = row.finite && spread[w] != ~0ull;
	}
	row.units = sum;
	const double total = from_units(sum), log_total = log(total);
	row.lse = row.finite ? (double)row.max + log_total : (double)NAN;
	row.entropy = row.finite ? log_total + from_units(weighted) / total : (double)NAN;
	return row;
}

// log softmax(z)[i] for z = logits[i] / temperature
__device__ __forceinline__ float softmax_logp(const SoftmaxRow &row, float z)
{
	return (float)((double)z - row.lse);
}

} // namespace kernels
