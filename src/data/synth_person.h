/* The person of a synthetic image: a body, its joints, and the scene around them. Body coordinates: the height of the
 * person is 1, x points where the person faces, y up, the floor is y = 0. Used by synth_*.c alone. */
#ifndef FAVOR_DATA_SYNTH_PERSON_H
#define FAVOR_DATA_SYNTH_PERSON_H

#include "data/synth_canvas.h"

#include <stdint.h>

/* Draws of one image, in order. C leaves the order of a call's arguments to the compiler: two draws never stand in one
 * expression, or compilers would make different images. draw_point and draw_paint take several in a fixed order. */
struct draws {
	uint64_t seed, index;
	uint32_t position;
};
double draw_between(struct draws *d, double lo, double hi);
double draw_normal(struct draws *d, double mean, double deviation); /* cut at two deviations */
int draw_below(struct draws *d, int n);
int draw_chance(struct draws *d, double probability);

struct vec {
	double x, y;
};
struct vec draw_point(struct draws *d, double x_lo, double x_hi, double y_lo, double y_hi);
/* Each component from its base up by less than its spread. */
struct paint draw_paint(struct draws *d, int r, int r_spread, int g, int g_spread, int b, int b_spread);
static inline struct vec vec(double x, double y)
{
	return (struct vec){x, y};
}
struct vec vec_add(struct vec a, struct vec b);
/* `length` in the direction of an angle in degrees from hanging down (0) over forward (90) to up (180). */
struct vec vec_hang(double length, double angle);

struct body {
	double head, neck, torso, upper_arm, forearm, thigh, shin, foot; /* lengths; head is a radius */
	double shoulders, hips;                                          /* half widths as seen from the front */
	double thickness;                                                /* factor on limb radii */
	struct paint skin, hair, shirt, trousers, shoes;
	int hair_style; /* 0 bald, 1 short, 2 long, 3 cap */
	int long_sleeves, shorts, skirt;
	const char *shirt_name;
};

/* Angles as in vec_hang; [0] is the near side or +x side, [1] the far or -x side; {upper, lower}. */
struct pose {
	double front; /* 0 seen from the side .. 1 from the front */
	double lean;  /* of the torso, forward positive */
	double head;  /* of the head, forward positive */
	double arm[2][2], leg[2][2];
};

struct joints {
	struct vec pelvis, neck, head;
	struct vec shoulder[2], elbow[2], hand[2], hip[2], knee[2], ankle[2];
	double lean, front;
};

enum object {
	OBJECT_NONE,
	OBJECT_BALL,
	OBJECT_CHAIR,
	OBJECT_BOOK,
	OBJECT_GUITAR,
	OBJECT_BARBELL,
	OBJECT_DUMBBELL,
	OBJECT_BICYCLE,
	OBJECT_LADDER,
	OBJECT_BOX,
	OBJECT_COUNT
};
enum layer {
	LAYER_BACK,
	LAYER_MIDDLE,
	LAYER_FRONT,
	LAYER_TOP
}; /* behind all | between far and near limbs | over the torso | over all */
struct prop {
	enum object object;
	enum layer layer;
	struct vec at;
	double angle, size; /* degrees; a factor */
};

/* The first ones suit every activity; water and rock belong to swimming and climbing. */
enum place {
	PLACE_GRASS,
	PLACE_SAND,
	PLACE_ROAD,
	PLACE_SNOW,
	PLACE_ROOM,
	PLACE_GYM,
	PLACE_PLAIN,
	PLACE_WATER,
	PLACE_ROCK
};

enum { MAX_PROPS = 8 };
struct scene {
	struct body body;
	struct joints joints;
	enum place place;
	struct prop props[MAX_PROPS];
	int prop_count;
	double water;          /* height of the water line; only in PLACE_WATER */
	int away;              /* the back of the head is seen */
	const char *pose_text; /* what the body does: "leans forward with bent elbows" */
	const char *cue_text;  /* what tells the activity apart: a sentence */
};

enum { ACTIVITY_COUNT = 14 };
const char *activity_name(int activity);
/* Draws the person, its pose and the objects that belong to the activity; place is chosen too: with probability
 * `context` the one that is usual for the activity, else any. */
void scene_compose(struct scene *s, struct draws *d, int activity, double context);
/* A passer-by: body and pose alone. */
void scene_bystander(struct scene *s, struct draws *d);

#endif
