/* The decoder: embedding and layers, forward and backward. Maths in towers.h. */
#include "model/towers.h"

#include "backend/ops.h"

#include <math.h>
#include <stdlib.h>

/* Dimension d of D/2 turns with frequency theta^(-2d/D) times the temporal, height or width position, by mrope_section.
 */
void text_rotations(const struct run *r, const struct model_config *c, int64_t rows, const int32_t *position,
                    struct tensor cos, struct tensor sin)
{
	const int32_t half = c->head_dim / 2;
	float frequency[128];
	int axis[128];
	for (int32_t d = 0; d < half; d++) {
		frequency[d] = 1.0f / powf((float)c->rope_theta, (float)(2 * d) / (float)c->head_dim);
		axis[d] = d < c->mrope_section[0] ? 0 : d < c->mrope_section[0] + c->mrope_section[1] ? 1 : 2;
	}
	float *cosines = favor_malloc((size_t)(rows * half) * sizeof *cosines);
	float *sines = favor_malloc((size_t)(rows * half) * sizeof *sines);
	for (int64_t i = 0; i < rows; i++)
		for (int32_t d = 0; d < half; d++) {
			float angle = (float)position[3 * i + axis[d]] * frequency[d];
			cosines[i * half + d] = cosf(angle);
			sines[i * half + d] = sinf(angle);
		}
	op_upload(r->backend, cos.data, cosines, (size_t)(rows * half) * sizeof(float));
	op_upload(r->backend, sin.data, sines, (size_t)(rows * half) * sizeof(float));
	free(cosines);
	free(sines);
}

void text_rows_make(struct text_rows *t, const struct run *r, const struct model_config *c, int64_t rows,
                    const int32_t *position, const struct segment *segments, int segment_count)
{
	t->rows = rows;
	t->cos = run_tensor(r, rows, c->head_dim / 2);
	t->sin = run_tensor(r, rows, c->head_dim / 2);
	text_rotations(r, c, rows, position, t->cos, t->sin);
	t->segments = run_segments(r, segments, segment_count);
	t->segment_count = segment_count;
}

int32_t *embed_index(const struct run *r, const struct batch *b)
{
	int32_t *index = favor_malloc((size_t)b->rows * sizeof *index);
	for (int32_t i = 0; i < b->rows; i++)
		index[i] = b->feature[i] >= 0 ? -1 : b->ids[i];
	int32_t *there = run_upload(r, index, (size_t)b->rows * sizeof *index);
	free(index);
	return there;
}

void embed_rows(const struct run *r, const struct model *m, struct tensor x, const int32_t *embed_row,
                const int32_t *feature_row, struct tensor features)
{
	op_gather_rows(r->backend, x, tensor_of(m->w.embed, m->config.vocab_size, m->config.hidden_size), embed_row);
	if (features.rows > 0)
		op_gather_rows(r->backend, x, features, feature_row);
}

/* q, k, v of one layer as columns of the fused rows. */
struct qkv {
	struct tensor q, k, v, qk;
};

static struct qkv split(struct tensor t, const struct model_config *c)
{
	const int64_t Q = (int64_t)c->heads * c->head_dim, KV = (int64_t)c->kv_heads * c->head_dim;
	return (struct qkv){tensor_columns(t, 0, Q), tensor_columns(t, Q, KV), tensor_columns(t, Q + KV, KV),
	                    tensor_columns(t, 0, Q + KV)};
}

