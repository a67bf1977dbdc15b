/* config.json -> struct model_config. Every size is bounded before anything is allocated from it. */
#include "model/hf_config.h"

#include "model/json.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { SIZE_MAX_SANE = 1 << 20 };

struct reader {
	const json_t *object;
	const char *origin; /* "DIR/config.json" or "DIR/config.json: vision_config" */
	struct favor_error *e;
};

/* A required size in [1, high]. */
static int size(const struct reader *r, const char *key, int64_t high, int32_t *out)
{
	int64_t v;
	if (json_get_int(r->object, key, 1, 0, 1, high, &v, r->origin, r->e))
		return -1;
	*out = (int32_t)v;
	return 0;
}

static int size_or(const struct reader *r, const char *key, int64_t fallback, int64_t low, int64_t high, int32_t *out)
{
	int64_t v;
	if (json_get_int(r->object, key, 0, fallback, low, high, &v, r->origin, r->e))
		return -1;
	*out = (int32_t)v;
	return 0;
}

/* A string key must have one of the values, if it is there. */
static int expect(const struct reader *r, const char *key, const char *a, const char *b)
{
	const json_t *v = json_object_get(r->object, key);
	if (!v || json_is_null(v))
		return 0;
	const char *s = json_string_value(v);
	if (s && (!strcmp(s, a) || (b && !strcmp(s, b))))
		return 0;
	return favor_fail(r->e, "%s: \"%s\" is %s%s%s; favor runs \"%s\" only", r->origin, key, s ? "\"" : "",
	                  s ? s : json_type_name(v), s ? "\"" : "", a);
}

static int read_rope(struct model_config *c, const struct reader *text)
{
	const json_t *rope = json_object_get(text->object, "rope_parameters");
	if (!json_is_object(rope))
		rope = json_object_get(text->object, "rope_scaling");
	double theta;
	if (json_get_real(text->object, "rope_theta", 1e6, &theta, text->origin, text->e))
		return -1;
	c->rope_theta = theta;
	if (!json_is_object(rope))
		return favor_fail(
		    text->e,
		    "%s: neither \"rope_parameters\" nor \"rope_scaling\" with \"mrope_section\" is there: is this Qwen2-VL?",
		    text->origin);
	struct reader r = {rope, text->origin, text->e};
	if (expect(&r, "rope_type", "default", "mrope") || expect(&r, "type", "mrope", "default"))
		return -1;
	if (json_get_real(rope, "rope_theta", theta, &c->rope_theta, text->origin, text->e))
		return -1;
	if (!(c->rope_theta > 1.0))
		return favor_fail(text->e, "%s: \"rope_theta\" is %g; it must be greater than 1", text->origin, c->rope_theta);
	const json_t *sections = json_object_get(rope, "mrope_section");
	if (json_array_size(sections) != 3)
		return favor_fail(text->e, "%s: \"mrope_section\" must be a list of 3 integers", text->origin);
	int64_t sum = 0;
	for (size_t i = 0; i < 3; i++) {
		const json_t *v = json_array_get(sections, i);
		int64_t s = json_is_integer(v) ? json_integer_value(v) : -1;
		if (s < 0 || s > 4096)
			return favor_fail(text->e, "%s: \"mrope_section\"[%zu] must be an integer in [0, 4096]", text->origin, i);
		c->mrope_section[i] = (int32_t)s;
		sum += s;
	}
	if (2 * sum != c->head_dim)
		return favor_fail(text->e, "%s: \"mrope_section\" sums to %lld, but half of the head dimension is %d",
		                  text->origin, (long long)sum, c->head_dim / 2);
	return 0;
}

