/* Sums of floats in double, in an order that only the length decides: 16 lanes, then a fixed tree. Written with vector
 * types, because a compiler may not reorder a plain loop's sum. */
#ifndef FAVOR_BACKEND_CPU_REDUCE_H
#define FAVOR_BACKEND_CPU_REDUCE_H

#include <stdint.h>
#include <string.h>

/* No wider than AVX: gcc splits wider vectors through memory. */
typedef float reduce_f32x4 __attribute__((vector_size(16)));
typedef double reduce_f64x4 __attribute__((vector_size(32)));

/* What is summed goes through a buffer of this many elements, which stays in the first-level cache. */
enum { REDUCE_BLOCK = 1024 };

#define REDUCE_LANES 16

/* Sum of x[i], or of x[i]^2 if squares. Callers pass a constant, so each use is one loop without the branch. */
static inline double reduce_lanes(const float *x, int64_t n, int squares)
{
	reduce_f64x4 sum[REDUCE_LANES / 4] = {{0}};
	for (int64_t i = 0; i < n; i += REDUCE_LANES) {
		reduce_f32x4 part[REDUCE_LANES / 4];
		if (n - i >= REDUCE_LANES) {
			memcpy(part, x + i, sizeof part);
		} else {
			memset(part, 0, sizeof part);
			memcpy(part, x + i, (size_t)(n - i) * sizeof *x);
		}
		for (int l = 0; l < REDUCE_LANES / 4; l++) {
			reduce_f64x4 wide = __builtin_convertvector(part[l], reduce_f64x4);
			sum[l] += squares ? wide * wide : wide;
		}
	}
	reduce_f64x4 all = (sum[0] + sum[2]) + (sum[1] + sum[3]);
	return (all[0] + all[2]) + (all[1] + all[3]);
}

static inline double reduce_sum(const float *x, int64_t n)
{
	return reduce_lanes(x, n, 0);
}

static inline double reduce_squares(const float *x, int64_t n)
{
	return reduce_lanes(x, n, 1);
}

#endif
