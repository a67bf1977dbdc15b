/* A synthetic activity data set: articulated people doing one of synth_activity_count() activities, with varied bodies,
 * clothes, cameras, backgrounds and objects. Deterministic by seed (counter-based draws): the same files anywhere. */
#ifndef FAVOR_DATA_SYNTH_H
#define FAVOR_DATA_SYNTH_H

#include "base/error.h"
#include "data/image.h"

#include <stdint.h>

struct synth_options {
	int32_t train, test; /* images per split, balanced over activities */
	int32_t size;        /* side in pixels; images vary in aspect ratio around it */
	uint64_t seed;
	double context; /* chance that an activity is seen in its usual place (cycling on a road); otherwise in any */
};
void synth_defaults(struct synth_options *o);
/* Writes DIR/train.jsonl, DIR/test.jsonl ({"image","label","think"}: think is a two- or three-sentence reasoning trace
 * that names what is seen), DIR/options.json, DIR/images/... and, last, DIR/classes.txt. An existing DIR made with the
 * same options is left as it is (said on stderr); one made with others is an error. */
int synth_write(const char *dir, const struct synth_options *o, struct favor_error *e);
/* One image and its record. label: borrowed static text; think: owned by the caller. */
void synth_draw(uint64_t seed, uint64_t index, int32_t activity, int32_t size, double context, struct image *im,
                char **think);
int synth_activity_count(void);
const char *synth_activity(int i);

#endif
