/* Bodies and poses: for each activity the joint angles, their spread, the objects, and the words that say truthfully
 * what was drawn. Some pairs are near one another on purpose: running and walking, waving and throwing, sitting and
 * reading, jumping and stretching. */
#include "data/synth_person.h"

#include "base/rng.h"

#include <math.h>
#include <string.h>

static const double degree = 3.14159265358979323846 / 180;

double draw_between(struct draws *d, double lo, double hi)
{
	return lo + (hi - lo) * rng_uniform(d->seed, RNG_SYNTH, d->index, 0, d->position++);
}

double draw_normal(struct draws *d, double mean, double deviation)
{
	double z = rng_normal(d->seed, RNG_SYNTH, d->index, 0, d->position++);
	return mean + deviation * fmax(-2, fmin(2, z));
}

int draw_below(struct draws *d, int n)
{
	return (int)draw_between(d, 0, n);
}

int draw_chance(struct draws *d, double probability)
{
	return draw_between(d, 0, 1) < probability;
}

struct vec draw_point(struct draws *d, double x_lo, double x_hi, double y_lo, double y_hi)
{
	const double x = draw_between(d, x_lo, x_hi);
	return vec(x, draw_between(d, y_lo, y_hi));
}

struct paint draw_paint(struct draws *d, int r, int r_spread, int g, int g_spread, int b, int b_spread)
{
	struct paint p = {.alpha = 256};
	p.r = r + draw_below(d, r_spread);
	p.g = g + draw_below(d, g_spread);
	p.b = b + draw_below(d, b_spread);
	return p;
}

struct vec vec_add(struct vec a, struct vec b)
{
	return vec(a.x + b.x, a.y + b.y);
}

struct vec vec_hang(double length, double angle)
{
	return vec(length * sin(angle * degree), -length * cos(angle * degree));
}

static void draw_body(struct body *b, struct draws *d)
{
	static const struct {
		const char *name;
		int r, g, b;
	} colors[] = {{"red", 205, 40, 40},     {"blue", 45, 80, 200},    {"green", 40, 150, 70},
	              {"yellow", 235, 205, 50}, {"orange", 240, 130, 30}, {"purple", 130, 60, 170},
	              {"white", 236, 236, 232}, {"black", 38, 38, 42},    {"pink", 240, 130, 175},
	              {"gray", 128, 130, 134}};
	static const int skins[][3] = {{246, 214, 188}, {232, 190, 160}, {204, 154, 118},
	                               {164, 112, 78},  {120, 78, 54},   {84, 54, 40}};
	static const int hairs[][3] = {{30, 24, 22},   {70, 44, 28},  {120, 76, 40},
	                               {214, 176, 96}, {150, 60, 32}, {150, 148, 146}};
	static const int legs[][3] = {{40, 48, 84}, {60, 60, 64},    {110, 96, 78}, {72, 92, 130},
	                              {34, 34, 36}, {150, 140, 126}, {96, 40, 44}};
	static const int feet[][3] = {{40, 36, 36}, {230, 230, 226}, {120, 76, 44}, {180, 40, 44}};
	const double child = draw_chance(d, 0.15) ? draw_between(d, 1.15, 1.35) : draw_between(d, 0.92, 1.08);
	b->head = 0.066 * child;
	b->neck = 0.045;
	b->torso = draw_normal(d, 0.285, 0.012);
	b->upper_arm = draw_normal(d, 0.158, 0.007);
	b->forearm = draw_normal(d, 0.150, 0.007);
	b->thigh = draw_normal(d, 0.238, 0.009);
	b->shin = draw_normal(d, 0.232, 0.009);
	b->foot = 0.075;
	b->shoulders = draw_normal(d, 0.105, 0.008);
	b->hips = draw_normal(d, 0.066, 0.006);
	b->thickness = draw_between(d, 0.85, 1.25);
	int i = draw_below(d, 10), k = draw_below(d, 6);
	b->shirt_name = colors[i].name;
	/* a little spread around the named colour, less than the distance to the next name */
	b->shirt = draw_paint(d, colors[i].r - 12, 25, colors[i].g - 12, 25, colors[i].b - 12, 25);
	b->shirt.shade = -44;
	b->skin = (struct paint){skins[k][0], skins[k][1], skins[k][2], 256, -36};
	k = draw_below(d, 6);
	b->hair = (struct paint){hairs[k][0], hairs[k][1], hairs[k][2], 256, 0};
	k = draw_below(d, 7);
	b->trousers = draw_paint(d, legs[k][0] - 10, 21, legs[k][1] - 10, 21, legs[k][2] - 10, 21);
	b->trousers.shade = -44;
	k = draw_below(d, 4);
	b->shoes = (struct paint){feet[k][0], feet[k][1], feet[k][2], 256, 0};
	b->hair_style = draw_chance(d, 0.08) ? 0 : 1 + draw_below(d, 3);
	b->long_sleeves = draw_chance(d, 0.45);
	b->shorts = draw_chance(d, 0.35);
	b->skirt = !b->shorts && draw_chance(d, 0.15);
}

