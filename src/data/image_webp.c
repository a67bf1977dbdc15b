/* WebP by libwebp: lossy, lossless, and the first frame of an animation on a black canvas. Alpha is dropped.
 *
 *   RIFF size WEBP  VP8 | VP8L | VP8X (canvas) ... ALPH, VP8 | ANIM, ANMF (x, y, w, h, duration, flags, then ALPH, VP8
 * | VP8L) ... EXIF, XMP */
#include "data/image_codec.h"

#include <stdlib.h>
#include <string.h>

#include <webp/decode.h>

enum { RIFF_HEADER = 12, CHUNK_HEADER = 8, FRAME_HEADER = 16 };

struct chunk {
	const unsigned char *data;
	size_t n; /* 0 and NULL if the file has none */
};
struct container {
	struct chunk extended, frame, exif, xmp; /* the first of each */
};

static uint32_t little(const unsigned char *p, int bytes)
{
	uint32_t v = 0;
	for (int i = 0; i < bytes; i++)
		v |= (uint32_t)p[i] << 8 * i;
	return v;
}

static int find_chunks(struct container *c, const struct image_file *f, struct favor_error *e)
{
	*c = (struct container){0};
	const size_t size = (size_t)little(f->data + 4, 4) + 8;
	if (size > f->n)
		return favor_fail(e, "%s: truncated WebP: %zu of %zu bytes are there", f->name, f->n, size);
	for (size_t at = RIFF_HEADER; at + CHUNK_HEADER <= size;) {
		const unsigned char *p = f->data + at;
		const size_t n = little(p + 4, 4);
		if (n > size - at - CHUNK_HEADER)
			return favor_fail(e, "%s: broken WebP: a chunk at byte %zu is longer than the file", f->name, at);
		struct {
			const char *name;
			struct chunk *to;
		} wanted[] = {{"VP8X", &c->extended}, {"ANMF", &c->frame}, {"EXIF", &c->exif}, {"XMP ", &c->xmp}};
		for (int i = 0; i < 4; i++)
			if (!memcmp(p, wanted[i].name, 4) && !wanted[i].to->data)
				*wanted[i].to = (struct chunk){p + CHUNK_HEADER, n};
		at += CHUNK_HEADER + n + (n & 1);
	}
	return 0;
}

/* Decodes a bitstream of known size into the image at (x, y). */
static int decode_into(struct image *im, int32_t x, int32_t y, int32_t width, int32_t height, const unsigned char *data,
                       size_t n, const struct image_file *f, struct favor_error *e)
{
	WebPDecoderConfig config;
	if (!WebPInitDecoderConfig(&config))
		favor_die("libwebp can't start: built against another version than it runs with");
	const int64_t stride = (int64_t)im->width * 3;
	config.output.colorspace = MODE_RGB;
	config.output.is_external_memory = 1;
	config.output.u.RGBA.rgba = im->pixels + y * stride + (int64_t)x * 3;
	config.output.u.RGBA.stride = (int)stride;
	config.output.u.RGBA.size = (size_t)(stride * (height - 1) + (int64_t)width * 3);
	VP8StatusCode status = WebPDecode(data, n, &config);
	WebPFreeDecBuffer(&config.output);
	if (status == VP8_STATUS_NOT_ENOUGH_DATA)
		return favor_fail(e, "%s: truncated WebP: the file ends before the image does", f->name);
	if (status != VP8_STATUS_OK)
		return favor_fail(e, "%s: broken WebP: libwebp gives error %d", f->name, (int)status);
	return 0;
}

static int decode_animation(struct image *im, const struct container *c, const struct image_file *f,
                            struct favor_error *e)
{
	WebPBitstreamFeatures frame;
	if (c->extended.n < 10 || c->frame.n <= FRAME_HEADER)
		return favor_fail(e, "%s: broken WebP: an animation without a first frame", f->name);
	const int64_t width = (int64_t)little(c->extended.data + 4, 3) + 1,
				  height = (int64_t)little(c->extended.data + 7, 3) + 1;
	const int64_t x = 2 * (int64_t)little(c->frame.data, 3), y = 2 * (int64_t)little(c->frame.data + 3, 3);
	const unsigned char *data = c->frame.data + FRAME_HEADER;
	const size_t n = c->frame.n - FRAME_HEADER;
	if (WebPGetFeatures(data, n, &frame) != VP8_STATUS_OK)
		return favor_fail(e, "%s: broken WebP: the first frame can't be read", f->name);
	if (x + frame.width > width || y + frame.height > height)
		return favor_fail(e, "%s: broken WebP: the first frame lies outside the canvas", f->name);
	if (image_allocate(im, width, height, f->name, e))
		return -1;
	memset(im->pixels, 0, (size_t)(width * height) * 3);
	return decode_into(im, (int32_t)x, (int32_t)y, frame.width, frame.height, data, n, f, e);
}

int image_decode_webp(struct image *im, int *orientation, const struct image_file *f, struct favor_error *e)
{
	struct container c;
	WebPBitstreamFeatures features;
	if (find_chunks(&c, f, e))
		return -1;
	const int from_exif = exif_orientation(c.exif.data, c.exif.n);
	*orientation = from_exif ? from_exif : xmp_orientation(c.xmp.data, c.xmp.n);
	if (c.frame.data)
		return decode_animation(im, &c, f, e);
	if (WebPGetFeatures(f->data, f->n, &features) != VP8_STATUS_OK)
		return favor_fail(e, "%s: broken or truncated WebP: its header can't be read", f->name);
	if (image_allocate(im, features.width, features.height, f->name, e))
		return -1;
	return decode_into(im, 0, 0, im->width, im->height, f->data, f->n, f, e);
}
