/* TensorBoard's event files against those of its own writer (tools/golden_events.py), and what of one a resumed run keeps. */
#include "base/file.h"
#include "report/events.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const double BEGUN = 1764275000.25;

static void add_step(struct text *t, double time, int64_t step, const char *name, double value)
{
	struct metrics m = {0};
	metrics_set(&m, name, value);
	events_metrics(t, time, step, &m);
}

static void test_tensorboards_bytes(void **state)
{
	(void)state;
	char *path = favor_format("%s/report/events.bin", getenv("FAVOR_GOLDEN"));
	struct favor_error e = {""};
	struct metrics m = {0};
	struct text t = {0};
	size_t n;
	char *want = file_read(path, 1 << 20, &n, &e);
	assert_string_equal(e.message, "");
	metrics_set(&m, "loss", 0.1);
	metrics_set(&m, "kl", NAN); /* not finite, or text: left out */
	metrics_set(&m, "samples_digest", 7);
	metrics_set_text(&m, "samples_digest", "0000000000000007");
	metrics_set(&m, "rewards/accuracy/mean", 0);
	metrics_set(&m, "num_tokens", 16777217);
	metrics_set(&m, "clip_ratio/low_mean", INFINITY);
	events_begin(&t, BEGUN);
	events_metrics(&t, 1764275001.5, 1, &m);
	add_step(&t, 1764275002.75, 300, "loss", -2.5e-7);
	add_step(&t, 1764275003.0, 300, "eval/accuracy", 0.465);
	add_step(&t, 1764275004.0, 301, "kl", NAN); /* nothing left: no record */
	assert_int_equal(t.n, n);
	assert_memory_equal(t.data, want, n);
	text_free(&t);
	free(want);
	free(path);
}

/* Cut anywhere, and with any byte changed, a file keeps the whole records before that; and of them those up to a step. */
static void test_keep(void **state)
{
	(void)state;
	enum { STEPS = 5 };
	struct text file = {0}, kept = {0};
	size_t end[STEPS + 1];
	events_begin(&file, BEGUN);
	end[0] = file.n;
	for (int i = 0; i < STEPS; i++) {
		add_step(&file, BEGUN + i, i < 3 ? i + 1 : 1000000 * (int64_t)i, "loss", i);
		end[i + 1] = file.n;
	}
	const struct {
		int64_t last;
		int records;
	} cases[] = {{0, 0}, {1, 1}, {3, 3}, {2999999, 3}, {3000000, 4}, {INT64_MAX, STEPS}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		text_add(&kept, ""); /* so that there are bytes to compare with */
		events_keep(&kept, file.data, file.n, cases[i].last);
		assert_int_equal(kept.n, end[cases[i].records] - end[0]);
		assert_memory_equal(kept.data, file.data + end[0], kept.n);
		text_free(&kept);
	}
	for (size_t cut = 0; cut < file.n; cut++) {
		int whole = 0;
		while (whole < STEPS && end[whole + 1] <= cut)
			whole++;
		char *copy = favor_malloc(cut + 1); /* of this size, so that a sanitizer sees a read beyond it */
		memcpy(copy, file.data, cut);
		text_add(&kept, "");
		events_keep(&kept, copy, cut, INT64_MAX);
		assert_int_equal(kept.n, end[whole] - (cut < end[0] ? end[whole] : end[0]));
		text_free(&kept);
		free(copy);

		file.data[cut] ^= 0x10;
		text_add(&kept, "");
		events_keep(&kept, file.data, file.n, INT64_MAX);
		assert_int_equal(kept.n, end[whole] - end[0]);
		file.data[cut] ^= 0x10;
		text_free(&kept);
	}
	text_free(&file);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_tensorboards_bytes),
	    cmocka_unit_test(test_keep),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