/* Joints from angles, with the pelvis at the origin. */
static void place_joints(struct joints *j, const struct body *b, const struct pose *p)
{
	memset(j, 0, sizeof *j);
	j->lean = p->lean;
	j->front = p->front;
	j->neck = vec_hang(b->torso, 180 - p->lean);
	j->head = vec_add(j->neck, vec_hang(b->neck + b->head * 0.75, 180 - p->lean * 0.6 - p->head));
	const double across = fmax(0.2, p->front);
	for (int i = 0; i < 2; i++) {
		double side = i ? -1 : 1;
		/* shoulders and hips lie across the torso */
		j->shoulder[i] =
			vec_add(vec_hang(b->torso * 0.93, 180 - p->lean), vec_hang(side * b->shoulders * across, 90 - p->lean));
		j->hip[i] = vec(side * b->hips * across, 0);
		j->elbow[i] = vec_add(j->shoulder[i], vec_hang(b->upper_arm, p->arm[i][0]));
		j->hand[i] = vec_add(j->elbow[i], vec_hang(b->forearm, p->arm[i][1]));
		j->knee[i] = vec_add(j->hip[i], vec_hang(b->thigh, p->leg[i][0]));
		j->ankle[i] = vec_add(j->knee[i], vec_hang(b->shin, p->leg[i][1]));
	}
}

static void move_joints(struct joints *j, struct vec by)
{
	struct vec *all[] = {&j->pelvis, &j->neck, &j->head};
	for (int i = 0; i < 3; i++)
		*all[i] = vec_add(*all[i], by);
	for (int i = 0; i < 2; i++) {
		struct vec *side[] = {&j->shoulder[i], &j->elbow[i], &j->hand[i], &j->hip[i], &j->knee[i], &j->ankle[i]};
		for (int k = 0; k < 6; k++)
			*side[k] = vec_add(*side[k], by);
	}
}

/* The lowest foot comes to stand at height `lift`. */
static void stand(struct scene *s, double lift)
{
	struct joints *j = &s->joints;
	move_joints(j, vec(0, lift + 0.03 - fmin(fmin(j->ankle[0].y, j->ankle[1].y), fmin(j->knee[0].y, j->knee[1].y))));
}

/* Two bones from `from` reach for `target`; bend +1 puts the middle joint on the left of the way there. */
static void reach(struct vec from, struct vec *middle, struct vec *end, double first, double second, struct vec target,
                  int bend)
{
	double dx = target.x - from.x, dy = target.y - from.y, far = sqrt(dx * dx + dy * dy);
	double most = (first + second) * 0.995, scale = far > most ? most / far : 1;
	dx *= scale;
	dy *= scale;
	far = fmax(far * scale, fabs(first - second) + 1e-3);
	/* law of cosines: distance of the middle joint along the way, and off it */
	double along = (far * far + first * first - second * second) / (2 * far);
	double off = sqrt(fmax(0, first * first - along * along)) * bend;
	double ux = dx / far, uy = dy / far;
	*middle = vec(from.x + ux * along - uy * off, from.y + uy * along + ux * off);
	*end = vec(from.x + dx, from.y + dy);
}

