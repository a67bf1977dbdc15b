/* favor report on made-up runs: what the page contains, that nothing in it is alive that a model or a data set wrote,
 * and what missing and broken files do. `test_report DIR [IMAGE...]` writes the example run and its report to DIR, to
 * look at. */
#include "app/commands.h"
#include "data/image.h"
#include "report/metrics.h"
#include "report/report.h"
#include "report/text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

enum { STEPS = 120, CLASSES = 8, RESPONSES = 4 };

static const char *const classes[CLASSES] = {"clapping", "drinking", "jumping",  "running",
                                             "sitting",  "waving",   "<b>x</b>", "phoning \"now\""};
static const char attack[] = "<think>I see</think>\n<answer></script></style><script>document.title='owned'</script>"
                             "<img src=x onerror=\"document.title='owned'\"></answer>";

/* Uniform in [0, 1), the same everywhere. */
static double noise(uint64_t *state)
{
	*state = *state * 6364136223846793005u + 1442695040888963407u;
	return (double)(*state >> 11) / 9007199254740992.0;
}

static void write_text(const char *dir, const char *name, const char *s)
{
	char *path = favor_format("%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(s, f);
	assert_int_equal(fclose(f), 0);
	free(path);
}

static char *read_text(const char *dir, const char *name)
{
	char *path = favor_format("%s/%s", dir, name), buffer[65536];
	struct text t = {0};
	FILE *f = fopen(path, "r");
	free(path);
	if (!f)
		return NULL;
	text_add(&t, "");
	for (size_t n; (n = fread(buffer, 1, sizeof buffer, f)) > 0;)
		text_bytes(&t, buffer, n);
	fclose(f);
	return t.data;
}

static void set_metrics(struct metrics *m, int step, uint64_t *rng)
{
	double x = (double)step / STEPS, up = 1 - exp(-3 * x), n = noise(rng) - 0.5;
	metrics_set(m, "loss", 0.002 * x + 0.01 * n);
	metrics_set(m, "reward", 1.1 + 0.7 * up + 0.25 * n);
	metrics_set(m, "reward_std", 0.6 - 0.3 * up + 0.1 * (noise(rng) - 0.5));
	metrics_set(m, "rewards/accuracy/mean", fmin(1, 0.4 + 0.45 * up + 0.2 * n));
	metrics_set(m, "rewards/accuracy/std", 0.4 + 0.1 * n);
	metrics_set(m, "rewards/format/mean", fmin(1, 0.7 + 0.3 * up + 0.05 * n));
	metrics_set(m, "frac_reward_zero_std", floor(4 * noise(rng) * (0.5 + x)) / 4);
	metrics_set(m, "kl", 0.02 * x * (1 + n));
	metrics_set(m, "entropy", 0.8 - 0.4 * up + 0.1 * n);
	metrics_set(m, "clip_ratio/low_mean", 0);
	metrics_set(m, "clip_ratio/high_mean", 0);
	metrics_set(m, "completions/mean_length", 34 - 6 * up + 4 * n);
	metrics_set(m, "completions/min_length", 14 + floor(3 * noise(rng)));
	metrics_set(m, "completions/max_length", 60 + floor(36 * noise(rng)));
	metrics_set(m, "completions/clipped_ratio", fmax(0, 0.1 - 0.1 * up + 0.05 * n));
	metrics_set(m, "grad_norm", 0.6 + n + (step == 61 ? 7 : 0));
	metrics_set(m, "learning_rate",
	            step <= 10 ? 1e-6 * step : 0.5e-5 * (1 + cos(3.14159 * (step - 11) / (STEPS - 10))));
	metrics_set(m, "epoch", step / 30.0);
	metrics_set(m, "num_tokens", 9800.0 * step);
	metrics_set(m, "step_time", 1.6 + 0.4 * noise(rng));
	metrics_set(m, "tokens_per_second", 5200 + 900 * n);
	metrics_set(m, "sampling/sampling_logp_difference/mean", 0);
	metrics_set(m, "sampling/sampling_logp_difference/max", 0);
	metrics_set(m, "policy_version", step);
	metrics_set(m, "idle/rollout", 0.35 + 0.1 * n);
	metrics_set(m, "idle/reward", 0.97 + 0.01 * n);
	metrics_set(m, "idle/learner", 0.52 + 0.1 * noise(rng));
	metrics_set(m, "time/rollout", 0.8 + 0.2 * noise(rng));
	metrics_set(m, "time/forward", 0.22 + 0.03 * n);
	metrics_set(m, "time/backward", 0.41 + 0.03 * n);
	metrics_set(m, "time/reduce", 0.03);
	metrics_set(m, "time/optimizer", 0.05);
	metrics_set(m, "time/publish", 0.02);
	metrics_set(m, "memory/learner_peak_rss_mib", 410 + 20 * up);
	metrics_set(m, "<i>odd</i>", step);
	metrics_set_text(m, "samples_digest", "00000000deadbeef");
	if (step % 40 == 0) {
		metrics_set(m, "eval/accuracy", 0.42 + 0.35 * up);
		metrics_set(m, "eval/format", 0.8 + 0.2 * up);
	}
}

static void log_group(struct run_log *l, int step, int index, const char *image, uint64_t *rng)
{
	char *text[RESPONSES], *answer[RESPONSES];
	int32_t start[RESPONSES + 1] = {0};
	uint8_t finish[RESPONSES] = {0}, answered[RESPONSES];
	float rewards[2 * RESPONSES], reward[RESPONSES], advantage[RESPONSES];
	int label = (int)(6 * noise(rng)), easy = noise(rng) < 0.3;
	for (int i = 0; i < RESPONSES; i++) {
		int said = easy || noise(rng) < 0.5 + 0.4 * step / STEPS ? label : (int)(6 * noise(rng)),
		    form = noise(rng) < 0.9;
		finish[i] = !form;
		text[i] =
		    favor_format("<think>The person in the picture is upright and the arms are raised, so this looks most "
		                 "like %s.</think>\n%s%s%s",
		                 classes[said], form ? "<answer>" : "I think it is ", classes[said], form ? "</answer>" : "");
		answer[i] = favor_strdup(form ? classes[said] : "");
		answered[i] = (uint8_t)form;
		rewards[i] = (float)(form && said == label);
		rewards[RESPONSES + i] = (float)form;
		reward[i] = rewards[i] + rewards[RESPONSES + i];
		advantage[i] = reward[i] - 1.2f;
		start[i + 1] = start[i] + 20 + (int)(30 * noise(rng));
	}
	if (index == 2) {
		free(text[1]);
		text[1] = favor_strdup(attack);
	}
	struct group g = {.index = (uint64_t)index,
	                  .record = (uint32_t)index,
	                  .responses = RESPONSES,
	                  .start = start,
	                  .finish = finish,
	                  .text = text,
	                  .reward_count = 2,
	                  .rewards = rewards,
	                  .reward = reward,
	                  .answered = answered,
	                  .answer = answer};
	const char *names[2] = {"accuracy", "format"};
	char *lines = run_log_group_json(
	    step, &g, image, index == 2 ? attack : classes[label],
	    "<|im_start|>user\n<|vision_start|><|image_pad|><|vision_end|>What is the person doing? Choose one of: "
	    "clapping, drinking, jumping, running, sitting, waving.<|im_end|>\n<|im_start|>assistant\n",
	    names, advantage);
	run_log_samples(l, lines);
	free(lines);
	for (int i = 0; i < RESPONSES; i++) {
		free(text[i]);
		free(answer[i]);
	}
}

static void write_eval(const char *dir, const char *name, double good, uint64_t *rng)
{
	struct text t = {0}, c = {0}, m = {0};
	int right = 0;
	for (int i = 0; i < CLASSES; i++) {
		int n = 20, row[CLASSES + 1] = {0};
		for (int k = 0; k < n; k++) {
			double x = noise(rng);
			row[x < good - 0.03 * i ? i : x > 0.97 ? CLASSES : (int)(CLASSES * noise(rng))]++;
		}
		right += row[i];
		text_add(&c, i ? ", {\"name\": " : "{\"name\": ");
		text_json_string(&c, classes[i]);
		text_format(&c, ", \"n\": %d, \"correct\": %d, \"accuracy\": %g}", n, row[i], (double)row[i] / n);
		text_add(&m, i ? ", [" : "[");
		for (int k = 0; k <= CLASSES; k++)
			text_format(&m, "%s%d", k ? ", " : "", row[k]);
		text_add(&m, "]");
	}
	double a = right / (20.0 * CLASSES);
	text_format(&t,
	            "{\"accuracy\": %g, \"interval\": [%g, %g], \"format\": %g, \"mean_length\": 31.5, \"classes\": [%s], "
	            "\"confusion\": [%s], \"predictions\": [{}, {}]}",
	            a, a - 0.07, a + 0.06, 0.8 + good / 5, c.data, m.data);
	write_text(dir, name, t.data);
	text_free(&t);
	text_free(&c);
	text_free(&m);
}

/* A whole run with everything in it. */
static void write_example(const char *dir, char *const *images, int image_count)
{
	struct favor_error e = {0};
	uint64_t rng = 5;
	struct run_log *l = run_log_open(dir, 0, STEPS, &e);
	assert_non_null(l);
	char *drawn = favor_format("%s/picture.png", dir);
	uint8_t *pixels = favor_malloc(300 * 200 * 3);
	for (int i = 0; i < 300 * 200; i++) {
		pixels[3 * i] = (uint8_t)(i % 300 * 255 / 300);
		pixels[3 * i + 1] = (uint8_t)(i / 300 * 255 / 200);
		pixels[3 * i + 2] = 128;
	}
	assert_int_equal(image_write_png(&(struct image){300, 200, pixels}, drawn, &e), 0);
	for (int step = 1; step <= STEPS; step++) {
		struct metrics m = {0};
		set_metrics(&m, step, &rng);
		run_log_metrics(l, step, &m);
		for (int k = 0; k < 2; k++) {
			int index = 2 * step + k;
			log_group(l, step, index,
			          index == 6    ? "gone/\"<x>.jpg"
			          : index == 10 ? "/dev/zero"
			          : image_count ? images[index % image_count]
			                        : drawn,
			          &rng);
		}
	}
	run_log_close(l);
	write_eval(dir, "eval-before.json", 0.35, &rng);
	write_eval(dir, "eval-step-000040.json", 0.55, &rng);
	write_eval(dir, "eval-step-000100.json", 0.7, &rng);
	write_eval(dir, "eval-after.json", 0.75, &rng);
	write_text(
	    dir, "config.yaml",
	    "method: grpo\nmodel:\n  path: models/har-tiny\n  vision: full\ndata:\n  train: data/synth/train.jsonl\n  "
	    "eval: data/synth/test.jsonl\n  shots: 4\n  classes: [a, b]\nrollout:\n  group_size: 8\nlearner:\n  steps: "
	    "120\n  groups_per_step: 4\n  lr: 1.0e-5\nreward:\n  accuracy:\n    mode: strict\nrun:\n  dir: '</pre><script>'"
	    "\n  seed: 0\n");
	free(drawn);
	free(pixels);
}

static int setup(void **state)
{
	char *dir = favor_strdup("/tmp/favor-report-XXXXXX");
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

static int count(const char *text, const char *what)
{
	int n = 0;
	for (; (text = strstr(text, what)); text += strlen(what))
		n++;
	return n;
}

static void has(const char *page, const char *what)
{
	if (!strstr(page, what))
		fail_msg("the page has no %s", what);
}

/* Every tag of the page is one that the report itself writes, with attributes of its own: whatever else was in the data
 * is text. */
static void check_tags(const char *page)
{
	static const char *const ours[] = {
	    "!doctype",   "html",  "meta",    "title", "style",  "main",   "header",  "h1",      "p",   "div",    "span",
	    "b",          "small", "section", "h2",    "h3",     "table",  "tr",      "th",      "td",  "i",      "figure",
	    "figcaption", "svg",   "path",    "text",  "circle", "output", "details", "summary", "pre", "button", "article",
	    "em",         "em",    "aside",   "img",   "ul",     "li",     "footer",  "script",  "td>"};
	const char *script = strstr(page, "<script nonce=");
	assert_non_null(script);
	assert_int_equal(count(page, "<script"), 1);
	assert_int_equal(count(page, "</script"), 1);
	assert_int_equal(count(page, "<style"), 1);
	assert_int_equal(count(page, "</style"), 1);
	for (const char *at = strchr(page, '<'); at && at < script; at = strchr(at + 1, '<')) {
		const char *name = at + 1 + (at[1] == '/');
		size_t n = strcspn(name, " >\n"), known = 0;
		for (size_t k = 0; k < sizeof ours / sizeof *ours; k++)
			known += strlen(ours[k]) == n && strncmp(name, ours[k], n) == 0;
		if (!known)
			fail_msg("a tag that is not ours: %.60s", at);
		/* no event handler, no address but embedded data */
		const char *end = strchr(at, '>');
		assert_non_null(end);
		for (const char *a = at; a < end; a++) {
			if (*a == '"') /* over values: they are escaped, so the next quote is their end */
				a = strchr(a + 1, '"');
			assert_true(strncmp(a, " on", 3) != 0);
			assert_true(strncmp(a, " href", 5) != 0);
			if (strncmp(a, " src", 4) == 0)
				assert_int_equal(strncmp(a, " src=\"data:image/jpeg;base64,", 29), 0);
		}
	}
	assert_int_equal(count(page, "http://") + count(page, "https://"), 0);
}

static void test_whole(void **state)
{
	const char *dir = *state;
	struct favor_error e = {0};
	write_example(dir, NULL, 0);
	assert_int_equal(report_write(dir, &e), 0);
	char *page = read_text(dir, "report.html");
	assert_non_null(page);
	check_tags(page);

	has(page, "&lt;/script&gt;&lt;/style&gt;&lt;script&gt;document.title=&#39;owned&#39;&lt;/script&gt;"
	          "&lt;img src=x onerror=&quot;document.title=&#39;owned&#39;&quot;&gt;"); /* shown, as text */
	has(page,
	    "<span class=tag>&lt;think&gt;</span><span class=\"think\">I see</span><span class=tag>&lt;/think&gt;</span>");
	has(page, "gone/&quot;&lt;x&gt;.jpg</div>");
	has(page, "title=\"there is no such file\">/dev/zero</div>");
	has(page, "&lt;b&gt;x&lt;/b&gt;");
	has(page, "&lt;i&gt;odd&lt;/i&gt;");
	has(page, "dir: &#39;&lt;/pre&gt;&lt;script&gt;&#39;");
	has(page, "<p>GRPO of models/har-tiny on data/synth/train.jsonl, 4 shots a class, 4 groups of 8 responses a step, "
	          "learning "
	          "rate 1.0e-5, seed 0</p>");
	has(page, "Steps</span><b>120</b><small>of 120</small>");
	has(page, "<h3>Confusion, before</h3>");
	has(page, "<h3>Confusion, after</h3>");
	has(page, "<tr><td>step-000040<td>");
	assert_true(strstr(page, "<tr><td>step-000040<td>") < strstr(page, "<tr><td>step-000100<td>"));
	assert_true(strstr(page, "<tr><td>step-000100<td>") < strstr(page, "<tr><td>after<td>"));
	const char *titles[] = {"Reward",
	                        "Accuracy",
	                        "Format",
	                        "Loss",
	                        "KL to the reference",
	                        "Response length",
	                        "Entropy",
	                        "Groups without a signal",
	                        "Gradient norm",
	                        "Learning rate",
	                        "Sampler against learner",
	                        "Throughput",
	                        "Step time",
	                        "Idle by role"};
	for (size_t i = 0; i < sizeof titles / sizeof *titles; i++) {
		char *figure = favor_format("<figure><figcaption><b>%s</b>", titles[i]);
		has(page, figure);
		free(figure);
	}
	assert_int_equal(count(page, "<article"), 60);
	assert_int_equal(count(page, "src=\"data:image/jpeg;base64,/9j/"), 58);
	assert_null(strstr(page, "class=notes"));
	assert_null(strstr(page, "nan"));
	assert_null(strstr(page, "inf "));

	/* the same input gives the same page */
	assert_int_equal(report_write(dir, &e), 0);
	char *again = read_text(dir, "report.html");
	assert_string_equal(page, again);
	free(again);
	free(page);
	assert_null(read_text(dir, "report.html.tmp"));
}

static void test_little(void **state)
{
	char *dir = favor_format("%s/little", (char *)*state);
	struct favor_error e = {0};
	assert_int_equal(mkdir(dir, 0777), 0);
	/* one step and nothing else: a report with notes */
	write_text(dir, "metrics.jsonl", "{\"step\": 1, \"loss\": 2.5, \"kl\": null}\n{\"step\": 2, \"lo");
	assert_int_equal(report_write(dir, &e), 0);
	char *page = read_text(dir, "report.html");
	check_tags(page);
	has(page, "<h1>little</h1>");
	has(page, "<li>config.yaml: No such file or directory;");
	has(page, "samples.jsonl: can&#39;t be opened: No such file or directory;");
	has(page, "<li>There is no evaluation yet");
	has(page, "<b>Loss</b>");
	assert_null(strstr(page, "KL to"));
	assert_null(strstr(page, "are not a step")); /* a half last line is a run that goes on */
	free(page);

	/* broken everything: still a report */
	write_text(dir, "metrics.jsonl",
	           "{\"step\": 1, \"loss\": 1e308, \"x\": -1e308}\nnonsense\n[]\n{\"step\": \"a\"}\n{\"step\": "
	           "1e400}\n{\"step\": 2, \"loss\": -1e308, \"x\": 1e308}\n");
	write_text(dir, "samples.jsonl",
	           "null\n{\"step\": 1, \"group\": 1}\n{\"step\": 1, \"group\": 1, \"rewards\": [], \"reward\": "
	           "\"x\", \"response\": 5}\n{");
	write_text(dir, "config.yaml", "a: [b\n  c: {");
	write_text(dir, "eval-before.json",
	           "{\"accuracy\": 0.5, \"interval\": 3, \"classes\": {}, \"confusion\": [1, [], [\"x\"]]}");
	write_text(dir, "eval-a.json", "{\"accuracy\": \"no\"}");
	write_text(dir, "eval-b.json", "{");
	write_text(dir, "eval-<i>.json", "[]");
	assert_int_equal(report_write(dir, &e), 0);
	page = read_text(dir, "report.html");
	check_tags(page);
	has(page, "<li>metrics.jsonl: 4 lines are not a step&#39;s metrics and were left out, the first is line 2.</li>");
	has(page, "<li>samples.jsonl: 1 lines are no samples");
	has(page, "<li>config.yaml is not valid YAML");
	has(page, "<li>eval-a.json is no evaluation");
	has(page, "<li>eval-b.json, line 1:");
	has(page, "<li>eval-&lt;i&gt;.json");
	assert_int_equal(count(page, "<article"), 1);
	free(page);

	write_text(dir, "metrics.jsonl", "");
	assert_int_equal(report_write(dir, &e), 0);
	free(dir);
}

static void test_command(void **state)
{
	struct favor_error e = {0};
	char *nothing = favor_format("%s/nothing", (char *)*state);
	char *no_run[] = {"report", nothing, NULL}, *none[] = {"report", NULL}, *odd[] = {"report", "--fast", "x", NULL};
	char *two[] = {"report", "a", "b", NULL}, *good[] = {"report", *state, NULL}, *help[] = {"report", "--help", NULL};
	assert_int_equal(cmd_report(2, no_run, &e), 2);
	has(e.message, "/nothing/metrics.jsonl: can't be opened: No such file or directory; give the folder of a run");
	assert_int_equal(cmd_report(1, none, &e), 2);
	has(e.message, "needs the folder of a run");
	assert_int_equal(cmd_report(3, odd, &e), 2);
	has(e.message, "--fast");
	assert_int_equal(cmd_report(3, two, &e), 2);
	assert_int_equal(cmd_report(2, good, &e), 0);
	assert_int_equal(cmd_report(2, help, &e), 0);
	free(nothing);
}

int main(int argc, char **argv)
{
	if (argc > 1) {
		struct favor_error e = {0};
		write_example(argv[1], argv + 2, argc - 2);
		return report_write(argv[1], &e) == 0 ? 0 : 1;
	}
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_whole), cmocka_unit_test(test_little),
	                                   cmocka_unit_test(test_command)};
	return cmocka_run_group_tests(tests, setup, teardown);
}
