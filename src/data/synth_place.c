/* Places: what is behind the people. Ground and sky are painted sample by sample, with a texture from a hash of the
 * position; trees, houses, windows and the like are shapes. */
#include "data/synth_paint.h"

#include "base/hash.h"

#include <math.h>

/* Position of a sample before roll and mirror, in samples. Integers, so that textures are the same everywhere. */
struct unroll {
	int32_t cosine, sine; /* 1/65536 */
	int32_t width, height;
	int mirrored;
};

static void unroll(const struct unroll *r, int32_t x, int32_t y, int32_t *u, int32_t *v)
{
	int64_t dx = (r->mirrored ? r->width - 1 - x : x) - r->width / 2, dy = y - r->height / 2;
	*u = (int32_t)((dx * r->cosine + dy * r->sine) >> 16) + r->width / 2;
	*v = (int32_t)((dy * r->cosine - dx * r->sine) >> 16) + r->height / 2;
}

/* -128..127, constant on cells of the given size. */
static int32_t grain(uint64_t salt, int32_t u, int32_t v, int32_t wide, int32_t high)
{
	uint64_t cell = (uint64_t)(uint32_t)((u + 65536) / wide) << 32 | (uint32_t)((v + 65536) / high);
	return (int32_t)(hash_mix(cell ^ salt) & 255) - 128;
}

struct tones {
	int sky_top[3], sky_low[3], far[3], near[3];
	int grain_wide, grain_high, strength, wall_strength; /* cells in pixels; strength in 1/16 of a level per unit */
};

static const struct tones place_tones[] = {
	[PLACE_GRASS] = {{96, 160, 228}, {206, 228, 244}, {118, 160, 84}, {70, 124, 50}, 1, 3, 3, 0},
	[PLACE_SAND] = {{104, 176, 232}, {222, 236, 244}, {232, 212, 164}, {214, 184, 130}, 1, 1, 2, 0},
	[PLACE_ROAD] = {{150, 176, 204}, {220, 224, 228}, {140, 140, 144}, {98, 98, 104}, 1, 1, 2, 0},
	[PLACE_SNOW] = {{170, 192, 216}, {226, 232, 240}, {226, 232, 242}, {246, 248, 252}, 2, 2, 1, 0},
	[PLACE_ROOM] = {{206, 196, 178}, {222, 214, 198}, {150, 112, 78}, {122, 86, 56}, 9, 1, 1, 0},
	[PLACE_GYM] = {{188, 194, 202}, {170, 176, 184}, {214, 174, 116}, {190, 148, 92}, 12, 1, 2, 0},
	[PLACE_PLAIN] = {{196, 196, 200}, {168, 168, 174}, {168, 168, 174}, {130, 130, 138}, 1, 1, 0, 0},
	[PLACE_WATER] = {{140, 190, 226}, {214, 230, 238}, {96, 176, 214}, {40, 120, 180}, 5, 1, 3, 0},
	[PLACE_ROCK] = {{168, 150, 128}, {150, 132, 112}, {150, 132, 112}, {124, 106, 90}, 3, 2, 2, 2},
};

static void paint_ground(struct canvas *c, const struct camera *v, enum place place, double horizon, struct draws *d)
{
	struct tones t = place_tones[place];
	int shift[3];
	const int indoor = place == PLACE_ROOM || place == PLACE_GYM || place == PLACE_PLAIN;
	for (int k = 0; k < 3; k++) { /* walls come in many colours, nature in few */
		int spread = indoor ? 46 : 14;
		shift[k] = draw_below(d, 2 * spread + 1) - spread;
	}
	const uint64_t salt = hash_mix(d->seed ^ hash_mix(d->index + 77));
	const double radians = v->roll * 3.14159265358979323846 / 180;
	const struct unroll r = {(int32_t)lrint(cos(radians) * 65536), (int32_t)lrint(sin(radians) * 65536), c->width,
	                         c->height, v->mirrored};
	const int32_t line = (int32_t)lrint(horizon * CANVAS_SAMPLES);
	for (int32_t y = 0; y < c->height; y++)
		for (int32_t x = 0; x < c->width; x++) {
			int32_t a, b;
			unroll(&r, x, y, &a, &b);
			const int below = b >= line;
			const int *from = below ? t.far : t.sky_top, *to = below ? t.near : t.sky_low;
			int32_t span = below ? c->height - line : line, at = below ? b - line : b;
			at = at < 0 ? 0 : at > span ? span : at;
			int strength = below ? t.strength : t.wall_strength;
			int32_t noise =
				strength
					? grain(salt, a, b, t.grain_wide * CANVAS_SAMPLES, t.grain_high * CANVAS_SAMPLES) * strength / 16 +
						  grain(salt + 1, a, b, t.grain_wide * 3 * CANVAS_SAMPLES, t.grain_high * 4 * CANVAS_SAMPLES) *
							  strength / 24
					: 0;
			for (int k = 0; k < 3; k++) {
				int32_t value = from[k] + (to[k] - from[k]) * at / (span > 0 ? span : 1) + noise +
				                (indoor && below ? shift[k] / 3 : shift[k]);
				c->rgb[((size_t)y * (size_t)c->width + (size_t)x) * 3 + (size_t)k] = (uint8_t)(value < 0     ? 0
				                                                                               : value > 255 ? 255
				                                                                                             : value);
			}
		}
}

