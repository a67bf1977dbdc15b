/* The packed row through both towers and back. Reads: vision -> embed -> layers -> final norm of the target rows ->
 * fused head. */
#include "model/pass.h"

#include "backend/ops.h"

#include <stdlib.h>

/* These return 1 if the run's tick says to give up. */
static int vision_pass(struct pass *p, int keep)
{
	const struct run *r = p->run;
	const struct model *m = p->model;
	const struct vision_config *c = &m->config.vision;
	if (!keep || !p->vision_backward) {
		p->features = vision_features(r, m, p->batch->image, p->batch->images, p->batch->patches);
		return run_tick(r) != 0;
	}
	p->features = run_tensor(r, p->batch->features, m->config.hidden_size);
	vision_rows_make(&p->vision, r, &m->config, p->batch->image, p->batch->images);
	p->patches = vision_patches(r, &m->config, p->batch->image, p->batch->images, p->batch->patches);
	struct tensor x = run_tensor(r, p->vision.rows, c->embed_dim);
	op_linear(r->backend, x, p->patches, tensor_of(m->w.patch_embed, c->embed_dim, c->patch_dim), NULL, 0);
	for (int i = 0; i < c->depth; i++) {
		if (run_tick(r))
			return 1;
		struct tensor y = run_tensor(r, p->vision.rows, c->embed_dim);
		struct arena_mark mark = arena_mark(r->arena);
		p->block_x[i] = x;
		vision_block_forward(r, m, i, &p->vision, x, y, &p->blocks[i]);
		if (p->recompute)
			arena_reset(r->arena, mark);
		x = y;
	}
	merger_forward(r, m, x, p->features, &p->merger);
	return 0;
}

static int text_pass(struct pass *p, int keep)
{
	const struct run *r = p->run;
	const struct model *m = p->model;
	const struct batch *b = p->batch;
	const int64_t H = m->config.hidden_size;
	text_rows_make(&p->text, r, &m->config, b->rows, b->position, b->segment, b->segments);
	struct tensor x = run_tensor(r, b->rows, H);
	embed_rows(r, m, x, p->embed_row, p->feature_row, p->features);
	for (int i = 0; i < m->config.layers; i++) {
		if (run_tick(r))
			return 1;
		struct tensor y = keep ? run_tensor(r, b->rows, H) : x;
		struct arena_mark mark = arena_mark(r->arena);
		p->layer_x[i] = x;
		text_layer_forward(r, m, i, &p->text, NULL, x, y, &p->layers[i]);
		if (!keep || p->recompute)
			arena_reset(r->arena, mark);
		x = y;
	}
	p->hidden = x;
	return 0;
}

int pass_forward(struct pass *p, const struct run *run, const struct model *m, const struct batch *b, float temperature,
                 int keep, int recompute, int vision_backward, float *logp, float *entropy)
{
	const int64_t N = b->targets, H = m->config.hidden_size;
	const size_t depth = (size_t)m->config.vision.depth, layers = (size_t)m->config.layers;
	*p = (struct pass){.run = run,
	                   .model = m,
	                   .batch = b,
	                   .temperature = temperature,
	                   .recompute = recompute,
	                   .vision_backward = vision_backward};
	char *memory = favor_calloc(1, depth * (sizeof *p->blocks + sizeof *p->block_x) +
	                                   layers * (sizeof *p->layers + sizeof *p->layer_x));
	p->host_memory = memory;
	p->blocks = (void *)memory;
	p->layers = (void *)(memory + depth * sizeof *p->blocks);
	p->block_x = (void *)((char *)p->layers + layers * sizeof *p->layers);
	p->layer_x = p->block_x + depth;

	p->embed_row = embed_index(run, b);
	p->feature_row = run_upload(run, b->feature, (size_t)b->rows * sizeof *b->feature);
	p->target_row = run_upload(run, b->target_row, (size_t)N * sizeof *b->target_row);
	p->target_id = run_upload(run, b->target_id, (size_t)N * sizeof *b->target_id);
	if ((b->images && vision_pass(p, keep)) || text_pass(p, keep))
		return 1;

	struct backend *be = run->backend;
	p->gathered = run_tensor(run, N, H);
	p->normed = run_operand(run, N, H);
	p->final_rstd = run_floats(run, N);
	p->lse = run_floats(run, N);
	float *logp_there = run_floats(run, N), *entropy_there = run_floats(run, N);
	op_gather_rows(be, p->gathered, p->hidden, p->target_row);
	op_rmsnorm(be, p->normed, p->final_rstd, p->gathered, m->w.norm_w, m->config.rms_eps);
	op_head_logprob(be, logp_there, entropy ? entropy_there : NULL, p->lse, p->normed,
	                tensor_of(m->w.lm_head, m->config.vocab_size, H), p->target_id, temperature);
	op_download(be, logp, logp_there, (size_t)N * sizeof *logp);
	if (entropy)
		op_download(be, entropy, entropy_there, (size_t)N * sizeof *entropy);
	return run_tick(run) != 0;
}

static void tell_ready(const struct pass *p, const float *from)
{
	if (p->ready)
		p->ready(p->ready_arg, from);
}

