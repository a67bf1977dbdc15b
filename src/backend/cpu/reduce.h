/* Sums of floats in double, in an order that only the length decides: 16 lanes, then a fixed tree. Written with vector
 * types, because a compiler may not reorder a plain loop's sum. */
#ifndef FAVOR_BACKEND_CPU_REDUCE_H
#define FAVOR_BACKEND_CPU_REDUCE_H

#include <stdint.h>
#include <string.h>

typedef float reduce_f32x8 __attribute__((vector_size(32)));
typedef double reduce_f64x8 __attribute__((vector_size(64)));

/* What is summed goes through a buffer of this many elements, which stays in the first-level cache. */
enum { REDUCE_BLOCK = 1024 };

#define REDUCE_LANES 16

/* Sum of x[i], or of x[i]^2 if squares. Callers pass a constant, so each use is one loop without the branch. */
static inline double reduce_lanes(const float *x, int64_t n, int squares)
{
	reduce_f64x8 even = {0}, odd = {0};
	for (int64_t i = 0; i < n; i += REDUCE_LANES) {
		reduce_f32x8 pair[2];
		if (n - i >= REDUCE_LANES) {
			memcpy(pair, x + i, sizeof pair);
		} else {
			memset(pair, 0, sizeof pair);
			memcpy(pair, x + i, (size_t)(n - i) * sizeof *x);
		}
		reduce_f64x8 first = __builtin_convertvector(pair[0], reduce_f64x8);
		reduce_f64x8 second = __builtin_convertvector(pair[1], reduce_f64x8);
		even += squares ? first * first : first;
		odd += squares ? second * second : second;
	}
	even += odd;
	return ((even[0] + even[4]) + (even[2] + even[6])) + ((even[1] + even[5]) + (even[3] + even[7]));
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