static int read_text(struct model_config *c, const struct reader *r)
{
	if (size(r, "vocab_size", 1 << 24, &c->vocab_size) || size(r, "hidden_size", SIZE_MAX_SANE, &c->hidden_size) ||
	    size(r, "intermediate_size", SIZE_MAX_SANE, &c->intermediate_size) ||
	    size(r, "num_hidden_layers", 1024, &c->layers) || size(r, "num_attention_heads", 1024, &c->heads) ||
	    size_or(r, "num_key_value_heads", c->heads, 1, 1024, &c->kv_heads) ||
	    size_or(r, "max_position_embeddings", 32768, 1, 1 << 30, &c->max_positions))
		return -1;
	if (c->hidden_size % c->heads)
		return favor_fail(r->e, "%s: \"hidden_size\" %d is no multiple of \"num_attention_heads\" %d", r->origin,
		                  c->hidden_size, c->heads);
	if (c->heads % c->kv_heads)
		return favor_fail(r->e, "%s: \"num_attention_heads\" %d is no multiple of \"num_key_value_heads\" %d",
		                  r->origin, c->heads, c->kv_heads);
	c->head_dim = c->hidden_size / c->heads;
	if (c->head_dim % 4 || c->head_dim > 256)
		return favor_fail(
		    r->e, "%s: the head dimension hidden_size / num_attention_heads is %d; favor runs multiples of 4 up to 256",
		    r->origin, c->head_dim);
	double eps;
	int sliding;
	if (json_get_real(r->object, "rms_norm_eps", 1e-6, &eps, r->origin, r->e) ||
	    expect(r, "hidden_act", "silu", NULL) ||
	    json_get_bool(r->object, "use_sliding_window", 0, &sliding, r->origin, r->e))
		return -1;
	if (sliding)
		return favor_fail(r->e, "%s: \"use_sliding_window\" is true; favor has full attention only", r->origin);
	c->rms_eps = (float)eps;
	return read_rope(c, r);
}

static int read_vision(struct vision_config *v, const struct reader *r, int32_t hidden_size)
{
	int32_t ratio, out, in;
	double mlp_ratio;
	if (size(r, "depth", 1024, &v->depth) || size(r, "embed_dim", SIZE_MAX_SANE, &v->embed_dim) ||
	    size(r, "num_heads", 1024, &v->heads) || size_or(r, "hidden_size", hidden_size, 1, SIZE_MAX_SANE, &out) ||
	    size_or(r, "patch_size", 14, 1, 256, &v->patch_size) ||
	    size_or(r, "temporal_patch_size", 2, 1, 16, &v->temporal_patch_size) ||
	    size_or(r, "spatial_merge_size", 2, 1, 16, &v->merge_size) || size_or(r, "in_chans", 3, 1, 16, &in) ||
	    size_or(r, "in_channels", in, 1, 16, &v->channels) ||
	    json_get_real(r->object, "mlp_ratio", 4.0, &mlp_ratio, r->origin, r->e) ||
	    expect(r, "hidden_act", "quick_gelu", NULL))
		return -1;
	ratio = mlp_ratio >= 1 && mlp_ratio <= 64 ? (int32_t)mlp_ratio : 0;
	if (!ratio || (double)ratio != mlp_ratio)
		return favor_fail(r->e, "%s: \"mlp_ratio\" must be a whole number in [1, 64]", r->origin);
	if (out != hidden_size)
		return favor_fail(r->e, "%s: \"hidden_size\" is %d, but the language model's is %d", r->origin, out,
		                  hidden_size);
	if (v->channels != 3)
		return favor_fail(r->e, "%s: \"in_channels\" is %d; images have 3", r->origin, v->channels);
	if (v->embed_dim % v->heads || v->embed_dim / v->heads % 4 || v->embed_dim / v->heads > 256)
		return favor_fail(r->e, "%s: \"embed_dim\" %d / \"num_heads\" %d must be a multiple of 4 up to 256", r->origin,
		                  v->embed_dim, v->heads);
	v->head_dim = v->embed_dim / v->heads;
	v->mlp_dim = v->embed_dim * ratio;
	v->patch_dim = v->channels * v->temporal_patch_size * v->patch_size * v->patch_size;
	return 0;
}

