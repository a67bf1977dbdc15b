/* The parameters of Qwen2-VL, declared once. From these lists come the struct of pointers, the sizes, the Hugging Face
 * names (which are the names in checkpoints too) and the order in the one block that holds all weights. Gradients and
 * moments are blocks of the same layout.
 *
 *   E vision width   M vision MLP width   C patch_dim   S merge_size^2   H hidden   F MLP width   Q heads*D   KV
 * kv_heads*D   V vocabulary
 *
 * Order matters twice: the vision tower comes first, so that what a frozen tower leaves trainable is one range; q, k, v
 * and gate, up lie side by side, so that each is one product. */
#ifndef FAVOR_MODEL_PARAMS_H
#define FAVOR_MODEL_PARAMS_H

#include "model/hf_config.h"

#include <stddef.h>
#include <stdint.h>

/* X(field, Hugging Face name, rows, columns (0: a vector of `rows`), weight decay applies) */
/* clang-format off */
#define PARAMS_VISION_FIRST(X) X(patch_embed, "visual.patch_embed.proj.weight", E, C, 1)
#define PARAMS_VISION_BLOCK(X)                               \
	X(norm1_w, "visual.blocks.%d.norm1.weight", E, 0, 0)     \
	X(norm1_b, "visual.blocks.%d.norm1.bias", E, 0, 0)       \
	X(qkv_w, "visual.blocks.%d.attn.qkv.weight", 3 * E, E, 1) \
	X(qkv_b, "visual.blocks.%d.attn.qkv.bias", 3 * E, 0, 0)  \
	X(proj_w, "visual.blocks.%d.attn.proj.weight", E, E, 1)  \
	X(proj_b, "visual.blocks.%d.attn.proj.bias", E, 0, 0)    \
	X(norm2_w, "visual.blocks.%d.norm2.weight", E, 0, 0)     \
	X(norm2_b, "visual.blocks.%d.norm2.bias", E, 0, 0)       \
	X(fc1_w, "visual.blocks.%d.mlp.fc1.weight", M, E, 1)     \
	X(fc1_b, "visual.blocks.%d.mlp.fc1.bias", M, 0, 0)       \
	X(fc2_w, "visual.blocks.%d.mlp.fc2.weight", E, M, 1)     \
	X(fc2_b, "visual.blocks.%d.mlp.fc2.bias", E, 0, 0)
#define PARAMS_VISION_LAST(X)                            \
	X(ln_q_w, "visual.merger.ln_q.weight", E, 0, 0)      \
	X(ln_q_b, "visual.merger.ln_q.bias", E, 0, 0)        \
	X(merger0_w, "visual.merger.mlp.0.weight", S * E, S * E, 1) \
	X(merger0_b, "visual.merger.mlp.0.bias", S * E, 0, 0) \
	X(merger2_w, "visual.merger.mlp.2.weight", H, S * E, 1) \
	X(merger2_b, "visual.merger.mlp.2.bias", H, 0, 0)
#define PARAMS_TEXT_FIRST(X) X(embed, "model.embed_tokens.weight", V, H, 1)
#define PARAMS_TEXT_LAYER(X)                                              \
	X(norm1_w, "model.layers.%d.input_layernorm.weight", H, 0, 0)         \
	X(q_w, "model.layers.%d.self_attn.q_proj.weight", Q, H, 1)            \
	X(k_w, "model.layers.%d.self_attn.k_proj.weight", KV, H, 1)           \
	X(v_w, "model.layers.%d.self_attn.v_proj.weight", KV, H, 1)           \
	X(q_b, "model.layers.%d.self_attn.q_proj.bias", Q, 0, 0)              \
	X(k_b, "model.layers.%d.self_attn.k_proj.bias", KV, 0, 0)             \
	X(v_b, "model.layers.%d.self_attn.v_proj.bias", KV, 0, 0)             \
	X(o_w, "model.layers.%d.self_attn.o_proj.weight", H, Q, 1)            \
	X(norm2_w, "model.layers.%d.post_attention_layernorm.weight", H, 0, 0) \
	X(gate_w, "model.layers.%d.mlp.gate_proj.weight", F, H, 1)            \
	X(up_w, "model.layers.%d.mlp.up_proj.weight", F, H, 1)                \
	X(down_w, "model.layers.%d.mlp.down_proj.weight", H, F, 1)
#define PARAMS_TEXT_LAST(X) X(norm_w, "model.norm.weight", H, 0, 0)
#define PARAMS_HEAD(X) X(lm_head, "lm_head.weight", V, H, 1) /* untied models only */

/* clang-format on */
#define PARAMS_FIELD(field, name, rows, columns, decay) float *field;
struct vision_block {
	PARAMS_VISION_BLOCK(PARAMS_FIELD)
};
struct text_layer {
	PARAMS_TEXT_LAYER(PARAMS_FIELD)
};
/* Pointers into one block of weights, gradients or moments (borrowed). lm_head is embed where the head is tied. */
struct weights {
	PARAMS_VISION_FIRST(PARAMS_FIELD)
	struct vision_block *blocks; /* [vision.depth], owned */
	PARAMS_VISION_LAST(PARAMS_FIELD)
	PARAMS_TEXT_FIRST(PARAMS_FIELD)
	struct text_layer *layers; /* [layers], owned */
	PARAMS_TEXT_LAST(PARAMS_FIELD)
	PARAMS_HEAD(PARAMS_FIELD)
};
#undef PARAMS_FIELD

/* One parameter as files know it. */
struct param {
	char *name; /* owned by the list */
	int ndim;
	int64_t shape[5];
	int64_t offset, count; /* in floats, in the block */
	int decay;             /* weight decay applies: matrices yes, norms and biases no */
	int vision;
};
struct param_list {
	int count;
	struct param *params;        /* in block order */
	int64_t total, vision_total; /* floats; the vision tower is [0, vision_total) */
};

void params_list(struct param_list *l, const struct model_config *c);
void params_list_free(struct param_list *l);
/* Floats of the largest parameter. */
int64_t params_largest(const struct param_list *l);
/* Points w's fields into the block of l's layout. */
void weights_bind(struct weights *w, const struct model_config *c, float *block);
void weights_unbind(struct weights *w);

#endif
