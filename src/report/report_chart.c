/* The curves: one small SVG a group of metrics, drawn here so that the page shows them without any script. Thin line:
 * the values; thick line: their moving average. The same points stand in data-points for the script's read-out under
 * the pointer.
 *
 *   (0,0) +--------------------------------+ WIDTH
 *         |LEFT  plot                 RIGHT|          TOP above, BOTTOM below the plot for the steps
 *  HEIGHT +--------------------------------+ */
#include "report/report_parts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Drawing area in SVG units, and how much is drawn. */
enum { WIDTH = 420, HEIGHT = 190, LEFT = 50, RIGHT = 10, TOP = 8, BOTTOM = 22, MAX_SERIES = 8, MAX_POINTS = 500 };

struct series {
	const char *name, *label; /* metric; what the legend says */
};
enum { SHARE = 1, EXACT = 2 }; /* an axis from 0 to 1 | no noise to average away */
struct chart {
	const char *title, *help;
	int flags;
	struct series series[MAX_SERIES];
};

/* What the page shows first to last. A chart without values is left out. docs/METRICS.md defines the metrics. */
static const struct chart charts[] = {
    {"Reward", "weighted sum of the rewards, mean over the step's responses", 0, {{"reward", "reward"}}},
    {"Accuracy",
     "share of right answers: in training (sampled) and on held-out data (greedy)",
     SHARE,
     {{"rewards/accuracy/mean", "training"}, {"eval/accuracy", "held out"}}},
    {"Format",
     "share of responses in the asked-for form",
     SHARE,
     {{"rewards/format/mean", "training"}, {"eval/format", "held out"}}},
    {"Loss", "", 0, {{"loss", "loss"}}},
    {"KL to the reference", "mean per token, k3 estimate", 0, {{"kl", "kl"}}},
    {"Response length",
     "tokens",
     0,
     {{"completions/mean_length", "mean"}, {"completions/min_length", "min"}, {"completions/max_length", "max"}}},
    {"Cut off", "share of responses that ran into max_tokens", 0, {{"completions/clipped_ratio", "cut off"}}},
    {"Entropy", "of the next-token distribution, nats, mean per token", 0, {{"entropy", "entropy"}}},
    {"Groups without a signal",
     "share of groups whose rewards are all equal: they teach nothing",
     SHARE,
     {{"frac_reward_zero_std", "share"}}},
    {"Spread of rewards", "standard deviation over the step's responses", 0, {{"reward_std", "std"}}},
    {"Clipped tokens",
     "share of tokens whose ratio left the trust region",
     0,
     {{"clip_ratio/low_mean", "low"}, {"clip_ratio/high_mean", "high"}}},
    {"Gradient norm", "before clipping", 0, {{"grad_norm", "norm"}}},
    {"Learning rate", "", EXACT, {{"learning_rate", "lr"}}},
    {"Sampler against learner",
     "absolute difference of their log-probabilities: above noise means a broken loop",
     0,
     {{"sampling/sampling_logp_difference/mean", "mean"}, {"sampling/sampling_logp_difference/max", "max"}}},
    {"Throughput", "tokens per second", 0, {{"tokens_per_second", "tok/s"}}},
    {"Step time", "seconds", 0, {{"step_time", "s"}}},
    {"Time by phase",
     "seconds a step",
     0,
     {{"time/rollout", "rollout"},
      {"time/reward", "reward"},
      {"time/forward", "forward"},
      {"time/backward", "backward"},
      {"time/reduce", "reduce"},
      {"time/optimizer", "optimizer"},
      {"time/publish", "publish"}}},
    {"Idle by role",
     "share of the step that ranks of a role spent waiting",
     SHARE,
     {{"idle/rollout", "rollout"}, {"idle/reward", "reward"}, {"idle/learner", "learner"}}},
    {"Peak memory",
     "MiB, largest rank of each role",
     EXACT,
     {{"memory/rollout_peak_rss_mib", "rollout"},
      {"memory/reward_peak_rss_mib", "reward"},
      {"memory/learner_peak_rss_mib", "learner"}}},
};
enum { CHARTS = sizeof charts / sizeof *charts };

/* The finite points of one metric in the order of the file. */
struct points {
	int n;
	double *x, *y, *smooth; /* [n], owned; smooth NULL if there are too few to average */
};

static void points_free(struct points *p)
{
	free(p->x);
	free(p->y);
	free(p->smooth);
	*p = (struct points){0};
}

/* Centred moving average over a twentieth of the points, so that it does not lag behind. */
static void smooth(struct points *p)
{
	int half = p->n / 40 < 25 ? p->n / 40 : 25;
	if (half < 1)
		return;
	p->smooth = favor_malloc(sizeof(double) * (size_t)p->n);
	for (int i = 0; i < p->n; i++) {
		int from = i - half < 0 ? 0 : i - half, to = i + half >= p->n ? p->n - 1 : i + half;
		double sum = 0;
		for (int j = from; j <= to; j++)
			sum += p->y[j];
		p->smooth[i] = sum / (to - from + 1);
	}
}

