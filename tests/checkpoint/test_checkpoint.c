/* Checkpoints that are whole: what is written comes back to the bit, the digest, the folder of a run, inspect. */
#include "checkpoint/checkpoint.h"
#include "sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <hdf5.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Calls that must succeed, with their message if they don't. */
#define OK(call) \
	do { \
		if ((call) != 0) \
			fail_msg("%s: %s", #call, e.message); \
	} while (0)

static int files_in(const char *folder)
{
	int n = 0;
	DIR *d = opendir(folder);
	for (struct dirent *entry; d && (entry = readdir(d));)
		n += entry->d_name[0] != '.';
	if (d)
		closedir(d);
	return n;
}

static void test_round_trip(void **state)
{
	(void)state;
	struct favor_error e = {""};
	char *folder = sample_folder(), *path = favor_format("%s/a.h5", folder), digest[17];
	struct checkpoint c, r;
	sample_make(&c, 12);
	OK(checkpoint_write(path, &c, &e));
	assert_int_equal(files_in(folder), 1); /* nothing temporary stays */
	OK(checkpoint_open(path, &r, &e));
	assert_int_equal(r.step, 12);
	assert_true(r.seed == UINT64_MAX && r.cursor == 1ull << 40 && r.policy_version == 12);
	assert_string_equal(r.config, c.config);
	assert_string_equal(r.ranks, c.ranks);
	assert_string_equal(r.digest, c.digest);
	assert_int_equal(r.tensor_count, c.tensor_count);
	for (int i = 0; i < c.tensor_count; i++) {
		/* in the order they were written */
		assert_string_equal(r.tensors[i].name, c.tensors[i].name);
		assert_int_equal(r.tensors[i].ndim, c.tensors[i].ndim);
		assert_memory_equal(r.tensors[i].shape, c.tensors[i].shape, (size_t)c.tensors[i].ndim * sizeof(int64_t));
		assert_null(r.tensors[i].values);
	}
	assert_int_equal(r.file_count, c.file_count);
	for (int i = 0; i < c.file_count; i++) {
		assert_string_equal(r.files[i].name, c.files[i].name);
		assert_int_equal(r.files[i].size, c.files[i].size);
		assert_memory_equal(r.files[i].data, c.files[i].data, c.files[i].size);
		assert_int_equal(r.files[i].data[r.files[i].size], 0);
	}
	assert_int_equal(r.history_rows, c.history_rows);
	assert_int_equal(r.history_columns, c.history_columns);
	for (int k = 0; k < c.history_columns; k++) {
		assert_string_equal(r.history[k].name, c.history[k].name);
		assert_memory_equal(r.history[k].values, c.history[k].values, (size_t)c.history_rows * sizeof(double));
	}
	assert_int_equal(r.sample_count, c.sample_count);
	for (int i = 0; i < c.sample_count; i++)
		assert_string_equal(r.samples[i], c.samples[i]);

	struct checkpoint_tensor *room = sample_room(&c);
	OK(checkpoint_read_tensors(path, room, c.tensor_count, &e));
	for (int i = 0; i < c.tensor_count; i++)
		assert_true(sample_equal(&c.tensors[i], &room[i]));
	OK(checkpoint_verify(path, digest, &e));
	assert_string_equal(digest, c.digest);
	sample_free_tensors(room, c.tensor_count);
	checkpoint_free(&r);

	/* an existing one is replaced; a model alone, with nothing else, is a checkpoint too */
	struct checkpoint bare = {.step = 3, .tensor_count = 1, .tensors = &c.tensors[2]};
	OK(checkpoint_write(path, &bare, &e));
	OK(checkpoint_open(path, &r, &e));
	assert_int_equal(r.tensor_count, 1);
	assert_string_equal(r.config, "");
	assert_int_equal(r.history_rows + r.sample_count + r.file_count, 0);
	checkpoint_free(&r);
	OK(checkpoint_verify(path, digest, &e));
	sample_free(&c);
	free(path);
	sample_remove(folder);
}

/* Tensors larger than a chunk, along a first dimension and within one long row. */
static void test_chunks(void **state)
{
	(void)state;
	struct favor_error e = {""};
	char *folder = sample_folder(), *path = favor_format("%s/big.h5", folder), digest[17];
	struct checkpoint_tensor t[] = {
		{.name = "long", .ndim = 1, .shape = {2097152 + 1}},
		{.name = "tall", .ndim = 2, .shape = {1025, 2049}},
		{.name = "wide", .ndim = 2, .shape = {1, 2100000}},
	};
	struct checkpoint c = {.tensor_count = 3, .tensors = t};
	for (int i = 0; i < 3; i++) {
		int64_t n = sample_elements(&t[i]);
		t[i].values = favor_malloc((size_t)n * sizeof(float));
		for (int64_t k = 0; k < n; k++)
			t[i].values[k] = (float)(k % 1000003 + i);
	}
	OK(checkpoint_write(path, &c, &e));
	OK(checkpoint_verify(path, digest, &e));
	for (int i = 0; i < 3; i++) {
		struct checkpoint_tensor r = t[i];
		r.values = favor_calloc((size_t)sample_elements(&t[i]), sizeof(float));
		OK(checkpoint_read_tensors(path, &r, 1, &e));
		assert_memory_equal(r.values, t[i].values, (size_t)sample_elements(&t[i]) * sizeof(float));
		free(r.values);
	}
	hid_t file = H5Fopen(path, H5F_ACC_RDONLY, H5P_DEFAULT);
	for (int i = 0; i < 3; i++) {
		char *name = favor_format("/model/%s", t[i].name);
		hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT), creation = H5Dget_create_plist(dataset);
		hsize_t chunk[5], bytes = 4;
		assert_int_equal(H5Pget_chunk(creation, 5, chunk), t[i].ndim);
		for (int k = 0; k < t[i].ndim; k++)
			bytes *= chunk[k];
		assert_in_range(bytes, 1 << 20, 8 << 20);
		assert_int_equal(H5Pget_nfilters(creation), 1);
		/* little is lost to the last chunk's padding */
		assert_true((double)H5Dget_storage_size(dataset) < 1.01 * 4 * (double)sample_elements(&t[i]));
		H5Pclose(creation);
		H5Dclose(dataset);
		free(name);
		free(t[i].values);
	}
	H5Fclose(file);
	free(path);
	sample_remove(folder);
}