static void reach_hand(struct scene *s, int side, struct vec target, int bend)
{
	struct joints *j = &s->joints;
	reach(j->shoulder[side], &j->elbow[side], &j->hand[side], s->body.upper_arm, s->body.forearm, target, bend);
}

static void reach_foot(struct scene *s, int side, struct vec target, int bend)
{
	struct joints *j = &s->joints;
	reach(j->hip[side], &j->knee[side], &j->ankle[side], s->body.thigh, s->body.shin, target, bend);
}

static void add_prop(struct scene *s, enum object object, enum layer layer, struct vec at, double angle, double size)
{
	if (s->prop_count < MAX_PROPS)
		s->props[s->prop_count++] = (struct prop){object, layer, at, angle, size};
}

static void say(struct scene *s, const char *pose_text, const char *cue_text)
{
	s->pose_text = pose_text;
	s->cue_text = cue_text;
}

static void set_arm(struct pose *p, int side, double upper, double lower)
{
	p->arm[side][0] = upper;
	p->arm[side][1] = lower;
}

static void set_leg(struct pose *p, int side, double upper, double lower)
{
	p->leg[side][0] = upper;
	p->leg[side][1] = lower;
}

/* A limb with both angles drawn, upper first: evenly between bounds, or normally. */
static void draw_limb(struct draws *d, double limb[2], double sign, double upper_lo, double upper_hi, double lower_lo,
                      double lower_hi)
{
	limb[0] = sign * draw_between(d, upper_lo, upper_hi);
	limb[1] = sign * draw_between(d, lower_lo, lower_hi);
}

static void draw_limb_normal(struct draws *d, double limb[2], double upper, double upper_deviation, double lower,
                             double lower_deviation)
{
	limb[0] = draw_normal(d, upper, upper_deviation);
	limb[1] = draw_normal(d, lower, lower_deviation);
}

/* How the person faces, leans and holds the head; the limbs hang down. */
static struct pose draw_pose(struct draws *d, double front_lo, double front_hi, double lean, double lean_deviation,
                             double head_lo, double head_hi)
{
	struct pose p = {.front = draw_between(d, front_lo, front_hi)};
	p.lean = draw_normal(d, lean, lean_deviation);
	p.head = draw_between(d, head_lo, head_hi);
	return p;
}

/* Upright, seen from the front or the side, arms down. */
static void pose_standing(struct pose *p, struct draws *d, double front)
{
	memset(p, 0, sizeof *p);
	p->front = front;
	p->lean = draw_normal(d, 0, 2.5);
	for (int i = 0; i < 2; i++) {
		double side = (i ? -1 : 1) * front;
		double a = draw_normal(d, 9, 5) * side, l = draw_normal(d, 6, 3) * side;
		set_arm(p, i, a, a + draw_between(d, 0, 12) * (front > 0.5 ? -side : 1));
		set_leg(p, i, l, l * 0.6);
	}
}

static void compose_running(struct scene *s, struct draws *d)
{
	struct pose p = draw_pose(d, 0, 0.3, 14, 5, -8, 0);
	int ahead = draw_below(d, 2), kicked = draw_chance(d, 0.65);
	double thigh = draw_normal(d, 52, 9);
	set_leg(&p, ahead, thigh, thigh - (kicked ? draw_between(d, 30, 80) : draw_between(d, 65, 95)));
	double back = draw_normal(d, -22, 7);
	set_leg(&p, !ahead, back, back - (kicked ? draw_between(d, 52, 95) : draw_between(d, 5, 25)));
	for (int i = 0; i < 2; i++) {
		double swing = i == ahead ? draw_normal(d, -42, 9) : draw_normal(d, 36, 9);
		set_arm(&p, i, swing, swing + draw_between(d, 65, 105));
	}
	place_joints(&s->joints, &s->body, &p);
	stand(s, draw_chance(d, 0.5) ? draw_between(d, 0, 0.06) : 0);
	say(s, "leans forward with bent elbows",
	    kicked ? "The stride is long and the back foot is kicked up."
	           : "The stride is long and the front knee is pulled up high.");
}

