/* Images from files: recognises the format, has it decoded, turns it upright. The decoders are image_jpeg.c,
 * image_png.c and image_webp.c. */
#include "base/file.h"
#include "data/image_codec.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static const int64_t file_limit = (int64_t)1 << 30; /* bytes; no image within IMAGE_MAX_PIXELS comes near it */

void image_free(struct image *im)
{
	free(im->pixels);
	*im = (struct image){0};
}

int image_allocate(struct image *im, int64_t width, int64_t height, const char *name, struct favor_error *e)
{
	if (width < 1 || height < 1)
		return favor_fail(e, "%s: an image of %lld x %lld pixels", name, (long long)width, (long long)height);
	if (width > IMAGE_MAX_PIXELS || height > IMAGE_MAX_PIXELS || width * height > IMAGE_MAX_PIXELS)
		return favor_fail(e, "%s: %lld x %lld pixels are more than the %lld that are allowed; make the image smaller",
		                  name, (long long)width, (long long)height, (long long)IMAGE_MAX_PIXELS);
	im->width = (int32_t)width;
	im->height = (int32_t)height;
	im->pixels = favor_malloc((size_t)(width * height) * 3);
	return 0;
}

/* EXIF orientations: how the stored image has to be turned to be upright. 5..8 exchange width and height. */
static void turn(struct image *im, int orientation)
{
	if (orientation < 2 || orientation > 8)
		return;
	const int64_t w = im->width, h = im->height;
	struct image out = {.width = orientation > 4 ? im->height : im->width,
	                    .height = orientation > 4 ? im->width : im->height};
	out.pixels = favor_malloc((size_t)(w * h) * 3);
	for (int64_t y = 0; y < out.height; y++)
		for (int64_t x = 0; x < out.width; x++) {
			int64_t from_x, from_y;
			switch (orientation) {
			case 2: /* mirrored */
				from_x = w - 1 - x, from_y = y;
				break;
			case 3: /* half a turn */
				from_x = w - 1 - x, from_y = h - 1 - y;
				break;
			case 4: /* upside down and mirrored */
				from_x = x, from_y = h - 1 - y;
				break;
			case 5: /* transposed */
				from_x = y, from_y = x;
				break;
			case 6: /* needs a quarter turn clockwise */
				from_x = y, from_y = h - 1 - x;
				break;
			case 7: /* transposed along the other diagonal */
				from_x = w - 1 - y, from_y = h - 1 - x;
				break;
			default: /* 8: needs a quarter turn counterclockwise */
				from_x = w - 1 - y, from_y = x;
			}
			memcpy(out.pixels + (y * out.width + x) * 3, im->pixels + (from_y * w + from_x) * 3, 3);
		}
	free(im->pixels);
	*im = out;
}

int image_decode(struct image *im, const void *data, size_t n, const char *name, struct favor_error *e)
{
	const struct image_file f = {data, n, name};
	const unsigned char *b = data;
	int orientation = 1, rc;
	*im = (struct image){0};
	if (n >= 3 && !memcmp(b, "\xff\xd8\xff", 3))
		rc = image_decode_jpeg(im, &orientation, &f, e);
	else if (n >= 8 && !memcmp(b, "\x89PNG\r\n\x1a\n", 8))
		rc = image_decode_png(im, &orientation, &f, e);
	else if (n >= 12 && !memcmp(b, "RIFF", 4) && !memcmp(b + 8, "WEBP", 4))
		rc = image_decode_webp(im, &orientation, &f, e);
	else if (n == 0)
		return favor_fail(e, "%s: the file is empty", name);
	else
		return favor_fail(e, "%s: this is no JPEG, PNG or WebP image; convert it to one of these", name);
	if (rc)
		image_free(im);
	else
		turn(im, orientation);
	return rc;
}

int image_load_below(struct image *im, const char *path, const char *folder, struct favor_error *e)
{
	int rc = -1;
	unsigned char *data = NULL;
	struct stat st;
	*im = (struct image){0};
	FILE *f = file_open_below(path, folder, "; set data.root to a folder above both, or data.allow_outside: true", e);
	if (!f)
		return -1;
	if (fstat(fileno(f), &st)) {
		favor_fail(e, "%s: can't be read: %s", path, strerror(errno));
		goto done;
	}
	if (st.st_size > file_limit) {
		favor_fail(e, "%s: %lld bytes are too many for an image", path, (long long)st.st_size);
		goto done;
	}
	const size_t n = (size_t)st.st_size;
	data = favor_malloc(n);
	if (fread(data, 1, n, f) != n) {
		favor_fail(e, "%s: can't be read: %s", path, ferror(f) ? strerror(errno) : "the file became shorter");
		goto done;
	}
	rc = image_decode(im, data, n, path, e);
done:
	free(data);
	fclose(f);
	return rc;
}

int image_load(struct image *im, const char *path, struct favor_error *e)
{
	return image_load_below(im, path, NULL, e);
}

int image_check(const char *path, const char *folder, int32_t *width, int32_t *height, struct favor_error *e)
{
	struct image im;
	if (image_load_below(&im, path, folder, e))
		return -1;
	*width = im.width;
	*height = im.height;
	image_free(&im);
	return 0;
}
