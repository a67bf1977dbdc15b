/* The vision tower: forward and backward. Maths in towers.h. */
#include "model/towers.h"

#include "backend/ops.h"

#include <math.h>
#include <stdlib.h>

static const float VISION_EPS = 1e-6f; /* fixed in the architecture, not in config.json */

/* Row order of patches is by merge blocks: (h / m, w / m, m, m). Half of the rotation turns with the row, half with the
 * column: dimension d of D/2 has frequency 10000^(-4 (d mod D/4) / D) times (d < D/4 ? row : column). */
void vision_rows_make(struct vision_rows *v, const struct run *r, const struct model_config *c,
                      const struct image_input *images, int32_t image_count)
{
	const int32_t half = c->vision.head_dim / 2, quarter = half / 2, merge = c->vision.merge_size;
	int64_t rows = 0;
	int frames = 0;
	for (int32_t i = 0; i < image_count; i++) {
		rows += (int64_t)images[i].grid_t * images[i].grid_h * images[i].grid_w;
		frames += images[i].grid_t;
	}
	float *cosines = favor_malloc((size_t)(rows * half) * sizeof *cosines);
	float *sines = favor_malloc((size_t)(rows * half) * sizeof *sines);
	struct segment *segments = favor_malloc((size_t)frames * sizeof *segments);
	float frequency[128];
	for (int32_t d = 0; d < quarter; d++)
		frequency[d] = 1.0f / powf(10000.0f, (float)(2 * d) / (float)half);
	int64_t row = 0;
	int s = 0;
	for (int32_t i = 0; i < image_count; i++)
		for (int32_t t = 0; t < images[i].grid_t; t++) {
			int32_t n = images[i].grid_h * images[i].grid_w, across = images[i].grid_w / merge;
			segments[s++] = (struct segment){
			    .q_start = (int32_t)row, .q_len = n, .kv_start = (int32_t)row, .kv_len = n};
			for (int32_t k = 0; k < n; k++, row++) {
				int32_t block = k / (merge * merge), inside = k % (merge * merge);
				float h = (float)(block / across * merge + inside / merge),
				      w = (float)(block % across * merge + inside % merge);
				for (int32_t d = 0; d < half; d++) {
					float angle = (d < quarter ? h : w) * frequency[d % quarter];
					cosines[row * half + d] = cosf(angle);
					sines[row * half + d] = sinf(angle);
				}
			}
		}
	size_t bytes = (size_t)(rows * half) * sizeof(float);
	v->rows = rows;
	v->cos = tensor_of(run_upload(r, cosines, bytes), rows, half);
	v->sin = tensor_of(run_upload(r, sines, bytes), rows, half);
	v->segments = run_segments(r, segments, frames);
	v->segment_count = frames;
	free(cosines);
	free(sines);
	free(segments);
}

struct tensor vision_patches(const struct run *r, const struct model_config *c, const struct image_input *images,
                             int32_t image_count, int64_t rows)
{
	struct tensor patches = run_operand(r, rows, c->vision.patch_dim);
	struct arena_mark mark = arena_mark(r->arena);
	const int cast = patches.type != ELEMENT_FLOAT32;
	struct tensor values = cast ? run_tensor(r, rows, c->vision.patch_dim) : patches;
	int64_t row = 0;
	for (int32_t i = 0; i < image_count; i++) {
		int64_t n = (int64_t)images[i].grid_t * images[i].grid_h * images[i].grid_w;
		op_upload(r->backend, tensor_rows(values, row, n).data, images[i].values,
		          (size_t)(n * c->vision.patch_dim) * sizeof(float));
		row += n;
	}
	if (cast)
		op_cast(r->backend, patches, values);
	arena_reset(r->arena, mark);
	return patches;
}

