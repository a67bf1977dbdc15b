/* The door to the backend's table: op_<slot> checks shapes, strides and pointers, then calls the slot. What a wrapper
 * refuses is a bug in favor, so it ends the job with the op's name, the shape that came and the shape that must come.
 * Calls without rows return at once, so no implementation sees T = 0. Values that may live in device memory (targets,
 * row lists, segments) are not read here: the ops themselves check those that they can read.
 * The meaning of every op is in backend.h; the model, the learner and the tests call these and never the table. */
#ifndef FAVOR_BACKEND_OPS_H
#define FAVOR_BACKEND_OPS_H

#include "backend/backend.h"

/* t must have this shape. `what` names the parameter. */
static inline void ops_want(const char *op, const char *what, struct tensor t, int64_t rows, int64_t cols)
{
	if (t.rows != rows || t.cols != cols)
		favor_die("%s: %s is [%lld, %lld], but must be [%lld, %lld]", op, what, (long long)t.rows, (long long)t.cols,
		          (long long)rows, (long long)cols);
	if (t.rows < 0 || t.cols <= 0 || t.stride < t.cols)
		favor_die("%s: %s is [%lld, %lld] with stride %lld: sizes must be positive and the stride at least the columns",
		          op, what, (long long)t.rows, (long long)t.cols, (long long)t.stride);
	if (!t.data && t.rows > 0)
		favor_die("%s: %s is [%lld, %lld], but its data is NULL", op, what, (long long)t.rows, (long long)t.cols);
}

/* t may have any shape: only its own parts must agree. */
static inline void ops_want_any(const char *op, const char *what, struct tensor t)
{
	ops_want(op, what, t, t.rows, t.cols);
}

/* Elements as this backend stores them: float32, or what products multiply. */
static inline void ops_want_stored(const struct backend *b, const char *op, const char *what, struct tensor t)
{
	if (t.type != ELEMENT_FLOAT32 && t.type != b->operand)
		favor_die("%s: %s is stored as bfloat16, but the %s backend takes float32 here", op, what, b->ops.name);
}
static inline void ops_want_type(const char *op, const char *what, struct tensor t, enum element type)
{
	if (t.type != type)
		favor_die("%s: %s is stored as %s, but must be %s", op, what,
		          t.type == ELEMENT_BFLOAT16 ? "bfloat16" : "float32", type == ELEMENT_BFLOAT16 ? "bfloat16" : "float32");
}
static inline void ops_want_float(const char *op, const char *what, struct tensor t)
{
	ops_want_type(op, what, t, ELEMENT_FLOAT32);
}

static inline void ops_want_pointer(const char *op, const char *what, const void *p)
{
	if (!p)
		favor_die("%s: %s is NULL", op, what);
}

static inline void *op_alloc(struct backend *b, size_t bytes)
{
	return b->ops.alloc(b, bytes);
}

/* p may be NULL. */
static inline void op_release(struct backend *b, void *p)
{
	if (p)
		b->ops.release(b, p);
}

static inline void op_upload(struct backend *b, void *to, const void *from, size_t bytes)
{
	if (!bytes)
		return;
	ops_want_pointer("upload", "to", to);
	ops_want_pointer("upload", "from", from);
	b->ops.upload(b, to, from, bytes);
}

static inline void op_download(struct backend *b, void *to, const void *from, size_t bytes)
{
	if (!bytes)
		return;
	ops_want_pointer("download", "to", to);
	ops_want_pointer("download", "from", from);
	b->ops.download(b, to, from, bytes);
}

static inline void op_zero(struct backend *b, void *to, size_t bytes)
{
	if (!bytes)
		return;
	ops_want_pointer("zero", "to", to);
	b->ops.zero(b, to, bytes);
}

/* What lies between the rows becomes 0 too. */
static inline void op_zero_tensor(struct backend *b, struct tensor t)
{
	op_zero(b, t.data, tensor_bytes(t));
}

static inline void op_lend(struct backend *b, void *memory, size_t bytes)
{
	b->ops.lend(b, memory, bytes);
}

static inline int64_t op_own_bytes(struct backend *b, int64_t weights, int blocks)
{
	return b->ops.own_bytes(b, weights, blocks);
}

static inline int64_t op_attention_bytes(struct backend *b, const struct segment *segments, int count, int64_t rows,
                                         int heads, int kv_heads, int64_t head_dim)
{
	return count > 0 ? b->ops.attention_bytes(b, segments, count, rows, heads, kv_heads, head_dim) : 0;
}