static void compose_walking(struct scene *s, struct draws *d)
{
	struct pose p = draw_pose(d, 0, 0.4, 4, 3, -4, 8);
	int ahead = draw_below(d, 2);
	double thigh = draw_normal(d, 22, 5), back = draw_normal(d, -17, 4);
	set_leg(&p, ahead, thigh, thigh - draw_between(d, 0, 12));
	set_leg(&p, !ahead, back, back - draw_between(d, 5, 32));
	for (int i = 0; i < 2; i++) {
		double swing = i == ahead ? draw_normal(d, -18, 7) : draw_normal(d, 18, 7);
		set_arm(&p, i, swing, swing + draw_between(d, 2, 26));
	}
	place_joints(&s->joints, &s->body, &p);
	stand(s, 0);
	say(s, "is upright with arms hanging low", "The stride is short and both feet stay near the ground.");
}

static void sit_on(struct scene *s, struct draws *d, struct pose *p)
{
	int seat = draw_chance(d, 0.6) ? OBJECT_CHAIR : draw_chance(d, 0.6) ? OBJECT_BOX : OBJECT_NONE;
	p->front = draw_between(d, 0, 0.35);
	p->lean = draw_normal(d, seat == OBJECT_NONE ? -8 : -1, 5);
	for (int i = 0; i < 2; i++) {
		if (seat == OBJECT_NONE) { /* on the ground, knees up */
			double thigh = draw_between(d, 118, 138);
			set_leg(p, i, thigh, thigh - draw_between(d, 95, 115));
		} else {
			draw_limb_normal(d, p->leg[i], 84, 5, 0, 9);
		}
		double a = draw_between(d, 10, 30);
		set_arm(p, i, a, a + draw_between(d, 40, 65));
	}
	place_joints(&s->joints, &s->body, p);
	struct joints *j = &s->joints;
	if (seat == OBJECT_NONE) {
		move_joints(j, vec(0, 0.055));
	} else {
		stand(s, 0);
		add_prop(s, (enum object)seat, LAYER_BACK, vec(j->pelvis.x, 0), 0, j->pelvis.y - 0.05);
	}
	s->pose_text = seat == OBJECT_CHAIR ? "rests on a chair with bent knees"
	               : seat == OBJECT_BOX ? "rests on a box with bent knees"
	                                    : "rests on the ground with knees up";
}

static void compose_sitting(struct scene *s, struct draws *d)
{
	struct pose p = {.head = draw_between(d, -6, 14)};
	sit_on(s, d, &p);
	s->cue_text = "The hands are low and hold nothing.";
}

static void compose_reading(struct scene *s, struct draws *d)
{
	struct pose p;
	struct joints *j = &s->joints;
	if (draw_chance(d, 0.6)) {
		memset(&p, 0, sizeof p);
		p.head = draw_between(d, 12, 30);
		sit_on(s, d, &p);
	} else {
		pose_standing(&p, d, draw_between(d, 0, 0.4));
		p.head = draw_between(d, 12, 30);
		place_joints(j, &s->body, &p);
		stand(s, 0);
		s->pose_text = "stands still with the head down";
	}
	struct vec book = vec_add(j->neck, draw_point(d, 0.13, 0.19, -0.17, -0.04));
	for (int i = 0; i < 2; i++)
		reach_hand(s, i, vec_add(book, vec(i ? 0.02 : -0.02, -0.02)), -1);
	const double tilt = draw_between(d, 20, 60);
	add_prop(s, OBJECT_BOOK, LAYER_FRONT, book, tilt, draw_between(d, 0.9, 1.25));
	s->cue_text = "Both hands hold an open book before the eyes.";
}

