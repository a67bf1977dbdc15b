/* What a model folder says about its images: preprocessor_config.json, or the object "image_processor" in
 * processor_config.json (which wins, as in transformers). Old files give min_pixels and max_pixels, newer ones
 * size.shortest_edge and size.longest_edge. */
#include "base/file.h"
#include "data/image.h"

#include <jansson.h>

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

void image_settings_default(struct image_settings *s)
{
	*s = (struct image_settings){
		.patch_size = 14,
		.temporal_patch_size = 2,
		.merge_size = 2,
		.min_pixels = 56 * 56,
		.max_pixels = 28 * 28 * 16384,
		.mean = {0.48145466f, 0.4578275f, 0.40821073f},
		.std = {0.26862954f, 0.26130258f, 0.27577711f},
		.rescale_factor = 1.0 / 255,
		.do_resize = 1,
		.do_rescale = 1,
		.do_normalize = 1,
	};
}

/* A whole number from 1 to most; absent or null leaves *out. */
static int get_count(const json_t *o, const char *key, int64_t most, int64_t *out, const char *name,
                     struct favor_error *e)
{
	const json_t *v = json_object_get(o, key);
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_integer(v) || json_integer_value(v) < 1 || json_integer_value(v) > most)
		return favor_fail(e, "%s: \"%s\" must be a whole number from 1 to %lld", name, key, (long long)most);
	*out = json_integer_value(v);
	return 0;
}

static int get_flag(const json_t *o, const char *key, int *out, const char *name, struct favor_error *e)
{
	const json_t *v = json_object_get(o, key);
	if (!v || json_is_null(v))
		return 0;
	if (!json_is_boolean(v))
		return favor_fail(e, "%s: \"%s\" must be true or false", name, key);
	*out = json_is_true(v);
	return 0;
}

/* One number for all channels, or a list of three. */
static int get_channels(const json_t *o, const char *key, float out[3], int positive, const char *name,
                        struct favor_error *e)
{
	const json_t *v = json_object_get(o, key);
	if (!v || json_is_null(v))
		return 0;
	if (json_is_array(v) && json_array_size(v) != 3)
		return favor_fail(e, "%s: \"%s\" must have 3 numbers, one a channel", name, key);
	for (size_t i = 0; i < 3; i++) {
		const json_t *x = json_is_array(v) ? json_array_get(v, i) : v;
		const double number = json_number_value(x);
		if (!json_is_number(x) || (positive && !(number >= 1e-6)) || fabs(number) > 1e6)
			return favor_fail(e, "%s: \"%s\" must have 3 %snumbers, one a channel", name, key,
			                  positive ? "positive " : "");
		out[i] = (float)number;
	}
	return 0;
}

static int parse_size(struct image_settings *s, const json_t *o, const char *name, struct favor_error *e)
{
	const json_t *size = json_object_get(o, "size");
	int64_t least = 0, most = 0;
	if (!size || json_is_null(size)) {
		least = 56 * 56;
		most = 28 * 28 * 1280; /* what transformers takes where the file names none */
	} else if (!json_is_object(size)) {
		return favor_fail(e, "%s: \"size\" must be an object with shortest_edge and longest_edge", name);
	} else if (get_count(size, "shortest_edge", INT32_MAX, &least, name, e) ||
	           get_count(size, "longest_edge", INT32_MAX, &most, name, e)) {
		return -1;
	}
	if (get_count(o, "min_pixels", INT32_MAX, &least, name, e) || get_count(o, "max_pixels", INT32_MAX, &most, name, e))
		return -1;
	if (!least || !most)
		return favor_fail(
			e, "%s: \"size\" must have shortest_edge and longest_edge, in pixels (Qwen2-VL resizes by area)", name);
	if (least > most)
		return favor_fail(e, "%s: the smallest area (%lld pixels) exceeds the largest (%lld)", name, (long long)least,
		                  (long long)most);
	s->min_pixels = least;
	s->max_pixels = most;
	return 0;
}