/* Shapes in pixels before the roll. */
static void block(struct canvas *c, const struct camera *v, double x0, double y0, double x1, double y1, struct paint p)
{
	struct point corners[4] = {camera_pixel(v, x0, y0), camera_pixel(v, x1, y0), camera_pixel(v, x1, y1),
	                           camera_pixel(v, x0, y1)};
	canvas_polygon(c, corners, 4, p);
}

static void blob(struct canvas *c, const struct camera *v, double x, double y, double rx, double ry, struct paint p)
{
	struct point m = camera_pixel(v, x, y), e = camera_pixel(v, x + rx, y);
	canvas_ellipse(c, m, (struct point){e.x - m.x, e.y - m.y}, (int32_t)lrint(ry * CANVAS_UNIT), p);
}

static void line(struct canvas *c, const struct camera *v, double x0, double y0, double x1, double y1, double r,
                 struct paint p)
{
	int32_t radius = (int32_t)lrint(r * CANVAS_UNIT);
	canvas_capsule(c, camera_pixel(v, x0, y0), camera_pixel(v, x1, y1), radius, radius, p);
}

static void paint_trees(struct canvas *c, const struct camera *v, double horizon, int snowy, struct draws *d)
{
	const double w = v->width, unit = v->height;
	for (int i = draw_below(d, 4); i > 0; i--) {
		double x = draw_between(d, 0, w), tall = draw_between(d, 0.14, 0.4) * unit,
			   y = horizon + draw_between(d, 0, 0.04) * unit;
		struct paint leaf = draw_paint(d, 40, 40, 100, 50, 40, 30);
		line(c, v, x, y, x, y - tall * 0.6, tall * 0.045, (struct paint){92, 66, 44, 256, 0});
		if (snowy || draw_chance(d, 0.3)) {
			struct point fir[3] = {camera_pixel(v, x - tall * 0.26, y - tall * 0.18),
			                       camera_pixel(v, x + tall * 0.26, y - tall * 0.18),
			                       camera_pixel(v, x, y - tall * 1.1)};
			leaf.r = leaf.r / 2 + (snowy ? 30 : 0);
			leaf.g -= 30;
			canvas_polygon(c, fir, 3, leaf);
		} else {
			for (int k = 0; k < 3; k++) {
				struct vec at = draw_point(d, -0.16, 0.16, 0.6, 0.9);
				blob(c, v, x + at.x * tall, y - at.y * tall, tall * 0.26, tall * 0.22, leaf);
			}
		}
	}
}

static void paint_houses(struct canvas *c, const struct camera *v, double horizon, struct draws *d)
{
	for (double x = -0.1 * v->width; x < 1.1 * v->width;) {
		double wide = draw_between(d, 0.14, 0.34) * v->width, tall = draw_between(d, 0.1, 0.5) * v->height;
		int g = 110 + draw_below(d, 90);
		if (draw_chance(d, 0.75)) {
			block(c, v, x, horizon - tall, x + wide, horizon + 1, draw_paint(d, g, 1, g - 24, 25, g - 40, 41));
			for (double wy = horizon - tall * 0.85; wy < horizon - tall * 0.2; wy += 0.08 * v->height)
				for (double wx = x + wide * 0.15; wx < x + wide * 0.85; wx += wide * 0.26)
					block(c, v, wx, wy, wx + wide * 0.14, wy + 0.04 * v->height, (struct paint){80, 96, 120, 200, 0});
		}
		x += wide;
	}
}

