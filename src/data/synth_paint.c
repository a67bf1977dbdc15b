/* People and objects, back to front: shadow, things behind, far limbs, things between, near leg, torso, head, things
 * in front, near arm. */
#include "data/synth_paint.h"

#include <math.h>

static const double degree = 3.14159265358979323846 / 180;

struct point camera_pixel(const struct camera *v, double x, double y)
{
	double dx = x - v->width / 2.0, dy = y - v->height / 2.0, c = cos(v->roll * degree), s = sin(v->roll * degree);
	double px = v->width / 2.0 + dx * c - dy * s, py = v->height / 2.0 + dx * s + dy * c;
	if (v->mirrored)
		px = v->width - px;
	return (struct point){(int32_t)lrint(px * CANVAS_UNIT), (int32_t)lrint(py * CANVAS_UNIT)};
}

struct point camera_point(const struct camera *v, struct vec p)
{
	return camera_pixel(v, v->x + p.x * v->scale, v->y - p.y * v->scale);
}

static int32_t size_of(const struct camera *v, double length)
{
	return (int32_t)lrint(length * v->scale * CANVAS_UNIT);
}

static struct paint dimmed(struct paint p, int percent)
{
	return (struct paint){p.r * percent / 100, p.g * percent / 100, p.b * percent / 100, p.alpha, p.shade};
}

static void bone(struct canvas *c, const struct camera *v, struct vec a, struct vec b, double ra, double rb,
                 struct paint p)
{
	canvas_capsule(c, camera_point(v, a), camera_point(v, b), size_of(v, ra), size_of(v, rb), p);
}

static void oval(struct canvas *c, const struct camera *v, struct vec center, struct vec axis, double minor,
                 struct paint p)
{
	struct point m = camera_point(v, center), e = camera_point(v, vec_add(center, axis));
	canvas_ellipse(c, m, (struct point){e.x - m.x, e.y - m.y}, size_of(v, minor), p);
}

static void polygon(struct canvas *c, const struct camera *v, const struct vec *corners, int n, struct paint p)
{
	struct point points[8];
	for (int i = 0; i < n; i++)
		points[i] = camera_point(v, corners[i]);
	canvas_polygon(c, points, n, p);
}

static double angle_of(struct vec from, struct vec to)
{
	return atan2(to.x - from.x, from.y - to.y) / degree;
}

static void paint_arm(struct canvas *c, const struct camera *v, const struct scene *s, int side)
{
	const struct joints *j = &s->joints;
	const struct body *b = &s->body;
	int light = side && j->front < 0.5 ? 82 : 100;
	struct paint sleeve = dimmed(b->shirt, light), skin = dimmed(b->skin, light);
	double t = b->thickness;
	bone(c, v, j->elbow[side], j->hand[side], 0.025 * t, 0.018 * t, b->long_sleeves ? sleeve : skin);
	bone(c, v, j->hand[side], j->hand[side], 0.026, 0.026, skin);
	bone(c, v, j->shoulder[side], j->elbow[side], 0.035 * t, 0.027 * t, sleeve);
}

static void paint_leg(struct canvas *c, const struct camera *v, const struct scene *s, int side)
{
	const struct joints *j = &s->joints;
	const struct body *b = &s->body;
	int light = side && j->front < 0.5 ? 80 : 100;
	struct paint cloth = dimmed(b->trousers, light), skin = dimmed(b->skin, light);
	double t = b->thickness, hang = angle_of(j->knee[side], j->ankle[side]);
	struct vec toe = j->front > 0.6 ? vec_add(j->ankle[side], vec(side ? -0.02 : 0.02, -0.012))
	                                : vec_add(j->ankle[side], vec_hang(b->foot, hang + (fabs(hang) > 50 ? 50 : 88)));
	bone(c, v, j->ankle[side], toe, 0.03, 0.022, dimmed(b->shoes, light));
	bone(c, v, j->knee[side], j->ankle[side], 0.037 * t, 0.024 * t, b->shorts || b->skirt ? skin : cloth);
	bone(c, v, j->hip[side], j->knee[side], 0.054 * t, 0.04 * t, b->skirt ? skin : cloth);
}

