/* Metrics, history, the run's log files with their resume, and the progress line on a terminal and elsewhere. */
#include "base/file.h"
#include "report/events.h"
#include "report/metrics.h"
#include "report/text.h"

#include <dirent.h>
#include <fcntl.h>
#include <float.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <pty.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static int setup(void **state)
{
	char *dir = favor_strdup("/tmp/favor-metrics-XXXXXX");
	*state = mkdtemp(dir);
	return *state ? 0 : -1;
}

static int teardown(void **state)
{
	char command[256];
	snprintf(command, sizeof command, "rm -rf '%s'", (char *)*state);
	free(*state);
	return system(command);
}

static char *read_file(const char *dir, const char *name)
{
	char path[512];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "r");
	if (!f)
		return NULL;
	struct text t = {0};
	char buffer[4096];
	size_t n;
	text_add(&t, "");
	while ((n = fread(buffer, 1, sizeof buffer, f)) > 0)
		text_bytes(&t, buffer, n);
	fclose(f);
	return t.data;
}

static int is_event_file(const struct dirent *entry)
{
	return strstr(entry->d_name, "tfevents") != NULL;
}

static void append(const char *dir, const char *name, const char *s)
{
	char path[512];
	snprintf(path, sizeof path, "%s/%s", dir, name);
	FILE *f = fopen(path, "a");
	assert_non_null(f);
	fputs(s, f);
	fclose(f);
}

static void test_numbers(void **state)
{
	(void)state;
	const struct {
		double x;
		const char *want;
	} cases[] = {{0, "0"},
	             {1, "1"},
	             {-3, "-3"},
	             {1000, "1000"},
	             {123456789012.0, "123456789012"},
	             {0.1, "0.1"},
	             {1234.5, "1234.5"},
	             {1e-5, "1e-05"},
	             {1e300, "1e+300"},
	             {1.0 / 3, "0.3333333333333333"},
	             {5e-324, "5e-324"},
	             {NAN, "null"},
	             {INFINITY, "null"},
	             {-INFINITY, "null"}};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct text t = {0};
		text_double(&t, cases[i].x);
		assert_string_equal(t.data, cases[i].want);
		text_free(&t);
	}
	uint64_t bits = 1;
	for (int i = 0; i < 20000; i++) { /* any double comes back through a JSON parser, whatever its bits */
		double x, back;
		bits = bits * 6364136223846793005u + 1442695040888963407u;
		memcpy(&x, &bits, sizeof x);
		if (!isfinite(x))
			continue;
		struct text t = {0};
		text_double(&t, x);
		json_t *v = json_loads(t.data, JSON_DECODE_ANY, NULL);
		back = json_number_value(v);
		assert_memory_equal(&back, &x, sizeof x);
		json_decref(v);
		text_free(&t);

		uint32_t half = (uint32_t)(bits >> 32);
		float f;
		memcpy(&f, &half, sizeof f);
		if (!isfinite(f))
			continue;
		text_float(&t, f);
		assert_true(strtof(t.data, NULL) == f && strlen(t.data) <= 15);
		text_free(&t);
	}
}

static void test_metrics_and_history(void **state)
{
	(void)state;
	struct history h = {0};
	for (int step = 0; step < 200; step++) {
		struct metrics m = {0};
		metrics_set(&m, "loss", step);
		metrics_set(&m, "reward", 1);
		metrics_set(&m, "reward", 2.0 * step); /* set again: the newest, in the old place */
		if (step >= 150)
			metrics_set(&m, "eval/accuracy", 0.5);
		metrics_set(&m, "samples_digest", 7);
		metrics_set_text(&m, "samples_digest", "00000000deadbeef");
		assert_int_equal(m.count, step >= 150 ? 4 : 3);
		assert_true(metrics_get(&m, "reward", -1) == 2.0 * step && metrics_get(&m, "no", -1) == -1);
		history_add(&h, &m);
	}
	assert_int_equal(h.rows, 200);
	assert_int_equal(h.columns, 4);
	assert_string_equal(h.names[3], "eval/accuracy");
	for (int step = 0; step < 200; step++) {
		const double *row = h.values + (size_t)step * METRICS_MAX;
		assert_true(row[0] == step && row[1] == 2.0 * step && row[2] == 7);
		assert_true(step < 150 ? isnan(row[3]) : row[3] == 0.5);
		assert_true(isnan(row[4]));
	}
	history_free(&h);
	assert_int_equal(h.rows, 0);
}

