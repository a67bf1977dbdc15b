/* Train, export, and the two are one model: what is scored on a checkpoint and on its exported folder is the same to
 * the bit. tools/check_export.py adds transformers as the third. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "model/safetensors.h"
#include "run.h"

#include <math.h>

/* A run of two SFT steps on the golden images, in a private folder. */
struct trained {
	char *folder, *base, *image, *checkpoint, *exported;
};

static int set_up(void **state)
{
	struct trained *t = favor_calloc(1, sizeof *t);
	t->folder = folder_new();
	t->base = favor_format("%s/cli/model", getenv("FAVOR_GOLDEN"));
	t->image = favor_format("%s/cli/street.jpg", getenv("FAVOR_GOLDEN"));
	t->checkpoint = favor_format("%s/run/checkpoints/step-000002.h5", t->folder);
	t->exported = favor_format("%s/exported", t->folder);
	static const char *const labels[3][2] = {
		{"street.jpg", "running"}, {"pole.png", "standing"}, {"turned.jpg", "yoga"}};
	char *lines = favor_strdup(""), *config = favor_format("%s/config.yaml", t->folder), *text;
	for (int i = 0; i < 3; i++) {
		char *more = favor_format("%s{\"image\": \"%s/cli/%s\", \"label\": \"%s\"}\n", lines, getenv("FAVOR_GOLDEN"),
		                          labels[i][0], labels[i][1]);
		free(lines);
		lines = more;
	}
	folder_write(t->folder, "train.jsonl", lines);
	text = favor_format("method: sft\nmodel: {path: %s}\ndata: {train: %s/train.jsonl, root: %s, prompt: answer}\n"
	                    "learner: {steps: 2, groups_per_step: 3, lr: 3.0e-3}\nrun: {dir: %s/run}\n",
	                    t->base, t->folder, getenv("FAVOR_GOLDEN"), t->folder);
	folder_write(t->folder, "config.yaml", text);
	const char *sanitizer = getenv("ASAN_OPTIONS");
	char *kept = sanitizer ? favor_strdup(sanitizer) : NULL;
	setenv("ASAN_OPTIONS", "detect_leaks=0", 1); /* Open MPI keeps some memory until the end */
	struct ran r = run_favor("train", config);
	if (kept)
		setenv("ASAN_OPTIONS", kept, 1);
	else
		unsetenv("ASAN_OPTIONS");
	free(kept);
	if (r.code)
		favor_die("train ended with %d: %s", r.code, r.errors);
	ran_free(&r);
	r = run_favor("export", t->checkpoint, t->exported);
	if (r.code)
		favor_die("export ended with %d: %s", r.code, r.errors);
	ran_free(&r);
	free(text);
	free(lines);
	free(config);
	*state = t;
	return 0;
}

static int tear_down(void **state)
{
	struct trained *t = *state;
	folder_remove(t->folder);
	free(t->base);
	free(t->image);
	free(t->checkpoint);
	free(t->exported);
	free(t);
	return 0;
}

/* Standard output of a command that must work. */
static char *output(struct ran r)
{
	if (r.code || r.errors[0])
		fail_msg("ended with %d: %s", r.code, r.errors);
	free(r.errors);
	return r.out;
}

static char *score(const struct trained *t, const char *model)
{
	return output(run_favor("score", "--json", "--model", model, "--image", t->image, "--prompt", "Activity?",
	                        "--response", "<answer>running</answer>"));
}

static void test_score(void **state)
{
	const struct trained *t = *state;
	char *checkpoint = score(t, t->checkpoint), *exported = score(t, t->exported), *base = score(t, t->base);
	assert_string_equal(checkpoint, exported);
	assert_string_not_equal(checkpoint, base);
	free(checkpoint);
	free(exported);
	free(base);
}

/* The other commands take a checkpoint as they take its folder. */
static void test_commands(void **state)
{
	const struct trained *t = *state;
	const char *models[2] = {t->checkpoint, t->exported};
	char *generated[2], *ids[2], *path[2];
	struct ran r;
	for (int i = 0; i < 2; i++) {
		generated[i] = output(run_favor("generate", "--json", "--model", models[i], "--image", t->image, "--prompt",
		                                "Activity?", "--samples", "3", "--max-tokens", "8", "--seed", "9"));
		r = run_favor_input((const char *const[]){"tokenize", "--model", models[i], NULL}, "a line\n<|im_end|>\n");
		ids[i] = output(r);
		path[i] = favor_format("%s/%d.safetensors", t->folder, i);
		r = run_favor("preprocess", "--model", models[i], "--image", t->image, "--out", path[i]);
		free(output(r));
	}
	assert_string_equal(generated[0], generated[1]);
	assert_string_equal(ids[0], ids[1]);
	size_t n[2];
	char *pixels[2] = {folder_read(t->folder, "0.safetensors", &n[0]), folder_read(t->folder, "1.safetensors", &n[1])};
	assert_int_equal(n[0], n[1]);
	assert_memory_equal(pixels[0], pixels[1], n[0]);
	for (int i = 0; i < 2; i++) {
		free(generated[i]);
		free(ids[i]);
		free(path[i]);
		free(pixels[i]);
	}
}

