/* Features that are kept: found again by what an image is, the oldest make way, and neither what is computed nor what stays
 * depends on them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../tiny.h"
#include "backend/ops.h"
#include "model/towers.h"

enum { COLUMNS = 3, PATCH = 4 };

static struct feature_key key_of(int number)
{
	float values[PATCH] = {(float)number, 1, 2, 3};
	const struct image_input image = {1, 1, 1, values};
	return feature_key(&image, PATCH);
}

static void fill(struct tensor t, int number)
{
	for (int64_t i = 0; i < t.rows; i++)
		for (int64_t j = 0; j < t.cols; j++)
			t.data[i * t.stride + j] = (float)(100 * number + i);
}

static int is_filled(struct tensor t, int number, int64_t rows)
{
	int right = t.rows == rows && t.cols == COLUMNS;
	for (int64_t i = 0; i < t.rows; i++)
		for (int64_t j = 0; j < t.cols; j++)
			right &= t.data[i * t.stride + j] == (float)(100 * number + i);
	return right;
}

/* Images of different sizes, many times round the ring: what is found is right, and of the newest images all are found that
 * fit together behind one another. */
static void test_ring(void **state)
{
	(void)state;
	enum { ROWS = 50, IMAGES = 400 };
	struct backend *b = backend_reference_new();
	struct feature_cache *c = feature_cache_new(b, COLUMNS, ROWS * COLUMNS * sizeof(float) + 5);
	int64_t rows_of[IMAGES];
	for (int n = 0; n < IMAGES; n++) {
		const struct feature_key key = key_of(n);
		rows_of[n] = 1 + (n * 7919) % 17;
		assert_null(feature_cache_find(c, &key).data);
		const struct tensor place = feature_cache_keep(c, &key, rows_of[n]);
		assert_non_null(place.data);
		fill(place, n);
		int64_t behind = 0, found = 0;
		for (int k = n; k >= 0; k--) {
			const struct feature_key old = key_of(k);
			const struct tensor t = feature_cache_find(c, &old);
			behind += rows_of[k];
			assert_true(!t.data || is_filled(t, k, rows_of[k]));
			if (behind <= ROWS - 16) /* less than the largest image is lost where the ring begins anew */
				assert_non_null(t.data);
			found += t.data != NULL;
		}
		assert_int_equal(found, feature_cache_count(c));
	}
	const struct feature_key last = key_of(IMAGES), newest = key_of(IMAGES - 1);
	assert_null(feature_cache_keep(c, &last, ROWS + 1).data); /* too large: nothing makes way */
	assert_non_null(feature_cache_find(c, &newest).data);
	assert_non_null(feature_cache_keep(c, &last, ROWS).data);
	assert_int_equal(feature_cache_count(c), 1);
	feature_cache_destroy(c);
	c = feature_cache_new(b, COLUMNS, 0);
	assert_null(feature_cache_keep(c, &last, 1).data);
	feature_cache_destroy(c);
	backend_destroy(b);
}

/* An image is its values and its shape. */
static void test_keys(void **state)
{
	(void)state;
	float values[2 * PATCH] = {1, 2, 3, 4, 5, 6, 7, 8};
	const struct image_input wide = {1, 1, 2, values}, high = {1, 2, 1, values}, part = {1, 1, 1, values};
	const struct feature_key a = feature_key(&wide, PATCH), b = feature_key(&high, PATCH), c = feature_key(&part, PATCH);
	assert_true(a.hash == b.hash && a.grid_h != b.grid_h && a.hash != c.hash);
	for (int i = 0; i < 2 * PATCH; i++) {
		float before = values[i];
		values[i] += 1e-6f;
		assert_true(feature_key(&wide, PATCH).hash != a.hash);
		values[i] = before;
	}
	assert_true(feature_key(&wide, PATCH).hash == a.hash);
}

static int ticks_left;
static int tick(void *unused)
{
	(void)unused;
	return ticks_left-- <= 0;
}

/* Features of all of a prompt's images, as one dense array of the caller's. */
static float *features_of(struct tiny *t, const struct prompt *p, size_t *bytes, int (*how)(void *arg))
{
	struct arena arena;
	run_arena_init(&arena, t->backend);
	const struct run run = {t->backend, &arena, how, NULL};
	int64_t patches = 0;
	for (int32_t i = 0; i < p->image_count; i++)
		patches += (int64_t)p->inputs[i].grid_t * p->inputs[i].grid_h * p->inputs[i].grid_w;
	const struct tensor y = vision_features(&run, t->model, p->inputs, p->image_count, patches);
	*bytes = (size_t)(y.rows * y.cols) * sizeof(float);
	float *values = favor_malloc(*bytes);
	op_download(t->backend, values, y.data, *bytes);
	arena_free(&arena);
	return values;
}

/* The golden model's images: the first time, from the cache, with a cache that has room for one of two only, and without. */
static void test_same_bits(void **state)
{
	(void)state;
	struct tiny t;
	tiny_open(&t, backend_cpu_new(2));
	for (int p = 0; p < 2; p++) {
		const struct prompt *prompt = &t.prompts[p];
		size_t bytes, n;
		float *want = features_of(&t, prompt, &bytes, NULL);
		for (int small = 0; small < 2; small++) {
			model_keep_features(t.model, small ? bytes - 1 : bytes);
			for (int again = 0; again < 3; again++) {
				float *got = features_of(&t, prompt, &n, NULL);
				assert_int_equal(n, bytes);
				assert_memory_equal(got, want, bytes);
				free(got);
			}
			assert_int_equal(feature_cache_count(t.model->features), small ? prompt->image_count - 1 : prompt->image_count);
		}
		/* found, and not computed: with other weights the features are still those */
		model_keep_features(t.model, bytes);
		free(features_of(&t, prompt, &n, NULL));
		t.model->w.patch_embed[0] += 1;
		model_changed(t.model);
		float *kept = features_of(&t, prompt, &n, NULL);
		assert_memory_equal(kept, want, bytes);
		model_keep_features(t.model, bytes);
		float *new = features_of(&t, prompt, &n, NULL);
		assert_memory_not_equal(new, want, bytes);
		t.model->w.patch_embed[0] -= 1;
		model_changed(t.model);
		/* given up in the middle of it: nothing is kept */
		for (ticks_left = 0; ticks_left < 2;) {
			const int left = ticks_left;
			model_keep_features(t.model, bytes);
			free(features_of(&t, prompt, &n, tick));
			assert_int_equal(feature_cache_count(t.model->features), 0);
			ticks_left = left + 1;
		}
		free(want);
		free(kept);
		free(new);
		model_keep_features(t.model, 0);
	}
	tiny_close(&t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_ring),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_same_bits),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
