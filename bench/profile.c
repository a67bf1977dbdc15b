/* Timed wrappers for the slots of the backend's table. Operations and bytes are counted from shapes, as if every
 * operand were read or written once; bytes in caches cost less than bytes in memory, so a rate may be above the
 * memory's. */
#include "profile.h"

#include "base/clock.h"

#include <stdlib.h>
#include <string.h>

/* What a call has to do. */
struct work {
	int64_t m, n, k;
	double flops, floats;
};

static void add(struct profile *p, const char *op, struct work w, double begin)
{
	const double seconds = clock_seconds() - begin;
	struct profile_line *l = NULL;
	for (int i = 0; i < p->count && !l; i++) {
		struct profile_line *o = &p->lines[i];
		if (o->op == op && o->phase == p->phase && o->m == w.m && o->n == w.n && o->k == w.k)
			l = o;
	}
	if (!l) {
		if (p->count == p->capacity) {
			p->capacity = p->capacity ? 2 * p->capacity : 64;
			p->lines = favor_realloc(p->lines, (size_t)p->capacity * sizeof *p->lines);
		}
		l = &p->lines[p->count++];
		*l = (struct profile_line){.op = op, .phase = p->phase, .m = w.m, .n = w.n, .k = w.k};
	}
	l->calls++;
	l->seconds += seconds;
	l->flops += w.flops;
	l->bytes += w.floats * (double)sizeof(float);
}

/* A product of [m, k] and [k, n], `times` of them. */
static struct work product(int64_t m, int64_t n, int64_t k, int times)
{
	return (struct work){m, n, k, 2.0 * times * (double)m * (double)n * (double)k, (double)(m * n + m * k + n * k)};
}

/* `passes` reads or writes of an array as large as x; its arithmetic is not counted. */
static struct work rows_of(struct tensor x, double passes)
{
	return (struct work){.m = x.rows, .n = x.cols, .floats = passes * (double)(x.rows * x.cols)};
}

static struct work flat(int64_t n, double flops, double passes)
{
	return (struct work){.m = n, .n = 1, .flops = flops * (double)n, .floats = passes * (double)n};
}

/* `each` products of a query and a key, of the head's dimension D: 2 D operations each. Pairs that the causal mask
 * hides are not counted. */
static struct work attention(struct tensor q, struct tensor k, const struct segment *segments, int count, int each)
{
	double pairs = 0, keys = 0;
	for (int i = 0; i < count; i++) {
		const struct segment *s = &segments[i];
		const double own = s->causal ? s->kv_len - 0.5 * (s->q_len - 1) : s->kv_len;
		pairs += (double)s->q_len * (s->prefix_len + own);
		keys += s->kv_len;
		if (s->prefix_len &&
		    (i == 0 || s->prefix_start != segments[i - 1].prefix_start)) /* a shared one is read once */
			keys += s->prefix_len;
	}
	return (struct work){.m = q.rows,
	                     .n = q.cols,
	                     .flops = 2.0 * each * pairs * (double)q.cols,
	                     .floats = 2.0 * (double)(q.rows * q.cols) + 2 * keys * (double)k.cols};
}

static int64_t elements(const struct adamw_range *ranges, int count)
{
	int64_t n = 0;
	for (int i = 0; i < count; i++)
		n += ranges[i].count;
	return n;
}