static void write_steps(const char *dir, int64_t resume, int from, int to)
{
	struct favor_error e = {0};
	struct run_log *l = run_log_open(dir, resume, 100, &e);
	assert_string_equal(e.message, "");
	assert_non_null(l);
	int32_t start[3] = {0, 3, 4}, tokens[4] = {0};
	uint8_t finish[2] = {FINISH_STOP, FINISH_LENGTH}, answered[2] = {1, 0};
	char *text[2] = {"<think>\"a\"\n\\</think>", "\x01\xff</script>"}, *answer[2] = {"caf\xc3\xa9", ""};
	float rewards[4] = {1, 0, 0.1f, 0}, reward[2] = {1.1f, 0}, advantage[2] = {0.70700705f, -0.70700705f};
	struct group g = {.index = 123456789012,
	                  .record = 4000000000u,
	                  .responses = 2,
	                  .start = start,
	                  .token_ids = tokens,
	                  .finish = finish,
	                  .text = text,
	                  .reward_count = 2,
	                  .rewards = rewards,
	                  .reward = reward,
	                  .answered = answered,
	                  .answer = answer};
	const char *names[2] = {"accuracy", "format"};
	for (int step = from; step <= to; step++) {
		struct metrics m = {0};
		metrics_set(&m, "loss", 0.1 * step);
		metrics_set(&m, "kl", NAN);
		metrics_set_text(&m, "samples_digest", "00000000deadbeef");
		run_log_metrics(l, step, &m);
		char *lines = run_log_group_json(step, &g, "a \"b\".jpg", "run", "What?\n", names, advantage);
		run_log_samples(l, lines);
		free(lines);
	}
	run_log_close(l);
}

static void test_files(void **state)
{
	const char *dir = *state;
	char *run = favor_format("%s/deep/er", dir);
	write_steps(run, 0, 1, 3);
	char *text = read_file(run, "metrics.jsonl");
	assert_string_equal(text, "{\"step\": 1, \"loss\": 0.1, \"kl\": null, \"samples_digest\": \"00000000deadbeef\"}\n"
	                          "{\"step\": 2, \"loss\": 0.2, \"kl\": null, \"samples_digest\": \"00000000deadbeef\"}\n"
	                          "{\"step\": 3, \"loss\": 0.30000000000000004, \"kl\": null, \"samples_digest\": "
	                          "\"00000000deadbeef\"}\n");
	free(text);

	text = read_file(run, "samples.jsonl");
	char *line = strtok(text, "\n");
	for (int i = 0; i < 6; i++, line = strtok(NULL, "\n")) {
		json_t *o = json_loads(line, 0, NULL);
		assert_non_null(o);
		assert_int_equal(json_integer_value(json_object_get(o, "step")), 1 + i / 2);
		assert_int_equal(json_integer_value(json_object_get(o, "sample")), i % 2);
		assert_int_equal(json_integer_value(json_object_get(o, "record")), 4000000000u);
		assert_string_equal(json_string_value(json_object_get(o, "image")), "a \"b\".jpg");
		assert_string_equal(json_string_value(json_object_get(o, "prompt")), "What?\n");
		assert_string_equal(json_string_value(json_object_get(o, "response")),
		                    i % 2 ? "\x01\xEF\xBF\xBD</script>" : "<think>\"a\"\n\\</think>");
		assert_string_equal(json_string_value(json_object_get(o, "answer")), i % 2 ? "" : "caf\xc3\xa9");
		assert_string_equal(json_string_value(json_object_get(o, "finish")), i % 2 ? "length" : "stop");
		assert_int_equal(json_integer_value(json_object_get(o, "tokens")), i % 2 ? 1 : 3);
		json_t *r = json_object_get(o, "rewards");
		assert_true(json_number_value(json_object_get(r, "accuracy")) == (i % 2 ? 0 : 1));
		assert_true(json_number_value(json_object_get(r, "format")) == (i % 2 ? 0 : 0.1));
		assert_true(json_number_value(json_object_get(o, "reward")) == (i % 2 ? 0 : 1.1));
		assert_true(json_number_value(json_object_get(o, "advantage")) == (i % 2 ? -0.70700705 : 0.70700705));
		json_decref(o);
	}
	assert_null(line);
	free(text);
	free(run);
}

/* The steps of a run's event file, "1 2 3 "; other is how many more files TensorBoard would look at, which must be empty. */
static char *event_steps(const char *dir, int other)
{
	struct dirent **found;
	struct text t = {0};
	text_add(&t, "");
	const int count = scandir(dir, &found, is_event_file, alphasort);
	assert_int_equal(count, 1 + other);
	for (int i = 0; i < count; i++) {
		char *path = favor_format("%s/%s", dir, found[i]->d_name);
		struct favor_error e = {""};
		size_t n;
		char *data = file_read(path, 1 << 20, &n, &e);
		assert_non_null(data);
		assert_true(i == count - 1 || n == 0);
		for (int64_t step = 1; step < 20 && n; step++) {
			struct text before = {0}, now = {0};
			events_keep(&before, data, n, step - 1);
			events_keep(&now, data, n, step);
			/* one record, of one value: "train/loss" */
			if (now.n != before.n) {
				assert_true(now.n - before.n < 80);
				text_format(&t, "%lld ", (long long)step);
			}
			text_free(&before);
			text_free(&now);
		}
		free(data);
		free(path);
		free(found[i]);
	}
	free(found);
	return t.data;
}

