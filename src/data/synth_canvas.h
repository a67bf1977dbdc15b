/* The canvas of the synthetic images: CANVAS_SAMPLES^2 samples a pixel, shapes tested at the samples in integer
 * arithmetic (so that the same shape gives the same pixels on every machine), averaged down at the end. Coordinates are
 * fixed point: CANVAS_UNIT to a pixel, x to the right, y down. Used by synth_*.c alone. */
#ifndef FAVOR_DATA_SYNTH_CANVAS_H
#define FAVOR_DATA_SYNTH_CANVAS_H

#include "data/image.h"

#include <stdint.h>

enum { CANVAS_SAMPLES = 4, CANVAS_UNIT = 64 };

struct canvas {
	int32_t width, height; /* in samples: CANVAS_SAMPLES times the image */
	uint8_t *rgb;          /* [height, width, 3]; owned */
};
struct point {
	int32_t x, y;
};
struct paint {
	int32_t r, g, b; /* 0..255 */
	int32_t alpha;   /* 0..256 */
	int32_t shade;   /* light from one side to the other of a capsule, in 1/256; 0 = flat */
};

void canvas_init(struct canvas *c, int32_t width, int32_t height); /* in pixels of the image to come */
void canvas_free(struct canvas *c);
/* Averages the samples; im must hold nothing. */
void canvas_finish(const struct canvas *c, struct image *im);

/* A line from a to b whose radius goes from ra to rb, with round ends. a = b is a disc. */
void canvas_capsule(struct canvas *c, struct point a, struct point b, int32_t ra, int32_t rb, struct paint p);
/* An ellipse with the half axis `axis` (a vector) and the other half axis of length `minor`. */
void canvas_ellipse(struct canvas *c, struct point center, struct point axis, int32_t minor, struct paint p);
void canvas_ring(struct canvas *c, struct point center, int32_t radius, int32_t thickness, struct paint p);
/* Even-odd inside of up to 16 corners. */
void canvas_polygon(struct canvas *c, const struct point *corners, int n, struct paint p);

#endif
