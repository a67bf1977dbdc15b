/* The head's rows against double arithmetic; log-probabilities against those of sampling, to the bit; the gradient against
 * finite differences; rows that are no numbers; targets that there are not. */
#include "kernel_test.h"

#include "base/error.h"
#include "base/rng.h"

enum { MOST_ROWS = 8 };

struct head {
	struct matrix logits;
	int64_t rows, vocabulary;
	int32_t target[MOST_ROWS], *target_there;
	float *values_there; /* logp, entropy, lse, g: [4][rows] */
	float values[4][MOST_ROWS];
};

static void head_new(struct head *h, int64_t rows, int64_t vocabulary, struct layout layout, uint64_t seed, double scale)
{
	*h = (struct head){.rows = rows, .vocabulary = vocabulary};
	h->logits = matrix_random(KERNEL_F32, rows, vocabulary, layout, seed, scale);
	for (int64_t i = 0; i < rows; i++) {
		h->target[i] = (int32_t)((uint64_t)(i * 7919 + 3) % (uint64_t)vocabulary);
		h->values[3][i] = (float)(rng_uniform(seed, RNG_INIT, (uint64_t)i, 9, 9) - 0.5);
	}
	h->target_there = device_array(h->target, (size_t)rows * sizeof *h->target);
	h->values_there = device_alloc(4 * (size_t)rows * sizeof(float));
	device_upload(h->values_there + 3 * rows, h->values[3], (size_t)rows * sizeof(float));
}

static void head_free(struct head *h)
{
	matrix_free(&h->logits);
	device_release(h->target_there);
	device_release(h->values_there);
}

static void forward(struct head *h, float temperature)
{
	float *v = h->values_there;
	launched("head", kernel_head_logprob(v, v + h->rows, v + 2 * h->rows, h->logits.data, h->logits.stride,
	                                     h->target_there, temperature, h->rows, h->vocabulary, NULL));
	for (int k = 0; k < 3; k++)
		device_download(h->values[k], v + k * h->rows, (size_t)h->rows * sizeof(float));
}

/* log sum exp and entropy of a row, in double */
static double log_sum(const struct head *h, int64_t row, float temperature, double *entropy)
{
	const float *x = h->logits.host.data + row * h->vocabulary;
	double most = -INFINITY, sum = 0, weighted = 0;
	for (int64_t i = 0; i < h->vocabulary; i++)
		most = fmax(most, (double)x[i] / (double)temperature);
	for (int64_t i = 0; i < h->vocabulary; i++) {
		const double below = (double)x[i] / (double)temperature - most, e = exp(below);
		sum += e;
		weighted += e > 0 ? e * below : 0;
	}
	*entropy = log(sum) - weighted / sum;
	return most + log(sum);
}

static void near(const char *what, double got, double want, double tolerance)
{
	if (!(fabs(got - want) <= tolerance * (1 + fabs(want))))
		fail_msg("%s is %.9g, expected %.9g", what, got, want);
}

/* kernel_sample draws the target where u lies in the middle of its share */
static float sampled_logp(struct head *h, int64_t row, float temperature)
{
	const float *x = h->logits.host.data + row * h->vocabulary;
	double entropy, lse = log_sum(h, row, temperature, &entropy), before = 0;
	for (int32_t i = 0; i < h->target[row]; i++)
		before += exp((double)x[i] / (double)temperature - lse);
	const double u = before + exp((double)x[h->target[row]] / (double)temperature - lse) / 2;
	double *u_there = device_array(&u, sizeof u);
	struct kernel_sampled out, *out_there = device_alloc(sizeof out);
	const struct kernel_draws draws = {.u = u_there};
	const struct kernel_sampling how = {temperature, 1, 0, 0};
	launched("sample", kernel_sample(out_there, (const float *)h->logits.data + row * h->logits.stride, h->logits.stride,
	                                 1, h->vocabulary, &draws, &how, NULL));
	device_download(&out, out_there, sizeof out);
	device_release(u_there);
	device_release(out_there);
	assert_int_equal(out.token, h->target[row]);
	return out.logp;
}

static void test_values(void **state)
{
	(void)state;
	const int64_t sizes[] = {1, 5, 511, 1000, 2049};
	const float temperatures[] = {1, 0.7f};
	for (int i = 0; i < 5; i++)
		for (int t = 0; t < 2; t++) {
			struct head h;
			head_new(&h, 3, sizes[i], (struct layout){i % 3, i % 2}, (uint64_t)(i + 1), i == 3 ? 30 : 3);
			forward(&h, temperatures[t]);
			for (int64_t row = 0; row < h.rows; row++) {
				double entropy, lse = log_sum(&h, row, temperatures[t], &entropy);
				near("lse", h.values[2][row], lse, 1e-6);
				near("entropy", h.values[1][row], entropy, 2e-6);
				near("logp", h.values[0][row],
				     (double)h.logits.host.data[row * h.vocabulary + h.target[row]] / (double)temperatures[t] - lse, 2e-6);
				if (sizes[i] < 2000 && h.values[0][row] > -15) { /* lighter ones are not drawn */
					const float again = sampled_logp(&h, row, temperatures[t]);
					assert_memory_equal(&again, &h.values[0][row], sizeof again);
				}
			}
			head_free(&h);
		}
}