static int vision_pass_backward(struct pass *p, struct tensor dfeatures, struct weights *grad)
{
	const struct run *r = p->run;
	const struct model *m = p->model;
	const struct vision_config *c = &m->config.vision;
	struct tensor dx = run_tensor(r, p->vision.rows, c->embed_dim);
	merger_backward(r, m, dx, dfeatures, &p->merger, grad);
	tell_ready(p, grad->ln_q_w);
	for (int i = c->depth - 1; i >= 0; i--) {
		if (run_tick(r))
			return 1;
		struct arena_mark mark = arena_mark(r->arena);
		if (p->recompute) {
			struct tensor y = run_tensor(r, p->vision.rows, c->embed_dim);
			vision_block_forward(r, m, i, &p->vision, p->block_x[i], y, &p->blocks[i]);
		}
		vision_block_backward(r, m, i, &p->vision, dx, &p->blocks[i], grad);
		tell_ready(p, grad->blocks[i].norm1_w);
		arena_reset(r->arena, mark);
	}
	op_linear_backward_weight(r->backend, tensor_of(grad->patch_embed, c->embed_dim, c->patch_dim), NULL,
	                          run_as_operand(r, dx), p->patches);
	tell_ready(p, grad->patch_embed);
	return 0;
}

int pass_backward(struct pass *p, const float *g, struct weights *grad)
{
	const struct run *r = p->run;
	const struct model *m = p->model;
	const struct batch *b = p->batch;
	struct backend *be = r->backend;
	const int64_t N = b->targets, H = m->config.hidden_size, V = m->config.vocab_size;
	struct arena_mark mark = arena_mark(r->arena);

	float *g_there = run_upload(r, g, (size_t)N * sizeof *g);
	struct tensor dnormed = run_operand(r, N, H), dgathered = run_tensor(r, N, H), dx = run_tensor(r, b->rows, H);
	op_head_logprob_backward(be, dnormed, tensor_of(grad->lm_head, V, H), g_there, p->lse, p->normed,
	                         tensor_of(m->w.lm_head, V, H), p->target_id, p->temperature);
	op_zero_tensor(be, dgathered);
	op_rmsnorm_backward(be, dgathered, grad->norm_w, dnormed, p->gathered, m->w.norm_w, p->final_rstd);
	tell_ready(p, grad->norm_w); /* and, where it is not the embedding, the head behind it */
	op_zero_tensor(be, dx);
	op_scatter_rows_add(be, dx, dgathered, p->target_row);

	int stopped = 0;
	for (int i = m->config.layers - 1; i >= 0; i--) {
		stopped = run_tick(r);
		if (stopped)
			goto done;
		struct arena_mark layer = arena_mark(r->arena);
		if (p->recompute) {
			struct tensor y = run_tensor(r, b->rows, H);
			text_layer_forward(r, m, i, &p->text, NULL, p->layer_x[i], y, &p->layers[i]);
		}
		text_layer_backward(r, m, i, &p->text, dx, &p->layers[i], grad);
		tell_ready(p, grad->layers[i].norm1_w);
		arena_reset(r->arena, layer);
	}
	op_scatter_rows_add(be, tensor_of(grad->embed, V, H), dx, p->embed_row);
	tell_ready(p, grad->embed);
	if (b->images && p->vision_backward) {
		struct tensor dfeatures = run_tensor(r, b->features, H);
		op_zero_tensor(be, dfeatures);
		op_scatter_rows_add(be, dfeatures, dx, p->feature_row);
		stopped = vision_pass_backward(p, dfeatures, grad);
	}
done:
	arena_reset(r->arena, mark);
	return stopped != 0;
}

void pass_end(struct pass *p)
{
	free(p->host_memory);
	p->host_memory = NULL;
}

int64_t pass_bytes(const struct backend *b, const struct model_config *c, int64_t rows, int64_t patches,
                   int64_t targets, int recompute, int vision_backward)
{
	const int64_t H = c->hidden_size, F = c->intermediate_size, Q = (int64_t)c->heads * c->head_dim,
	              KV = (int64_t)c->kv_heads * c->head_dim, E = c->vision.embed_dim, M = c->vision.mlp_dim,
	              S = (int64_t)c->vision.merge_size * c->vision.merge_size, C = c->vision.patch_dim;
	/* bytes of a float and of an operand; gradients of the residual stream are copied where these differ */
	const int64_t f = sizeof(float), o = (int64_t)element_size(b->operand), copies = o != f;
	/* bytes a row: what towers.h saves, and the temporaries of one layer's backward, which are more than its forward's */
	int64_t layer = f * (2 * H + c->heads + 2) + o * (2 * Q + 2 * KV + 2 * F),
	        layer_back = f * H + o * (F + 2 * H + 2 * Q + 2 * KV + copies * 2 * H);
	int64_t block = f * (E + c->vision.heads + 4) + o * (4 * E + M), block_back = o * (M + 5 * E + copies * 2 * E);
	int64_t text = rows * (f * H * (recompute ? c->layers + 1 : 1) +
	                       (recompute ? layer : c->layers * (layer + f * H)) + layer_back + f * H);
	int64_t vision = patches * (o * C + copies * f * C + f * (2 * E + c->vision.head_dim));
	if (vision_backward)
		vision += patches * (f * E * c->vision.depth + (recompute ? 1 : c->vision.depth) * block + block_back +
		                     f * (3 * E + 2 * H / S) + copies * o * (E + H / S));
	else
		vision += patches * (block + o * (E + M) + f * 3 * E);
	return text + vision + targets * (f * (2 * H + 8) + o * 2 * H);
}