static void paint_torso(struct canvas *c, const struct camera *v, const struct scene *s)
{
	const struct joints *j = &s->joints;
	const struct body *b = &s->body;
	const double t = b->thickness, r = 0.046 * t;
	struct vec waist = vec_add(j->pelvis, vec_hang(0.05, 180 - j->lean));
	struct paint flat = b->shirt;
	flat.shade = 0;
	bone(c, v, j->hip[0], j->hip[1], 0.055 * t, 0.055 * t, dimmed(b->trousers, 96));
	if (b->skirt) {
		struct vec hem[4] = {vec_add(j->hip[0], vec(0.04, 0.02)), vec_add(j->hip[1], vec(-0.04, 0.02)),
		                     vec_add(j->hip[1], vec(-0.085, -0.14)), vec_add(j->hip[0], vec(0.085, -0.14))};
		polygon(c, v, hem, 4, dimmed(b->trousers, 100));
	}
	struct vec sides[4] = {j->shoulder[0], j->shoulder[1],
	                       vec_add(waist, vec(j->hip[1].x - j->pelvis.x, j->hip[1].y - j->pelvis.y)),
	                       vec_add(waist, vec(j->hip[0].x - j->pelvis.x, j->hip[0].y - j->pelvis.y))};
	struct vec chest =
		vec_add(vec(j->shoulder[0].x / 2 + j->shoulder[1].x / 2, j->shoulder[0].y / 2 + j->shoulder[1].y / 2),
	            vec_hang(0.03, -j->lean));
	bone(c, v, sides[2], sides[3], r, r, flat);
	bone(c, v, sides[0], sides[1], r * 0.8, r * 0.8, flat);
	polygon(c, v, sides, 4, flat);
	bone(c, v, chest, waist, 0.072 * t, 0.056 * t, b->shirt);
}

static void paint_head(struct canvas *c, const struct camera *v, const struct scene *s)
{
	const struct joints *j = &s->joints;
	const struct body *b = &s->body;
	const double r = b->head, tilt = angle_of(j->neck, j->head) - 180; /* 0 = upright */
	const struct vec up = vec_hang(1, 180 + tilt), ahead = vec_hang(1, 90 + tilt);
	const double turn = j->front > 0.5 ? 0 : 1; /* the face is at the front of the head, or in its middle */
	bone(c, v, j->neck, j->head, 0.026, 0.024, dimmed(b->skin, 90));
	if (b->hair_style == 2) {
		/* falls on the shoulders: behind a head in profile, on both sides of a face */
		for (int i = 0; i < 2; i++) {
			double x = turn ? -0.3 : i ? 0.66 : -0.66, wide = turn ? 0.72 : 0.36;
			struct vec from = vec(j->head.x + ahead.x * r * x, j->head.y + ahead.y * r * x);
			struct vec fall = vec((ahead.x * x * 0.3 - up.x * 1.25) * r, (ahead.y * x * 0.3 - up.y * 1.25) * r);
			bone(c, v, from, vec_add(from, fall), r * wide, r * wide * 0.7, b->hair);
		}
	}
	oval(c, v, j->head, vec(up.x * r, up.y * r), r * 0.84, b->skin);
	if (b->hair_style) {
		struct vec crown = vec(j->head.x + (up.x * 0.32 - ahead.x * 0.3 * turn) * r,
		                       j->head.y + (up.y * 0.32 - ahead.y * 0.3 * turn) * r);
		struct paint hair = b->hair_style == 3 ? dimmed(b->shoes, 85) : b->hair;
		oval(c, v, crown, vec(up.x * r * 0.78, up.y * r * 0.78), r * 0.9, s->away ? b->hair : hair);
		if (s->away) {
			oval(c, v, j->head, vec(up.x * r, up.y * r), r * 0.86, b->hair);
			return;
		}
		struct vec face = vec(j->head.x + (ahead.x * 0.24 * turn - up.x * 0.34) * r,
		                      j->head.y + (ahead.y * 0.24 * turn - up.y * 0.34) * r);
		oval(c, v, face, vec(up.x * r * 0.64, up.y * r * 0.64), r * 0.72, b->skin);
		if (b->hair_style == 3) {
			struct vec brim = vec(crown.x - up.x * r * 0.1, crown.y - up.y * r * 0.1);
			bone(c, v, brim, vec_add(brim, vec(ahead.x * r * 1.3 * turn, ahead.y * r * 1.3 * turn)), r * 0.16, r * 0.1,
			     dimmed(hair, 80));
		}
	}
	if (s->away)
		return;
	struct paint eye = {30, 26, 26, 230, 0};
	for (int i = 0; i < 2; i++) {
		double x = turn ? 0.42 + 0.28 * i : i ? 0.34 : -0.34;
		struct vec at = vec(j->head.x + (ahead.x * x + up.x * 0.02) * r, j->head.y + (ahead.y * x + up.y * 0.02) * r);
		if (!turn || i == 0)
			bone(c, v, at, at, r * 0.12, r * 0.12, eye);
	}
}