static void compose_jumping(struct scene *s, struct draws *d)
{
	struct pose p = draw_pose(d, 0.4, 1, 0, 5, -5, 5);
	int up = draw_chance(d, 0.6), style = draw_below(d, 3);
	for (int i = 0; i < 2; i++) {
		double side = i ? -1 : 1, a = up ? draw_between(d, 140, 172) : draw_between(d, 88, 118);
		set_arm(&p, i, side * a, side * (a + draw_between(d, -14, 14)));
		if (style == 0) { /* legs apart */
			double l = draw_between(d, 16, 38);
			set_leg(&p, i, side * l, side * (l - draw_between(d, -4, 8)));
		} else if (style == 1) { /* heels up behind */
			draw_limb_normal(d, p.leg[i], 4, 8, -62, 12);
		} else { /* knees up */
			double l = draw_between(d, 42, 72);
			set_leg(&p, i, l, l - draw_between(d, 70, 100));
		}
	}
	place_joints(&s->joints, &s->body, &p);
	stand(s, draw_between(d, 0.10, 0.26));
	say(s, up ? "has both arms thrown up" : "has both arms spread wide",
	    "Both feet are off the ground at the same time.");
}

static void compose_stretching(struct scene *s, struct draws *d)
{
	struct pose p;
	struct joints *j = &s->joints;
	pose_standing(&p, d, draw_between(d, 0.75, 1));
	switch (draw_below(d, 4)) {
	case 0: { /* the tree */
		set_leg(&p, 0, 2, 0);
		draw_limb_normal(d, p.leg[1], -58, 5, 52, 5);
		place_joints(j, &s->body, &p);
		stand(s, 0);
		const double reach_up = draw_between(d, 0.19, 0.25);
		for (int i = 0; i < 2; i++)
			reach_hand(s, i, vec_add(j->neck, vec(i ? -0.012 : 0.012, reach_up)), i ? 1 : -1);
		say(s, "balances with joined hands above the head", "One foot is on the ground, the other rests on the knee.");
		break;
	}
	case 1: /* the warrior */
		for (int i = 0; i < 2; i++)
			draw_limb(d, p.arm[i], i ? -1 : 1, 81, 99, 81, 99);
		draw_limb_normal(d, p.leg[0], 62, 6, 4, 4);
		draw_limb_normal(d, p.leg[1], -46, 4, -46, 4);
		place_joints(j, &s->body, &p);
		stand(s, 0);
		say(s, "stands wide with both arms level", "Both feet stay on the ground in a held pose.");
		break;
	case 2: /* bent down */
		p.front = draw_between(d, 0, 0.2);
		p.lean = draw_normal(d, 112, 10);
		p.head = 20;
		for (int i = 0; i < 2; i++) {
			draw_limb_normal(d, p.leg[i], -2, 4, -3, 3);
			draw_limb_normal(d, p.arm[i], 2, 12, 2, 12);
		}
		place_joints(j, &s->body, &p);
		stand(s, 0);
		say(s, "bends down from the hips", "The legs are straight and the hands reach for the feet.");
		break;
	default: /* bent to the side */
		p.lean = draw_between(d, 18, 32);
		draw_limb(d, p.arm[1], 1, 140, 155, 115, 135);
		draw_limb(d, p.arm[0], 1, 2, 20, -10, 10);
		draw_limb(d, p.leg[0], 1, 8, 20, 6, 16);
		draw_limb(d, p.leg[1], -1, 8, 20, 6, 16);
		place_joints(j, &s->body, &p);
		stand(s, 0);
		say(s, "bends to the side with one arm overhead", "Both feet stay on the ground in a held pose.");
	}
}

static void compose_waving(struct scene *s, struct draws *d)
{
	struct pose p;
	pose_standing(&p, d, draw_between(d, 0.45, 1));
	int side = draw_below(d, 2);
	double sign = side ? -1 : 1, a = draw_between(d, 95, 150);
	set_arm(&p, side, sign * a, sign * (a + draw_between(d, 15, 75)));
	place_joints(&s->joints, &s->body, &p);
	stand(s, 0);
	s->pose_text = "stands with one arm raised";
	if (draw_chance(d, 0.2)) {
		add_prop(s, OBJECT_BALL, LAYER_TOP, vec_add(s->joints.hand[!side], vec(0, -0.03)), 0, 0.9);
		s->cue_text = "The raised hand is open and empty, a ball is in the low hand.";
	} else {
		s->cue_text = "The raised hand is open and empty, the other hangs down.";
	}
}