/* At most MAX_POINTS points: means over runs of neighbours. */
static void thin_out(struct points *p)
{
	if (p->n <= MAX_POINTS)
		return;
	for (int i = 0; i < MAX_POINTS; i++) {
		int from = (int)((int64_t)i * p->n / MAX_POINTS), to = (int)((int64_t)(i + 1) * p->n / MAX_POINTS);
		double x = 0, y = 0, s = 0;
		for (int j = from; j < to; j++) {
			x += p->x[j];
			y += p->y[j];
			s += p->smooth ? p->smooth[j] : 0;
		}
		p->x[i] = round(x / (to - from));
		p->y[i] = y / (to - from);
		if (p->smooth)
			p->smooth[i] = s / (to - from);
	}
	p->n = MAX_POINTS;
}

static struct points points_of(const struct table *t, const double *values, int flags)
{
	struct points p = {0};
	p.x = favor_malloc(sizeof(double) * (size_t)t->rows);
	p.y = favor_malloc(sizeof(double) * (size_t)t->rows);
	for (int32_t i = 0; values && i < t->rows; i++)
		if (isfinite(values[i]) && isfinite(t->step[i])) {
			p.x[p.n] = t->step[i];
			p.y[p.n++] = values[i];
		}
	if (!(flags & EXACT))
		smooth(&p);
	thin_out(&p);
	return p;
}

struct axis {
	double low, high, tick;
};

/* About `ticks` steps of 1, 2 or 5 times a power of ten. */
static double nice_tick(double range, int ticks)
{
	double raw = range / ticks, power = pow(10, floor(log10(raw))), part = raw / power;
	return power * (part < 1.5 ? 1 : part < 3.5 ? 2 : part < 7.5 ? 5 : 10);
}

static struct axis value_axis(double low, double high, int share)
{
	if (share && low >= 0 && high <= 1)
		return (struct axis){0, 1, 0.25};
	if (low > 0 && low < 0.6 * high)
		low = 0;
	if (high < 0 && high > 0.6 * low)
		high = 0;
	double least = fmax(fabs(low), fabs(high)) * 1e-6;
	if (high - low <= least) { /* a constant */
		double value = low;
		low = fmin(2 * value, 0);
		high = value == 0 ? 1 : fmax(2 * value, 0);
	}
	double tick = nice_tick(high - low, 4);
	return (struct axis){floor(low / tick + 1e-9) * tick, ceil(high / tick - 1e-9) * tick, tick};
}

static double place(const struct axis *a, double v, double from, double to)
{
	return from + (v - a->low) / (a->high - a->low) * (to - from);
}

static void add_axes(struct text *page, const struct axis *x, const struct axis *y)
{
	for (int i = 0; i <= 12; i++) {
		double v = y->low + i * y->tick, at = place(y, v, HEIGHT - BOTTOM, TOP);
		if (at < TOP - 0.5)
			break;
		text_format(page, "<path class=grid d=\"M%d %.1fH%d\"/><text class=y x=%d y=%.1f>", LEFT, at, WIDTH - RIGHT,
		            LEFT - 6, at + 3.5);
		add_number(page, fabs(v) < 1e-9 * y->tick ? 0 : v);
		text_add(page, "</text>");
	}
	for (double v = ceil(x->low / x->tick) * x->tick; v <= x->high; v += x->tick) {
		text_format(page, "<text class=x x=%.1f y=%d>", place(x, v, LEFT, WIDTH - RIGHT), HEIGHT - 6);
		add_number(page, v);
		text_add(page, "</text>");
	}
}

static void add_line(struct text *page, const struct points *p, const double *values, const struct axis *x,
                     const struct axis *y, int color, const char *kind)
{
	text_format(page, "<path class=\"%s c%d\" d=\"", kind, color);
	for (int i = 0; i < p->n; i++)
		text_format(page, "%c%.1f %.1f", i ? 'L' : 'M', place(x, p->x[i], LEFT, WIDTH - RIGHT),
		            place(y, values[i], HEIGHT - BOTTOM, TOP));
	text_add(page, "\"/>");
}

/* A series with less than a fifth of the steps (evaluations) or few points at all shows them as dots. */
static void add_dots(struct text *page, const struct points *p, const struct axis *x, const struct axis *y, int color)
{
	for (int i = 0; i < p->n; i++)
		text_format(page, "<circle class=c%d cx=%.1f cy=%.1f r=3 />", color, place(x, p->x[i], LEFT, WIDTH - RIGHT),
		            place(y, p->y[i], HEIGHT - BOTTOM, TOP));
}

static void add_data(struct text *json, const struct points *p, const char *label)
{
	text_add(json, json->n > 1 ? ",{\"n\":" : "{\"n\":");
	text_json_string(json, label);
	text_add(json, ",\"x\":[");
	for (int i = 0; i < p->n; i++)
		text_format(json, "%s%.10g", i ? "," : "", p->x[i]);
	text_add(json, "],\"y\":[");
	for (int i = 0; i < p->n; i++)
		text_format(json, "%s%.5g", i ? "," : "", p->y[i]);
	text_add(json, "]}");
}