static inline void op_device(struct backend *b, unsigned char id[DEVICE_ID_BYTES])
{
	b->ops.device(b, id);
}

static inline void op_share_device(struct backend *b, int processes)
{
	b->ops.share_device(b, processes);
}

static inline int64_t op_memory_limit(struct backend *b)
{
	return b->ops.memory_limit(b);
}

static inline void op_sync(struct backend *b)
{
	b->ops.sync(b);
}

static inline uint64_t op_post(struct backend *b, void *to, const void *from, size_t bytes)
{
	ops_want_pointer("post", "to", to);
	ops_want_pointer("post", "from", from);
	if (!bytes)
		favor_die("post: nothing");
	return b->ops.post(b, to, from, bytes);
}

static inline void op_collect(struct backend *b, uint64_t number)
{
	b->ops.collect(b, number);
}

static inline void op_linear(struct backend *b, struct tensor y, struct tensor x, struct tensor w, const float *bias,
                             int accumulate)
{
	ops_want_any("linear", "x", x);
	ops_want("linear", "w", w, w.rows, x.cols);
	ops_want("linear", "y", y, x.rows, w.rows);
	ops_want_type("linear", "x", x, b->operand);
	ops_want_float("linear", "w", w);
	ops_want_stored(b, "linear", "y", y);
	if (x.rows)
		b->ops.linear(b, y, x, w, bias, accumulate);
}

static inline void op_linear_backward_input(struct backend *b, struct tensor dx, struct tensor dy, struct tensor w,
                                            int accumulate)
{
	ops_want_any("linear_backward_input", "w", w);
	ops_want("linear_backward_input", "dy", dy, dy.rows, w.rows);
	ops_want("linear_backward_input", "dx", dx, dy.rows, w.cols);
	ops_want_type("linear_backward_input", "dy", dy, b->operand);
	ops_want_float("linear_backward_input", "w", w);
	ops_want_stored(b, "linear_backward_input", "dx", dx);
	if (dy.rows)
		b->ops.linear_backward_input(b, dx, dy, w, accumulate);
}

static inline void op_linear_backward_weight(struct backend *b, struct tensor dw, float *dbias, struct tensor dy,
                                             struct tensor x)
{
	ops_want_any("linear_backward_weight", "dy", dy);
	ops_want("linear_backward_weight", "x", x, dy.rows, x.cols);
	ops_want("linear_backward_weight", "dw", dw, dy.cols, x.cols);
	ops_want_type("linear_backward_weight", "dy", dy, b->operand);
	ops_want_type("linear_backward_weight", "x", x, b->operand);
	ops_want_float("linear_backward_weight", "dw", dw);
	if (dy.rows)
		b->ops.linear_backward_weight(b, dw, dbias, dy, x);
}

static inline void op_weights_changed(struct backend *b)
{
	b->ops.weights_changed(b);
}

static inline void op_rmsnorm(struct backend *b, struct tensor y, float *rstd, struct tensor x, const float *weight,
                              float eps)
{
	ops_want_any("rmsnorm", "x", x);
	ops_want("rmsnorm", "y", y, x.rows, x.cols);
	ops_want_float("rmsnorm", "x", x);
	ops_want_stored(b, "rmsnorm", "y", y);
	if (!x.rows)
		return;
	ops_want_pointer("rmsnorm", "rstd", rstd);
	ops_want_pointer("rmsnorm", "weight", weight);
	b->ops.rmsnorm(b, y, rstd, x, weight, eps);
}

static inline void op_rmsnorm_backward(struct backend *b, struct tensor dx, float *dweight, struct tensor dy,
                                       struct tensor x, const float *weight, const float *rstd)
{
	ops_want_any("rmsnorm_backward", "x", x);
	ops_want("rmsnorm_backward", "dy", dy, x.rows, x.cols);
	ops_want("rmsnorm_backward", "dx", dx, x.rows, x.cols);
	ops_want_float("rmsnorm_backward", "x", x);
	ops_want_float("rmsnorm_backward", "dx", dx);
	ops_want_stored(b, "rmsnorm_backward", "dy", dy);
	if (!x.rows)
		return;
	ops_want_pointer("rmsnorm_backward", "weight", weight);
	ops_want_pointer("rmsnorm_backward", "rstd", rstd);
	b->ops.rmsnorm_backward(b, dx, dweight, dy, x, weight, rstd);
}