#define TIMED(slot, work, parameters, ...)                                                                             \
	static void timed_##slot parameters                                                                                \
	{                                                                                                                  \
		struct profile *p = (struct profile *)b;                                                                       \
		const double begin = clock_seconds();                                                                          \
		p->inner->ops.slot(p->inner, ##__VA_ARGS__);                                                                   \
		add(p, #slot, work, begin);                                                                                    \
	}
/* clang-format off */
TIMED(upload, flat((int64_t)(bytes / sizeof(float)), 0, 2), (struct backend *b, void *to, const void *from, size_t bytes), to, from, bytes)
TIMED(download, flat((int64_t)(bytes / sizeof(float)), 0, 2), (struct backend *b, void *to, const void *from, size_t bytes), to, from, bytes)
TIMED(zero, flat((int64_t)(bytes / sizeof(float)), 0, 1), (struct backend *b, void *to, size_t bytes), to, bytes)
TIMED(sync, flat(0, 0, 0), (struct backend *b))
TIMED(weights_changed, flat(0, 0, 0), (struct backend *b))
TIMED(linear, product(x.rows, w.rows, w.cols, 1),
      (struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias, int accumulate),
      y, x, w, bias, accumulate)
TIMED(linear_backward_input, product(dy.rows, w.cols, w.rows, 1),
      (struct backend *b, struct tensor dx, struct tensor dy, struct tensor w, int accumulate), dx, dy, w, accumulate)
TIMED(linear_backward_weight, product(dw.rows, dw.cols, dy.rows, 1),
      (struct backend *b, struct tensor dw, float *dbias, struct tensor dy, struct tensor x), dw, dbias, dy, x)
TIMED(rmsnorm, rows_of(x, 2),
      (struct backend *b, struct tensor y, float *rstd, struct tensor x, const float *weight, float eps),
      y, rstd, x, weight, eps)
TIMED(rmsnorm_backward, rows_of(x, 4),
      (struct backend *b, struct tensor dx, float *dweight, struct tensor dy, struct tensor x, const float *weight, const float *rstd),
      dx, dweight, dy, x, weight, rstd)
TIMED(layernorm, rows_of(x, 2),
      (struct backend *b, struct tensor y, float *mean, float *rstd, struct tensor x, const float *weight, const float *bias, float eps),
      y, mean, rstd, x, weight, bias, eps)
TIMED(layernorm_backward, rows_of(x, 4),
      (struct backend *b, struct tensor dx, float *dweight, float *dbias, struct tensor dy, struct tensor x, const float *weight,
       const float *mean, const float *rstd),
      dx, dweight, dbias, dy, x, weight, mean, rstd)
TIMED(rope, rows_of(x, 2), (struct backend *b, struct tensor x, int heads, struct tensor cos, struct tensor sin, int inverse),
      x, heads, cos, sin, inverse)
TIMED(attention, attention(q, k, segments, segment_count, 2),
      (struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k, struct tensor v, int heads, int kv_heads,
       float scale, const struct segment *segments, int segment_count),
      o, lse, q, k, v, heads, kv_heads, scale, segments, segment_count)
TIMED(attention_backward, attention(q, k, segments, segment_count, 5),
      (struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor do_, struct tensor o, const float *lse,
       struct tensor q, struct tensor k, struct tensor v, int heads, int kv_heads, float scale, const struct segment *segments,
       int segment_count),
      dq, dk, dv, do_, o, lse, q, k, v, heads, kv_heads, scale, segments, segment_count)
TIMED(swiglu, rows_of(gate, 3), (struct backend *b, struct tensor y, struct tensor gate, struct tensor up), y, gate, up)
TIMED(swiglu_backward, rows_of(gate, 5),
      (struct backend *b, struct tensor dgate, struct tensor dup, struct tensor dy, struct tensor gate, struct tensor up),
      dgate, dup, dy, gate, up)
TIMED(activation, rows_of(x, 2), (struct backend *b, struct tensor y, struct tensor x, enum activation kind), y, x, kind)
TIMED(activation_backward, rows_of(x, 3),
      (struct backend *b, struct tensor dx, struct tensor dy, struct tensor x, enum activation kind), dx, dy, x, kind)
TIMED(add, rows_of(y, 3), (struct backend *b, struct tensor y, struct tensor a, struct tensor c), y, a, c)
TIMED(gather_rows, rows_of(y, 2), (struct backend *b, struct tensor y, struct tensor x, const int32_t *rows), y, x, rows)
TIMED(scatter_rows, rows_of(x, 2), (struct backend *b, struct tensor y, struct tensor x, const int32_t *rows), y, x, rows)
TIMED(scatter_rows_add, rows_of(x, 3), (struct backend *b, struct tensor y, struct tensor x, const int32_t *rows), y, x, rows)
TIMED(head_logprob, product(h.rows, w.rows, h.cols, 1),
      (struct backend *b, float *logp, float *entropy, float *lse, struct tensor h, struct tensor w, const int32_t *target,
       float temperature),
      logp, entropy, lse, h, w, target, temperature)
TIMED(head_logprob_backward, product(h.rows, w.rows, h.cols, 3), /* logits again, dh, dw */
      (struct backend *b, struct tensor dh, struct tensor dw, const float *g, const float *lse, struct tensor h, struct tensor w,
       const int32_t *target, float temperature),
      dh, dw, g, lse, h, w, target, temperature)
TIMED(sample, rows_of(logits, 1),
      (struct backend *b, struct sampled *out, struct tensor logits, const double *u, const struct sampling *how), out, logits, u, how)
TIMED(sum_squares, flat(bounds[parts] - bounds[0], 2, 1),
      (struct backend *b, double *out, const float *x, const int64_t *bounds, int parts), out, x, bounds, parts)
TIMED(adamw, flat(elements(ranges, count), 15, 7),
      (struct backend *b, float *w, const float *g, float *m, float *v, const struct adamw_range *ranges, int count,
       const double *squares, const struct adamw *how),
      w, g, m, v, ranges, count, squares, how)
/* clang-format on */

void profile_init(struct profile *p, struct backend *inner)
{
	*p = (struct profile){.backend = *inner, .inner = inner};
}

void profile_free(struct profile *p)
{
	free(p->lines);
	*p = (struct profile){0};
}

void profile_on(struct profile *p, int on)
{
	struct backend_ops *o = &p->backend.ops;
	*o = p->inner->ops; /* allocation and the settings stay as they are: they are no work of a phase */
	if (!on)
		return;
	o->upload = timed_upload;
	o->download = timed_download;
	o->zero = timed_zero;
	o->sync = timed_sync;
	o->weights_changed = timed_weights_changed;
	o->linear = timed_linear;
	o->linear_backward_input = timed_linear_backward_input;
	o->linear_backward_weight = timed_linear_backward_weight;
	o->rmsnorm = timed_rmsnorm;
	o->rmsnorm_backward = timed_rmsnorm_backward;
	o->layernorm = timed_layernorm;
	o->layernorm_backward = timed_layernorm_backward;
	o->rope = timed_rope;
	o->attention = timed_attention;
	o->attention_backward = timed_attention_backward;
	o->swiglu = timed_swiglu;
	o->swiglu_backward = timed_swiglu_backward;
	o->activation = timed_activation;
	o->activation_backward = timed_activation_backward;
	o->add = timed_add;
	o->gather_rows = timed_gather_rows;
	o->scatter_rows = timed_scatter_rows;
	o->scatter_rows_add = timed_scatter_rows_add;
	o->head_logprob = timed_head_logprob;
	o->head_logprob_backward = timed_head_logprob_backward;
	o->sample = timed_sample;
	o->sum_squares = timed_sum_squares;
	o->adamw = timed_adamw;
}

static int by_time(const void *a, const void *b)
{
	const double x = ((const struct profile_line *)a)->seconds, y = ((const struct profile_line *)b)->seconds;
	return (x < y) - (x > y);
}

/* Billions a second; a dash where nothing is counted. */
static void print_rate(FILE *f, double amount, double seconds, int width)
{
	if (amount > 0 && seconds > 0)
		fprintf(f, " %*.1f", width, 1e-9 * amount / seconds);
	else
		fprintf(f, " %*s", width, "-");
}

static void print_line(FILE *f, const char *op, const char *shape, double calls, double seconds, double flops,
                       double bytes, double phase_seconds, double peak)
{
	fprintf(f, "  %-24s %-22s %7.0f %9.3f %5.1f%%", op, shape, calls, 1e3 * seconds, 100 * seconds / phase_seconds);
	print_rate(f, flops, seconds, 8);
	if (flops > 0 && seconds > 0)
		fprintf(f, " %5.1f%%", 100 * flops / seconds / peak);
	else
		fprintf(f, " %6s", "-");
	print_rate(f, bytes, seconds, 8);
	fputc('\n', f);
}

void profile_print(struct profile *p, FILE *f, int phase, double phase_seconds, int runs, double peak)
{
	double all = 0, rest = 0, rest_calls = 0, calls = 0, flops = 0;
	qsort(p->lines, (size_t)p->count, sizeof *p->lines, by_time);
	fprintf(f, "  %-24s %-22s %7s %9s %6s %8s %6s %8s\n", "op", "shape", "calls", "ms", "share", "GFLOP/s", "peak",
	        "GB/s");
	for (int i = 0; i < p->count; i++) {
		const struct profile_line *l = &p->lines[i];
		if (l->phase != phase)
			continue;
		const double seconds = l->seconds / runs;
		all += seconds;
		calls += (double)l->calls / runs;
		flops += l->flops / runs;
		if (seconds < 0.005 * phase_seconds) { /* too little to look at one by one */
			rest += seconds;
			rest_calls += (double)l->calls / runs;
			continue;
		}
		char shape[64];
		int used = snprintf(shape, sizeof shape, "%lld x %lld", (long long)l->m, (long long)l->n);
		if (l->k)
			snprintf(shape + used, sizeof shape - (size_t)used, " x %lld", (long long)l->k);
		print_line(f, l->op, shape, (double)l->calls / runs, seconds, l->flops / runs, l->bytes / runs, phase_seconds,
		           peak);
	}
	print_line(f, "ops below 0.5%", "", rest_calls, rest, 0, 0, phase_seconds, peak);
	print_line(f, "all ops", "", calls, all, flops, 0, phase_seconds, peak);
	print_line(f, "outside the ops", "", 0, phase_seconds - all, 0, 0, phase_seconds, peak);
}
