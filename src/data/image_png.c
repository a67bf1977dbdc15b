/* PNG by libpng, which is asked for the stored samples; the conversion to RGB is done here, as Pillow does it: alpha
 * and transparent colours are dropped, gamma is ignored, 16-bit colour keeps its high byte, 16-bit grey is cut at 255.
 * libpng reports errors by longjmp: all that a jump must not lose lives in struct reader, which the caller owns. */
#include "data/image_codec.h"

#include <setjmp.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

enum { CHUNK_MAX = 8 << 20, CHUNKS_KEPT = 32 }; /* bytes of a chunk of metadata, inflated; how many are kept */
enum { BLOCK_MAX = 32 << 20 };                  /* bytes that libpng may want at once: a row of a million pixels has 8 MB */

struct reader {
	png_structp png;
	png_infop info;
	const struct image_file *file;
	size_t position;
	struct image *im;
	struct favor_error *e;
	unsigned char *raw; /* one row, or the whole image if it is interlaced */
	png_bytep *rows;    /* its rows, if it is interlaced */
	unsigned char *exif;
	int complete; /* all pixels are there: what is wrong after them does not matter */
};

static void on_error(png_structp png, png_const_charp message)
{
	struct reader *r = png_get_error_ptr(png);
	if (!r->complete && r->position <= r->file->n)
		favor_fail(r->e, "%s: broken PNG: %s", r->file->name, message);
	longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
	(void)png;
	(void)message;
}

static void read_bytes(png_structp png, png_bytep to, size_t n)
{
	struct reader *r = png_get_io_ptr(png);
	if (n > r->file->n - r->position) {
		if (!r->complete)
			favor_fail(r->e, "%s: truncated PNG: the file ends after %zu bytes, before the image does", r->file->name,
			           r->file->n);
		r->position = r->file->n + 1; /* keeps this message */
		png_error(png, "truncated");
	}
	memcpy(to, r->file->data + r->position, n);
	r->position += n;
}

/* libpng takes the memory that a chunk of metadata claims before it has seen the chunk's bytes: a no makes it skip the
 * chunk. */
static png_voidp take_memory(png_structp png, png_alloc_size_t n)
{
	(void)png;
	return n > BLOCK_MAX ? NULL : malloc(n);
}

static void give_memory(png_structp png, png_voidp p)
{
	(void)png;
	free(p);
}

/* One row of stored samples to RGB. */
static void convert_row(uint8_t *rgb, const unsigned char *raw, int32_t width, int type, int depth,
                        const png_color *palette, int colors)
{
	const int wide = depth == 16 ? 2 : 1;
	const int channels = type == PNG_COLOR_TYPE_RGB          ? 3
	                     : type == PNG_COLOR_TYPE_RGB_ALPHA  ? 4
	                     : type == PNG_COLOR_TYPE_GRAY_ALPHA ? 2
	                                                         : 1;
	for (int32_t x = 0; x < width; x++, raw += channels * wide, rgb += 3) {
		if (type == PNG_COLOR_TYPE_PALETTE) {
			const png_color none = {0, 0, 0}, c = raw[0] < colors ? palette[raw[0]] : none;
			rgb[0] = c.red, rgb[1] = c.green, rgb[2] = c.blue;
		} else if (channels >= 3) {
			for (int k = 0; k < 3; k++)
				rgb[k] = raw[k * wide];
		} else {
			int v = raw[0];
			if (depth == 16 && type == PNG_COLOR_TYPE_GRAY)
				v = raw[0] ? 255 : raw[1];
			else if (depth < 8)
				v = v * 255 / ((1 << depth) - 1);
			rgb[0] = rgb[1] = rgb[2] = (uint8_t)v;
		}
	}
}

/* ImageMagick's way to keep EXIF: "\nexif\n    1234\n" and then the bytes as hexadecimal digits. */
static int text_orientation(struct reader *r, const char *text, size_t n)
{
	const char *p = text, *end = text + n;
	for (int i = 0; i < 3; i++) {
		p = memchr(p, '\n', (size_t)(end - p));
		if (!p++)
			return 0;
	}
	free(r->exif);
	r->exif = favor_malloc(n);
	size_t size = 0;
	int high = -1;
	for (; p < end; p++) {
		int d = *p >= '0' && *p <= '9'   ? *p - '0'
		        : *p >= 'a' && *p <= 'f' ? *p - 'a' + 10
		        : *p >= 'A' && *p <= 'F' ? *p - 'A' + 10
		                                 : -1;
		if (d < 0)
			continue;
		if (high >= 0)
			r->exif[size++] = (unsigned char)(high << 4 | d);
		high = high >= 0 ? -1 : d;
	}
	return exif_orientation(r->exif, size);
}