void vision_block_forward(const struct run *r, const struct model *m, int block, const struct vision_rows *v,
                          struct tensor x, struct tensor y, struct vision_saved *s)
{
	struct backend *b = r->backend;
	const struct vision_block *w = &m->w.blocks[block];
	const struct vision_config *c = &m->config.vision;
	const int64_t T = v->rows, E = c->embed_dim, M = c->mlp_dim;
	*s = (struct vision_saved){.x = x,
	                           .qkv = run_operand(r, T, 3 * E),
	                           .o = run_operand(r, T, E),
	                           .x2 = run_tensor(r, T, E),
	                           .f = run_operand(r, T, M),
	                           .mean1 = run_floats(r, T),
	                           .rstd1 = run_floats(r, T),
	                           .lse = run_floats(r, T * c->heads),
	                           .mean2 = run_floats(r, T),
	                           .rstd2 = run_floats(r, T)};
	struct arena_mark mark = arena_mark(r->arena);
	struct tensor h = run_operand(r, T, E), a = run_operand(r, T, M); /* h1, then h2 */
	op_layernorm(b, h, s->mean1, s->rstd1, x, w->norm1_w, w->norm1_b, VISION_EPS);
	op_linear(b, s->qkv, h, tensor_of(w->qkv_w, 3 * E, E), w->qkv_b, 0);
	op_rope(b, tensor_columns(s->qkv, 0, 2 * E), 2 * c->heads, v->cos, v->sin, 0);
	op_attention(b, s->o, s->lse, tensor_columns(s->qkv, 0, E), tensor_columns(s->qkv, E, E),
	             tensor_columns(s->qkv, 2 * E, E), c->heads, c->heads, 1.0f / sqrtf((float)c->head_dim), v->segments,
	             v->segment_count);
	op_linear(b, s->x2, s->o, tensor_of(w->proj_w, E, E), w->proj_b, 0);
	op_add(b, s->x2, s->x2, x);
	op_layernorm(b, h, s->mean2, s->rstd2, s->x2, w->norm2_w, w->norm2_b, VISION_EPS);
	op_linear(b, s->f, h, tensor_of(w->fc1_w, M, E), w->fc1_b, 0);
	op_activation(b, a, s->f, ACT_QUICK_GELU);
	op_linear(b, y, a, tensor_of(w->fc2_w, E, M), w->fc2_b, 0);
	op_add(b, y, y, s->x2);
	arena_reset(r->arena, mark);
}

void vision_block_backward(const struct run *r, const struct model *m, int block, const struct vision_rows *v,
                           struct tensor dx, const struct vision_saved *s, struct weights *grad)
{
	struct backend *b = r->backend;
	const struct vision_block *w = &m->w.blocks[block];
	struct vision_block *g = &grad->blocks[block];
	const struct vision_config *c = &m->config.vision;
	const int64_t T = v->rows, E = c->embed_dim, M = c->mlp_dim;
	struct arena_mark mark = arena_mark(r->arena);
	struct tensor dm = run_operand(r, T, M), h = run_operand(r, T, E), de = run_operand(r, T, E),
	              dqkv = run_operand(r, T, 3 * E);

	struct tensor dy = run_as_operand(r, dx);
	op_activation(b, dm, s->f, ACT_QUICK_GELU); /* a again */
	op_linear_backward_weight(b, tensor_of(g->fc2_w, E, M), g->fc2_b, dy, dm);
	op_linear_backward_input(b, dm, dy, tensor_of(w->fc2_w, E, M), 0);
	op_activation_backward(b, dm, dm, s->f, ACT_QUICK_GELU);
	op_linear_backward_input(b, de, dm, tensor_of(w->fc1_w, M, E), 0);
	op_layernorm(b, h, s->mean2, s->rstd2, s->x2, w->norm2_w, w->norm2_b, VISION_EPS); /* h2 again */
	op_linear_backward_weight(b, tensor_of(g->fc1_w, M, E), g->fc1_b, dm, h);
	op_layernorm_backward(b, dx, g->norm2_w, g->norm2_b, de, s->x2, w->norm2_w, s->mean2, s->rstd2);

	dy = run_as_operand(r, dx);
	op_linear_backward_input(b, de, dy, tensor_of(w->proj_w, E, E), 0);
	op_linear_backward_weight(b, tensor_of(g->proj_w, E, E), g->proj_b, dy, s->o);
	op_zero_tensor(b, dqkv);
	op_attention_backward(b, tensor_columns(dqkv, 0, E), tensor_columns(dqkv, E, E), tensor_columns(dqkv, 2 * E, E), de,
	                      s->o, s->lse, tensor_columns(s->qkv, 0, E), tensor_columns(s->qkv, E, E),
	                      tensor_columns(s->qkv, 2 * E, E), c->heads, c->heads, 1.0f / sqrtf((float)c->head_dim),
	                      v->segments, v->segment_count);
	op_rope(b, tensor_columns(dqkv, 0, 2 * E), 2 * c->heads, v->cos, v->sin, 1);
	op_linear_backward_input(b, de, dqkv, tensor_of(w->qkv_w, 3 * E, E), 0);
	op_layernorm(b, h, s->mean1, s->rstd1, s->x, w->norm1_w, w->norm1_b, VISION_EPS);
	op_linear_backward_weight(b, tensor_of(g->qkv_w, 3 * E, E), g->qkv_b, dqkv, h);
	op_layernorm_backward(b, dx, g->norm1_w, g->norm1_b, de, s->x, w->norm1_w, s->mean1, s->rstd1);
	arena_reset(r->arena, mark);
}

/* [rows, E] seen as [rows / S, S E]: neighbours of a merge block lie behind one another. */
static struct tensor merged(struct tensor t, int64_t s)
{
	return tensor_of_type(t.data, t.rows / s, t.cols * s, t.type);
}