static void test_digest(void **state)
{
	(void)state;
	struct checkpoint c;
	sample_make(&c, 1);
	uint64_t digest = checkpoint_digest(c.tensors, c.tensor_count);
	/* any order */
	for (int i = 0, k = c.tensor_count - 1; i < k; i++, k--) {
		struct checkpoint_tensor t = c.tensors[i];
		c.tensors[i] = c.tensors[k];
		c.tensors[k] = t;
	}
	assert_true(checkpoint_digest(c.tensors, c.tensor_count) == digest);
	/* any bit, name, shape, moment, tensor counts */
	for (int i = 0; i < c.tensor_count; i++) {
		struct checkpoint_tensor *t = &c.tensors[i], saved = *t;
		float *parts[] = {t->values, t->exp_avg, t->exp_avg_sq};
		int64_t n = sample_elements(t), stride = n > 100 ? 97 : 1;
		for (int p = 0; p < 3; p++)
			for (int64_t k = 0; parts[p] && k < n; k += stride) {
				uint32_t *bits = (uint32_t *)(void *)&parts[p][k];
				*bits ^= 1u << k % 32;
				assert_true(checkpoint_digest(c.tensors, c.tensor_count) != digest);
				*bits ^= 1u << k % 32;
			}
		t->name = "other";
		assert_true(checkpoint_digest(c.tensors, c.tensor_count) != digest);
		*t = saved;
		if (t->exp_avg) {
			t->exp_avg = t->exp_avg_sq;
			t->exp_avg_sq = saved.exp_avg;
			assert_true(n == 0 || checkpoint_digest(c.tensors, c.tensor_count) != digest);
			t->exp_avg = t->exp_avg_sq = NULL;
			assert_true(checkpoint_digest(c.tensors, c.tensor_count) != digest);
			*t = saved;
		}
		if (t->ndim == 2 && n) {
			t->shape[0] = saved.shape[1];
			t->shape[1] = saved.shape[0];
			assert_true(checkpoint_digest(c.tensors, c.tensor_count) != digest);
			*t = saved;
		}
	}
	assert_true(checkpoint_digest(c.tensors, c.tensor_count - 1) != digest);
	assert_true(checkpoint_digest(c.tensors, c.tensor_count) == digest);
	sample_free(&c);
}