static void paint_wall(struct canvas *c, const struct camera *v, enum place place, double horizon, struct draws *d)
{
	const double w = v->width, h = v->height;
	if (place == PLACE_GYM) {
		double y = horizon * draw_between(d, 0.3, 0.7);
		block(c, v, -w, y, 2 * w, y + 0.05 * h, draw_paint(d, 60, 160, 60, 120, 60, 160));
		for (double x = -w; x < 2 * w; x += 0.2 * w)
			line(c, v, x, h * 1.5, w / 2 + (x - w / 2) * 0.4, horizon, 0.004 * h, (struct paint){120, 84, 48, 120, 0});
	}
	for (int i = draw_below(d, 3); i > 0; i--) { /* windows, pictures */
		double x = draw_between(d, 0, 0.8) * w, y = draw_between(d, 0.05, 0.4) * horizon;
		double wide = draw_between(d, 0.14, 0.3) * w, tall = draw_between(d, 0.25, 0.5) * horizon;
		block(c, v, x, y, x + wide, y + tall, (struct paint){92, 70, 52, 256, 0});
		int window = draw_chance(d, 0.5);
		struct paint inside = window ? (struct paint){176, 210, 236, 256, 0} : draw_paint(d, 60, 180, 60, 180, 60, 180);
		block(c, v, x + 0.012 * w, y + 0.012 * h, x + wide - 0.012 * w, y + tall - 0.012 * h, inside);
		if (window)
			line(c, v, x + wide / 2, y, x + wide / 2, y + tall, 0.006 * w, (struct paint){92, 70, 52, 256, 0});
	}
	line(c, v, -w, horizon, 2 * w, horizon, 0.008 * h, (struct paint){90, 76, 64, 200, 0});
	if (place == PLACE_ROOM && draw_chance(d, 0.3)) { /* a carpet */
		double x = draw_between(d, 0.2, 0.8) * w;
		blob(c, v, x, h - (h - horizon) * 0.4, 0.34 * w, 0.2 * (h - horizon), draw_paint(d, 90, 120, 60, 100, 60, 100));
	}
}

void paint_place(struct canvas *c, const struct camera *v, enum place place, double horizon, struct draws *d)
{
	const double w = v->width, h = v->height;
	paint_ground(c, v, place, horizon, d);
	if (place <= PLACE_SNOW && draw_chance(d, 0.6)) /* clouds */
		for (int i = 1 + draw_below(d, 3); i > 0; i--) {
			double x = draw_between(d, 0, w), y = draw_between(d, 0.05, 0.8) * horizon,
				   r = draw_between(d, 0.05, 0.12) * w;
			for (int k = 0; k < 3; k++)
				blob(c, v, x + draw_between(d, -1.2, 1.2) * r, y, r, r * 0.4, (struct paint){248, 250, 252, 170, 0});
		}
	switch (place) {
	case PLACE_GRASS:
		if (draw_chance(d, 0.5)) { /* a hill */
			double x = draw_between(d, 0, w);
			struct vec size = draw_point(d, 0.3, 0.7, 0.05, 0.14);
			blob(c, v, x, horizon, size.x * w, size.y * h, (struct paint){96, 136, 92, 256, 0});
		}
		block(c, v, -w, horizon, 2 * w, horizon + 0.02 * h, (struct paint){96, 144, 76, 160, 0});
		paint_trees(c, v, horizon, 0, d);
		break;
	case PLACE_SAND:
		block(c, v, -w, horizon, 2 * w, horizon + draw_between(d, 0.03, 0.1) * h, (struct paint){70, 140, 190, 256, 0});
		break;
	case PLACE_ROAD:
		paint_houses(c, v, horizon, d);
		for (double x = -w; x < 2 * w; x += 0.3 * w)
			line(c, v, x, horizon + (h - horizon) * 0.7, x + 0.15 * w, horizon + (h - horizon) * 0.7, 0.01 * h,
			     (struct paint){232, 226, 190, 220, 0});
		break;
	case PLACE_SNOW:
		paint_trees(c, v, horizon, 1, d);
		break;
	case PLACE_ROOM:
	case PLACE_GYM:
		paint_wall(c, v, place, horizon, d);
		break;
	case PLACE_WATER:
		if (draw_chance(d, 0.5))
			for (double y = horizon + 0.1 * h; y < 1.3 * h; y += 0.22 * h) /* the lanes of a pool */
				for (double x = -0.2 * w; x < 1.2 * w; x += 0.07 * w)
					line(c, v, x, y, x + 0.035 * w, y, 0.009 * h, (struct paint){226, 80, 70, 230, 0});
		else
			paint_trees(c, v, horizon, 0, d);
		break;
	case PLACE_ROCK:
		for (int i = 0; i < 14; i++) {
			struct vec from = draw_point(d, 0, w, 0, h), along = draw_point(d, -0.2, 0.2, 0, 0.2);
			line(c, v, from.x, from.y, from.x + along.x * w, from.y + along.y * h, 0.006 * h,
			     (struct paint){84, 70, 60, 150, 0});
		}
		for (int i = draw_chance(d, 0.5) ? 16 : 4; i > 0; i--) { /* holds */
			struct vec at = draw_point(d, 0, w, 0, h);
			blob(c, v, at.x, at.y, 0.03 * w, 0.02 * w, draw_paint(d, 90, 160, 60, 150, 50, 150));
		}
		break;
	default:
		break;
	}
}
