/* See mirror.h. */
#include "mirror.h"

#include "backend/ops.h"
#include "backend/reference/reference.h"

#include <stdlib.h>
#include <string.h>

enum { RANGES = 16, ALIGN = 256 };

/* Host memory that an op was given, and where it lies on the device. */
struct range {
	char *host;
	size_t bytes;
	char *block; /* owned, on the device */
	char *there;
};

struct call {
	struct backend *device;
	struct range ranges[RANGES];
	int count;
};

static struct call begin(struct backend *b)
{
	return (struct call){.device = b->state};
}

/* The range takes part; p NULL: nothing. */
static void take(struct call *c, const void *p, size_t bytes)
{
	if (!p || !bytes)
		return;
	char *first = (char *)(uintptr_t)p, *end = first + bytes;
	for (int i = 0; i < c->count; i++) {
		struct range *r = &c->ranges[i];
		if (end <= r->host || r->host + r->bytes <= first)
			continue;
		/* swallows it, and looks again for others that the larger one touches */
		if (r->host < first)
			first = r->host;
		if (r->host + r->bytes > end)
			end = r->host + r->bytes;
		*r = c->ranges[--c->count];
		i = -1;
	}
	if (c->count == RANGES)
		abort();
	c->ranges[c->count++] = (struct range){.host = first, .bytes = (size_t)(end - first)};
}

static void take_tensor(struct call *c, struct tensor t)
{
	take(c, t.data, t.data ? tensor_bytes(t) : 0);
}

static void go(struct call *c)
{
	for (int i = 0; i < c->count; i++) {
		struct range *r = &c->ranges[i];
		const size_t offset = (uintptr_t)r->host % ALIGN;
		r->block = op_alloc(c->device, r->bytes + offset);
		r->there = r->block + offset;
		op_upload(c->device, r->there, r->host, r->bytes);
	}
}

static void *there(const struct call *c, const void *p)
{
	for (int i = 0; p && i < c->count; i++) {
		const struct range *r = &c->ranges[i];
		if ((const char *)p >= r->host && (const char *)p < r->host + r->bytes)
			return r->there + ((const char *)p - r->host);
	}
	return NULL;
}

static struct tensor tensor_there(const struct call *c, struct tensor t)
{
	t.data = there(c, t.data);
	return t;
}

static void end(struct call *c)
{
	for (int i = 0; i < c->count; i++) {
		struct range *r = &c->ranges[i];
		op_download(c->device, r->host, r->there, r->bytes);
		op_release(c->device, r->block);
	}
}

static size_t floats(int64_t n)
{
	return (size_t)n * sizeof(float);
}

#define T(x) tensor_there(&c, x)
#define P(x) there(&c, x)

static void mirror_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias, int add)
{
	struct call c = begin(b);
	take_tensor(&c, y), take_tensor(&c, x), take_tensor(&c, w), take(&c, bias, floats(w.rows));
	go(&c);
	op_linear(c.device, T(y), T(x), T(w), P(bias), add);
	end(&c);
}

static void mirror_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w, int add)
{
	struct call c = begin(b);
	take_tensor(&c, dx), take_tensor(&c, dy), take_tensor(&c, w);
	go(&c);
	op_linear_backward_input(c.device, T(dx), T(dy), T(w), add);
	end(&c);
}

static void mirror_linear_backward_weight(struct backend *b, struct tensor dw, float *dbias, struct tensor dy,
                                          struct tensor x)
{
	struct call c = begin(b);
	take_tensor(&c, dw), take_tensor(&c, dy), take_tensor(&c, x), take(&c, dbias, floats(dw.rows));
	go(&c);
	op_linear_backward_weight(c.device, T(dw), P(dbias), T(dy), T(x));
	end(&c);
}

static void mirror_weights_changed(struct backend *b)
{
	op_weights_changed(b->state);
}

static void mirror_rmsnorm(struct backend *b, struct tensor y, float *rstd, struct tensor x, const float *weight, float eps)
{
	struct call c = begin(b);
	take_tensor(&c, y), take_tensor(&c, x), take(&c, rstd, floats(x.rows)), take(&c, weight, floats(x.cols));
	go(&c);
	op_rmsnorm(c.device, T(y), P(rstd), T(x), P(weight), eps);
	end(&c);
}

static void mirror_rmsnorm_backward(struct backend *b, struct tensor dx, float *dweight, struct tensor dy, struct tensor x,
                                    const float *weight, const float *rstd)
{
	struct call c = begin(b);
	take_tensor(&c, dx), take_tensor(&c, dy), take_tensor(&c, x), take(&c, dweight, floats(x.cols));
	take(&c, weight, floats(x.cols)), take(&c, rstd, floats(x.rows));
	go(&c);
	op_rmsnorm_backward(c.device, T(dx), P(dweight), T(dy), T(x), P(weight), P(rstd));
	end(&c);
}