struct one_by_one {
	struct checkpoint *c;
	float *room[3]; /* for one tensor, after the other */
	int next, wrong;
};

static void bring(void *arg, int tensor)
{
	struct one_by_one *o = arg;
	const struct checkpoint_tensor *t = &o->c->tensors[tensor];
	const float *parts[] = {t->values, t->exp_avg, t->exp_avg_sq};
	o->wrong += tensor != o->next++;
	for (int i = 0; i < 3 && parts[i]; i++)
		memcpy(o->room[i], parts[i], (size_t)sample_elements(t) * sizeof(float));
}

static void took(void *arg, int tensor)
{
	struct one_by_one *o = arg;
	const struct checkpoint_tensor *t = &o->c->tensors[tensor];
	const float *parts[] = {t->values, t->exp_avg, t->exp_avg_sq};
	o->wrong += tensor != o->next++;
	for (int i = 0; i < 3 && parts[i]; i++)
		o->wrong += memcmp(o->room[i], parts[i], (size_t)sample_elements(t) * sizeof(float)) != 0;
}

/* Tensors that are brought one by one into the same memory give the file that they give together, and can be taken so. */
static void test_one_by_one(void **state)
{
	(void)state;
	struct favor_error e = {""};
	char *folder = sample_folder(), *path = favor_format("%s/a.h5", folder), digest[17], together[17];
	struct checkpoint c, shared;
	sample_make(&c, 1);
	OK(checkpoint_write(path, &c, &e));
	strcpy(together, c.digest);
	struct one_by_one o = {.c = &c};
	struct checkpoint_tensor *tensors = favor_calloc((size_t)c.tensor_count, sizeof *tensors);
	int64_t most = 1;
	for (int i = 0; i < c.tensor_count; i++)
		most = sample_elements(&c.tensors[i]) > most ? sample_elements(&c.tensors[i]) : most;
	for (int i = 0; i < 3; i++)
		o.room[i] = favor_calloc((size_t)most, sizeof(float));
	for (int i = 0; i < c.tensor_count; i++) {
		tensors[i] = c.tensors[i];
		tensors[i].values = o.room[0];
		tensors[i].exp_avg = c.tensors[i].exp_avg ? o.room[1] : NULL;
		tensors[i].exp_avg_sq = c.tensors[i].exp_avg ? o.room[2] : NULL;
	}
	shared = c;
	shared.tensors = tensors;
	shared.bring = bring;
	shared.bring_arg = &o;
	OK(checkpoint_write(path, &shared, &e));
	assert_string_equal(shared.digest, together);
	assert_true(o.next == c.tensor_count && o.wrong == 0);
	OK(checkpoint_verify(path, digest, &e));
	assert_string_equal(digest, together);
	o.next = 0;
	OK(checkpoint_read_each(path, tensors, c.tensor_count, took, &o, &e));
	assert_true(o.next == c.tensor_count && o.wrong == 0);
	for (int i = 0; i < 3; i++)
		free(o.room[i]);
	free(tensors);
	sample_free(&c);
	sample_remove(folder);
	free(path);
}