static void compose_throwing(struct scene *s, struct draws *d)
{
	struct pose p = draw_pose(d, 0.1, 0.7, -4, 6, -5, 5);
	int side = draw_below(d, 2), released = draw_chance(d, 0.3);
	draw_limb_normal(d, p.leg[0], 26, 7, 12, 6);
	draw_limb_normal(d, p.leg[1], -20, 6, -30, 7);
	struct joints *j = &s->joints;
	if (released) {
		double a = draw_between(d, 105, 145);
		set_arm(&p, side, a, a - draw_between(d, 0, 25));
		draw_limb(d, p.arm[!side], 1, -45, -5, -20, 40);
	} else {
		draw_limb(d, p.arm[side], 1, -140, -100, -205, -150);
		draw_limb(d, p.arm[!side], 1, 50, 95, 60, 110);
	}
	place_joints(j, &s->body, &p);
	stand(s, 0);
	double size = draw_between(d, 0.7, 1.2);
	if (released)
		add_prop(s, OBJECT_BALL, LAYER_TOP, vec_add(j->hand[side], draw_point(d, 0.08, 0.3, 0, 0.15)), 0, size);
	else
		add_prop(s, OBJECT_BALL, LAYER_TOP, vec_add(j->hand[side], vec(0, 0.03)), 0, size);
	say(s, "steps with one arm raised",
	    released ? "A ball has just left the raised hand." : "A ball is in the raised hand.");
}

static void compose_kicking(struct scene *s, struct draws *d)
{
	struct pose p = draw_pose(d, 0, 0.35, -8, 6, 0, 12);
	int side = draw_below(d, 2);
	double thigh = draw_between(d, 35, 78);
	set_leg(&p, side, thigh, thigh - draw_between(d, 2, 32));
	draw_limb_normal(d, p.leg[!side], -4, 5, -12, 5);
	draw_limb(d, p.arm[side], 1, -60, -15, -40, 20);
	draw_limb(d, p.arm[!side], 1, 25, 75, 60, 110);
	place_joints(&s->joints, &s->body, &p);
	stand(s, 0);
	struct vec foot = s->joints.ankle[side];
	double away = draw_between(d, 0.09, 0.32);
	const struct vec ball = vec(foot.x + away, fmax(0.05, foot.y + draw_between(d, -0.05, 0.4 * away)));
	add_prop(s, OBJECT_BALL, LAYER_TOP, ball, 0, draw_between(d, 0.9, 1.3));
	say(s, "stands on one leg",
	    draw_chance(d, 0.5) ? "The other leg is swung up toward a ball." : "The other foot points at a ball.");
}