static void paint_layer(struct canvas *c, const struct camera *v, const struct scene *s, enum layer layer,
                        struct draws *d)
{
	for (int i = 0; i < s->prop_count; i++)
		if (s->props[i].layer == layer)
			paint_prop(c, v, &s->props[i], d);
}

void paint_person(struct canvas *c, const struct camera *v, const struct scene *s, struct draws *d)
{
	if (s->place != PLACE_WATER && s->place != PLACE_ROCK) {
		double lift = fmin(s->joints.ankle[0].y, s->joints.ankle[1].y);
		oval(c, v, vec(s->joints.pelvis.x, 0), vec(0.24 - 0.3 * fmax(0, lift), 0), 0.035,
		     (struct paint){10, 10, 20, 84, 0});
	}
	paint_layer(c, v, s, LAYER_BACK, d);
	int front = s->joints.front > 0.5;
	if (!front)
		paint_arm(c, v, s, 1);
	paint_leg(c, v, s, 1);
	paint_layer(c, v, s, LAYER_MIDDLE, d);
	paint_leg(c, v, s, 0);
	if (s->away) { /* arms are on the other side of the body */
		paint_arm(c, v, s, 0);
		paint_arm(c, v, s, 1);
	}
	paint_torso(c, v, s);
	paint_head(c, v, s);
	paint_layer(c, v, s, LAYER_FRONT, d);
	if (!s->away) {
		if (front)
			paint_arm(c, v, s, 1);
		paint_arm(c, v, s, 0);
	}
	paint_layer(c, v, s, LAYER_TOP, d);
	if (s->place == PLACE_WATER) {
		/* what is under the line shines through */
		double left = -v->x / v->scale - 2, right = (v->width - v->x) / v->scale + 2,
			   bottom = -(v->height - v->y) / v->scale - 2;
		struct vec sea[4] = {vec(left, s->water), vec(right, s->water), vec(right, bottom), vec(left, bottom)};
		polygon(c, v, sea, 4, (struct paint){40, 120 + draw_below(d, 40), 190, 178, 0});
		for (int i = 0; i < 9; i++) {
			struct vec at = vec_add(vec(s->joints.pelvis.x, s->water), draw_point(d, -0.5, 0.5, -0.03, 0.03));
			struct vec size = draw_point(d, 0.02, 0.07, 0.008, 0.022);
			oval(c, v, at, vec(size.x, 0), size.y, (struct paint){240, 248, 252, 190, 0});
		}
	}
}