static void test_refused(void **state)
{
	(void)state;
	struct favor_error e = {""};
	char *folder = sample_folder(), *path = favor_format("%s/a.h5", folder);
	struct checkpoint c;
	sample_make(&c, 1);
	OK(checkpoint_write(path, &c, &e));

	struct checkpoint_tensor t = c.tensors[0];
	t.shape[0] = 53, t.shape[1] = 37;
	assert_int_equal(checkpoint_read_tensors(path, &t, 1, &e), -1);
	assert_non_null(
		strstr(e.message, "tensor model.layers.1.mlp.weight has the shape [37, 53], where [53, 37] is wanted"));
	assert_non_null(strstr(e.message, path));
	t = c.tensors[0];
	t.name = "model.layers.9.mlp.weight";
	assert_int_equal(checkpoint_read_tensors(path, &t, 1, &e), -1);
	assert_non_null(strstr(e.message, "the tensor model.layers.9.mlp.weight is not in the checkpoint"));
	t = c.tensors[2];
	t.exp_avg = t.exp_avg_sq = t.values;
	assert_int_equal(checkpoint_read_tensors(path, &t, 1, &e), -1);
	assert_non_null(strstr(e.message, "visual.patch_embed.proj.weight has no optimiser state"));

	char *bad_names[] = {"", ".", "a/b", "/"};
	char *name = c.tensors[0].name;
	for (size_t i = 0; i < sizeof bad_names / sizeof *bad_names; i++) {
		c.tensors[0].name = bad_names[i];
		assert_int_equal(checkpoint_write(path, &c, &e), -1);
		assert_non_null(strstr(e.message, "can't be stored under the name"));
	}
	c.tensors[0].name = c.tensors[1].name;
	assert_int_equal(checkpoint_write(path, &c, &e), -1);
	assert_non_null(strstr(e.message, "two tensors of the name model.layers.0.mlp.weight"));
	c.tensors[0].name = name;
	float *moment = c.tensors[0].exp_avg;
	c.tensors[0].exp_avg = NULL;
	assert_int_equal(checkpoint_write(path, &c, &e), -1);
	assert_non_null(strstr(e.message, "one of its two moments"));
	c.tensors[0].exp_avg = moment;
	c.tensors[0].shape[1] = INT64_MAX / 8;
	assert_int_equal(checkpoint_write(path, &c, &e), -1);
	assert_non_null(strstr(e.message, "impossible size"));
	sample_free(&c);
	free(path);
	sample_remove(folder);
}

static void put(const char *run, int64_t step)
{
	struct favor_error e = {""};
	struct checkpoint c;
	char *path = checkpoint_path(run, step);
	sample_make(&c, step);
	OK(checkpoint_write(path, &c, &e));
	sample_free(&c);
	free(path);
}

/* Latest must be that step (or none, -1). Its warnings go nowhere. */
static void assert_latest(const char *run, int64_t step)
{
	char *found = checkpoint_latest(run), *path = checkpoint_path(run, step);
	if (step < 0)
		assert_null(found);
	else
		assert_string_equal(found, path);
	free(found);
	free(path);
}

static int exists(const char *run, int64_t step)
{
	char *path = checkpoint_path(run, step);
	int there = access(path, F_OK) == 0;
	free(path);
	return there;
}

static void cut(const char *run, int64_t step)
{
	char *path = checkpoint_path(run, step);
	size_t n;
	unsigned char *data = sample_read(path, &n);
	sample_write(path, data, n / 2);
	free(data);
	free(path);
}

static void test_folder(void **state)
{
	(void)state;
	struct favor_error e = {""};
	char *run = sample_folder(), *path = checkpoint_path("runs/x", 100);
	assert_string_equal(path, "runs/x/checkpoints/step-000100.h5");
	free(path);
	assert_latest(run, -1);
	OK(checkpoint_prune(run, 3, &e));
	for (int64_t step = 20; step <= 100; step += 20)
		put(run, step);
	put(run, 1000000); /* more digits: order is by number, not by name */
	assert_latest(run, 1000000);
	cut(run, 1000000);
	assert_latest(run, 100);

	/* strangers and left-overs */
	char *stranger = favor_format("%s/checkpoints/step-notes.h5", run),
		 *left = favor_format("%s/checkpoints/step-000060.h5.tmp-123", run);
	sample_write(stranger, "x", 1);
	sample_write(left, "x", 1);
	OK(checkpoint_prune(run, 0, &e));
	assert_int_equal(access(left, F_OK), -1);
	assert_int_equal(access(stranger, F_OK), 0);
	assert_true(exists(run, 20) && exists(run, 1000000));

	/* the broken newest one does not count */
	OK(checkpoint_prune(run, 2, &e));
	assert_true(exists(run, 1000000) && exists(run, 100) && exists(run, 80));
	assert_false(exists(run, 60) || exists(run, 40) || exists(run, 20));
	cut(run, 100);
	OK(checkpoint_prune(run, 1, &e));
	assert_true(exists(run, 80)); /* the only complete one */
	assert_latest(run, 80);
	cut(run, 80);
	OK(checkpoint_prune(run, 1, &e));
	assert_true(exists(run, 80));
	assert_latest(run, -1);
	assert_int_equal(access(stranger, F_OK), 0);
	free(stranger);
	free(left);
	sample_remove(run);
}