static void compose_lifting(struct scene *s, struct draws *d)
{
	struct pose p;
	struct joints *j = &s->joints;
	pose_standing(&p, d, draw_between(d, 0.8, 1));
	int squat = draw_chance(d, 0.3), style = draw_below(d, 4);
	for (int i = 0; i < 2; i++) {
		double side = i ? -1 : 1, l = squat ? draw_between(d, 50, 68) : draw_between(d, 6, 18);
		set_leg(&p, i, side * l, squat ? -side * draw_between(d, 2, 14) : side * l * 0.5);
	}
	place_joints(j, &s->body, &p);
	stand(s, 0);
	double height = style == 0 ? draw_between(d, 0.22, 0.3) : style == 1 ? draw_between(d, -0.06, 0.02) : -0.3;
	double tilt = draw_normal(d, 0, 4), grip = draw_between(d, 0.15, 0.2);
	if (style < 3) {
		struct vec bar = vec_add(j->neck, vec(0, height));
		for (int i = 0; i < 2; i++) {
			double side = i ? -1 : 1;
			reach_hand(s, i, vec(bar.x + side * grip, bar.y + side * grip * tan(tilt * degree)), i ? -1 : 1);
		}
		if (style == 2) /* arms may be too short for the grip */
			bar.y = (j->hand[0].y + j->hand[1].y) / 2;
		add_prop(s, OBJECT_BARBELL, LAYER_FRONT, bar, tilt, draw_between(d, 0.8, 1.15));
		static const char *const cue[] = {"Both hands hold a heavy bar above the head.",
		                                  "Both hands hold a heavy bar at the chest.",
		                                  "Both hands hold a heavy bar at the hips."};
		say(s, squat ? "squats with bent knees" : "stands firm with legs apart", cue[style]);
		return;
	}
	for (int i = 0; i < 2; i++) {
		double side = i ? -1 : 1, out = draw_between(d, 12, 30), up = draw_between(d, 100, 165);
		j->elbow[i] = vec_add(j->shoulder[i], vec_hang(s->body.upper_arm, side * out));
		j->hand[i] = vec_add(j->elbow[i], vec_hang(s->body.forearm, side * up));
		double turned = draw_normal(d, 0, 15);
		add_prop(s, OBJECT_DUMBBELL, LAYER_TOP, j->hand[i], turned, draw_between(d, 0.9, 1.2));
	}
	say(s, squat ? "squats with bent knees" : "stands firm with legs apart", "Each hand holds a short heavy bar.");
}

static void compose_cycling(struct scene *s, struct draws *d)
{
	struct pose p = draw_pose(d, 0, 0.15, 36, 7, -20, -5);
	place_joints(&s->joints, &s->body, &p);
	move_joints(&s->joints, vec(-0.13, 0.5));
	double crank = draw_between(d, 0, 360);
	for (int i = 0; i < 2; i++) {
		reach_hand(s, i, vec(0.2 + 0.02 * i, 0.5), -1);
		reach_foot(s, i, vec_add(vec(-0.02, 0.19), vec_hang(0.08, crank + 180 * i)), 1);
	}
	add_prop(s, OBJECT_BICYCLE, LAYER_MIDDLE, vec(0, 0), crank, 1);
	say(s, "leans over handlebars", "The feet are on pedals between two big wheels.");
}

static void compose_guitar(struct scene *s, struct draws *d)
{
	struct pose p;
	struct joints *j = &s->joints;
	int seated = draw_chance(d, 0.4);
	if (seated) {
		memset(&p, 0, sizeof p);
		p.head = draw_between(d, 0, 12);
		sit_on(s, d, &p);
	} else {
		pose_standing(&p, d, draw_between(d, 0.5, 1));
		place_joints(j, &s->body, &p);
		stand(s, 0);
		s->pose_text = "stands with both arms bent";
	}
	double angle = draw_between(d, 8, 42);
	struct vec at =
		vec_add(j->pelvis, seated ? draw_point(d, 0.06, 0.1, 0.07, 0.13) : draw_point(d, -0.04, 0.03, 0.07, 0.13));
	struct vec along = vec_hang(1, 90 + angle);
	add_prop(s, OBJECT_GUITAR, LAYER_FRONT, at, angle, draw_between(d, 0.9, 1.1));
	reach_hand(s, 0, vec(at.x + along.x * 0.24, at.y + along.y * 0.24), 1);
	reach_hand(s, 1, vec(at.x - along.x * 0.02, at.y - along.y * 0.02), -1);
	s->cue_text = "One hand is on the strings, the other on a long neck of wood.";
}