static void mirror_layernorm(struct backend *b, struct tensor y, float *mean, float *rstd, struct tensor x,
                             const float *weight, const float *bias, float eps)
{
	struct call c = begin(b);
	take_tensor(&c, y), take_tensor(&c, x), take(&c, mean, floats(x.rows)), take(&c, rstd, floats(x.rows));
	take(&c, weight, floats(x.cols)), take(&c, bias, floats(x.cols));
	go(&c);
	op_layernorm(c.device, T(y), P(mean), P(rstd), T(x), P(weight), P(bias), eps);
	end(&c);
}

static void mirror_layernorm_backward(struct backend *b, struct tensor dx, float *dweight, float *dbias, struct tensor dy,
                                      struct tensor x, const float *weight, const float *mean, const float *rstd)
{
	struct call c = begin(b);
	take_tensor(&c, dx), take_tensor(&c, dy), take_tensor(&c, x), take(&c, dweight, floats(x.cols));
	take(&c, dbias, floats(x.cols)), take(&c, weight, floats(x.cols)), take(&c, mean, floats(x.rows));
	take(&c, rstd, floats(x.rows));
	go(&c);
	op_layernorm_backward(c.device, T(dx), P(dweight), P(dbias), T(dy), T(x), P(weight), P(mean), P(rstd));
	end(&c);
}

static void mirror_rope(struct backend *b, struct tensor x, int heads, struct tensor cosines, struct tensor sines,
                        int inverse)
{
	struct call c = begin(b);
	take_tensor(&c, x), take_tensor(&c, cosines), take_tensor(&c, sines);
	go(&c);
	op_rope(c.device, T(x), heads, T(cosines), T(sines), inverse);
	end(&c);
}

/* Segments are made on the device anew for each call. */
static struct segment *segments_there(struct call *c, const struct segment *segments, int count)
{
	struct segment *to = there(c, segments);
	op_segments(c->device, to, segments, count, 0);
	return to;
}

static void mirror_attention(struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k,
                             struct tensor v, int heads, int kv_heads, float scale, const struct segment *segments,
                             int count)
{
	struct call c = begin(b);
	take_tensor(&c, o), take_tensor(&c, q), take_tensor(&c, k), take_tensor(&c, v), take(&c, lse, floats(heads * q.rows));
	take(&c, segments, (size_t)count * sizeof *segments);
	go(&c);
	op_attention(c.device, T(o), P(lse), T(q), T(k), T(v), heads, kv_heads, scale, segments_there(&c, segments, count),
	             count);
	end(&c);
}

static void mirror_attention_backward(struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv,
                                      struct tensor do_, struct tensor o, const float *lse, struct tensor q,
                                      struct tensor k, struct tensor v, int heads, int kv_heads, float scale,
                                      const struct segment *segments, int count)
{
	struct call c = begin(b);
	take_tensor(&c, dq), take_tensor(&c, dk), take_tensor(&c, dv), take_tensor(&c, do_), take_tensor(&c, o);
	take_tensor(&c, q), take_tensor(&c, k), take_tensor(&c, v), take(&c, lse, floats(heads * q.rows));
	take(&c, segments, (size_t)count * sizeof *segments);
	go(&c);
	op_attention_backward(c.device, T(dq), T(dk), T(dv), T(do_), T(o), P(lse), T(q), T(k), T(v), heads, kv_heads, scale,
	                      segments_there(&c, segments, count), count);
	end(&c);
}

static void mirror_swiglu(struct backend *b, struct tensor y, struct tensor gate, struct tensor up)
{
	struct call c = begin(b);
	take_tensor(&c, y), take_tensor(&c, gate), take_tensor(&c, up);
	go(&c);
	op_swiglu(c.device, T(y), T(gate), T(up));
	end(&c);
}

static void mirror_swiglu_backward(struct backend *b, struct tensor dgate, struct tensor dup, struct tensor dy,
                                   struct tensor gate, struct tensor up)
{
	struct call c = begin(b);
	take_tensor(&c, dgate), take_tensor(&c, dup), take_tensor(&c, dy), take_tensor(&c, gate), take_tensor(&c, up);
	go(&c);
	op_swiglu_backward(c.device, T(dgate), T(dup), T(dy), T(gate), T(up));
	end(&c);
}

static void mirror_activation(struct backend *b, struct tensor y, struct tensor x, enum activation kind)
{
	struct call c = begin(b);
	take_tensor(&c, y), take_tensor(&c, x);
	go(&c);
	op_activation(c.device, T(y), T(x), kind);
	end(&c);
}

static void mirror_activation_backward(struct backend *b, struct tensor dx, struct tensor dy, struct tensor x,
                                       enum activation kind)
{
	struct call c = begin(b);
	take_tensor(&c, dx), take_tensor(&c, dy), take_tensor(&c, x);
	go(&c);
	op_activation_backward(c.device, T(dx), T(dy), T(x), kind);
	end(&c);
}

static void mirror_cast(struct backend *b, struct tensor y, struct tensor x)
{
	struct call c = begin(b);
	take_tensor(&c, y), take_tensor(&c, x);
	go(&c);
	op_cast(c.device, T(y), T(x));
	end(&c);
}

