/* Images: decoding as Pillow does (exif_transpose, convert("RGB")), Pillow's antialiased bicubic resize, and Qwen2-VL's
 * patches. The reference for every value is transformers' Pillow backend (Qwen2VLImageProcessorPil). */
#ifndef FAVOR_DATA_IMAGE_H
#define FAVOR_DATA_IMAGE_H

#include "base/error.h"

#include <stddef.h>
#include <stdint.h>

/* 8-bit RGB, rows top to bottom, no padding. Owns pixels. */
struct image {
	int32_t width, height;
	uint8_t *pixels; /* [height, width, 3] */
};
void image_free(struct image *im);

/* JPEG, PNG or WebP by its first bytes. A missing, truncated or broken file, another format, or one of more than
 * IMAGE_MAX_PIXELS is an error that names the file and what is wrong. Sizes are checked before memory is taken. */
#ifndef IMAGE_MAX_PIXELS                      /* (fuzzing sets a lower one) */
#define IMAGE_MAX_PIXELS ((int64_t)178956970) /* Pillow's limit for a decompression bomb error */
#endif
int image_load(struct image *im, const char *path, struct favor_error *e);
/* The same where somebody else named the file: it must lie below `folder` (as realpath gives it), links followed; NULL:
 * anywhere. */
int image_load_below(struct image *im, const char *path, const char *folder, struct favor_error *e);
int image_decode(struct image *im, const void *data, size_t n, const char *name, struct favor_error *e);
/* Decodes it whole and forgets it: for the check of a data set before the first step. */
int image_check(const char *path, const char *folder, int32_t *width, int32_t *height, struct favor_error *e);

/* Pillow's Image.resize((width, height), BICUBIC) to the 8-bit value, as Pillow 13 and later compute it: older ones
 * differ where an image is shrunk more in height than in width. out must hold nothing. */
void image_resize_bicubic(struct image *out, const struct image *in, int32_t width, int32_t height);

/* From preprocessor_config.json or processor_config.json; defaults are Qwen2-VL's. */
struct image_settings {
	int32_t patch_size, temporal_patch_size, merge_size; /* 14, 2, 2 */
	int64_t min_pixels, max_pixels; /* 3136, 12845056; also read from size.shortest_edge/longest_edge */
	float mean[3], std[3];
	double rescale_factor;                               /* 1/255; a double, as transformers multiplies in doubles */
	int do_resize, do_rescale, do_normalize;
};
/* Reads the folder's file: 0; where neither has such settings, Qwen2-VL's defaults: 1; -1 on error. do_convert_rgb is
 * ignored: images are RGB already. Another image processor, another resampling filter or sizes by height and width are
 * errors. */
int image_settings_load(struct image_settings *s, const char *folder, struct favor_error *e);
/* The same from the text of such a file (a checkpoint carries it); `name` stands in messages. */
int image_settings_parse(struct image_settings *s, const char *json, size_t n, const char *name, struct favor_error *e);
void image_settings_default(struct image_settings *s);

/* transformers' smart_resize: both sides multiples of factor, area within [min, max]. -1 if the aspect ratio exceeds
 * 200. */
int image_smart_size(int32_t width, int32_t height, int32_t factor, int64_t min_pixels, int64_t max_pixels,
                     int32_t *out_width, int32_t *out_height, struct favor_error *e);

/* One image as the vision tower takes it. */
struct patches {
	int32_t grid_t, grid_h, grid_w; /* in patches: image_grid_thw; t = 1 for an image */
	int64_t rows, cols;             /* t*h*w patches; channels * temporal * patch * patch */
	float *values;                  /* [rows, cols] in transformers' order (merge-block order of rows); owned */
};
/* Number of rows and grid for an image of that size, without pixels. */
int image_grid(const struct image_settings *s, int32_t width, int32_t height, struct patches *grid,
               struct favor_error *e);
int image_patches(struct patches *p, const struct image *im, const struct image_settings *s, struct favor_error *e);
void patches_free(struct patches *p);

/* "libjpeg-turbo 2.1.5 (API 62), libpng 1.6.39, libwebp 1.2.4": the JPEG library as built against, the others as loaded. */
void image_libraries(char *text, size_t size);

/* PNG writer for synth and reports (8-bit RGB); image as base64 JPEG thumbnails for the HTML report. */
int image_write_png(const struct image *im, const char *path, struct favor_error *e);
int image_write_jpeg(const struct image *im, const char *path, int quality, struct favor_error *e);
/* JPEG bytes in memory, owned by the caller. */
int image_encode_jpeg(const struct image *im, int quality, void **data, size_t *n, struct favor_error *e);

#endif