static void compose_climbing(struct scene *s, struct draws *d)
{
	struct pose p = draw_pose(d, 0.8, 1, 0, 8, -5, 5);
	int ladder = draw_chance(d, 0.4), high = draw_below(d, 2), knee = draw_chance(d, 0.7) ? !high : high;
	for (int i = 0; i < 2; i++) {
		double side = i ? -1 : 1;
		double a = i == high ? draw_between(d, 150, 172) : draw_between(d, 95, 130);
		set_arm(&p, i, side * a, side * (i == high ? draw_between(d, 170, 188) : draw_between(d, 160, 188)));
		double l = i == knee ? draw_between(d, 55, 85) : draw_between(d, 6, 24);
		set_leg(&p, i, side * l, side * (i == knee ? draw_between(d, -20, 0) : draw_between(d, -4, 8)));
	}
	place_joints(&s->joints, &s->body, &p);
	stand(s, draw_between(d, 0.14, 0.34));
	s->away = 1;
	if (ladder) {
		add_prop(s, OBJECT_LADDER, LAYER_BACK, vec(s->joints.pelvis.x, 0), draw_normal(d, 0, 3), 1);
		for (int i = 0; i < 2; i++) /* hands come in to the rungs */
			reach_hand(s, i, vec(s->joints.pelvis.x + (i ? -0.09 : 0.09), s->joints.hand[i].y), i ? -1 : 1);
		say(s, "is above the ground on a ladder", "Hands and feet hold the bars at different heights.");
	} else {
		s->place = PLACE_ROCK;
		say(s, "hangs close to the stone", "Hands and feet hold the rocks at different heights.");
	}
}

static void compose_swimming(struct scene *s, struct draws *d)
{
	struct pose p = draw_pose(d, 0.1, 0.5, 82, 7, -35, -10);
	int ahead = draw_below(d, 2);
	draw_limb(d, p.arm[ahead], 1, 85, 125, 70, 105);
	if (draw_chance(d, 0.6))
		draw_limb(d, p.arm[!ahead], 1, -190, -110, -230, -150);
	else
		draw_limb(d, p.arm[!ahead], 1, -60, 20, -60, 30);
	for (int i = 0; i < 2; i++) {
		double l = draw_normal(d, -80, 9);
		set_leg(&p, i, l, l - draw_between(d, 0, 25));
	}
	place_joints(&s->joints, &s->body, &p);
	move_joints(&s->joints, vec(0, 0.42));
	s->place = PLACE_WATER;
	s->water = s->joints.pelvis.y + draw_between(d, 0.0, 0.05);
	say(s, "lies flat and low", "One arm reaches ahead through the waves.");
}

static const struct activity {
	const char *name;
	void (*compose)(struct scene *s, struct draws *d);
	enum place usual;
} activities[ACTIVITY_COUNT] = {
	{"climbing", compose_climbing, PLACE_PLAIN},    {"cycling", compose_cycling, PLACE_ROAD},
	{"jumping", compose_jumping, PLACE_SAND},       {"kicking", compose_kicking, PLACE_GRASS},
	{"lifting weights", compose_lifting, PLACE_GYM}, {"playing guitar", compose_guitar, PLACE_ROOM},
	{"reading", compose_reading, PLACE_PLAIN},      {"running", compose_running, PLACE_ROAD},
	{"sitting", compose_sitting, PLACE_ROOM},       {"stretching", compose_stretching, PLACE_GYM},
	{"swimming", compose_swimming, PLACE_WATER},    {"throwing", compose_throwing, PLACE_GRASS},
	{"walking", compose_walking, PLACE_SNOW},       {"waving", compose_waving, PLACE_SAND},
};

const char *activity_name(int activity)
{
	return activities[activity].name;
}

void scene_compose(struct scene *s, struct draws *d, int activity, double context)
{
	memset(s, 0, sizeof *s);
	draw_body(&s->body, d);
	s->place = (enum place)draw_below(d, PLACE_WATER);
	if (context > 0 && draw_chance(d, context))
		s->place = activities[activity].usual;
	/* compose may name another: water, rock */
	activities[activity].compose(s, d);
}

void scene_bystander(struct scene *s, struct draws *d)
{
	memset(s, 0, sizeof *s);
	draw_body(&s->body, d);
	if (draw_chance(d, 0.5)) {
		compose_walking(s, d);
	} else {
		struct pose p;
		pose_standing(&p, d, draw_between(d, 0, 1));
		place_joints(&s->joints, &s->body, &p);
		stand(s, 0);
	}
}
