/* Writing images: PNG and JPEG by libpng and libjpeg. The errors of both libraries come back by longjmp; what a jump must not
 * lose lives in one struct outside the function that jumps. */
#include "data/image.h"

#include <errno.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <png.h>

struct jpeg_writer {
	struct jpeg_compress_struct jpeg;
	struct jpeg_error_mgr manager;
	jmp_buf jump;
	char message[JMSG_LENGTH_MAX];
	unsigned char *data; /* malloc'd by libjpeg, or NULL */
	unsigned long size;
};

static void jpeg_jump(j_common_ptr c)
{
	struct jpeg_writer *w = c->client_data;
	c->err->format_message(c, w->message);
	longjmp(w->jump, 1);
}

static void jpeg_silent(j_common_ptr c)
{
	(void)c;
}

/* Apart from its caller, so that no local of it changes between setjmp and longjmp. */
static int jpeg_compress(struct jpeg_writer *w, const struct image *im, int quality)
{
	if (setjmp(w->jump))
		return -1;
	jpeg_create_compress(&w->jpeg);
	jpeg_mem_dest(&w->jpeg, &w->data, &w->size);
	w->jpeg.image_width = (JDIMENSION)im->width;
	w->jpeg.image_height = (JDIMENSION)im->height;
	w->jpeg.input_components = 3;
	w->jpeg.in_color_space = JCS_RGB;
	jpeg_set_defaults(&w->jpeg);
	jpeg_set_quality(&w->jpeg, quality, TRUE);
	jpeg_start_compress(&w->jpeg, TRUE);
	while (w->jpeg.next_scanline < w->jpeg.image_height) {
		JSAMPROW row = im->pixels + (size_t)w->jpeg.next_scanline * (size_t)im->width * 3;
		jpeg_write_scanlines(&w->jpeg, &row, 1);
	}
	jpeg_finish_compress(&w->jpeg);
	return 0;
}

int image_encode_jpeg(const struct image *im, int quality, void **data, size_t *n, struct favor_error *e)
{
	struct jpeg_writer *w = favor_calloc(1, sizeof *w);
	w->jpeg.err = jpeg_std_error(&w->manager);
	w->manager.error_exit = jpeg_jump;
	w->manager.output_message = jpeg_silent;
	w->jpeg.client_data = w;
	int rc = jpeg_compress(w, im, quality);
	if (rc)
		favor_fail(e, "libjpeg can't encode an image of %d x %d pixels: %s", im->width, im->height, w->message);
	jpeg_destroy_compress(&w->jpeg);
	if (rc == 0) {
		*data = w->data;
		*n = w->size;
	} else {
		free(w->data);
	}
	free(w);
	return rc;
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
