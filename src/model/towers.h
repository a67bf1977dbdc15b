/* The two towers, layer by layer: shared by the pass (training) and the session (rollout), so that both run the same
 * operations in the same order: invariant 5, one forward. Internal to the room.
 *
 * vision block   h1 = LN(x)   qkv = h1 Wqkv + b   rope2d(q, k)   o = attn(q, k, v)   x2 = x + o Wproj + b
 *                h2 = LN(x2)  f = h2 W1 + b        a = quick_gelu(f)                  y  = x2 + a W2 + b
 * merger         h = LN(x), 2x2 patches side by side;  m = gelu(h W0 + b);  y = m W2 + b
 * text layer     h1 = RMS(x)  qkv = h1 Wqkv + b   mrope(q, k)    o = attn(q, k, v)   x2 = x + o Wo
 *                h2 = RMS(x2) gu = h2 [Wgate; Wup] a = silu(g) * u                    y  = x2 + a Wdown */
#ifndef FAVOR_MODEL_TOWERS_H
#define FAVOR_MODEL_TOWERS_H

#include "model/batch.h"
#include "model/model.h"

/* What a layer's backward needs; all [rows, ...] in the run's arena. h1, h2 and a are cheap to make again. */
struct vision_saved {
	struct tensor x, qkv, o, x2, f;
	float *mean1, *rstd1, *lse, *mean2, *rstd2;
};
struct merger_saved {
	struct tensor x, h, m0, m1;
	float *mean, *rstd;
};
struct text_saved {
	struct tensor x, qkv, o, x2, gu;
	float *rstd1, *lse, *rstd2;
};

/* Rows of patches with their rotations and segments (backend memory). */
struct vision_rows {
	int64_t rows;
	struct tensor cos, sin; /* [rows, head_dim / 2] */
	struct segment *segments;
	int segment_count;
};
/* Rows of tokens. */
struct text_rows {
	int64_t rows;
	struct tensor cos, sin; /* [rows, head_dim / 2] */
	struct segment *segments;
	int segment_count;
};
/* Where keys and values stand. Training: cache absent, the rows themselves. Rollout: one layer's cache and the cache
 * row of each row. */
struct kv_cache {
	struct tensor kv; /* [capacity, 2 * kv_heads * head_dim], a row's keys and values side by side; data NULL: absent */
	const int32_t *rows;
};

void vision_rows_make(struct vision_rows *v, const struct run *r, const struct model_config *c,
                      const struct image_input *images, int32_t image_count);
/* cos, sin [rows, head_dim / 2] = rotations of position [rows, 3] (host); no gaps between rows. */
void text_rotations(const struct run *r, const struct model_config *c, int64_t rows, const int32_t *position,
                    struct tensor cos, struct tensor sin);
/* position [rows, 3] on the host; segments on the host. */
void text_rows_make(struct text_rows *t, const struct run *r, const struct model_config *c, int64_t rows,
                    const int32_t *position, const struct segment *segments, int segment_count);

/* Patches of all images, one below the other, as one tensor in backend memory. */
struct tensor vision_patches(const struct run *r, const struct model_config *c, const struct image_input *images,
                             int32_t image_count, int64_t rows);
/* y = block(x); y [rows, E] is given. */
void vision_block_forward(const struct run *r, const struct model *m, int block, const struct vision_rows *v,
                          struct tensor x, struct tensor y, struct vision_saved *s);
/* dx holds dL/dy on entry and dL/dx on return. */
void vision_block_backward(const struct run *r, const struct model *m, int block, const struct vision_rows *v,
                           struct tensor dx, const struct vision_saved *s, struct weights *grad);
void merger_forward(const struct run *r, const struct model *m, struct tensor x, struct tensor y,
                    struct merger_saved *s);
/* dx [rows, E] overwritten. */
void merger_backward(const struct run *r, const struct model *m, struct tensor dx, struct tensor dy,
                     const struct merger_saved *s, struct weights *grad);

void text_layer_forward(const struct run *r, const struct model *m, int layer, const struct text_rows *t,
                        const struct kv_cache *cache, struct tensor x, struct tensor y, struct text_saved *s);
/* dx holds dL/dy on entry and dL/dx on return; s->gu is overwritten. */
void text_layer_backward(const struct run *r, const struct model *m, int layer, const struct text_rows *t,
                         struct tensor dx, struct text_saved *s, struct weights *grad);

/* Features [features, H] of the images without keeping anything: rollout, and a frozen tower. */
struct tensor vision_features(const struct run *r, const struct model *m, const struct image_input *images,
                              int32_t image_count, int64_t patches);
/* x [rows, H]: embeddings of ids, features where feature[i] >= 0. embed_row, feature_row: backend memory. */
void embed_rows(const struct run *r, const struct model *m, struct tensor x, const int32_t *embed_row,
                const int32_t *feature_row, struct tensor features);
/* The rows' id, or -1 where a feature stands: into backend memory. */
int32_t *embed_index(const struct run *r, const struct batch *b);

#endif
