/* What the tests of the backend's ops share: both backends, deterministic inputs, comparison, finite differences. */
#ifndef FAVOR_TESTS_BACKEND_OPS_TEST_H
#define FAVOR_TESTS_BACKEND_OPS_TEST_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "backend/cuda/open.h"
#include "backend/ops.h"
#include "base/rng.h"
#include "mirror.h"

/* Uniform in [-scale, scale). Each array of a test has a seed of its own. */
static inline float test_number(uint64_t seed, int64_t i, float scale)
{
	return (float)(2 * rng_uniform(seed, RNG_INIT, (uint64_t)i, 0, 0) - 1) * scale;
}

static inline float *test_array(int64_t n, uint64_t seed, float scale)
{
	float *p = favor_malloc((size_t)(n > 0 ? n : 1) * sizeof *p);
	for (int64_t i = 0; i < n; i++)
		p[i] = test_number(seed, i, scale);
	return p;
}

/* A view with `pad` unused columns to the right; element (t, k) doesn't depend on pad. Owned: free(t.data). */
static inline struct tensor test_tensor(int64_t rows, int64_t cols, int64_t pad, uint64_t seed, float scale)
{
	struct tensor t = {favor_malloc((size_t)(rows * (cols + pad) + 1) * sizeof(float)), rows, cols, cols + pad,
	                   ELEMENT_FLOAT32};
	for (int64_t i = 0; i < rows; i++)
		for (int64_t k = 0; k < cols + pad; k++)
			t.data[i * t.stride + k] = k < cols ? test_number(seed, i * cols + k, scale) : 77.0f;
	return t;
}

/* An own, contiguous copy. */
static inline struct tensor test_copy(struct tensor x)
{
	struct tensor t = tensor_of(favor_malloc((size_t)(x.rows * x.cols + 1) * sizeof(float)), x.rows, x.cols);
	for (int64_t i = 0; i < x.rows; i++)
		memcpy(t.data + i * t.stride, x.data + i * x.stride, (size_t)x.cols * sizeof(float));
	return t;
}

/* |a - b| <= tolerance (1 + |b|) everywhere, and nothing written beside the columns of a. */
static inline void test_close(const char *what, struct tensor a, struct tensor b, double tolerance)
{
	for (int64_t i = 0; i < a.rows; i++) {
		for (int64_t k = 0; k < a.cols; k++) {
			double x = a.data[i * a.stride + k], y = b.data[i * b.stride + k];
			if (!(fabs(x - y) <= tolerance * (1 + fabs(y))))
				fail_msg("%s[%lld, %lld] of [%lld, %lld] is %.9g, expected %.9g", what, (long long)i, (long long)k,
				         (long long)a.rows, (long long)a.cols, x, y);
		}
		for (int64_t k = a.cols; k < a.stride; k++)
			if (a.data[i * a.stride + k] != 77.0f)
				fail_msg("%s: row %lld was written beyond its columns", what, (long long)i);
	}
}

static inline void test_close_array(const char *what, const float *a, const float *b, int64_t n, double tolerance)
{
	test_close(what, tensor_of((float *)a, 1, n), tensor_of((float *)b, 1, n), tolerance);
}

static inline void test_same_bits(const char *what, struct tensor a, struct tensor b)
{
	for (int64_t i = 0; i < a.rows; i++)
		if (memcmp(a.data + i * a.stride, b.data + i * b.stride, (size_t)a.cols * sizeof(float)))
			fail_msg("%s: row %lld of [%lld, %lld] has other bits", what, (long long)i, (long long)a.rows,
			         (long long)a.cols);
}

static inline void test_same_bits_array(const char *what, const float *a, const float *b, int64_t n)
{
	test_same_bits(what, tensor_of((float *)a, 1, n), tensor_of((float *)b, 1, n));
}

/* The scalar that finite differences are taken of: sum of c y, in double. */
static inline double test_dot(struct tensor y, struct tensor c)
{
	double sum = 0;
	for (int64_t i = 0; i < y.rows; i++)
		for (int64_t k = 0; k < y.cols; k++)
			sum += (double)y.data[i * y.stride + k] * c.data[i * c.stride + k];
	return sum;
}

/* Every entry of gradient against (loss(x + h) - loss(x - h)) / 2h. */
static inline void test_differences(const char *what, struct tensor gradient, struct tensor x,
                                    double (*loss)(void *context), void *context)
{
	const float h = 1.0f / 128;
	for (int64_t i = 0; i < x.rows; i++)
		for (int64_t k = 0; k < x.cols; k++) {
			float *at = &x.data[i * x.stride + k], old = *at;
			*at = old + h;
			double up = loss(context), high = *at;
			*at = old - h;
			double slope = (up - loss(context)) / (high - *at), g = gradient.data[i * gradient.stride + k];
			*at = old;
			if (!(fabs(slope - g) <= 1e-3 * (1 + fabs(slope))))
				fail_msg("%s[%lld, %lld]: gradient %.7g, but differences give %.7g", what, (long long)i, (long long)k,
				         g, slope);
		}
}

/* Kernels that the CPU emulates take milliseconds a block: tests that repeat themselves do so less often then. */
static inline int test_emulated(void)
{
	return getenv("FAVOR_CUDA_LIBRARY") && strstr(getenv("FAVOR_CUDA_LIBRARY"), "emulated");
}

/* Both backends in turn, for tests that each must pass. Where FAVOR_CUDA_LIBRARY names one, the CUDA backend takes the
 * CPU's place. */
struct test_backends {
	struct backend *reference, *cpu;
};

static inline int test_backends_new(void **state)
{
	struct test_backends *s = favor_malloc(sizeof *s);
	*s = (struct test_backends){.reference = backend_reference_new()};
	if (getenv("FAVOR_CUDA_LIBRARY")) {
		struct favor_error e = {""};
		char device[64];
		struct backend *cuda = backend_cuda_open(0, device, sizeof device, &e);
		if (!cuda)
			fail_msg("%s", e.message);
		s->cpu = mirror_new(cuda);
		backend_set_threads(s->cpu, 2);
	} else {
		s->cpu = backend_cpu_new(2);
	}
	*state = s;
	return 0;
}

static inline int test_backends_destroy(void **state)
{
	struct test_backends *s = *state;
	if (!s) /* they could not be made */
		return 0;
	backend_destroy(s->reference);
	backend_destroy(s->cpu);
	free(s);
	return 0;
}

#endif