void merger_forward(const struct run *r, const struct model *m, struct tensor x, struct tensor y,
                    struct merger_saved *s)
{
	struct backend *b = r->backend;
	const struct vision_config *c = &m->config.vision;
	const int64_t S = (int64_t)c->merge_size * c->merge_size, E = c->embed_dim, N = x.rows / S;
	*s = (struct merger_saved){.x = x,
	                           .h = run_operand(r, x.rows, E),
	                           .m0 = run_operand(r, N, S * E),
	                           .m1 = run_operand(r, N, S * E),
	                           .mean = run_floats(r, x.rows),
	                           .rstd = run_floats(r, x.rows)};
	op_layernorm(b, s->h, s->mean, s->rstd, x, m->w.ln_q_w, m->w.ln_q_b, VISION_EPS);
	op_linear(b, s->m0, merged(s->h, S), tensor_of(m->w.merger0_w, S * E, S * E), m->w.merger0_b, 0);
	op_activation(b, s->m1, s->m0, ACT_GELU);
	op_linear(b, y, s->m1, tensor_of(m->w.merger2_w, m->config.hidden_size, S * E), m->w.merger2_b, 0);
}

void merger_backward(const struct run *r, const struct model *m, struct tensor dx, struct tensor dy,
                     const struct merger_saved *s, struct weights *grad)
{
	struct backend *b = r->backend;
	const struct vision_config *c = &m->config.vision;
	const int64_t S = (int64_t)c->merge_size * c->merge_size, E = c->embed_dim, H = m->config.hidden_size;
	struct arena_mark mark = arena_mark(r->arena);
	struct tensor dm = run_operand(r, dy.rows, S * E), dh = run_operand(r, dx.rows, E);
	dy = run_as_operand(r, dy);
	op_linear_backward_input(b, dm, dy, tensor_of(m->w.merger2_w, H, S * E), 0);
	op_linear_backward_weight(b, tensor_of(grad->merger2_w, H, S * E), grad->merger2_b, dy, s->m1);
	op_activation_backward(b, dm, dm, s->m0, ACT_GELU);
	op_linear_backward_input(b, merged(dh, S), dm, tensor_of(m->w.merger0_w, S * E, S * E), 0);
	op_linear_backward_weight(b, tensor_of(grad->merger0_w, S * E, S * E), grad->merger0_b, dm, merged(s->h, S));
	op_zero_tensor(b, dx);
	op_layernorm_backward(b, dx, grad->ln_q_w, grad->ln_q_b, dh, s->x, m->w.ln_q_w, s->mean, s->rstd);
	arena_reset(r->arena, mark);
}

static void features_of(const struct run *r, const struct model *m, struct tensor y, const struct image_input *images,
                        int32_t image_count, int64_t patches)
{
	const struct vision_config *c = &m->config.vision;
	struct arena_mark mark = arena_mark(r->arena);
	struct vision_rows v;
	struct vision_saved saved;
	struct merger_saved merger;
	vision_rows_make(&v, r, &m->config, images, image_count);
	struct tensor x = run_tensor(r, patches, c->embed_dim);
	op_linear(r->backend, x, vision_patches(r, &m->config, images, image_count, patches),
	          tensor_of(m->w.patch_embed, c->embed_dim, c->patch_dim), NULL, 0);
	for (int i = 0; i < c->depth; i++) {
		struct arena_mark layer = arena_mark(r->arena);
		if (run_tick(r))
			break; /* the caller's next tick says so too, and nobody looks at the features */
		vision_block_forward(r, m, i, &v, x, x, &saved); /* y may be x: nothing is kept */
		arena_reset(r->arena, layer);
	}
	merger_forward(r, m, x, y, &merger);
	arena_reset(r->arena, mark);
}

/* Of one image. Computed by itself, so that the bits are the image's alone also where products look at the number of rows. */
static void cached_features(const struct run *r, const struct model *m, struct tensor y, const struct image_input *image)
{
	const struct feature_key key = feature_key(image, m->config.vision.patch_dim);
	const struct tensor seen = feature_cache_find(m->features, &key);
	if (seen.data) {
		op_cast(r->backend, y, seen);
		return;
	}
	features_of(r, m, y, image, 1, (int64_t)image->grid_t * image->grid_h * image->grid_w);
	if (run_tick(r)) /* given up on the way, perhaps */
		return;
	const struct tensor place = feature_cache_keep(m->features, &key, y.rows);
	if (place.data)
		op_cast(r->backend, place, y);
}

struct tensor vision_features(const struct run *r, const struct model *m, const struct image_input *images,
                              int32_t image_count, int64_t patches)
{
	const int64_t S = (int64_t)m->config.vision.merge_size * m->config.vision.merge_size;
	const struct tensor y = run_tensor(r, patches / S, m->config.hidden_size);
	if (!m->features) {
		features_of(r, m, y, images, image_count, patches);
		return y;
	}
	for (int64_t i = 0, row = 0; i < image_count; i++) {
		const int64_t rows = (int64_t)images[i].grid_t * images[i].grid_h * images[i].grid_w / S;
		cached_features(r, m, tensor_rows(y, row, rows), &images[i]);
		row += rows;
	}
	return y;
}