static void add_legend(struct text *page, const struct series *s, const struct points *p, int n, int shown)
{
	text_add(page, "<div class=legend>");
	for (int i = 0; i < n; i++) {
		if (p[i].n == 0)
			continue;
		text_format(page, "<span><i class=c%d></i>", i);
		if (shown > 1) {
			add_escaped(page, s[i].label);
			text_add(page, " ");
		}
		text_add(page, "<b>");
		add_number(page, p[i].smooth ? p[i].smooth[p[i].n - 1] : p[i].y[p[i].n - 1]);
		text_add(page, "</b></span>");
	}
	text_add(page, "</div>");
}

/* Nothing if none of the metrics has a value. */
static void add_chart(struct text *page, const struct table *t, const char *title, const char *help, int flags,
                      const struct series *series, int n, const struct run_data *d)
{
	struct points p[MAX_SERIES] = {0};
	double low = INFINITY, high = -INFINITY, first = INFINITY, last = -INFINITY;
	int shown = 0;
	struct text json = {0};
	for (int k = 0; k < n; k++) {
		p[k] = points_of(t, run_data_column(d, series[k].name), flags);
		shown += p[k].n > 0;
		for (int i = 0; i < p[k].n; i++) {
			low = fmin(low, p[k].y[i]);
			high = fmax(high, p[k].y[i]);
			first = fmin(first, p[k].x[i]);
			last = fmax(last, p[k].x[i]);
		}
	}
	if (shown == 0 || fmax(fabs(low), fabs(high)) > 1e300 || fmax(fabs(first), fabs(last)) > 1e15)
		goto done; /* beyond what an axis can show */
	if (last == first) {
		first -= 1;
		last += 1;
	}
	struct axis y = value_axis(low, high, flags & SHARE), x = {first, last, fmax(1, nice_tick(last - first, 5))};

	text_add(page, "<figure><figcaption><b>");
	add_escaped(page, title);
	text_add(page, "</b><small>");
	add_escaped(page, help);
	text_add(page, "</small></figcaption>");
	add_legend(page, series, p, n, shown);
	text_add(&json, "[");
	for (int k = 0; k < n; k++)
		if (p[k].n > 0)
			add_data(&json, &p[k], series[k].label);
	text_add(&json, "]");
	text_format(page, "<svg viewBox=\"0 0 %d %d\" role=img aria-label=\"", WIDTH, HEIGHT);
	add_escaped(page, title);
	text_format(page, "\" data-axis=\"%.10g,%.10g,%d,%d\" data-points=\"", x.low, x.high, LEFT, WIDTH - RIGHT);
	text_html(page, json.data, json.n);
	text_add(page, "\">");
	add_axes(page, &x, &y);
	for (int k = 0; k < n; k++) {
		int dots = p[k].n > 0 && (p[k].n <= 2 || p[k].n * 5 < t->rows) && p[k].n < MAX_POINTS;
		if (p[k].n == 0)
			continue;
		add_line(page, &p[k], p[k].y, &x, &y, k, p[k].smooth ? "line raw" : "line");
		if (p[k].smooth)
			add_line(page, &p[k], p[k].smooth, &x, &y, k, "line");
		if (dots)
			add_dots(page, &p[k], &x, &y, k);
	}
	text_format(page, "<path class=cursor d=\"M0 %dV%d\"/></svg><output></output></figure>", TOP, HEIGHT - BOTTOM);
done:
	text_free(&json);
	for (int k = 0; k < n; k++)
		points_free(&p[k]);
}

static int series_count(const struct chart *c)
{
	int n = 0;
	while (n < MAX_SERIES && c->series[n].name)
		n++;
	return n;
}

static int in_charts(const char *name)
{
	for (int c = 0; c < CHARTS; c++)
		for (int k = 0; k < series_count(&charts[c]); k++)
			if (strcmp(charts[c].series[k].name, name) == 0)
				return 1;
	return 0;
}

void add_charts(struct text *page, const struct run_data *d)
{
	if (d->metrics.rows == 0)
		return;
	text_add(page,
	         "<section><h2>Curves</h2><p class=dim>Thin lines: the steps. Thick lines, and the numbers: their moving "
	         "average, at the last step.</p><div class=charts>");
	for (int c = 0; c < CHARTS; c++)
		add_chart(page, &d->metrics, charts[c].title, charts[c].help, charts[c].flags, charts[c].series,
		          series_count(&charts[c]), d);
	text_add(page, "</div><details><summary>All other metrics</summary><div class=charts>");
	for (int32_t c = 0; c < d->metrics.columns; c++) {
		const char *name = d->metrics.column[c].name;
		struct series one = {name, name};
		if (!in_charts(name))
			add_chart(page, &d->metrics, name, "", 0, &one, 1, d);
	}
	text_add(page, "</div></details></section>");
}