static void test_inspect(void **state)
{
	(void)state;
	struct favor_error e = {""};
	char *folder = sample_folder(), *path = favor_format("%s/a.h5", folder), *text = NULL;
	size_t size = 0;
	struct checkpoint c;
	sample_make(&c, 12);
	c.seed = 5;
	OK(checkpoint_write(path, &c, &e));
	FILE *out = open_memstream(&text, &size);
	OK(checkpoint_inspect(path, 1, out, &e));
	fclose(out);
	json_t *root = json_loads(text, 0, NULL);
	assert_non_null(root);
	assert_int_equal(json_integer_value(json_object_get(root, "format")), CHECKPOINT_FORMAT);
	assert_string_equal(json_string_value(json_object_get(root, "favor_version")), FAVOR_VERSION);
	assert_int_equal(json_integer_value(json_object_get(root, "step")), 12);
	assert_int_equal(json_integer_value(json_object_get(root, "seed")), 5);
	assert_string_equal(json_string_value(json_object_get(root, "digest")), c.digest);
	assert_string_equal(json_string_value(json_object_get(root, "config")), c.config);
	json_t *tensors = json_object_get(root, "tensors"), *t = json_array_get(tensors, 3),
		   *history = json_object_get(root, "history");
	assert_int_equal(json_array_size(tensors), c.tensor_count);
	assert_string_equal(json_string_value(json_object_get(t, "name")), "model.norm.weight");
	assert_int_equal(json_integer_value(json_array_get(json_object_get(t, "shape"), 0)), 37);
	double sum = 0, squares = 0;
	for (int i = 0; i < 37; i++) {
		sum += (double)c.tensors[3].values[i];
		squares += (double)c.tensors[3].values[i] * (double)c.tensors[3].values[i];
	}
	assert_true(fabs(json_real_value(json_object_get(t, "mean")) - sum / 37) < 1e-12);
	assert_true(fabs(json_real_value(json_object_get(t, "std")) - sqrt(squares / 37 - sum * sum / 37 / 37)) < 1e-12);
	assert_true(fabs(json_real_value(json_object_get(t, "norm")) - sqrt(squares)) < 1e-12);
	/* NaN and two infinities among the odd bits of the first tensor */
	assert_int_equal(json_integer_value(json_object_get(json_array_get(tensors, 0), "nonfinite")), 3);
	json_t *column = json_object_get(history, "rewards/accuracy/mean");
	assert_int_equal(json_array_size(column), c.history_rows);
	assert_true(json_is_null(json_array_get(column, 2)));
	assert_true(json_real_value(json_array_get(column, 3)) == c.history[3].values[3]);
	json_decref(root);
	free(text);

	out = open_memstream(&text, &size);
	OK(checkpoint_inspect(path, 0, out, &e));
	fclose(out);
	assert_non_null(strstr(text, c.digest));
	assert_non_null(strstr(text, "9 tensors, "));
	assert_non_null(strstr(text, "* model.norm.weight"));
	assert_non_null(strstr(text, "  visual.patch_embed.proj.weight"));
	assert_non_null(strstr(text, "[3, 3, 2, 4, 4]"));
	assert_non_null(strstr(text, "rewards/accuracy/mean"));
	assert_non_null(strstr(text, "    lr: 1.0e-05"));
	free(text);
	sample_free(&c);
	free(path);
	sample_remove(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_round_trip), cmocka_unit_test(test_chunks), cmocka_unit_test(test_digest), cmocka_unit_test(test_one_by_one),
		cmocka_unit_test(test_refused),    cmocka_unit_test(test_folder), cmocka_unit_test(test_inspect),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
