/* Between image.c and the decoders of the single formats (image_jpeg.c, image_png.c, image_webp.c). Not for other
 * rooms. */
#ifndef FAVOR_DATA_IMAGE_CODEC_H
#define FAVOR_DATA_IMAGE_CODEC_H

#include "data/image.h"

/* A file's bytes, borrowed, and its name for messages. */
struct image_file {
	const unsigned char *data;
	size_t n;
	const char *name;
};

/* Checks the size against 1 and IMAGE_MAX_PIXELS, then allocates im->pixels (uninitialised). */
int image_allocate(struct image *im, int64_t width, int64_t height, const char *name, struct favor_error *e);

/* Each decodes to RGB as stored (not yet turned) and gives the orientation 1..8; 1 where the file names none or a
 * broken one. On -1 the caller frees im. */
int image_decode_jpeg(struct image *im, int *orientation, const struct image_file *f, struct favor_error *e);
int image_decode_png(struct image *im, int *orientation, const struct image_file *f, struct favor_error *e);
int image_decode_webp(struct image *im, int *orientation, const struct image_file *f, struct favor_error *e);

/* The orientation tag in EXIF data (with or without the leading "Exif\0\0"), 0 if there is none or the data is broken.
 */
int exif_orientation(const void *data, size_t n);
/* The same in XMP text: tiff:Orientation="6" or tiff:Orientation>6. Pillow looks there where EXIF says nothing. */
int xmp_orientation(const void *data, size_t n);

#endif