static inline void op_layernorm(struct backend *b, struct tensor y, float *mean, float *rstd, struct tensor x,
                                const float *weight, const float *bias, float eps)
{
	ops_want_any("layernorm", "x", x);
	ops_want("layernorm", "y", y, x.rows, x.cols);
	ops_want_float("layernorm", "x", x);
	ops_want_stored(b, "layernorm", "y", y);
	if (!x.rows)
		return;
	ops_want_pointer("layernorm", "mean", mean);
	ops_want_pointer("layernorm", "rstd", rstd);
	ops_want_pointer("layernorm", "weight", weight);
	ops_want_pointer("layernorm", "bias", bias);
	b->ops.layernorm(b, y, mean, rstd, x, weight, bias, eps);
}

/* dweight and dbias may be NULL: frozen. */
static inline void op_layernorm_backward(struct backend *b, struct tensor dx, float *dweight, float *dbias,
                                         struct tensor dy, struct tensor x, const float *weight, const float *mean,
                                         const float *rstd)
{
	ops_want_any("layernorm_backward", "x", x);
	ops_want("layernorm_backward", "dy", dy, x.rows, x.cols);
	ops_want("layernorm_backward", "dx", dx, x.rows, x.cols);
	ops_want_float("layernorm_backward", "x", x);
	ops_want_float("layernorm_backward", "dx", dx);
	ops_want_stored(b, "layernorm_backward", "dy", dy);
	if (!x.rows)
		return;
	ops_want_pointer("layernorm_backward", "weight", weight);
	ops_want_pointer("layernorm_backward", "mean", mean);
	ops_want_pointer("layernorm_backward", "rstd", rstd);
	b->ops.layernorm_backward(b, dx, dweight, dbias, dy, x, weight, mean, rstd);
}

static inline void op_rope(struct backend *b, struct tensor x, int heads, struct tensor cos, struct tensor sin,
                           int inverse)
{
	ops_want_any("rope", "x", x);
	if (heads <= 0 || x.cols % (2 * (int64_t)heads))
		favor_die("rope: x is [%lld, %lld], which %d heads of even size can't fill", (long long)x.rows,
		          (long long)x.cols, heads);
	ops_want("rope", "cos", cos, x.rows, x.cols / heads / 2);
	ops_want("rope", "sin", sin, x.rows, x.cols / heads / 2);
	ops_want_stored(b, "rope", "x", x);
	ops_want_float("rope", "cos", cos);
	ops_want_float("rope", "sin", sin);
	if (x.rows)
		b->ops.rope(b, x, heads, cos, sin, inverse);
}

static inline void op_segments(struct backend *b, struct segment *to, const struct segment *from, int count,
                               int32_t grows)
{
	if (count < 0 || grows < 0)
		favor_die("segments: %d of them, which grow by %d", count, (int)grows);
	if (!count)
		return;
	ops_want_pointer("segments", "to", to);
	ops_want_pointer("segments", "from", from);
	b->ops.segments(b, to, from, count, grows);
}

/* Shapes that attention and its backward share. */
static inline void ops_want_attention(const struct backend *b, const char *op, struct tensor o, const float *lse, struct tensor q,
                                      struct tensor k, struct tensor v, int heads, int kv_heads,
                                      const struct segment *segments, int segment_count)
{
	ops_want_any(op, "q", q);
	if (heads <= 0 || kv_heads <= 0 || heads % kv_heads || q.cols % heads)
		favor_die("%s: q is [%lld, %lld] with %d query heads and %d key heads: key heads must divide query heads, and "
		          "these the columns",
		          op, (long long)q.rows, (long long)q.cols, heads, kv_heads);
	ops_want(op, "k", k, k.rows, q.cols / heads * kv_heads);
	ops_want(op, "v", v, k.rows, k.cols);
	ops_want(op, "o", o, q.rows, q.cols);
	ops_want_stored(b, op, "q", q);
	ops_want_type(op, "k", k, q.type);
	ops_want_type(op, "v", v, q.type);
	ops_want_type(op, "o", o, q.type);
	if (segment_count < 0)
		favor_die("%s: %d segments", op, segment_count);
	if (segment_count && q.rows) {
		ops_want_pointer(op, "segments", segments);
		ops_want_pointer(op, "lse", lse);
	}
}