/* A point of a prop, from its own coordinates. */
static struct vec local(const struct prop *p, double x, double y)
{
	double c = cos(p->angle * degree), s = sin(p->angle * degree);
	return vec(p->at.x + (x * c - y * s) * p->size, p->at.y + (x * s + y * c) * p->size);
}

static void paint_bicycle(struct canvas *c, const struct camera *v, const struct prop *p, struct paint frame)
{
	const struct paint dark = {34, 34, 38, 256, 0};
	const struct vec o = p->at;
	struct vec rear = vec(o.x - 0.27, o.y + 0.17), fore = vec(o.x + 0.29, o.y + 0.17),
			   crank = vec(o.x - 0.02, o.y + 0.16);
	struct vec saddle = vec(o.x - 0.13, o.y + 0.45), head = vec(o.x + 0.2, o.y + 0.42), bar = vec(o.x + 0.2, o.y + 0.5);
	struct vec wheels[2] = {rear, fore},
			   pedal[2] = {vec_add(crank, vec_hang(0.07, p->angle)), vec_add(crank, vec_hang(0.07, p->angle + 180))};
	for (int i = 0; i < 2; i++) {
		canvas_ring(c, camera_point(v, wheels[i]), size_of(v, 0.165), size_of(v, 0.024), dark);
		for (int k = 0; k < 3; k++)
			bone(c, v, vec_add(wheels[i], vec_hang(0.16, 60 * k)), vec_add(wheels[i], vec_hang(0.16, 60 * k + 180)),
			     0.004, 0.004, (struct paint){170, 170, 176, 200, 0});
	}
	struct vec lines[][2] = {{rear, crank},  {rear, saddle}, {crank, saddle}, {crank, head},
	                         {saddle, head}, {head, fore},   {head, bar}};
	for (int i = 0; i < 7; i++)
		bone(c, v, lines[i][0], lines[i][1], 0.012, 0.012, frame);
	bone(c, v, pedal[0], pedal[1], 0.009, 0.009, dark);
	bone(c, v, vec_add(saddle, vec(-0.05, 0.012)), vec_add(saddle, vec(0.05, 0.012)), 0.02, 0.012, dark);
	bone(c, v, bar, vec_add(bar, vec(0.05, 0)), 0.013, 0.013, dark);
}