static int parse(struct image_settings *s, const json_t *o, const char *name, struct favor_error *e)
{
	static const char *const processors[] = {"Qwen2VLImageProcessor", "Qwen2VLImageProcessorFast",
	                                         "Qwen2VLImageProcessorPil"};
	image_settings_default(s);
	const json_t *type = json_object_get(o, "image_processor_type");
	int known = !type || json_is_null(type);
	for (int i = 0; i < 3 && !known; i++)
		known = json_is_string(type) && !strcmp(json_string_value(type), processors[i]);
	if (!known)
		return favor_fail(e, "%s: image processor \"%s\" can't be run; Qwen2VLImageProcessor can", name,
		                  json_is_string(type) ? json_string_value(type) : "(no text)");
	int64_t resample = 3, patch = s->patch_size, temporal = s->temporal_patch_size, merge = s->merge_size;
	if (get_count(o, "resample", 1000, &resample, name, e))
		return -1;
	if (resample != 3)
		return favor_fail(e, "%s: \"resample\": %lld can't be run; 3 (bicubic) can", name, (long long)resample);
	if (get_count(o, "patch_size", 256, &patch, name, e) ||
	    get_count(o, "temporal_patch_size", 16, &temporal, name, e) ||
	    get_count(o, "merge_size", 16, &merge, name, e) || parse_size(s, o, name, e) ||
	    get_channels(o, "image_mean", s->mean, 0, name, e) || get_channels(o, "image_std", s->std, 1, name, e) ||
	    get_flag(o, "do_resize", &s->do_resize, name, e) || get_flag(o, "do_rescale", &s->do_rescale, name, e) ||
	    get_flag(o, "do_normalize", &s->do_normalize, name, e))
		return -1;
	const json_t *factor = json_object_get(o, "rescale_factor");
	if (factor && !json_is_null(factor)) {
		if (!json_is_number(factor) || !(fabs(json_number_value(factor)) <= 1e6))
			return favor_fail(e, "%s: \"rescale_factor\" must be a number", name);
		s->rescale_factor = json_number_value(factor);
	}
	s->patch_size = (int32_t)patch;
	s->temporal_patch_size = (int32_t)temporal;
	s->merge_size = (int32_t)merge;
	return 0;
}

/* The settings are the object "image_processor" if the text has one, else the whole object unless `nested`. 1 = done, 0
 * = there are none (a processor_config.json of the old kind), -1 = an error. */
static int parse_text(struct image_settings *s, const char *json, size_t n, int nested, const char *name,
                      struct favor_error *e)
{
	json_error_t bad;
	int rc = -1;
	json_t *root = json_loadb(json, n, 0, &bad);
	const json_t *inner = json_object_get(root, "image_processor");
	if (!root)
		favor_fail(e, "%s:%d: broken JSON: %s", name, bad.line, bad.text);
	else if (!json_is_object(root) || (inner && !json_is_object(inner)))
		favor_fail(e, "%s: %s must be a JSON object", name, inner ? "\"image_processor\"" : "the file");
	else if (!inner && nested)
		rc = 0;
	else
		rc = parse(s, inner ? inner : root, name, e) ? -1 : 1;
	json_decref(root);
	return rc;
}

int image_settings_parse(struct image_settings *s, const char *json, size_t n, const char *name, struct favor_error *e)
{
	return parse_text(s, json, n, 0, name, e) < 0 ? -1 : 0;
}

/* As parse_text; 0 also if the file is not there. */
static int parse_file(struct image_settings *s, const char *path, int nested, struct favor_error *e)
{
	enum { LIMIT = 1 << 20 };
	if (access(path, F_OK) != 0 && errno == ENOENT)
		return 0;
	size_t n = 0;
	char *text = file_read(path, LIMIT, &n, e);
	int rc = text ? parse_text(s, text, n, nested, path, e) : -1;
	free(text);
	return rc;
}

int image_settings_load(struct image_settings *s, const char *folder, struct favor_error *e)
{
	static const char *const names[] = {"processor_config.json", "preprocessor_config.json"};
	struct stat st;
	int rc = 0;
	if (stat(folder, &st) || !S_ISDIR(st.st_mode))
		return favor_fail(e, "%s: no such model folder", folder);
	for (int i = 0; i < 2 && rc == 0; i++) {
		char *path = favor_format("%s/%s", folder, names[i]);
		rc = parse_file(s, path, i == 0, e);
		free(path);
	}
	if (rc == 0)
		image_settings_default(s);
	return rc < 0 ? -1 : rc == 0;
}