static inline void op_attention(struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k,
                                struct tensor v, int heads, int kv_heads, float scale, const struct segment *segments,
                                int segment_count)
{
	ops_want_attention(b, "attention", o, lse, q, k, v, heads, kv_heads, segments, segment_count);
	if (q.rows && segment_count)
		b->ops.attention(b, o, lse, q, k, v, heads, kv_heads, scale, segments, segment_count);
}

static inline void op_attention_backward(struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv,
                                         struct tensor do_, struct tensor o, const float *lse, struct tensor q,
                                         struct tensor k, struct tensor v, int heads, int kv_heads, float scale,
                                         const struct segment *segments, int segment_count)
{
	ops_want_attention(b, "attention_backward", o, lse, q, k, v, heads, kv_heads, segments, segment_count);
	ops_want("attention_backward", "do_", do_, o.rows, o.cols);
	ops_want("attention_backward", "dq", dq, q.rows, q.cols);
	ops_want("attention_backward", "dk", dk, k.rows, k.cols);
	ops_want("attention_backward", "dv", dv, v.rows, v.cols);
	ops_want_type("attention_backward", "do_", do_, q.type);
	ops_want_type("attention_backward", "dq", dq, q.type);
	ops_want_type("attention_backward", "dk", dk, q.type);
	ops_want_type("attention_backward", "dv", dv, q.type);
	if (q.rows && segment_count)
		b->ops.attention_backward(b, dq, dk, dv, do_, o, lse, q, k, v, heads, kv_heads, scale, segments, segment_count);
}

static inline void op_swiglu(struct backend *b, struct tensor y, struct tensor gate, struct tensor up)
{
	ops_want_any("swiglu", "gate", gate);
	ops_want("swiglu", "up", up, gate.rows, gate.cols);
	ops_want("swiglu", "y", y, gate.rows, gate.cols);
	ops_want_stored(b, "swiglu", "gate", gate);
	ops_want_type("swiglu", "up", up, gate.type);
	ops_want_type("swiglu", "y", y, gate.type);
	if (gate.rows)
		b->ops.swiglu(b, y, gate, up);
}

static inline void op_swiglu_backward(struct backend *b, struct tensor dgate, struct tensor dup, struct tensor dy,
                                      struct tensor gate, struct tensor up)
{
	ops_want_any("swiglu_backward", "gate", gate);
	ops_want("swiglu_backward", "up", up, gate.rows, gate.cols);
	ops_want("swiglu_backward", "dy", dy, gate.rows, gate.cols);
	ops_want("swiglu_backward", "dgate", dgate, gate.rows, gate.cols);
	ops_want("swiglu_backward", "dup", dup, gate.rows, gate.cols);
	ops_want_stored(b, "swiglu_backward", "gate", gate);
	ops_want_type("swiglu_backward", "up", up, gate.type);
	ops_want_type("swiglu_backward", "dy", dy, gate.type);
	ops_want_type("swiglu_backward", "dgate", dgate, gate.type);
	ops_want_type("swiglu_backward", "dup", dup, gate.type);
	if (gate.rows)
		b->ops.swiglu_backward(b, dgate, dup, dy, gate, up);
}

static inline void ops_want_activation(const char *op, enum activation kind)
{
	if (kind != ACT_QUICK_GELU && kind != ACT_GELU)
		favor_die("%s: there is no activation %d", op, (int)kind);
}

static inline void op_activation(struct backend *b, struct tensor y, struct tensor x, enum activation kind)
{
	ops_want_any("activation", "x", x);
	ops_want("activation", "y", y, x.rows, x.cols);
	ops_want_stored(b, "activation", "x", x);
	ops_want_type("activation", "y", y, x.type);
	ops_want_activation("activation", kind);
	if (x.rows)
		b->ops.activation(b, y, x, kind);
}

static inline void op_activation_backward(struct backend *b, struct tensor dx, struct tensor dy, struct tensor x,
                                          enum activation kind)
{
	ops_want_any("activation_backward", "x", x);
	ops_want("activation_backward", "dy", dy, x.rows, x.cols);
	ops_want("activation_backward", "dx", dx, x.rows, x.cols);
	ops_want_stored(b, "activation_backward", "x", x);
	ops_want_type("activation_backward", "dy", dy, x.type);
	ops_want_type("activation_backward", "dx", dx, x.type);
	ops_want_activation("activation_backward", kind);
	if (x.rows)
		b->ops.activation_backward(b, dx, dy, x, kind);
}