static void test_gradient(void **state)
{
	(void)state;
	const int64_t sizes[] = {1, 7, 64, 1000};
	FOR_TYPES(type)
	for (int i = 0; i < 4; i++) {
		const float temperature = i % 2 ? 0.8f : 1;
		struct head h;
		head_new(&h, 3, sizes[i], (struct layout){i == 2 ? 0 : 3, 0}, (uint64_t)(i + 11), 4);
		forward(&h, temperature);
		struct matrix dz = matrix_empty(type, h.rows, h.vocabulary, (struct layout){i == 2 ? 0 : 1, 0});
		launched("head backward",
		         kernel_head_backward(dz.data, dz.stride, type, h.logits.data, h.logits.stride, h.values_there + 3 * h.rows,
		                              h.values_there + 2 * h.rows, h.target_there, temperature, h.rows, h.vocabulary, NULL));
		for (int64_t row = 0; row < h.rows; row++) {
			double entropy, lse = log_sum(&h, row, temperature, &entropy);
			for (int64_t v = 0; v < h.vocabulary; v++) {
				const double p = exp((double)h.logits.host.data[row * h.vocabulary + v] / (double)temperature - lse);
				dz.host.data[row * h.vocabulary + v] =
				    (float)((double)h.values[3][row] * ((v == h.target[row]) - p) / (double)temperature);
			}
		}
		matrix_check("dlogits", &dz, 1e-5, 2e-6);
		matrix_free(&dz);
		head_free(&h);
	}
}

/* d logp / d logits by differences of the forward's double twin: the sign and the factor of the formula itself. */
static void test_differences(void **state)
{
	(void)state;
	enum { V = 6 };
	const float temperature = 0.5f;
	struct head h;
	head_new(&h, 1, V, (struct layout){0, 0}, 21, 2);
	forward(&h, temperature);
	struct matrix dz = matrix_empty(KERNEL_F32, 1, V, (struct layout){0, 0});
	launched("head backward", kernel_head_backward(dz.data, dz.stride, KERNEL_F32, h.logits.data, h.logits.stride,
	                                               h.values_there + 3, h.values_there + 2, h.target_there, temperature, 1, V,
	                                               NULL));
	float got[V];
	device_download(got, dz.data, sizeof got);
	for (int v = 0; v < V; v++) {
		double side[2], entropy;
		const float old = h.logits.host.data[v], step = 1.0f / 256;
		for (int k = 0; k < 2; k++) {
			h.logits.host.data[v] = k ? old - step : old + step;
			const double lse = log_sum(&h, 0, temperature, &entropy);
			side[k] = (double)h.values[3][0] * ((double)h.logits.host.data[h.target[0]] / (double)temperature - lse);
		}
		h.logits.host.data[v] = old;
		near("a difference", got[v], (side[0] - side[1]) / (2 * (double)step), 1e-3);
	}
	matrix_free(&dz);
	head_free(&h);
}

static void test_no_numbers(void **state)
{
	(void)state;
	enum { V = 40 };
	float logits[4 * V];
	for (int i = 0; i < 4 * V; i++)
		logits[i] = (float)(i % 5);
	logits[3] = NAN;
	logits[V + 3] = INFINITY;
	for (int i = 0; i < V; i++)
		logits[2 * V + i] = i == 11 ? 2 : -INFINITY; /* one class is left: the target */
	struct head h;
	head_new(&h, 4, V, (struct layout){0, 0}, 1, 1);
	h.target[2] = 11;
	device_upload(h.target_there, h.target, sizeof h.target[0] * 4);
	device_upload(h.logits.data, logits, sizeof logits);
	forward(&h, 1);
	assert_true(isnan(h.values[0][0]) && isnan(h.values[2][0]) && isnan(h.values[1][0]));
	assert_true(isnan(h.values[0][1]));
	near("logp of the only class", h.values[0][2], 0, 1e-7);
	near("its entropy", h.values[1][2], 0, 1e-7);
	assert_true(isfinite(h.values[0][3]));
	head_free(&h);
}

static void test_refused(void **state)
{
	(void)state;
	struct head h;
	head_new(&h, 1, 8, (struct layout){0, 0}, 1, 1);
	float *v = h.values_there;
	assert_int_not_equal(0, kernel_head_logprob(v, NULL, v, h.logits.data, 8, h.target_there, 0, 1, 8, NULL));
	assert_int_not_equal(0, kernel_head_logprob(v, NULL, v, h.logits.data, 8, h.target_there, 1, 1, 0, NULL));
	assert_int_not_equal(0, kernel_head_logprob(v, NULL, v, h.logits.data, 8, h.target_there, 1, 1, 1 << 19, NULL));
	assert_int_equal(0, kernel_head_logprob(v, NULL, v, h.logits.data, 8, h.target_there, 1, 0, 8, NULL));
	if (device_orders() > 1) { /* on a GPU a trap is the end of the process */
		const int32_t bad[] = {-1, 8};
		for (int i = 0; i < 2; i++) {
			device_upload(h.target_there, &bad[i], sizeof bad[i]);
			assert_int_equal(0, kernel_head_logprob(v, NULL, v, h.logits.data, 8, h.target_there, 1, 1, 8, NULL));
			assert_string_equal(kernel_error(device_wait()), "unspecified launch failure");
			assert_non_null(strstr(device_trap_message(), "outside the vocabulary"));
		}
	}
	head_free(&h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_values),      cmocka_unit_test(test_gradient), cmocka_unit_test(test_differences),
	    cmocka_unit_test(test_no_numbers), cmocka_unit_test(test_refused),
	};
	return run_in_all_orders("head", tests, sizeof tests / sizeof *tests);
}
