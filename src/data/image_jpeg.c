/* JPEG by libjpeg-turbo with its defaults (accurate integer transform, smooth upsampling): what Pillow uses too.
 * libjpeg reports errors by longjmp: all that a jump must not lose lives in struct reader, which the caller owns. */
#include "data/image_codec.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>

enum { SCANS_MAX = 200 };

struct reader {
	struct jpeg_decompress_struct jpeg;
	struct jpeg_error_mgr manager;
	struct jpeg_source_mgr source;
	struct jpeg_progress_mgr progress;
	jmp_buf jump;
	const struct image_file *file;
	struct image *im;
	int *orientation;
	struct favor_error *e;
	unsigned char *cmyk; /* one row, or NULL */
	unsigned char *exif; /* joined segments, or NULL */
};

static void on_error(j_common_ptr c)
{
	struct reader *r = c->client_data;
	char message[JMSG_LENGTH_MAX];
	c->err->format_message(c, message);
	favor_fail(r->e, "%s: broken JPEG: %s", r->file->name, message);
	longjmp(r->jump, 1);
}

/* Warnings (some damaged blocks) are no errors, as in Pillow. */
static void on_message(j_common_ptr c)
{
	(void)c;
}

static void source_nothing(j_decompress_ptr c)
{
	(void)c;
}

static boolean source_end(j_decompress_ptr c)
{
	struct reader *r = c->client_data;
	favor_fail(r->e, "%s: truncated JPEG: the file ends after %zu bytes, before the image does", r->file->name,
	           r->file->n);
	longjmp(r->jump, 1);
	return FALSE;
}

static void source_skip(j_decompress_ptr c, long bytes)
{
	if (bytes <= 0)
		return;
	if ((size_t)bytes > c->src->bytes_in_buffer)
		source_end(c);
	c->src->next_input_byte += bytes;
	c->src->bytes_in_buffer -= (size_t)bytes;
}

/* Pillow joins the EXIF segments and takes the last XMP segment. */
static void read_orientation(struct reader *r)
{
	static const char xmp_mark[] = "http://ns.adobe.com/xap/1.0/";
	size_t exif_size = 0, total = 0;
	int from_xmp = 0;
	for (jpeg_saved_marker_ptr m = r->jpeg.marker_list; m; m = m->next)
		total += m->data_length;
	r->exif = favor_malloc(total);
	for (jpeg_saved_marker_ptr m = r->jpeg.marker_list; m; m = m->next) {
		if (m->data_length >= 6 && !memcmp(m->data, "Exif\0\0", 6)) {
			memcpy(r->exif + exif_size, m->data + 6, m->data_length - 6);
			exif_size += m->data_length - 6;
		} else if (m->data_length >= sizeof xmp_mark && !memcmp(m->data, xmp_mark, sizeof xmp_mark)) {
			from_xmp = xmp_orientation(m->data + sizeof xmp_mark, m->data_length - sizeof xmp_mark);
		}
	}
	int from_exif = exif_orientation(r->exif, exif_size);
	*r->orientation = from_exif ? from_exif : from_xmp;
}

/* Adobe's inverted inks, which Pillow takes every four-component JPEG for: out = (255 - k) - (255 - k) * ink / 255,
 * rounded. */
static void cmyk_to_rgb(uint8_t *rgb, const unsigned char *inverted, int32_t width)
{
	for (int32_t x = 0; x < width; x++) {
		int white = inverted[x * 4 + 3];
		for (int k = 0; k < 3; k++) {
			int t = (255 - inverted[x * 4 + k]) * white + 128, v = white - (((t >> 8) + t) >> 8);
			rgb[x * 3 + k] = (uint8_t)(v < 0 ? 0 : v);
		}
	}
}

/* Some megabytes of scans that refine nothing would keep a core busy for hours. Writers make about ten. */
static void on_progress(j_common_ptr c)
{
	struct reader *r = c->client_data;
	if (r->jpeg.input_scan_number <= SCANS_MAX)
		return;
	favor_fail(r->e, "%s: broken JPEG: more than %d scans", r->file->name, SCANS_MAX);
	longjmp(r->jump, 1);
}

/* Apart from its caller, so that no local of it changes between setjmp and longjmp. */
static int decode(struct reader *r)
{
	struct jpeg_decompress_struct *c = &r->jpeg;
	if (setjmp(r->jump))
		return -1;
	jpeg_create_decompress(c);
	r->source = (struct jpeg_source_mgr){.next_input_byte = r->file->data,
	                                     .bytes_in_buffer = r->file->n,
	                                     .init_source = source_nothing,
	                                     .fill_input_buffer = source_end,
	                                     .skip_input_data = source_skip,
	                                     .resync_to_restart = jpeg_resync_to_restart,
	                                     .term_source = source_nothing};
	c->src = &r->source;
	r->progress.progress_monitor = on_progress;
	c->progress = &r->progress;
	jpeg_save_markers(c, JPEG_APP0 + 1, 0xffff);
	jpeg_read_header(c, TRUE);
	read_orientation(r);
	if (c->num_components != 1 && c->num_components != 3 && c->num_components != 4)
		return favor_fail(r->e, "%s: a JPEG of %d components: only grey, colour and four inks can be read",
		                  r->file->name, c->num_components);
	if (image_allocate(r->im, c->image_width, c->image_height, r->file->name, r->e))
		return -1;
	c->out_color_space = c->num_components == 4 ? JCS_CMYK : JCS_RGB;
	jpeg_start_decompress(c);
	if (c->num_components == 4)
		r->cmyk = favor_malloc((size_t)c->output_width * 4);
	while (c->output_scanline < c->output_height) {
		uint8_t *to = r->im->pixels + (size_t)c->output_scanline * c->output_width * 3;
		JSAMPROW row = r->cmyk ? r->cmyk : to;
		jpeg_read_scanlines(c, &row, 1);
		if (r->cmyk)
			cmyk_to_rgb(to, r->cmyk, r->im->width);
	}
	jpeg_finish_decompress(c);
	return 0;
}

int image_decode_jpeg(struct image *im, int *orientation, const struct image_file *f, struct favor_error *e)
{
	struct reader *r = favor_calloc(1, sizeof *r);
	r->file = f;
	r->im = im;
	r->orientation = orientation;
	r->e = e;
	r->jpeg.err = jpeg_std_error(&r->manager);
	r->manager.error_exit = on_error;
	r->manager.output_message = on_message;
	r->jpeg.client_data = r;
	int rc = decode(r);
	jpeg_destroy_decompress(&r->jpeg);
	free(r->cmyk);
	free(r->exif);
	free(r);
	return rc;
}