static inline void op_cast(struct backend *b, struct tensor y, struct tensor x)
{
	ops_want_any("cast", "x", x);
	ops_want("cast", "y", y, x.rows, x.cols);
	ops_want_stored(b, "cast", "x", x);
	ops_want_stored(b, "cast", "y", y);
	if (x.rows)
		b->ops.cast(b, y, x);
}

static inline void op_add(struct backend *b, struct tensor y, struct tensor a, struct tensor c)
{
	ops_want_any("add", "a", a);
	ops_want("add", "c", c, a.rows, a.cols);
	ops_want("add", "y", y, a.rows, a.cols);
	ops_want_stored(b, "add", "a", a);
	ops_want_stored(b, "add", "c", c);
	ops_want_type("add", "y", y, a.type);
	if (a.rows)
		b->ops.add(b, y, a, c);
}

/* rows[y.rows] */
static inline void op_gather_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	ops_want_any("gather_rows", "x", x);
	ops_want("gather_rows", "y", y, y.rows, x.cols);
	ops_want_stored(b, "gather_rows", "x", x);
	ops_want_stored(b, "gather_rows", "y", y);
	if (!y.rows)
		return;
	ops_want_pointer("gather_rows", "rows", rows);
	b->ops.gather_rows(b, y, x, rows);
}

/* rows[x.rows] */
static inline void op_scatter_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	ops_want_any("scatter_rows", "x", x);
	ops_want("scatter_rows", "y", y, y.rows, x.cols);
	ops_want_stored(b, "scatter_rows", "x", x);
	ops_want_stored(b, "scatter_rows", "y", y);
	if (!x.rows)
		return;
	ops_want_pointer("scatter_rows", "rows", rows);
	b->ops.scatter_rows(b, y, x, rows);
}

/* rows[x.rows] */
static inline void op_scatter_rows_add(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	ops_want_any("scatter_rows_add", "x", x);
	ops_want("scatter_rows_add", "y", y, y.rows, x.cols);
	ops_want_stored(b, "scatter_rows_add", "x", x);
	ops_want_float("scatter_rows_add", "y", y);
	if (!x.rows)
		return;
	ops_want_pointer("scatter_rows_add", "rows", rows);
	b->ops.scatter_rows_add(b, y, x, rows);
}

static inline void ops_want_temperature(const char *op, float temperature)
{
	if (!(temperature > 0.0f))
		favor_die("%s: temperature %g, but it must be above 0", op, (double)temperature);
}

static inline void op_head_logprob(struct backend *b, float *logp, float *entropy, float *lse, struct tensor h,
                                   struct tensor w, const int32_t *target, float temperature)
{
	ops_want_any("head_logprob", "h", h);
	ops_want("head_logprob", "w", w, w.rows, h.cols);
	ops_want_type("head_logprob", "h", h, b->operand);
	ops_want_float("head_logprob", "w", w);
	ops_want_temperature("head_logprob", temperature);
	if (!h.rows)
		return;
	ops_want_pointer("head_logprob", "logp", logp);
	ops_want_pointer("head_logprob", "lse", lse);
	ops_want_pointer("head_logprob", "target", target);
	b->ops.head_logprob(b, logp, entropy, lse, h, w, target, temperature);
}

static inline void op_head_logprob_backward(struct backend *b, struct tensor dh, struct tensor dw, const float *g,
                                            const float *lse, struct tensor h, struct tensor w, const int32_t *target,
                                            float temperature)
{
	ops_want_any("head_logprob_backward", "h", h);
	ops_want("head_logprob_backward", "w", w, w.rows, h.cols);
	ops_want("head_logprob_backward", "dh", dh, h.rows, h.cols);
	ops_want_type("head_logprob_backward", "h", h, b->operand);
	ops_want_float("head_logprob_backward", "w", w);
	ops_want_stored(b, "head_logprob_backward", "dh", dh);
	if (dw.data) {
		ops_want("head_logprob_backward", "dw", dw, w.rows, w.cols);
		ops_want_float("head_logprob_backward", "dw", dw);
	}
	ops_want_temperature("head_logprob_backward", temperature);
	if (!h.rows)
		return;
	ops_want_pointer("head_logprob_backward", "g", g);
	ops_want_pointer("head_logprob_backward", "lse", lse);
	ops_want_pointer("head_logprob_backward", "target", target);
	b->ops.head_logprob_backward(b, dh, dw, g, lse, h, w, target, temperature);
}