static void mirror_add(struct backend *b, struct tensor y, struct tensor a, struct tensor x)
{
	struct call c = begin(b);
	take_tensor(&c, y), take_tensor(&c, a), take_tensor(&c, x);
	go(&c);
	op_add(c.device, T(y), T(a), T(x));
	end(&c);
}

#define MIRROR_ROWS(name, count)                                                                                       \
	static void mirror_##name(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)                \
	{                                                                                                                  \
		struct call c = begin(b);                                                                                      \
		take_tensor(&c, y), take_tensor(&c, x), take(&c, rows, (size_t)(count) * sizeof *rows);                        \
		go(&c);                                                                                                        \
		op_##name(c.device, T(y), T(x), P(rows));                                                                      \
		end(&c);                                                                                                       \
	}
MIRROR_ROWS(gather_rows, y.rows)
MIRROR_ROWS(scatter_rows, x.rows)
MIRROR_ROWS(scatter_rows_add, x.rows)

static void mirror_head_logprob(struct backend *b, float *logp, float *entropy, float *lse, struct tensor h,
                                struct tensor w, const int32_t *target, float temperature)
{
	struct call c = begin(b);
	take(&c, logp, floats(h.rows)), take(&c, entropy, floats(h.rows)), take(&c, lse, floats(h.rows));
	take_tensor(&c, h), take_tensor(&c, w), take(&c, target, (size_t)h.rows * sizeof *target);
	go(&c);
	op_head_logprob(c.device, P(logp), P(entropy), P(lse), T(h), T(w), P(target), temperature);
	end(&c);
}

static void mirror_head_logprob_backward(struct backend *b, struct tensor dh, struct tensor dw, const float *g,
                                         const float *lse, struct tensor h, struct tensor w, const int32_t *target,
                                         float temperature)
{
	struct call c = begin(b);
	take(&c, g, floats(h.rows)), take(&c, lse, floats(h.rows)), take_tensor(&c, dh), take_tensor(&c, dw);
	take_tensor(&c, h), take_tensor(&c, w), take(&c, target, (size_t)h.rows * sizeof *target);
	go(&c);
	op_head_logprob_backward(c.device, T(dh), T(dw), P(g), P(lse), T(h), T(w), P(target), temperature);
	end(&c);
}

static void mirror_sample(struct backend *b, struct sampled *out, struct tensor logits, const double *u,
                          const struct sampling *how)
{
	struct call c = begin(b);
	take_tensor(&c, logits);
	go(&c);
	op_sample(c.device, out, T(logits), u, how);
	end(&c);
}

static void mirror_sum_squares(struct backend *b, double *out, const float *x, const int64_t *bounds,
                               int parts)
{
	struct call c = begin(b);
	take(&c, x, floats(bounds[parts])), take(&c, out, (size_t)parts * sizeof *out);
	go(&c);
	op_sum_squares(c.device, P(out), P(x), bounds, parts);
	end(&c);
}

static void mirror_adamw(struct backend *b, float *w, const float *g, float *m, float *v, const struct adamw_range *ranges,
                         int count, const double *squares, const struct adamw *how)
{
	struct call c = begin(b);
	int64_t n = 0;
	for (int i = 0; i < count; i++)
		n = ranges[i].first + ranges[i].count > n ? ranges[i].first + ranges[i].count : n;
	take(&c, w, floats(n)), take(&c, g, floats(n)), take(&c, m, floats(n)), take(&c, v, floats(n));
	take(&c, squares, sizeof *squares);
	go(&c);
	op_adamw(c.device, P(w), P(g), P(m), P(v), ranges, count, P(squares), how);
	end(&c);
}

static void set_threads(struct backend *b, int threads)
{
	struct backend *device = b->state;
	device->ops.set_threads(device, threads);
	b->threads = device->threads;
}

static void destroy(struct backend *b)
{
	backend_destroy(b->state);
	free(b);
}

struct backend *mirror_new(struct backend *device)
{
	struct backend *b = favor_calloc(1, sizeof *b);
	b->ops = reference_ops(); /* memory is the host's */
	b->state = device;
	b->threads = device->threads;
	b->in_host_memory = 1;
	b->ops.name = device->ops.name;
	b->ops.set_threads = set_threads;
	b->ops.destroy = destroy;
#define MIRRORED(X)                                                                                                    \
	X(linear) X(linear_backward_input) X(linear_backward_weight) X(weights_changed) X(rmsnorm) X(rmsnorm_backward)     \
	X(layernorm) X(layernorm_backward) X(rope) X(attention) X(attention_backward) X(swiglu) X(swiglu_backward)         \
	X(activation) X(activation_backward) X(cast) X(add) X(gather_rows) X(scatter_rows) X(scatter_rows_add)             \
	X(head_logprob) X(head_logprob_backward) X(sample) X(sum_squares) X(adamw)
#define SLOT(name) b->ops.name = mirror_##name;
	MIRRORED(SLOT)
	return b;
}