/* The small files come through unchanged, through the checkpoint. */
static void test_files(void **state)
{
	const struct trained *t = *state;
	static const char *const names[] = {"config.json", "generation_config.json", "preprocessor_config.json",
	                                    "tokenizer.json", "tokenizer_config.json"};
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		size_t n, m;
		char *a = folder_read(t->base, names[i], &n), *b = folder_read(t->exported, names[i], &m);
		assert_int_equal(n, m);
		assert_memory_equal(a, b, n);
		free(a);
		free(b);
	}
}

/* In bfloat16 every weight is the nearest; the model still says about the same. */
static void test_bfloat16(void **state)
{
	const struct trained *t = *state;
	struct favor_error e = {""};
	char *half = favor_format("%s/half", t->folder);
	struct ran r = run_favor("export", t->checkpoint, half, "--dtype", "bfloat16");
	assert_int_equal(r.code, 0);
	ran_free(&r);
	struct safetensors *a = safetensors_open(t->exported, &e), *b = safetensors_open(half, &e);
	assert_true(a && b && safetensors_count(a) == safetensors_count(b));
	for (int i = 0; i < safetensors_count(a); i++) {
		const struct st_tensor *x = safetensors_at(a, i), *y = safetensors_at(b, i);
		assert_string_equal(x->name, y->name);
		assert_true(x->dtype == ST_F32 && y->dtype == ST_BF16 && x->count == y->count);
		float *u = favor_malloc((size_t)x->count * 2 * sizeof *u), *v = u + x->count;
		assert_true(!safetensors_copy(x, u, &e) && !safetensors_copy(y, v, &e));
		for (int64_t k = 0; k < x->count; k++)
			assert_true(fabs((double)u[k] - (double)v[k]) <= fabs((double)u[k]) / 256);
		free(u);
	}
	safetensors_close(a);
	safetensors_close(b);
	char *text[2] = {score(t, t->exported), score(t, half)};
	json_t *lines[2] = {run_lines(text[0]), run_lines(text[1])};
	double sum[2] = {0, 0};
	for (int i = 0; i < 2; i++) {
		const json_t *logp = json_object_get(json_array_get(lines[i], 0), "logprobs");
		for (size_t k = 0; k < json_array_size(logp); k++)
			sum[i] += json_real_value(json_array_get(logp, k)) / (double)json_array_size(logp);
		json_decref(lines[i]);
		free(text[i]);
	}
	assert_true(sum[0] != sum[1] && fabs(sum[0] - sum[1]) < 0.5);
	free(half);
}

static void refused(struct ran r, const char *says)
{
	if (r.code != 2 || !strstr(r.errors, says))
		fail_msg("exit code %d (2 expected) and \"%s\", which should say \"%s\"", r.code, r.errors, says);
	ran_free(&r);
}

static void test_refusals(void **state)
{
	const struct trained *t = *state;
	refused(run_favor("export", t->checkpoint, t->exported), "already holds a model");
	refused(run_favor("export", t->base, t->folder), "no checkpoint");
	refused(run_favor("export", t->checkpoint), "usage");
	refused(run_favor("export", t->checkpoint, t->folder, "--dtype", "float16"), "float16");
	char *cut = favor_format("%s/cut.h5", t->folder);
	size_t n;
	char *bytes = folder_read(t->folder, "run/checkpoints/step-000002.h5", &n);
	folder_write_bytes(t->folder, "cut.h5", bytes, n / 2);
	refused(run_favor("export", cut, t->folder), "cut.h5");
	refused(run_favor("score", "--model", cut, "--prompt", "x", "--response", "x"), "cut.h5");
	free(bytes);
	free(cut);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_score),    cmocka_unit_test(test_commands), cmocka_unit_test(test_files),
		cmocka_unit_test(test_bfloat16), cmocka_unit_test(test_refusals),
	};
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
