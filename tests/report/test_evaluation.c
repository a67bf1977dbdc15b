/* The evaluation: the interval against known values, the table, the JSON file, what happens where it can't be written.
 */
#include "report/evaluation.h"

#include <jansson.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* The ends are where the score test turns: (p - x)^2 = z^2 x (1 - x) / n. */
static void intervals(void **state)
{
	(void)state;
	static const int64_t known[][2] = {{0, 10},  {10, 10},   {5, 10}, {81, 100},
	                                   {1, 375}, {374, 375}, {1, 1},  {123456, 1000000}};
	const double z = 1.959963984540054;
	double low, high;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
		double n = (double)known[i][1], p = (double)known[i][0] / n;
		wilson_interval(known[i][0], known[i][1], &low, &high);
		assert_true(0 <= low && low <= p && p <= high && high <= 1 && low < high);
		assert_true(fabs((p - low) * (p - low) - z * z * low * (1 - low) / n) < 1e-14);
		assert_true(fabs((p - high) * (p - high) - z * z * high * (1 - high) / n) < 1e-14);
	}
	wilson_interval(5, 10, &low, &high);
	assert_true(fabs(low - 0.2366) < 5e-5 && fabs(high - 0.7634) < 5e-5);
	wilson_interval(0, 0, &low, &high);
	assert_true(low == 0 && high == 1);
}

static void add(struct evaluation *v, int32_t label, int32_t answer, const char *text, int format, int32_t tokens,
                int truncated)
{
	struct prediction p = {
		favor_strdup("a/b.jpg"),       label,  answer, favor_strdup(text), favor_strdup("<answer>\"x\"</answer>"),
		label >= 0 && label == answer, format, tokens, truncated};
	evaluation_add(v, &p);
}

static const char *const classes[] = {"running", "riding a bike", "\xE8\xB7\x91\xE6\xAD\xA5", "never seen"};

static struct evaluation sample(void)
{
	struct evaluation v = {.class_count = 4, .classes = classes};
	for (int i = 0; i < 3; i++)
		add(&v, 0, 0, "running", 1, 10, 0);
	add(&v, 0, 1, "riding a bike", 1, 20, 0);
	add(&v, 1, -1, "", 0, 50, 1);
	add(&v, 1, -1, "driving\xFF", 1, 20, 0); /* not UTF-8 */
	add(&v, 2, 2, "\xE8\xB7\x91\xE6\xAD\xA5", 1, 10, 0);
	add(&v, -1, -1, "open", 0, 20, 0);
	return v;
}

static void table(void **state)
{
	(void)state;
	struct evaluation v = sample();
	char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);
	assert_true(evaluation_accuracy(&v) == 0.5);
	evaluation_print(&v, out);
	fclose(out);
	static const char wanted[] = "accuracy   50.0%  (4 of 8; 95% interval 21.5% to 78.5%)\n"
								 "format     75.0%\n"
								 "length     18.8 tokens on average; 1 truncated\n"
								 "\n"
								 "class              n  correct  accuracy  most often taken for\n"
								 "running            4        3     75.0%  riding a bike (1)\n"
								 "riding a bike      2        0      0.0%  no class (2)\n"
								 "\xE8\xB7\x91\xE6\xAD\xA5               1        1    100.0%\n";
	assert_string_equal(text, wanted);
	free(text);
	evaluation_free(&v);
}

static json_t *read_back(const char *path)
{
	json_error_t fault;
	json_t *file = json_load_file(path, 0, &fault);
	assert_non_null(file);
	return file;
}

static void file(void **state)
{
	(void)state;
	char folder[] = "/tmp/favor-evaluation-XXXXXX", path[128], temporary[160];
	assert_non_null(mkdtemp(folder));
	snprintf(path, sizeof path, "%s/eval.json", folder);
	snprintf(temporary, sizeof temporary, "%s.tmp", path);
	struct evaluation v = sample();
	struct favor_error e = {""};
	assert_int_equal(evaluation_write(&v, path, &e), 0);
	assert_int_equal(access(temporary, F_OK), -1);
	json_t *f = read_back(path);
	assert_true(json_real_value(json_object_get(f, "accuracy")) == 0.5);
	assert_true(json_real_value(json_object_get(f, "format")) == 0.75);
	assert_true(json_real_value(json_object_get(f, "mean_length")) == 18.75);
	assert_int_equal(json_integer_value(json_object_get(f, "n")), 8);
	assert_int_equal(json_integer_value(json_object_get(f, "truncated")), 1);
	double low, high;
	wilson_interval(4, 8, &low, &high);
	json_t *interval = json_object_get(f, "interval");
	assert_true(json_real_value(json_array_get(interval, 0)) == low &&
	            json_real_value(json_array_get(interval, 1)) == high);
	static const int confusion[4][5] = {{3, 1, 0, 0, 0}, {0, 0, 0, 0, 2}, {0, 0, 1, 0, 0}, {0, 0, 0, 0, 0}};
	for (size_t i = 0; i < 4; i++) {
		json_t *row = json_array_get(json_object_get(f, "confusion"), i);
		assert_int_equal(json_array_size(row), 5);
		for (size_t k = 0; k < 5; k++)
			assert_int_equal(json_integer_value(json_array_get(row, k)), confusion[i][k]);
	}
	json_t *class = json_array_get(json_object_get(f, "classes"), 0);
	assert_string_equal(json_string_value(json_object_get(class, "name")), "running");
	assert_int_equal(json_integer_value(json_object_get(class, "n")), 4);
	assert_int_equal(json_integer_value(json_object_get(class, "correct")), 3);
	assert_true(json_real_value(json_object_get(class, "accuracy")) == 0.75);
	assert_true(json_is_null(json_object_get(json_array_get(json_object_get(f, "classes"), 3), "accuracy")));
	json_t *p = json_array_get(json_object_get(f, "predictions"), 5);
	assert_string_equal(json_string_value(json_object_get(p, "label")), "riding a bike");
	assert_true(json_is_null(json_object_get(p, "answer")));
	assert_string_equal(json_string_value(json_object_get(p, "answer_text")), "driving\xEF\xBF\xBD");
	assert_string_equal(json_string_value(json_object_get(p, "response")), "<answer>\"x\"</answer>");
	assert_true(json_is_false(json_object_get(p, "correct")) && json_is_true(json_object_get(p, "format")));
	json_decref(f);
	evaluation_free(&v);

	/* nothing evaluated: still a file that can be read */
	struct evaluation none = {0};
	assert_int_equal(evaluation_write(&none, path, &e), 0);
	f = read_back(path);
	assert_true(json_real_value(json_array_get(json_object_get(f, "interval"), 1)) == 1);
	json_decref(f);
	evaluation_free(&none);
	unlink(path);

	snprintf(path, sizeof path, "%s/no/eval.json", folder);
	assert_int_equal(evaluation_write(&none, path, &e), -1);
	assert_non_null(strstr(e.message, "/no/eval.json.tmp"));
	assert_non_null(strstr(e.message, "No such file"));
	rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(intervals), cmocka_unit_test(table), cmocka_unit_test(file)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
