/* favor report: RUN_DIR/report.html, one file that needs no network, from what the run left. Called by `favor report`
 * and at the end of a training run. The page says so itself to the browser: its content security policy allows no
 * connection, and no script but the one whose nonce it carries. The nonce is a hash of the page, so nothing in the page
 * can know it. */
#include "report/report.h"

#include "base/hash.h"
#include "report/report_parts.h"

#include <inttypes.h>
#include <limits.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

void add_escaped(struct text *page, const char *s)
{
	text_html(page, s, strlen(s));
}

void add_number(struct text *page, double x)
{
	double a = fabs(x);
	if (!isfinite(x))
		text_add(page, "–");
	else if (a >= 1e12)
		text_format(page, "%.3g", x);
	else if (a >= 1e9)
		text_format(page, "%.4gG", x / 1e9);
	else if (a >= 1e6)
		text_format(page, "%.4gM", x / 1e6);
	else if (a >= 1e5)
		text_format(page, "%.4gk", x / 1e3);
	else if (a >= 1e4 || x == floor(x))
		text_format(page, "%.0f", x);
	else
		text_format(page, "%.4g", x);
}

void add_percent(struct text *page, double share)
{
	if (isfinite(share))
		text_format(page, "%.1f%%", 100 * share);
	else
		text_add(page, "–");
}

/* The folder's own name, also for "." and paths that end in '/'. */
static void add_run_name(struct text *page, const char *dir)
{
	char *full = realpath(dir, NULL);
	const char *name = full ? strrchr(full, '/') : NULL;
	add_escaped(page, name && name[1] ? name + 1 : dir);
	free(full);
}

static void add_fact(struct text *page, const struct run_data *d, const char *key, const char *before,
                     const char *after)
{
	const char *value = run_data_fact(d, key);
	if (!value[0])
		return;
	text_add(page, before);
	add_escaped(page, value);
	text_add(page, after);
}

static void add_subtitle(struct text *page, const struct run_data *d)
{
	const char *method = run_data_fact(d, "method");
	text_add(page, "<p>");
	if (method[0])
		add_escaped(page, strcmp(method, "grpo") == 0  ? "GRPO"
		                  : strcmp(method, "sft") == 0 ? "Supervised (SFT)"
		                                               : method);
	add_fact(page, d, "model.path", " of ", "");
	add_fact(page, d, "data.train", " on ", "");
	if (strcmp(run_data_fact(d, "data.shots"), "0") != 0)
		add_fact(page, d, "data.shots", ", ", " shots a class");
	if (strcmp(method, "grpo") == 0) {
		add_fact(page, d, "learner.groups_per_step", ", ", " groups");
		add_fact(page, d, "rollout.group_size", " of ", " responses a step");
	}
	add_fact(page, d, "learner.lr", ", learning rate ", "");
	add_fact(page, d, "run.seed", ", seed ", "");
	text_add(page, "</p>");
}

static double sum(const double *values, int32_t from, int32_t to)
{
	double s = 0;
	for (int32_t i = from; values && i < to; i++)
		s += isfinite(values[i]) ? values[i] : 0;
	return s;
}

static double mean(const double *values, int32_t from, int32_t to)
{
	int32_t n = 0;
	for (int32_t i = from; values && i < to; i++)
		n += isfinite(values[i]) != 0;
	return n ? sum(values, from, to) / n : NAN;
}

static void add_accuracy_tile(struct text *page, const struct run_data *d)
{
	if (d->eval_count == 0)
		return;
	const struct eval_file *v[2] = {&d->evals[0], &d->evals[d->eval_count - 1]};
	double a[2];
	for (int i = 0; i < 2; i++)
		a[i] = json_number_value(json_object_get(v[i]->root, "accuracy"));
	text_add(page, "<div class=\"tile wide\"><span>Held-out accuracy</span><b>");
	if (d->eval_count > 1) {
		add_percent(page, a[0]);
		text_add(page, " → ");
	}
	add_percent(page, a[1]);
	text_add(page, "</b>");
	if (d->eval_count > 1)
		text_format(page, " <em class=%s>%+.1f points</em>", a[1] >= a[0] ? "up" : "down", 100 * (a[1] - a[0]));
	json_t *interval = json_object_get(v[1]->root, "interval");
	if (json_array_size(interval) == 2) {
		text_add(page, "<small>95% interval ");
		add_percent(page, json_number_value(json_array_get(interval, 0)));
		text_add(page, " – ");
		add_percent(page, json_number_value(json_array_get(interval, 1)));
		text_add(page, ", ");
		add_escaped(page, v[1]->name);
		text_add(page, "</small>");
	}
	text_add(page, "</div>");
}

