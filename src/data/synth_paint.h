/* Painting a composed scene: the camera, the place, people and objects. Used by synth_*.c alone. */
#ifndef FAVOR_DATA_SYNTH_PAINT_H
#define FAVOR_DATA_SYNTH_PAINT_H

#include "data/synth_person.h"

/* Where body coordinates come to lie: first scaled and moved (pixels, y down), then rolled about the image's centre,
 * then mirrored. */
struct camera {
	int32_t width, height; /* of the image, in pixels */
	double roll;           /* degrees */
	int mirrored;
	double scale, x, y; /* pixels per body height; the pixel of body (0, 0) */
};
struct point camera_pixel(const struct camera *v, double x, double y);
struct point camera_point(const struct camera *v, struct vec p);

/* Everything behind the people. horizon: where the ground ends, in pixels from the top before the roll. */
void paint_place(struct canvas *c, const struct camera *v, enum place place, double horizon, struct draws *d);
void paint_person(struct canvas *c, const struct camera *v, const struct scene *s, struct draws *d);
void paint_prop(struct canvas *c, const struct camera *v, const struct prop *p, struct draws *d);

#endif
