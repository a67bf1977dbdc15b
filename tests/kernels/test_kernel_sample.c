/* Sampling on the device against the reference backend: the same token, always; and the draws against the CPU's generator. */
#include "kernel_test.h"

#include "base/error.h"
#include "base/rng.h"

_Static_assert(sizeof(struct kernel_sampled) == sizeof(struct sampled) &&
                   offsetof(struct kernel_sampled, token) == offsetof(struct sampled, token) &&
                   offsetof(struct kernel_sampled, logp) == offsetof(struct sampled, logp) &&
                   offsetof(struct kernel_sampled, sampling_logp) == offsetof(struct sampled, sampling_logp) &&
                   offsetof(struct kernel_sampled, entropy) == offsetof(struct sampled, entropy),
               "a sampled token must be the backend's");

enum { MOST_ROWS = 48 };

static int close_to(float got, float want)
{
	return (isnan(got) && isnan(want)) || fabsf(got - want) <= 1e-6f + 3e-7f * fabsf(want);
}

/* Both samplers on logits of V columns; rows that the reference calls no numbers only need a token and a NaN. */
static void compare(struct backend *b, const char *what, const float *logits, int64_t rows, int64_t V, int64_t pad,
                    const double *u, struct sampling how)
{
	struct matrix m = matrix_of(KERNEL_F32, rows, V, (struct layout){pad, 0}, logits);
	struct sampled want[MOST_ROWS], got[MOST_ROWS];
	b->ops.sample(b, want, m.host, u, &how);
	struct kernel_sampled *out = device_alloc(sizeof got);
	double *draws_at = device_array(u, (size_t)rows * sizeof *u);
	struct kernel_draws draws = {.u = draws_at};
	struct kernel_sampling kernel_how = {how.temperature, how.top_p, how.min_p, how.top_k};
	launched("sample", kernel_sample(out, m.data, m.stride, rows, V, &draws, &kernel_how, NULL));
	device_download(got, out, (size_t)rows * sizeof *got);
	for (int64_t t = 0; t < rows; t++) {
		struct sampled g = got[t], w = want[t];
		int right = isnan(w.logp) ? g.token >= 0 && g.token < V && isnan(g.logp)
		                          : g.token == w.token && close_to(g.logp, w.logp) &&
		                                close_to(g.sampling_logp, w.sampling_logp) && close_to(g.entropy, w.entropy);
		if (!right)
			fail_msg("%s, row %lld of %lld logits, u %.17g, temperature %g, top_k %d, top_p %g, min_p %g: token %d, logp "
			         "%.9g, %.9g, entropy %.9g; expected %d, %.9g, %.9g, %.9g",
			         what, (long long)t, (long long)V, u[t], how.temperature, how.top_k, how.top_p, how.min_p, g.token,
			         g.logp, g.sampling_logp, g.entropy, w.token, w.logp, w.sampling_logp, w.entropy);
	}
	device_release(out);
	device_release(draws_at);
	matrix_free(&m);
}

/* Every combination of truncations. */
static void compare_all(struct backend *b, const char *what, const float *logits, int64_t rows, int64_t V, const double *u)
{
	static const struct sampling ways[] = {{0, 1, 0, 0},           {1, 1, 0, 0},          {0.7f, 1, 0, 0},
	                                       {1, 1, 0, 1},           {1, 1, 0, 5},          {1.3f, 1, 0, 50},
	                                       {1, 0.9f, 0, 0},        {1, 0.5f, 0, 0},       {1, 0.001f, 0, 0},
	                                       {0.8f, 0.95f, 0, 20},   {1, 1, 0.05f, 0},      {1, 1, 1, 0},
	                                       {1, 0.9f, 0.02f, 40},   {1, 0, 0, 0},          {0.3f, 0.999f, 0.0001f, 1000}};
	for (size_t i = 0; i < sizeof ways / sizeof *ways; i++)
		compare(b, what, logits, rows, V, (int64_t)i % 3, u, ways[i]);
}

static float *random_logits(int64_t n, uint64_t seed, double scale)
{
	float *logits = favor_malloc((size_t)n * sizeof *logits);
	for (int64_t i = 0; i < n; i++)
		logits[i] = (float)(rng_normal(seed, RNG_INIT, (uint64_t)i, 0, 0) * scale);
	return logits;
}

static void test_random_rows(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	const int64_t sizes[] = {1, 33, 1000, 2051, 12001};
	double u[MOST_ROWS];
	for (int i = 0; i < MOST_ROWS; i++)
		u[i] = i == 1 ? 1 - 0x1p-53 : rng_uniform(9, RNG_INIT, (uint64_t)i, 0, 0);
	for (int i = 0; i < 5; i++)
		for (int scale = 0; scale < 2; scale++) {
			int64_t rows = sizes[i] > 10000 ? 1 : 2;
			u[0] = scale ? 0x1p-40 : 0; /* at 0 the reference draws tokens too light for units of 2^-45 */
			if (RACES_ARE_FATAL && sizes[i] > 1000)
				continue;
			float *logits = random_logits(rows * sizes[i], (uint64_t)(i + 1), scale ? 6 : 1);
			compare_all(b, "random row", logits, rows, sizes[i], u);
			free(logits);
		}
	backend_destroy(b);
}