/* A run of 9 steps that was killed in the middle of a write and goes on from its checkpoint of step 5 leaves the same
 * bytes. */
static void test_resume(void **state)
{
	char *whole = favor_format("%s/whole", (char *)*state), *killed = favor_format("%s/killed", (char *)*state);
	write_steps(whole, 0, 1, 9);
	write_steps(killed, 0, 1, 7);
	append(killed, "metrics.jsonl", "{\"step\": 8, \"lo");
	append(killed, "samples.jsonl", "{");
	char *steps = event_steps(killed, 0);
	assert_string_equal(steps, "1 2 3 4 5 6 7 ");
	free(steps);
	write_steps(killed, 5, 6, 9);
	steps = event_steps(killed, 1);
	assert_string_equal(steps, "1 2 3 4 5 6 7 8 9 ");
	free(steps);
	const char *names[] = {"metrics.jsonl", "samples.jsonl"};
	for (int i = 0; i < 2; i++) {
		char *a = read_file(whole, names[i]), *b = read_file(killed, names[i]);
		assert_string_equal(a, b);
		free(a);
		free(b);
		char *temporary = favor_format("%s/%s.tmp", killed, names[i]);
		assert_int_equal(access(temporary, F_OK), -1);
		free(temporary);
	}
	/* a half line of a kept step alone, and nothing to cut at all */
	append(killed, "metrics.jsonl", "{\"step\": 9");
	write_steps(killed, 9, 1, 0);
	write_steps(killed, 9, 1, 0);
	char *a = read_file(whole, "metrics.jsonl"), *b = read_file(killed, "metrics.jsonl");
	assert_string_equal(a, b);
	free(a);
	free(b);
	/* a new run starts from nothing */
	write_steps(killed, 0, 1, 0);
	a = read_file(killed, "samples.jsonl");
	assert_string_equal(a, "");
	free(a);
	steps = event_steps(killed, 1);
	assert_string_equal(steps, "");
	free(steps);
	free(whole);
	free(killed);
}

/* In place of the C library's: counts the files that are brought to the disk, by the ends of their names. */
static struct {
	int metrics, samples, events, other;
} synced;

int fsync(int fd)
{
	char link[64], path[512];
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	const ssize_t n = readlink(link, path, sizeof path - 1);
	if (n < 0)
		return -1;
	path[n] = 0;
	if (strstr(path, "/metrics.jsonl"))
		synced.metrics++;
	else if (strstr(path, "/samples.jsonl"))
		synced.samples++;
	else if (strstr(path, "tfevents"))
		synced.events++;
	else
		synced.other++;
	return 0;
}

static void test_sync(void **state)
{
	struct favor_error e = {""};
	struct run_log *l = run_log_open(*state, 0, 10, &e);
	assert_non_null(l);
	memset(&synced, 0, sizeof synced);
	assert_int_equal(run_log_sync(l, &e), 0);
	assert_true(synced.metrics == 1 && synced.samples == 1 && synced.events == 1 && synced.other == 0);
	run_log_close(l);
}

/* The last line and the newest row get what a stopped run had no time for. */
static void test_amend(void **state)
{
	const char *dir = *state;
	struct favor_error e = {""};
	struct metrics m = {0}, more = {0};
	struct history h = {0};
	struct run_log *l = run_log_open(dir, 0, 10, &e);
	assert_non_null(l);
	assert_true(isnan(history_last(&h, "reward")));
	metrics_set(&more, "eval/accuracy", 0.5);
	assert_int_equal(run_log_amend(l, 0, &more, &e), -1); /* there is no line yet */
	assert_non_null(strstr(e.message, "metrics.jsonl"));
	for (int i = 1; i <= 2; i++) {
		metrics_set(&m, "reward", i);
		run_log_metrics(l, i, &m);
		history_add(&h, &m);
	}
	assert_true(isnan(history_last(&h, "eval/accuracy")));
	assert_int_equal(run_log_amend(l, 2, &more, &e), 0);
	assert_int_equal(run_log_amend(l, 2, &more, &e), 0); /* a start that was killed before its checkpoint had done it */
	history_amend(&h, &more);
	run_log_metrics(l, 3, &m);
	run_log_close(l);
	char *text = read_file(dir, "metrics.jsonl");
	assert_string_equal(text, "{\"step\": 1, \"reward\": 1}\n{\"step\": 2, \"reward\": 2, \"eval/accuracy\": 0.5}\n"
	                          "{\"step\": 3, \"reward\": 2}\n");
	free(text);
	assert_int_equal(h.rows, 2);
	assert_true(history_last(&h, "reward") == 2 && history_last(&h, "eval/accuracy") == 0.5);
	assert_true(isnan(h.values[1]));
	history_free(&h);
}