void paint_prop(struct canvas *c, const struct camera *v, const struct prop *p, struct draws *d)
{
	static const int tints[][3] = {{200, 60, 50},  {50, 90, 190},  {60, 150, 90},
	                               {230, 160, 50}, {120, 70, 150}, {90, 90, 96}};
	const int k = draw_below(d, 6), wood_tone = draw_below(d, 40);
	struct paint tint = {tints[k][0], tints[k][1], tints[k][2], 256, 0},
				 wood = {150 + wood_tone, 96 + wood_tone, 50 + wood_tone / 2, 256, 0};
	const struct paint dark = {38, 38, 42, 256, 0}, steel = {150, 152, 160, 256, 0}, page = {246, 244, 234, 256, 0};
	switch (p->object) {
	case OBJECT_BALL:
		if (k == 5)
			tint = (struct paint){240, 240, 236, 256, 0};
		bone(c, v, p->at, p->at, 0.052 * p->size, 0.052 * p->size, tint);
		oval(c, v, p->at, vec(0.05 * p->size, 0), 0.014 * p->size, dimmed(tint, 65));
		bone(c, v, local(p, -0.018, 0.02), local(p, -0.018, 0.02), 0.012, 0.012, (struct paint){255, 255, 255, 150, 0});
		break;
	case OBJECT_CHAIR: {
		const double x = p->at.x, y = p->at.y, h = p->size, legs[2] = {-0.13, 0.11};
		for (int i = 0; i < 2; i++)
			bone(c, v, vec(x + legs[i], y), vec(x + legs[i], y + h), 0.014, 0.014, dimmed(wood, 80));
		bone(c, v, vec(x - 0.15, y + h), vec(x + 0.12, y + h), 0.022, 0.022, wood);
		bone(c, v, vec(x - 0.15, y + h), vec(x - 0.185, y + h + 0.34), 0.02, 0.02, wood);
		break;
	}
	case OBJECT_BOX: {
		const double x = p->at.x, y = p->at.y, h = p->size + 0.015;
		struct vec side[4] = {vec(x - 0.15, y), vec(x + 0.13, y), vec(x + 0.13, y + h), vec(x - 0.15, y + h)};
		struct vec top[4] = {vec(x - 0.15, y + h), vec(x + 0.13, y + h), vec(x + 0.13, y + h - 0.04),
		                     vec(x - 0.15, y + h - 0.04)};
		polygon(c, v, side, 4, wood);
		polygon(c, v, top, 4, dimmed(wood, 118));
		break;
	}
	case OBJECT_BOOK: {
		struct vec cover[4] = {local(p, -0.085, -0.06), local(p, 0.085, -0.06), local(p, 0.085, 0.065),
		                       local(p, -0.085, 0.065)};
		struct vec leaf[2][4] = {
			{local(p, -0.075, -0.05), local(p, -0.005, -0.058), local(p, -0.005, 0.05), local(p, -0.075, 0.056)},
			{local(p, 0.075, -0.05), local(p, 0.005, -0.058), local(p, 0.005, 0.05), local(p, 0.075, 0.056)}};
		polygon(c, v, cover, 4, tint);
		for (int i = 0; i < 2; i++)
			polygon(c, v, leaf[i], 4, page);
		break;
	}
	case OBJECT_GUITAR:
		bone(c, v, local(p, 0.05, 0), local(p, 0.34, 0), 0.016 * p->size, 0.013 * p->size, dimmed(wood, 45));
		bone(c, v, local(p, 0.34, 0), local(p, 0.39, 0), 0.022 * p->size, 0.022 * p->size, dimmed(wood, 60));
		bone(c, v, local(p, -0.08, 0), local(p, -0.08, 0), 0.092 * p->size, 0.092 * p->size, wood);
		bone(c, v, local(p, 0.04, 0), local(p, 0.04, 0), 0.066 * p->size, 0.066 * p->size, wood);
		bone(c, v, local(p, 0, 0), local(p, 0, 0), 0.03 * p->size, 0.03 * p->size, dark);
		bone(c, v, local(p, -0.12, 0), local(p, 0.05, 0), 0.006, 0.006, dark);
		break;
	case OBJECT_BARBELL:
		bone(c, v, local(p, -0.36, 0), local(p, 0.36, 0), 0.011, 0.011, steel);
		for (int i = 0; i < 2; i++) {
			double x = i ? -1 : 1;
			bone(c, v, local(p, x * 0.29, -0.09), local(p, x * 0.29, 0.09), 0.02, 0.02, dark);
			bone(c, v, local(p, x * 0.33, -0.06), local(p, x * 0.33, 0.06), 0.018, 0.018, dimmed(tint, 70));
		}
		break;
	case OBJECT_DUMBBELL:
		bone(c, v, local(p, -0.06, 0), local(p, 0.06, 0), 0.012, 0.012, steel);
		for (int i = 0; i < 2; i++)
			bone(c, v, local(p, i ? -0.06 : 0.06, -0.022), local(p, i ? -0.06 : 0.06, 0.022), 0.024, 0.024, dark);
		break;
	case OBJECT_BICYCLE:
		paint_bicycle(c, v, p, tint);
		break;
	case OBJECT_LADDER:
		for (int i = 0; i < 2; i++)
			bone(c, v, local(p, i ? -0.12 : 0.12, 0), local(p, i ? -0.12 : 0.12, 1.5), 0.015, 0.015, wood);
		for (int i = 1; i < 13; i++)
			bone(c, v, local(p, -0.12, i * 0.115), local(p, 0.12, i * 0.115), 0.011, 0.011, dimmed(wood, 88));
		break;
	default:
		break;
	}
}