/* Few different values: ties at every bound, many of them, in all stretches of ids. */
static void test_ties(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	enum { V = 1100, ROWS = 4 };
	float *logits = random_logits(ROWS * V, 77, 1);
	double u[ROWS];
	for (int t = 0; t < ROWS; t++) {
		u[t] = (t + 0.5) / ROWS;
		for (int i = 0; i < V; i++) /* row 0: all equal; others: 2 to 8 values, powers of 2 in weight for some */
			logits[t * V + i] = t == 0 ? 1.5f : roundf(logits[t * V + i] * (float)t) / (float)t;
	}
	compare_all(b, "row with ties", logits, ROWS, V, u);
	/* equal weights, where a sum meets top_p exactly */
	float four[4] = {2, 2, 2, 2};
	for (int i = 0; i < 16; i++) {
		double at = i / 16.0;
		compare(b, "four equal", four, 1, 4, 0, &at, (struct sampling){1, 0.5f, 0, 0});
		compare(b, "four equal", four, 1, 4, 0, &at, (struct sampling){1, 0.75f, 0, 0});
		compare(b, "four equal", four, 1, 4, 0, &at, (struct sampling){1, 1, 0, 0});
		compare(b, "four equal", four, 1, 4, 0, &at, (struct sampling){1, 1, 1, 2});
	}
	free(logits);
	backend_destroy(b);
}

/* Masked classes (-infinity), one class alone, huge and tiny differences, both zeros, and rows that are no numbers. */
static void test_extreme_rows(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	enum { V = 200, ROWS = 10 };
	float *logits = random_logits(ROWS * V, 5, 2);
	double u[ROWS];
	for (int t = 0; t < ROWS; t++)
		u[t] = rng_uniform(4, RNG_INIT, (uint64_t)t, 0, 0);
	for (int i = 0; i < V; i++) {
		if (i % 3)
			logits[0 * V + i] = -INFINITY; /* two classes of three masked */
		if (i != 150)
			logits[1 * V + i] = -INFINITY; /* all but one */
		logits[2 * V + i] *= 1e4f;
		logits[3 * V + i] *= 1e-6f;
		logits[4 * V + i] = i % 2 ? 0.0f : -0.0f;
		logits[5 * V + i] = i < 100 ? 3.0e38f : -3.0e38f;
		logits[6 * V + i] = -INFINITY;
		logits[7 * V + i] = NAN;
	}
	logits[8 * V + 17] = NAN;
	logits[9 * V + 60] = INFINITY;
	compare_all(b, "extreme row", logits, ROWS, V, u);
	free(logits);
	backend_destroy(b);
}

static void test_draws(void **state)
{
	(void)state;
	enum { N = 300 };
	uint64_t index[N], seed = 0x123456789abcdef0ull;
	uint32_t response[N], position[N];
	for (uint32_t i = 0; i < N; i++) {
		index[i] = i % 5 ? i : 0xfedcba9876543210ull + i;
		response[i] = i * 7919;
		position[i] = i % 3 ? i : 0xffffffffu - i;
	}
	struct kernel_draws draws = {.seed = seed, .domain = RNG_EVAL, .index = device_array(index, sizeof index),
	                             .response = device_array(response, sizeof response),
	                             .position = device_array(position, sizeof position)};
	double u[N], *on_device = device_alloc(sizeof u);
	launched("uniform", kernel_uniform(on_device, &draws, N, NULL));
	device_download(u, on_device, sizeof u);
	for (int i = 0; i < N; i++) {
		double want = rng_uniform(seed, RNG_EVAL, index[i], response[i], position[i]);
		assert_memory_equal(&u[i], &want, sizeof want);
	}
	/* sampling takes the same draws when it makes them itself */
	enum { V = 97, ROWS = 20 };
	float *logits = random_logits(ROWS * V, 8, 2);
	struct matrix m = matrix_of(KERNEL_F32, ROWS, V, (struct layout){0, 0}, logits);
	struct kernel_draws given = {.u = on_device};
	struct kernel_sampling how = {1, 0.9f, 0, 0};
	struct kernel_sampled one[ROWS], two[ROWS], *out = device_alloc(sizeof one);
	launched("sample", kernel_sample(out, m.data, V, ROWS, V, &given, &how, NULL));
	device_download(one, out, sizeof one);
	launched("sample", kernel_sample(out, m.data, V, ROWS, V, &draws, &how, NULL));
	device_download(two, out, sizeof two);
	assert_memory_equal(one, two, sizeof one);
	matrix_free(&m);
	free(logits);
	device_release(out);
	device_release(on_device);
	device_release((void *)draws.index);
	device_release((void *)draws.response);
	device_release((void *)draws.position);
	assert_int_not_equal(kernel_sample(NULL, NULL, 0, 1, 1 << 19, &given, &how, NULL), 0);
	assert_int_not_equal(kernel_sample(NULL, NULL, 0, 1, 0, &given, &how, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_random_rows), cmocka_unit_test(test_ties),
	                                   cmocka_unit_test(test_extreme_rows), cmocka_unit_test(test_draws)};
	return run_in_all_orders("sample", tests, sizeof tests / sizeof *tests);
}
