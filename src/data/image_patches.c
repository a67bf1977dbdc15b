/* Qwen2-VL's patches of one image: resize to a grid of whole merge blocks, rescale, normalise, cut.
 *
 *   rows:    (grid_h / merge, grid_w / merge, merge, merge)     the patches of a merge block follow one another
 *   columns: (channel, temporal, patch, patch)                   one frame, repeated for each temporal slot */
#include "data/image.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

int image_smart_size(int32_t width, int32_t height, int32_t factor, int64_t min_pixels, int64_t max_pixels,
                     int32_t *out_width, int32_t *out_height, struct favor_error *e)
{
	const double longer = width > height ? width : height, shorter = width > height ? height : width;
	if (width < 1 || height < 1)
		return favor_fail(e, "an image of %d x %d pixels can't be resized", width, height);
	if (longer / shorter > 200)
		return favor_fail(e, "an image of %d x %d pixels is more than 200 times as long as wide; crop it", width,
		                  height);
	/* rint rounds halves to even, as Python's round */
	double w = rint((double)width / factor) * factor, h = rint((double)height / factor) * factor;
	const double area = (double)width * height;
	if (w * h > (double)max_pixels) {
		const double beta = sqrt(area / (double)max_pixels);
		w = fmax(factor, floor(width / beta / factor) * factor);
		h = fmax(factor, floor(height / beta / factor) * factor);
	} else if (w * h < (double)min_pixels) {
		const double beta = sqrt((double)min_pixels / area);
		w = ceil(width * beta / factor) * factor;
		h = ceil(height * beta / factor) * factor;
	}
	if (w * h > (double)IMAGE_MAX_PIXELS)
		return favor_fail(e,
		                  "an image of %d x %d pixels would be resized to %.0f x %.0f: lower min_pixels or max_pixels",
		                  width, height, w, h);
	*out_width = (int32_t)w;
	*out_height = (int32_t)h;
	return 0;
}

/* Size after resizing, and the grid. */
static int plan(const struct image_settings *s, int32_t width, int32_t height, int32_t *w, int32_t *h,
                struct patches *grid, struct favor_error *e)
{
	const int32_t factor = s->patch_size * s->merge_size;
	if (s->do_resize) {
		if (image_smart_size(width, height, factor, s->min_pixels, s->max_pixels, w, h, e))
			return -1;
	} else if (width % factor || height % factor || width < 1 || height < 1) {
		return favor_fail(e,
		                  "an image of %d x %d pixels does not divide into blocks of %d, and the model's image "
		                  "settings say do_resize: false",
		                  width, height, factor);
	} else {
		*w = width;
		*h = height;
	}
	*grid = (struct patches){.grid_t = 1, .grid_h = *h / s->patch_size, .grid_w = *w / s->patch_size};
	grid->rows = (int64_t)grid->grid_h * grid->grid_w;
	grid->cols = (int64_t)3 * s->temporal_patch_size * s->patch_size * s->patch_size;
	return 0;
}

int image_grid(const struct image_settings *s, int32_t width, int32_t height, struct patches *grid,
               struct favor_error *e)
{
	int32_t w, h;
	return plan(s, width, height, &w, &h, grid, e);
}

/* (value * factor - mean) / std for each channel and 8-bit value, in the reference's order: product in doubles, the
 * rest in floats. */
static void fill_table(float table[3][256], const struct image_settings *s)
{
	for (int c = 0; c < 3; c++)
		for (int v = 0; v < 256; v++) {
			float x = s->do_rescale ? (float)(v * s->rescale_factor) : (float)v;
			table[c][v] = s->do_normalize ? (x - s->mean[c]) / s->std[c] : x;
		}
}

int image_patches(struct patches *p, const struct image *im, const struct image_settings *s, struct favor_error *e)
{
	int32_t width, height;
	struct image resized = {0};
	*p = (struct patches){0};
	if (plan(s, im->width, im->height, &width, &height, p, e))
		return -1;
	const struct image *source = im;
	if (width != im->width || height != im->height) {
		image_resize_bicubic(&resized, im, width, height);
		source = &resized;
	}
	float table[3][256];
	fill_table(table, s);
	p->values = favor_malloc((size_t)p->rows * (size_t)p->cols * sizeof(float));
	const int32_t merge = s->merge_size, patch = s->patch_size;
	const size_t frame = (size_t)patch * (size_t)patch;
	float *out = p->values;
	for (int32_t block_y = 0; block_y < p->grid_h; block_y += merge)
		for (int32_t block_x = 0; block_x < p->grid_w; block_x += merge)
			for (int32_t i = 0; i < merge * merge; i++) {
				const int32_t y0 = (block_y + i / merge) * patch, x0 = (block_x + i % merge) * patch;
				for (int c = 0; c < 3; c++) {
					for (int32_t y = 0; y < patch; y++) {
						const uint8_t *row = source->pixels + ((size_t)(y0 + y) * (size_t)width + (size_t)x0) * 3 + c;
						for (int32_t x = 0; x < patch; x++)
							out[y * patch + x] = table[c][row[x * 3]];
					}
					for (int32_t t = 1; t < s->temporal_patch_size; t++)
						memcpy(out + (size_t)t * frame, out, frame * sizeof(float));
					out += (size_t)s->temporal_patch_size * frame;
				}
			}
	image_free(&resized);
	return 0;
}

void patches_free(struct patches *p)
{
	free(p->values);
	*p = (struct patches){0};
}
