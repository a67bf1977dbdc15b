/* One synthetic image: composes a scene, chooses camera, distractors and light, paints it, and says what was drawn. */
#include "data/synth.h"

#include "base/hash.h"
#include "data/synth_paint.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

struct extent {
	double x0, y0, x1, y1; /* body coordinates */
};

static void extend(struct extent *e, struct vec p, double r)
{
	e->x0 = fmin(e->x0, p.x - r);
	e->x1 = fmax(e->x1, p.x + r);
	e->y0 = fmin(e->y0, p.y - r);
	e->y1 = fmax(e->y1, p.y + r);
}

/* What should be in the picture: the person and what it uses. */
static struct extent extent_of(const struct scene *s)
{
	const struct joints *j = &s->joints;
	struct extent e = {j->pelvis.x, 0, j->pelvis.x, 0};
	extend(&e, j->head, s->body.head + 0.02);
	for (int i = 0; i < 2; i++) {
		extend(&e, j->hand[i], 0.03);
		extend(&e, j->elbow[i], 0.03);
		extend(&e, j->knee[i], 0.03);
		extend(&e, j->ankle[i], 0.05);
	}
	for (int i = 0; i < s->prop_count; i++) {
		const struct prop *p = &s->props[i];
		struct vec along = vec_hang(0.4 * p->size, 90 + p->angle);
		switch (p->object) {
		case OBJECT_GUITAR:
			extend(&e, vec_add(p->at, along), 0.02);
			break;
		case OBJECT_BARBELL:
			extend(&e, vec_add(p->at, along), 0.05);
			extend(&e, vec(p->at.x - along.x, p->at.y - along.y), 0.05);
			break;
		case OBJECT_BICYCLE:
			extend(&e, vec(p->at.x - 0.45, 0), 0);
			extend(&e, vec(p->at.x + 0.47, 0), 0);
			break;
		case OBJECT_CHAIR:
		case OBJECT_BOX:
		case OBJECT_LADDER:
			extend(&e, vec(p->at.x, 0.1), 0.2);
			break;
		default:
			extend(&e, p->at, 0.07);
		}
	}
	return e;
}

/* Something the activity has no use for, beside the person; NULL where none fits. Returns the sentence about it. */
static const char *paint_distractor(struct canvas *c, const struct camera *v, const struct scene *s,
                                    const struct extent *e, struct draws *d)
{
	static const struct {
		enum object object;
		double height, size; /* of its middle above the floor */
		const char *text;
	} choices[] = {{OBJECT_BALL, 0.05, 1, "A ball lies nearby."},
	               {OBJECT_CHAIR, 0, 0.24, "An empty chair stands nearby."},
	               {OBJECT_BOX, 0, 0.2, "A box stands nearby."},
	               {OBJECT_GUITAR, 0.08, 0.9, "A guitar lies nearby."},
	               {OBJECT_DUMBBELL, 0.04, 1, "A dumbbell lies nearby."},
	               {OBJECT_BICYCLE, 0, 1, "A parked bicycle stands nearby."},
	               {OBJECT_BOOK, 0.04, 0.8, "A book lies nearby."}};
	const int k = draw_below(d, 7), right = draw_below(d, 2);
	const double gap = draw_between(d, 0.14, 0.4), depth = draw_between(d, 0.82, 1.0), tilt = draw_normal(d, 0, 5);
	for (int i = 0; i < s->prop_count; i++)
		if (s->props[i].object == choices[k].object)
			return NULL;
	double reach = choices[k].object == OBJECT_BICYCLE ? 0.4 : choices[k].object == OBJECT_GUITAR ? 0.25 : 0.12;
	double x = v->x + (right ? e->x1 + gap + reach : e->x0 - gap - reach) * v->scale;
	if (x < 0.06 * v->width || x > 0.94 * v->width)
		return NULL;
	struct camera there = *v;
	there.x = x;
	there.y = v->y - (1 - depth) * 0.3 * v->scale; /* a little farther away: higher and smaller */
	there.scale = v->scale * depth;
	double angle = choices[k].object == OBJECT_GUITAR || choices[k].object == OBJECT_DUMBBELL ? tilt
	               : choices[k].object == OBJECT_BICYCLE                                      ? 60
	                                                                                          : 0;
	struct prop p = {choices[k].object, LAYER_BACK, vec(0, choices[k].height), angle, choices[k].size};
	struct point shadow = camera_point(&there, vec(0, 0)), edge = camera_point(&there, vec(reach, 0));
	canvas_ellipse(c, shadow, (struct point){edge.x - shadow.x, edge.y - shadow.y},
	               (int32_t)lrint(0.025 * there.scale * CANVAS_UNIT), (struct paint){10, 10, 20, 84, 0});
	paint_prop(c, &there, &p, d);
	return choices[k].text;
}

static void paint_bystanders(struct canvas *c, const struct camera *v, double horizon, struct draws *d)
{
	for (int i = draw_below(d, 3); i > 0; i--) {
		struct scene other;
		scene_bystander(&other, d);
		double near = draw_between(d, 0.3, 0.6);
		struct camera there = *v;
		there.x = draw_between(d, 0.03, 0.97) * v->width;
		there.y = horizon + (v->y - horizon) * near;
		there.scale = v->scale * fmax(0.22, near * 0.75);
		paint_person(c, &there, &other, d);
	}
}

