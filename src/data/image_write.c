/* Writing images: PNG and JPEG by libpng and libjpeg. */
#include "data/image.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

/* Sizes are checked before, and output goes to memory: what libjpeg still can fail at is memory. */
static void on_error(j_common_ptr c)
{
	char message[JMSG_LENGTH_MAX];
	c->err->format_message(c, message);
	favor_die("libjpeg can't encode an image: %s", message);
}

int image_encode_jpeg(const struct image *im, int quality, void **data, size_t *n, struct favor_error *e)
{
	struct jpeg_compress_struct jpeg = {0};
	struct jpeg_error_mgr manager;
	unsigned char *out = NULL;
	unsigned long size = 0;
	if (im->width < 1 || im->height < 1 || im->width > JPEG_MAX_DIMENSION || im->height > JPEG_MAX_DIMENSION)
		return favor_fail(e, "an image of %d x %d pixels can't be a JPEG: 1 to %ld a side can", im->width, im->height,
		                  (long)JPEG_MAX_DIMENSION);
	jpeg.err = jpeg_std_error(&manager);
	manager.error_exit = on_error;
	jpeg_create_compress(&jpeg);
	jpeg_mem_dest(&jpeg, &out, &size);
	jpeg.image_width = (JDIMENSION)im->width;
	jpeg.image_height = (JDIMENSION)im->height;
	jpeg.input_components = 3;
	jpeg.in_color_space = JCS_RGB;
	jpeg_set_defaults(&jpeg);
	jpeg_set_quality(&jpeg, quality, TRUE);
	jpeg_start_compress(&jpeg, TRUE);
	while (jpeg.next_scanline < jpeg.image_height) {
		JSAMPROW row = im->pixels + (size_t)jpeg.next_scanline * (size_t)im->width * 3;
		jpeg_write_scanlines(&jpeg, &row, 1);
	}
	jpeg_finish_compress(&jpeg);
	jpeg_destroy_compress(&jpeg);
	*data = out;
	*n = size;
	return 0;
}

int image_write_jpeg(const struct image *im, const char *path, int quality, struct favor_error *e)
{
	void *data = NULL;
	size_t n = 0;
	if (image_encode_jpeg(im, quality, &data, &n, e))
		return favor_fail_prefix(e, "%s", path);
	int rc = 0;
	FILE *f = fopen(path, "wb");
	if (!f) {
		rc = favor_fail(e, "%s: can't be written: %s", path, strerror(errno));
	} else {
		size_t written = fwrite(data, 1, n, f);
		if (fclose(f) || written != n)
			rc = favor_fail(e, "%s: writing failed: %s", path, strerror(errno));
	}
	free(data);
	return rc;
}

int image_write_png(const struct image *im, const char *path, struct favor_error *e)
{
	png_image png = {.version = PNG_IMAGE_VERSION, .format = PNG_FORMAT_RGB};
	png.width = (png_uint_32)im->width;
	png.height = (png_uint_32)im->height;
	if (!png_image_write_to_file(&png, path, 0, im->pixels, 0, NULL))
		return favor_fail(e, "%s: can't be written: %s", path, png.message);
	return 0;
}