static inline void ops_want_sampling(const char *op, struct tensor logits, const struct sampling *how)
{
	ops_want_any(op, "logits", logits);
	ops_want_float(op, "logits", logits);
	ops_want_pointer(op, "how", how);
	if (!(how->temperature >= 0.0f) || !(how->top_p > 0.0f && how->top_p <= 1.0f) ||
	    !(how->min_p >= 0.0f && how->min_p <= 1.0f) || how->top_k < 0)
		favor_die("%s: temperature %g, top_p %g, min_p %g, top_k %d, but they must be >= 0, in (0, 1], in [0, 1], >= 0",
		          op, (double)how->temperature, (double)how->top_p, (double)how->min_p, (int)how->top_k);
}

/* out[logits.rows], u[logits.rows] */
static inline void op_sample(struct backend *b, struct sampled *out, struct tensor logits, const double *u,
                             const struct sampling *how)
{
	ops_want_sampling("sample", logits, how);
	if (!logits.rows)
		return;
	ops_want_pointer("sample", "out", out);
	ops_want_pointer("sample", "u", u);
	b->ops.sample(b, out, logits, u, how);
}

static inline void op_advance(struct backend *b, const struct slots *s, struct tensor logits,
                              const struct sampling *how)
{
	ops_want_sampling("advance", logits, how);
	ops_want("advance", "logits", logits, s->count, logits.cols);
	if (!s->count)
		return;
	const void *const arrays[] = {s->token,    s->row,   s->position, s->left,    s->index,
	                              s->response, s->drawn, s->segments, s->sampled, s->stop_count ? s->stop : s->token};
	for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++)
		ops_want_pointer("advance", "one of the slots' arrays", arrays[i]);
	b->ops.advance(b, s, logits, how);
}

static inline enum replay op_replay(struct backend *b, const void *key, size_t bytes)
{
	ops_want_pointer("replay", "key", key);
	if (!bytes || bytes > REPLAY_KEY_MOST)
		favor_die("replay: a key of %zu bytes", bytes);
	return b->ops.replay(b, key, bytes);
}

static inline void op_recorded(struct backend *b)
{
	b->ops.recorded(b);
}

static inline void op_sum_squares(struct backend *b, double *out, const float *x, const int64_t *bounds,
                                  int parts)
{
	if (parts < 0)
		favor_die("sum_squares: %d parts", parts);
	if (!parts)
		return;
	ops_want_pointer("sum_squares", "bounds", bounds);
	ops_want_pointer("sum_squares", "out", out);
	for (int i = 0; i < parts; i++)
		if (bounds[i] < 0 || bounds[i + 1] < bounds[i])
			favor_die("sum_squares: part %d goes from %lld to %lld", i, (long long)bounds[i], (long long)bounds[i + 1]);
	if (bounds[parts] > bounds[0])
		ops_want_pointer("sum_squares", "x", x);
	b->ops.sum_squares(b, out, x, bounds, parts);
}

static inline void op_adamw(struct backend *b, float *w, const float *g, float *m, float *v,
                            const struct adamw_range *ranges, int count, const double *squares, const struct adamw *how)
{
	int64_t n = 0;
	ops_want_pointer("adamw", "how", how);
	if (count < 0 || how->step < 1 || !(how->max_norm >= 0))
		favor_die("adamw: %d ranges at step %lld, norm %g, but steps count from 1 and norms are >= 0", count,
		          (long long)how->step, (double)how->max_norm);
	for (int i = 0; i < count; i++) {
		if (ranges[i].first < 0 || ranges[i].count < 0)
			favor_die("adamw: range %d has %lld elements from %lld on", i, (long long)ranges[i].count, (long long)ranges[i].first);
		n += ranges[i].count;
	}
	if (!n)
		return;
	ops_want_pointer("adamw", "squares", squares);
	ops_want_pointer("adamw", "w", w);
	ops_want_pointer("adamw", "g", g);
	ops_want_pointer("adamw", "m", m);
	ops_want_pointer("adamw", "v", v);
	b->ops.adamw(b, w, g, m, v, ranges, count, squares, how);
}

#endif