/* First and last tenth of the run, so that one lucky step says nothing. */
static void add_change_tile(struct text *page, const struct run_data *d, const char *title, const char *metric)
{
	const double *values = run_data_column(d, metric);
	int32_t rows = d->metrics.rows, part = rows / 10 > 0 ? rows / 10 : 1;
	double first = mean(values, 0, part), last = mean(values, rows - part, rows);
	if (!isfinite(last))
		return;
	text_format(page, "<div class=tile><span>%s</span><b>", title);
	if (isfinite(first))
		text_format(page, "%.3g → ", first);
	text_format(page, "%.3g</b><small>mean of the first and last %d step%s</small></div>", last, part,
	            part == 1 ? "" : "s");
}

static void add_time(struct text *page, double seconds)
{
	long s = seconds < 1e9 ? lround(seconds) : 0;
	if (s >= 3600)
		text_format(page, "%ld h %02ld min", s / 3600, s / 60 % 60);
	else if (s >= 60)
		text_format(page, "%ld min %02ld s", s / 60, s % 60);
	else
		text_format(page, "%.1f s", seconds);
}

static void add_tiles(struct text *page, const struct run_data *d)
{
	const struct table *t = &d->metrics;
	const double *tokens = run_data_column(d, "num_tokens"), *seconds = run_data_column(d, "step_time");
	text_add(page, "<div class=tiles>");
	add_accuracy_tile(page, d);
	if (run_data_column(d, "reward"))
		add_change_tile(page, d, "Reward", "reward");
	else
		add_change_tile(page, d, "Loss", "loss");
	if (t->rows > 0) {
		text_add(page, "<div class=tile><span>Steps</span><b>");
		add_number(page, t->step[t->rows - 1]);
		text_add(page, "</b>");
		add_fact(page, d, "learner.steps", "<small>of ", "</small>");
		text_add(page, "</div>");
	}
	if (seconds) {
		double total = sum(seconds, 0, t->rows);
		text_add(page, "<div class=tile><span>Time in steps</span><b>");
		add_time(page, total);
		text_add(page, "</b><small>");
		add_number(page, total / t->rows);
		text_add(page, " s a step</small></div>");
	}
	if (tokens && t->rows > 0 && isfinite(tokens[t->rows - 1])) {
		text_add(page, "<div class=tile><span>Tokens</span><b>");
		add_number(page, tokens[t->rows - 1]);
		text_add(page, "</b></div>");
	}
	text_add(page, "</div>");
}

static void add_config(struct text *page, const struct run_data *d)
{
	if (!d->config)
		return;
	text_add(page,
	         "<section><h2>Configuration</h2><details class=card><summary>config.yaml, every option</summary><pre>");
	add_escaped(page, d->config);
	text_add(page, "</pre></details></section>");
}

/* Everything below <head>. */
static void add_body(struct text *page, struct run_data *d)
{
	struct text sections = {0}; /* first, for they add notes */
	add_evaluations(&sections, d);
	add_charts(&sections, d);
	add_gallery(&sections, d);
	add_config(&sections, d);

	text_add(page, "<main><header><h1>");
	add_run_name(page, d->dir);
	text_add(page, "</h1>");
	add_subtitle(page, d);
	add_tiles(page, d);
	if (d->notes.n > 0) {
		text_add(page, "<ul class=notes>");
		text_bytes(page, d->notes.data, d->notes.n);
		text_add(page, "</ul>");
	}
	text_add(page, "</header>");
	text_bytes(page, sections.data, sections.n);
	text_add(page, "<footer>favor " FAVOR_VERSION "; what the metrics mean: docs/METRICS.md</footer></main>");
	text_free(&sections);
}

int report_write(const char *run_dir, struct favor_error *e)
{
	struct run_data d;
	struct text body = {0}, page = {0};
	char *path = favor_format("%s/report.html", run_dir);
	int result = -1;
	if (run_data_load(&d, run_dir, e) != 0)
		goto done;
	add_body(&body, &d);

	uint64_t nonce = hash_mix(hash_bytes(HASH_START, body.data, body.n));
	text_format(&page,
	            "<!doctype html><html lang=en><meta charset=utf-8><meta name=viewport "
	            "content=\"width=device-width,initial-scale=1\"><meta http-equiv=Content-Security-Policy "
	            "content=\"default-src 'none';img-src data:;style-src 'unsafe-inline';script-src "
	            "'nonce-%016" PRIx64 "'\"><title>",
	            nonce);
	add_run_name(&page, run_dir);
	text_format(&page, " – favor</title><style>%s</style>", report_style());
	text_bytes(&page, body.data, body.n);
	text_format(&page, "<script nonce=%016" PRIx64 ">%s</script></html>\n", nonce, report_script());
	result = text_write_file(&page, path, e);
done:
	run_data_free(&d);
	text_free(&body);
	text_free(&page);
	free(path);
	return result;
}