static int find_orientation(struct reader *r)
{
	png_bytep exif = NULL;
	png_uint_32 exif_size = 0;
	png_textp texts = NULL;
	int found = 0, from_text = 0, from_xmp = 0, has_exif = png_get_eXIf_1(r->png, r->info, &exif_size, &exif) != 0;
	if (has_exif)
		found = exif_orientation(exif, exif_size);
	int count = png_get_text(r->png, r->info, &texts, NULL);
	for (int i = 0; i < count; i++) {
		size_t n = texts[i].itxt_length ? texts[i].itxt_length : texts[i].text_length;
		if (!has_exif && !strcmp(texts[i].key, "Raw profile type exif"))
			from_text = text_orientation(r, texts[i].text, n);
		else if (!strcmp(texts[i].key, "XML:com.adobe.xmp"))
			from_xmp = xmp_orientation(texts[i].text, n);
	}
	return found ? found : from_text ? from_text : from_xmp;
}

/* Apart from its caller, so that no local of it that changes after setjmp is used after a longjmp. */
static int decode(struct reader *r)
{
	png_structp png = r->png;
	png_uint_32 width, height;
	int depth, type, interlace;
	if (setjmp(png_jmpbuf(png)))
		return r->complete ? 0 : -1;
	png_set_read_fn(png, r, read_bytes);
	png_set_benign_errors(png, 1);
	png_set_chunk_malloc_max(png, CHUNK_MAX);
	png_set_chunk_cache_max(png, CHUNKS_KEPT);
	png_read_info(png, r->info);
	png_get_IHDR(png, r->info, &width, &height, &depth, &type, &interlace, NULL, NULL);
	if (image_allocate(r->im, width, height, r->file->name, r->e))
		return -1;
	png_colorp palette = NULL;
	int colors = 0;
	if (type == PNG_COLOR_TYPE_PALETTE)
		png_get_PLTE(png, r->info, &palette, &colors);
	png_set_packing(png); /* samples below 8 bits in a byte each */
	png_set_interlace_handling(png);
	png_read_update_info(png, r->info);
	const size_t stride = png_get_rowbytes(png, r->info);
	if (interlace != PNG_INTERLACE_NONE) {
		r->raw = favor_malloc(stride * height);
		r->rows = favor_malloc(height * sizeof *r->rows);
		for (png_uint_32 y = 0; y < height; y++)
			r->rows[y] = r->raw + stride * y;
		png_read_image(png, r->rows);
	} else {
		r->raw = favor_malloc(stride);
	}
	for (png_uint_32 y = 0; y < height; y++) {
		if (!r->rows)
			png_read_row(png, r->raw, NULL);
		convert_row(r->im->pixels + (size_t)y * width * 3, r->rows ? r->rows[y] : r->raw, r->im->width, type, depth,
		            palette, colors);
	}
	r->complete = 1;
	png_read_end(png, r->info); /* metadata may come after the pixels */
	return 0;
}

int image_decode_png(struct image *im, int *orientation, const struct image_file *f, struct favor_error *e)
{
	struct reader *r = favor_calloc(1, sizeof *r);
	r->file = f;
	r->im = im;
	r->e = e;
	r->png = png_create_read_struct_2(PNG_LIBPNG_VER_STRING, r, on_error, on_warning, NULL, take_memory, give_memory);
	r->info = r->png ? png_create_info_struct(r->png) : NULL;
	if (!r->info)
		favor_die("libpng can't start: out of memory, or built against another version than it runs with");
	int rc = decode(r);
	if (rc == 0)
		*orientation = find_orientation(r);
	png_destroy_read_struct(&r->png, &r->info, NULL);
	free(r->raw);
	free(r->rows);
	free(r->exif);
	free(r);
	return rc;
}
