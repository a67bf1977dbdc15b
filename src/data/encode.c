/* Record -> prompt. See encode.h. */
#include "data/encode.h"

#include "base/rng.h"
#include "data/template.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void prompt_free(struct prompt *p)
{
	for (int32_t i = 0; i < p->image_count; i++)
		patches_free(&p->images[i]);
	free(p->images);
	free(p->inputs);
	free(p->text);
	token_ids_free(&p->ids);
	*p = (struct prompt){0};
}

/* Each image token of the text becomes as many as its image has merged patches. */
static int expand(const struct encoder *en, const struct token_ids *in, const struct patches *images, int32_t n,
                  struct token_ids *out, struct favor_error *e)
{
	int32_t used = 0, merge2 = en->settings.merge_size * en->settings.merge_size;
	for (int32_t i = 0; i < in->count; i++) {
		if (in->ids[i] != en->image_token) {
			token_ids_push(out, in->ids[i]);
			continue;
		}
		if (used < n) {
			int64_t tokens = (int64_t)images[used].grid_t * images[used].grid_h * images[used].grid_w / merge2;
			for (int64_t k = 0; k < tokens; k++)
				token_ids_push(out, en->image_token);
		}
		used++;
	}
	if (used != n)
		return favor_fail(e, "the prompt has %d image places, but %d images are given", used, n);
	return 0;
}

static int encode_text(const struct encoder *en, int32_t image_count, const char *text, int raw,
                       const struct patches *images, struct token_ids *ids, struct favor_error *e)
{
	int result = -1;
	struct token_ids plain = {0};
	char *rendered = raw ? favor_strdup(text) : template_render(en->system, image_count, text);
	if (!tokenizer_encode(en->tokenizer, rendered, strlen(rendered), 1, &plain, e))
		result = expand(en, &plain, images, image_count, ids, e);
	token_ids_free(&plain);
	free(rendered);
	return result;
}

/* Crop to 70-100% of each side, mirror, brightness and contrast up to 25%: drawn by counter, so that a resumed run
 * augments alike. */
static void augment(struct image *im, uint64_t seed)
{
	double u[6];
	for (uint32_t i = 0; i < 6; i++)
		u[i] = rng_uniform(seed, RNG_AUGMENT, 0, 0, i);
	int32_t w = (int32_t)(im->width * (0.7 + 0.3 * u[0])), h = (int32_t)(im->height * (0.7 + 0.3 * u[1]));
	if (w < 1 || h < 1)
		return;
	int32_t x0 = (int32_t)((im->width - w) * u[2]), y0 = (int32_t)((im->height - h) * u[3]);
	int mirror = u[4] < 0.5;
	float gain = (float)(0.75 + 0.5 * u[5]), shift = (float)(64 * (rng_uniform(seed, RNG_AUGMENT, 0, 0, 6) - 0.5));
	uint8_t *pixels = favor_malloc((size_t)w * (size_t)h * 3);
	for (int32_t y = 0; y < h; y++)
		for (int32_t x = 0; x < w; x++)
			for (int c = 0; c < 3; c++) {
				int32_t from = x0 + (mirror ? w - 1 - x : x);
				float v = ((float)im->pixels[((int64_t)(y0 + y) * im->width + from) * 3 + c] - 128) * gain + 128 +
				          shift;
				pixels[((int64_t)y * w + x) * 3 + c] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v + 0.5f);
			}
	free(im->pixels);
	*im = (struct image){w, h, pixels};
}

/* folder: where the images must lie, or NULL. */
static int encode(const struct encoder *en, const char *const *images, int32_t n, const char *folder, const char *text,
                  int raw, int64_t augment_seed, struct prompt *p, struct favor_error *e)
{
	*p = (struct prompt){.image_count = n};
	p->text = favor_strdup(text);
	p->images = favor_calloc((size_t)n, sizeof *p->images);
	p->inputs = favor_calloc((size_t)n, sizeof *p->inputs);
	for (int32_t i = 0; i < n; i++) {
		struct image im = {0};
		int bad = image_load_below(&im, images[i], folder, e);
		if (!bad && augment_seed >= 0)
			augment(&im, (uint64_t)augment_seed + (uint64_t)i);
		if (!bad && image_patches(&p->images[i], &im, &en->settings, e))
			bad = favor_fail_prefix(e, "%s", images[i]);
		image_free(&im);
		if (bad)
			goto fail;
		const struct patches *q = &p->images[i];
		p->inputs[i] = (struct image_input){q->grid_t, q->grid_h, q->grid_w, q->values};
	}
	if (encode_text(en, n, text, raw, p->images, &p->ids, e))
		goto fail;
	return 0;
fail:
	prompt_free(p);
	return -1;
}

int encode_prompt(const struct encoder *en, const char *const *images, int32_t n, const char *text, int raw,
                  struct prompt *p, struct favor_error *e)
{
	return encode(en, images, n, NULL, text, raw, -1, p, e);
}

int encode_record(const struct encoder *en, const struct record *r, int64_t augment_seed, struct prompt *p,
                  struct favor_error *e)
{
	char *text = prompt_text(en->prompt, en->classes, r, e);
	int result = -1;
	if (text)
		result = encode(en, (const char *const *)r->images, r->image_count, r->folder, text, 0, augment_seed, p, e);
	free(text);
	return result;
}

int encode_target(const struct encoder *en, const struct record *r, int32_t stop_token, struct token_ids *ids,
                  struct favor_error *e)
{
	char *text = target_text(en->prompt, r);
	int result = tokenizer_encode(en->tokenizer, text, strlen(text), 1, ids, e);
	free(text);
	if (!result)
		token_ids_push(ids, stop_token);
	return result;
}

int encode_size(const struct encoder *en, const struct record *r, int32_t *tokens, int64_t *patches,
                struct favor_error *e)
{
	int result = -1;
	struct patches *grids = favor_calloc((size_t)r->image_count, sizeof *grids);
	struct token_ids ids = {0};
	char *text = prompt_text(en->prompt, en->classes, r, e);
	if (!text)
		goto done;
	*patches = 0;
	for (int32_t i = 0; i < r->image_count; i++) {
		int32_t width, height;
		if (image_check(r->images[i], r->folder, &width, &height, e) ||
		    image_grid(&en->settings, width, height, &grids[i], e))
			goto done;
		*patches += grids[i].rows;
	}
	if (encode_text(en, r->image_count, text, 0, grids, &ids, e))
		goto done;
	*tokens = ids.count;
	result = 0;
done:
	free(text);
	free(grids);
	token_ids_free(&ids);
	return result;
}