void text_layer_forward(const struct run *r, const struct model *m, int layer, const struct text_rows *t,
                        const struct kv_cache *cache, struct tensor x, struct tensor y, struct text_saved *s)
{
	struct backend *b = r->backend;
	const struct model_config *c = &m->config;
	const struct text_layer *w = &m->w.layers[layer];
	const int64_t T = t->rows, H = c->hidden_size, F = c->intermediate_size, Q = (int64_t)c->heads * c->head_dim,
	              N = Q + 2 * (int64_t)c->kv_heads * c->head_dim;
	*s = (struct text_saved){.x = x,
	                         .qkv = run_operand(r, T, N),
	                         .o = run_operand(r, T, Q),
	                         .x2 = run_tensor(r, T, H),
	                         .gu = run_operand(r, T, 2 * F),
	                         .rstd1 = run_floats(r, T),
	                         .lse = run_floats(r, T * c->heads),
	                         .rstd2 = run_floats(r, T)};
	struct arena_mark mark = arena_mark(r->arena);
	struct tensor h = run_operand(r, T, H), a = run_operand(r, T, F); /* h1, then h2 */
	op_rmsnorm(b, h, s->rstd1, x, w->norm1_w, c->rms_eps);
	op_linear(b, s->qkv, h, tensor_of(w->q_w, N, H), w->q_b, 0); /* q, k, v lie side by side: one product */
	struct qkv p = split(s->qkv, c);
	op_rope(b, p.qk, c->heads + c->kv_heads, t->cos, t->sin, 0);
	struct tensor k = p.k, v = p.v;
	if (cache && cache->kv.data) {
		const int64_t KV = (int64_t)c->kv_heads * c->head_dim;
		op_scatter_rows(b, cache->kv, tensor_columns(s->qkv, Q, 2 * KV), cache->rows);
		k = tensor_columns(cache->kv, 0, KV);
		v = tensor_columns(cache->kv, KV, KV);
	}
	op_attention(b, s->o, s->lse, p.q, k, v, c->heads, c->kv_heads, 1.0f / sqrtf((float)c->head_dim), t->segments,
	             t->segment_count);
	op_linear(b, s->x2, s->o, tensor_of(w->o_w, H, Q), NULL, 0);
	op_add(b, s->x2, s->x2, x);
	op_rmsnorm(b, h, s->rstd2, s->x2, w->norm2_w, c->rms_eps);
	op_linear(b, s->gu, h, tensor_of(w->gate_w, 2 * F, H), NULL, 0);
	op_swiglu(b, a, tensor_columns(s->gu, 0, F), tensor_columns(s->gu, F, F));
	op_linear(b, y, a, tensor_of(w->down_w, H, F), NULL, 0);
	op_add(b, y, y, s->x2);
	arena_reset(r->arena, mark);
}

void text_layer_backward(const struct run *r, const struct model *m, int layer, const struct text_rows *t,
                         struct tensor dx, struct text_saved *s, struct weights *grad)
{
	struct backend *b = r->backend;
	const struct model_config *c = &m->config;
	const struct text_layer *w = &m->w.layers[layer];
	struct text_layer *g = &grad->layers[layer];
	const int64_t T = t->rows, H = c->hidden_size, F = c->intermediate_size, Q = (int64_t)c->heads * c->head_dim,
	              N = Q + 2 * (int64_t)c->kv_heads * c->head_dim;
	struct arena_mark mark = arena_mark(r->arena);
	struct tensor da = run_operand(r, T, F), h = run_operand(r, T, H), dh = run_operand(r, T, H),
	              do_ = run_operand(r, T, Q), dqkv = run_operand(r, T, N);
	struct tensor gate = tensor_columns(s->gu, 0, F), up = tensor_columns(s->gu, F, F), dgu = s->gu; /* in place */

	struct tensor dy = run_as_operand(r, dx);
	op_swiglu(b, da, gate, up); /* a again */
	op_linear_backward_weight(b, tensor_of(g->down_w, H, F), NULL, dy, da);
	op_linear_backward_input(b, da, dy, tensor_of(w->down_w, H, F), 0);
	op_swiglu_backward(b, gate, up, da, gate, up);
	op_linear_backward_input(b, dh, dgu, tensor_of(w->gate_w, 2 * F, H), 0);
	op_rmsnorm(b, h, s->rstd2, s->x2, w->norm2_w, c->rms_eps); /* h2 again */
	op_linear_backward_weight(b, tensor_of(g->gate_w, 2 * F, H), NULL, dgu, h);
	op_rmsnorm_backward(b, dx, g->norm2_w, dh, s->x2, w->norm2_w, s->rstd2);

	dy = run_as_operand(r, dx);
	op_linear_backward_input(b, do_, dy, tensor_of(w->o_w, H, Q), 0);
	op_linear_backward_weight(b, tensor_of(g->o_w, H, Q), NULL, dy, s->o);
	op_zero_tensor(b, dqkv);
	struct qkv p = split(s->qkv, c), d = split(dqkv, c);
	op_attention_backward(b, d.q, d.k, d.v, do_, s->o, s->lse, p.q, p.k, p.v, c->heads, c->kv_heads,
	                      1.0f / sqrtf((float)c->head_dim), t->segments, t->segment_count);
	op_rope(b, d.qk, c->heads + c->kv_heads, t->cos, t->sin, 1);
	op_linear_backward_input(b, dh, dqkv, tensor_of(w->q_w, N, H), 0);
	op_rmsnorm(b, h, s->rstd1, s->x, w->norm1_w, c->rms_eps);
	op_linear_backward_weight(b, tensor_of(g->q_w, N, H), g->q_b, dqkv, h);
	op_rmsnorm_backward(b, dx, g->norm1_w, dh, s->x, w->norm1_w, s->rstd1);
	arena_reset(r->arena, mark);
}