/* Exposure, colour cast, light from one side, blur and sensor noise, in integers. */
static void expose(struct image *im, struct draws *d)
{
	int gain[3], exposure = 200 + draw_below(d, 100);
	for (int k = 0; k < 3; k++)
		gain[k] = exposure + draw_below(d, 31) - 15;
	const int slope_x = draw_below(d, 61) - 30, slope_y = draw_below(d, 41) - 20, amplitude = draw_below(d, 11),
			  lift = draw_below(d, 21) - 4;
	const int blur = draw_chance(d, 0.2);
	const uint64_t salt = hash_mix(d->seed + 13 * hash_mix(d->index ^ 0x5eed));
	const size_t w = (size_t)im->width, h = (size_t)im->height;
	if (blur) {
		uint8_t *old = favor_malloc(w * h * 3);
		memcpy(old, im->pixels, w * h * 3);
		for (size_t y = 1; y + 1 < h; y++)
			for (size_t i = 3; i + 3 < w * 3; i++) {
				int sum = 4 * old[y * w * 3 + i] +
				          2 * (old[y * w * 3 + i - 3] + old[y * w * 3 + i + 3] + old[(y - 1) * w * 3 + i] +
				               old[(y + 1) * w * 3 + i]) +
				          old[(y - 1) * w * 3 + i - 3] + old[(y - 1) * w * 3 + i + 3] + old[(y + 1) * w * 3 + i - 3] +
				          old[(y + 1) * w * 3 + i + 3];
				im->pixels[y * w * 3 + i] = (uint8_t)((sum + 8) / 16);
			}
		free(old);
	}
	for (size_t y = 0; y < h; y++)
		for (size_t x = 0; x < w; x++) {
			int side = slope_x * ((int)(2 * x) - (int)w) / (int)w + slope_y * ((int)(2 * y) - (int)h) / (int)h;
			for (size_t k = 0; k < 3; k++) {
				uint64_t r = hash_mix(salt + (y * w + x) * 3 + k);
				/* the sum of four bytes is near enough to normal: deviation 148 */
				int noise = (int)((r & 255) + (r >> 8 & 255) + (r >> 16 & 255) + (r >> 24 & 255)) - 510;
				int value = im->pixels[(y * w + x) * 3 + k] * (gain[k] + side) / 256 + lift + noise * amplitude / 148;
				im->pixels[(y * w + x) * 3 + k] = (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
			}
		}
}

static char *trace(const struct scene *s, const char *distractor)
{
	static const char *const places[] = {
		[PLACE_GRASS] = "on grass",
		[PLACE_SAND] = "on sand",
		[PLACE_ROAD] = "on a road",
		[PLACE_SNOW] = "on snow",
		[PLACE_ROOM] = "in a room",
		[PLACE_GYM] = "in a gym",
		[PLACE_PLAIN] = "before a plain wall",
		[PLACE_WATER] = "in water",
		[PLACE_ROCK] = "on a rock wall",
	};
	return favor_format("A person in %s %s %s.%s%s %s", s->body.shirt_name, s->pose_text, places[s->place],
	                    distractor ? " " : "", distractor ? distractor : "", s->cue_text);
}

void synth_draw(uint64_t seed, uint64_t index, int32_t activity, int32_t size, double context, struct image *im,
                char **think)
{
	struct draws d = {seed, index, 0};
	struct scene s;
	scene_compose(&s, &d, activity, context);
	const struct extent e = extent_of(&s);
	const double aspect = exp(draw_between(&d, log(0.75), log(1.33)));
	struct camera v = {.width = (int32_t)lrint(size * sqrt(aspect)), .height = (int32_t)lrint(size / sqrt(aspect))};
	v.roll = draw_normal(&d, 0, 4);
	v.mirrored = draw_below(&d, 2);
	const double wide = e.x1 - e.x0, tall = e.y1 - e.y0;
	const double share = draw_chance(&d, 0.25) ? draw_between(&d, 0.45, 0.65) : draw_between(&d, 0.65, 0.92);
	v.scale = share * fmin(v.width / wide, v.height / tall);
	/* anywhere that keeps all of it in the picture, more often near the middle */
	const double free_x = v.width - wide * v.scale, free_y = v.height - tall * v.scale;
	const struct vec spot = draw_point(&d, 0.03, 0.97, 0.03, 0.97);
	v.x = free_x * (spot.x + spot.y) / 2 - e.x0 * v.scale;
	v.y = v.height - free_y * draw_between(&d, 0.1, 0.7) + e.y0 * v.scale;
	double horizon = fmax(0.15 * v.height, v.y - draw_between(&d, 0.06, 0.42) * v.height);
	if (s.place == PLACE_WATER)
		horizon = v.y - (s.water + draw_between(&d, 0.05, 0.4)) * v.scale;
	else if (s.place == PLACE_ROCK)
		horizon = v.height;

	struct canvas c;
	canvas_init(&c, v.width, v.height);
	paint_place(&c, &v, s.place, horizon, &d);
	const char *distractor = NULL;
	if (s.place < PLACE_WATER) {
		if (draw_chance(&d, s.place == PLACE_PLAIN ? 0.1 : 0.35))
			paint_bystanders(&c, &v, horizon, &d);
		if (draw_chance(&d, 0.6))
			distractor = paint_distractor(&c, &v, &s, &e, &d);
	}
	paint_person(&c, &v, &s, &d);
	canvas_finish(&c, im);
	canvas_free(&c);
	expose(im, &d);
	*think = trace(&s, distractor);
}

int synth_activity_count(void)
{
	return ACTIVITY_COUNT;
}

const char *synth_activity(int i)
{
	return activity_name(i);
}