static void test_bad_files(void **state)
{
	char *run = favor_format("%s/bad", (char *)*state);
	struct favor_error e = {0};
	write_steps(run, 0, 1, 2);
	append(run, "metrics.jsonl", "hello\n{\"step\": 3}\n");
	char *before = read_file(run, "metrics.jsonl");
	assert_null(run_log_open(run, 2, 9, &e));
	assert_non_null(strstr(e.message, "metrics.jsonl:3: no line of a run's log"));
	char *after = read_file(run, "metrics.jsonl"); /* untouched */
	assert_string_equal(before, after);
	free(before);
	free(after);

	char *file = favor_format("%s/metrics.jsonl/x", run);
	assert_null(run_log_open(file, 0, 9, &e));
	assert_non_null(strstr(e.message, "give another run.dir"));
	free(file);
	free(run);
}

/* Runs `steps` steps with stderr on fd, and returns it to what it was. */
static void progress_on(int fd, const char *dir, int sft)
{
	struct favor_error e = {0};
	fflush(stderr);
	int old = dup(STDERR_FILENO);
	dup2(fd, STDERR_FILENO);
	struct run_log *l = run_log_open(dir, 0, 100, &e);
	if (l) {
		run_log_note(l, "%d images", 3);
		for (int step = 1; step <= 12; step++) {
			struct metrics m = {0};
			if (sft) {
				metrics_set(&m, "loss", 2.345678);
			} else {
				metrics_set(&m, "reward", 1.43);
				metrics_set(&m, "rewards/accuracy/mean", 0.714);
				metrics_set(&m, "kl", 0.0031);
				metrics_set(&m, "completions/mean_length", 31.2);
			}
			metrics_set(&m, "tokens_per_second", 1820.4);
			metrics_set(&m, "step_time",
			            step < 12 ? 1.5 : 1.6136363); /* the mean moves to 1.5113636: 133 s for 88 steps */
			run_log_progress(l, step, &m);
		}
		run_log_note(l, "saved");
		run_log_close(l);
	}
	fflush(stderr);
	dup2(old, STDERR_FILENO);
	close(old);
	assert_non_null(l);
}

static void test_progress_plain(void **state)
{
	const char *dir = *state;
	for (int sft = 0; sft < 2; sft++) {
		char *path = favor_format("%s/stderr-%d", dir, sft);
		int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0666);
		progress_on(fd, dir, sft);
		close(fd);
		char name[16];
		snprintf(name, sizeof name, "stderr-%d", sft);
		char *text = read_file(dir, name);
		assert_int_equal(strncmp(text, "3 images\nstep 1/100  ", 21), 0);
		assert_non_null(strstr(text, sft ? "\nstep 12/100  loss 2.346  1820 tok/s  eta 2:13\nsaved\n"
		                                 : "\nstep 12/100  reward 1.43  acc 0.71  kl 0.0031  len 31  1820 tok/s  eta "
		                                   "2:13\nsaved\n"));
		assert_null(strchr(text, '\r'));
		free(text);
		free(path);
	}
}

static void test_progress_terminal(void **state)
{
	int outer, inner;
	struct winsize size = {.ws_row = 24, .ws_col = 30};
	setenv("TERM", "xterm", 1);
	if (openpty(&outer, &inner, NULL, NULL, &size)) {
		print_message("skipped: this machine gives no pseudo-terminal\n");
		skip();
	}
	progress_on(inner, *state, 0);
	char text[8192] = "";
	size_t have = 0;
	close(inner); /* so that reading ends */
	for (ssize_t n; have < sizeof text - 1 && (n = read(outer, text + have, sizeof text - 1 - have)) > 0;)
		have += (size_t)n;
	/* cut to one less than the width, rewritten in place; a note gets its own line and the progress line comes back */
	assert_non_null(strstr(text, "3 images\r\n\rstep 1/100  reward 1.43  acc \x1b[K\rstep 2/100  "));
	assert_non_null(strstr(text, "\rstep 12/100  reward 1.43  acc\x1b[K\r\x1b[Ksaved\r\n"
	                             "\rstep 12/100  reward 1.43  acc\x1b[K\r\n"));
	close(outer);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_numbers),
	    cmocka_unit_test(test_metrics_and_history),
	    cmocka_unit_test(test_files),
	    cmocka_unit_test(test_resume),
	    cmocka_unit_test_setup_teardown(test_sync, setup, teardown),
	    cmocka_unit_test_setup_teardown(test_amend, setup, teardown),
	    cmocka_unit_test(test_bad_files),
	    cmocka_unit_test(test_progress_plain),
	    cmocka_unit_test(test_progress_terminal),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