/* eos_token_id: an integer or a list of them. Replaces what was read before. */
static int read_eos(struct model_config *c, const json_t *object, const char *origin, struct favor_error *e)
{
	const json_t *v = json_object_get(object, "eos_token_id");
	if (!v || json_is_null(v))
		return 0;
	size_t n = json_is_array(v) ? json_array_size(v) : 1;
	if (n > EOS_MAX)
		return favor_fail(e, "%s: \"eos_token_id\" lists %zu tokens; at most %d", origin, n, EOS_MAX);
	for (size_t i = 0; i < n; i++) {
		const json_t *id = json_is_array(v) ? json_array_get(v, i) : v;
		if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) >= c->vocab_size)
			return favor_fail(e, "%s: \"eos_token_id\" must be token ids in [0, %d)", origin, c->vocab_size);
		c->eos[i] = (int32_t)json_integer_value(id);
	}
	c->eos_count = (int32_t)n;
	return 0;
}

static int token(const json_t *root, const char *key, int64_t fallback, int32_t vocab, int32_t *out, const char *path,
                 struct favor_error *e)
{
	int64_t v;
	if (json_get_int(root, key, 0, fallback, 0, (int64_t)1 << 30, &v, path, e))
		return -1;
	if (v >= vocab)
		return favor_fail(e, "%s: \"%s\" is %lld, but \"vocab_size\" is %d", path, key, (long long)v, vocab);
	*out = (int32_t)v;
	return 0;
}

int model_config_load(struct model_config *c, const char *folder, struct favor_error *e)
{
	int result = -1;
	char *path = favor_format("%s/config.json", folder), *path2 = favor_format("%s/generation_config.json", folder);
	char *vision_origin = favor_format("%s: vision_config", path);
	json_t *root = NULL, *generation = NULL;
	*c = (struct model_config){0};
	root = json_file(path, e);
	if (!root)
		goto done;
	const char *type = json_string_value(json_object_get(root, "model_type"));
	if (!type || strcmp(type, "qwen2_vl")) {
		favor_fail(e, "%s: \"model_type\" is \"%s\"; favor runs \"qwen2_vl\" folders", path, type ? type : "(none)");
		goto done;
	}
	const json_t *text = json_object_get(root, "text_config"), *vision = json_object_get(root, "vision_config");
	struct reader rt = {json_is_object(text) ? text : root, path, e}, rv = {vision, vision_origin, e};
	if (!json_is_object(vision)) {
		favor_fail(e, "%s: \"vision_config\" is missing: a text model can't see images", path);
		goto done;
	}
	if (read_text(c, &rt) || read_vision(&c->vision, &rv, c->hidden_size))
		goto done;
	/* the top level's word counts; text_config may repeat it */
	int tied;
	if (json_get_bool(rt.object, "tie_word_embeddings", 0, &tied, path, e) ||
	    json_get_bool(root, "tie_word_embeddings", tied, &c->tied, path, e))
		goto done;
	if (token(root, "image_token_id", 151655, c->vocab_size, &c->image_token, path, e) ||
	    token(root, "video_token_id", 151656, 1 << 30, &c->video_token, path, e) ||
	    token(root, "vision_start_token_id", 151652, c->vocab_size, &c->vision_start_token, path, e) ||
	    token(root, "vision_end_token_id", 151653, c->vocab_size, &c->vision_end_token, path, e))
		goto done;
	if (read_eos(c, rt.object, path, e) || read_eos(c, root, path, e))
		goto done;
	if (access(path2, F_OK) == 0) {
		generation = json_file(path2, e);
		if (!generation || read_eos(c, generation, path2, e))
			goto done;
	}
	result = 0;
done:
	json_decref(root);
	json_decref(generation);
	free(path);
	free(path2);
	free(vision_origin);
	return result;
}
