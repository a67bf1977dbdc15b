/* What config.json and generation_config.json of a Qwen2-VL folder say: the shapes of the model. Reads the old flat
 * layout (text keys at the top) and the new nested one (text_config), rope_scaling and rope_parameters. */
#ifndef FAVOR_MODEL_HF_CONFIG_H
#define FAVOR_MODEL_HF_CONFIG_H

#include "base/error.h"

#include <stdint.h>

enum { EOS_MAX = 16 };

struct vision_config {
	int32_t depth, embed_dim, heads, head_dim, mlp_dim;
	int32_t channels, patch_size, temporal_patch_size, merge_size;
	int32_t patch_dim; /* channels * temporal_patch_size * patch_size^2: columns of pixel_values */
};

struct model_config {
	int32_t vocab_size, hidden_size, intermediate_size, layers, heads, kv_heads, head_dim;
	int32_t max_positions;
	float rms_eps;
	double rope_theta;
	int32_t mrope_section[3]; /* sums to head_dim / 2: dimensions turned by the temporal, height, width position */
	int tied;                 /* the head is the embedding */
	struct vision_config vision;
	int32_t image_token, video_token, vision_start_token, vision_end_token;
	int32_t eos[EOS_MAX], eos_count; /* generation_config.json's, else config.json's */
};

/* folder/config.json and generation_config.json. -1 with a message that names the file and the key: another
 * architecture, a missing or negative size, sizes that don't fit together, a feature that is not there (sliding window,
 * other rope types or activations). */
int model_config_load(struct model_config *c, const char *folder, struct favor_error *e);

#endif
