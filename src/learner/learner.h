/* The learner: gradient of groups (or of SFT examples), and the optimiser step. Every learner rank has one; sums over
 * ranks are the composition's (comm). A step reads:
 *
 *   learner_zero -> learner_groups per micro-batch -> [sum gradients over learners] -> learner_squares -> learner_step
 *
 * With learner.shard (ZeRO, stage 1: Rajbhandari et al. 2020) a learner keeps the moments of its own slice of the weights
 * and steps that slice alone: it needs the summed gradient there, the others' squares for the norm, and after the step
 * the others' slices of the weights. */
#ifndef FAVOR_LEARNER_LEARNER_H
#define FAVOR_LEARNER_LEARNER_H

#include "base/config.h"
#include "base/group.h"
#include "base/slice.h"
#include "data/encode.h"
#include "learner/loss.h"
#include "model/model.h"

#include <stdint.h>

struct learner {
	struct model *model;                    /* borrowed; stepped in place */
	struct model *reference;                /* owned; NULL while beta = 0 */
	const struct learner_options *options;  /* borrowed */
	int vision;                             /* 1: the tower learns too */
	int64_t first, count;         /* trainable range of the weights' block, in floats */
	int sharded;                  /* learner.shard, and there are other learners */
	int64_t own_first, own_count; /* what this learner steps: its slice of the range; all of it unless sharded */
	float *gradient;              /* [params.total], backend memory, owned; outside the trainable range: unused */
	float *exp_avg, *exp_avg_sq;  /* [own_count], backend memory, owned; element k is that of weight own_first + k */
	float *sum;             /* as gradient; NULL unless learner_keep_sum: what learner_step takes then */
	int lends, lent;        /* see learner_lend; lent: the gradient's memory is the backend's */
	double *squares;        /* [SLICE_PARTS] backend memory, owned: |gradient|^2 of parts, then of all in the first */
	struct adamw_range *ranges; /* [params.count], owned: working memory of a step */
	struct weights grad;
	struct arena arena; /* backend memory, owned */
	int64_t step;       /* optimiser steps done */
	int (*tick)(void *arg); /* called between layers; may be NULL. Not 0: give up */
	void *tick_arg;
	void (*ready)(void *arg, const float *from); /* as pass.h's, of what learner_groups adds to the gradient; may be NULL */
	void *ready_arg;
	double forward_seconds, backward_seconds; /* since learner_zero */
};

/* Learner `place` of `learners`. */
void learner_init(struct learner *l, struct model *m, const struct learner_options *o, enum vision_mode vision, int place,
                  int learners);
void learner_free(struct learner *l);
/* Copies the present weights as the frozen reference of the KL term. */
void learner_set_reference(struct learner *l);
/* Has the reference take the features that the model keeps (model_keep_features), if both have the same tower. */
void learner_share_features(struct learner *l);
/* From now on the gradient of each micro-batch stays by itself: the caller adds it to l->sum (comm) and calls
 * learner_zero_gradient before the next; learner_step takes the sum. */
void learner_keep_sum(struct learner *l);
/* From now on the backend may use the gradient's memory for its packed copies of weights from each optimiser step to the
 * backward pass of the next one: for steps of one micro-batch, since a forward pass after that packs once more. */
void learner_lend(struct learner *l);
void learner_zero(struct learner *l);
/* After the last micro-batch, of which there may be none: the gradient is there to be read. */
void learner_gradient_ready(struct learner *l);
void learner_zero_gradient(struct learner *l);

/* One micro-batch: n groups with their prompts and advantages (advantages[i] is [G] of groups[i]). Adds the gradient of
 * sum_t weight_t (...) (loss.h), adds to sums. -1: a prompt that doesn't fit the model. 1: the tick says to give up,
 * and gradient and sums hold a part that is good for nothing. */
int learner_groups(struct learner *l, int n, struct group *const *groups, const struct prompt *prompts,
                   const float *const *advantages, int mask_truncated, const struct loss_step *step,
                   struct loss_sums *sums, struct favor_error *e);

/* SFT: n examples; loss = -sum logp / tokens of the step. Returns as learner_groups. */
struct example {
	const struct prompt *prompt;
	const struct token_ids *target;
};
int learner_examples(struct learner *l, int n, const struct example *examples, int64_t step_tokens,
                     struct loss_sums *sums, struct favor_error *e);

/* The sums of squares of the gradient's parts (base/slice.h) that this learner steps; 0 for the others. Summed over learners
 * if sharded they have the bits that any one learner would get. */
void learner_squares(const struct learner *l, double squares[SLICE_PARTS]);
/* Clips by the global norm that the squares of all parts give and steps AdamW at that rate; model->version goes up by one.
 * Returns the norm before clipping; not finite: nothing was stepped. If sharded the other learners' slices of the weights
 * are old, and the backend does not know that any have changed, until the caller has brought them and said model_changed. */
double learner_step(struct learner *l, float lr, const double squares[SLICE_PARTS]);

/* Backend memory that is there all the time (gradient, moments, reference), for the memory plan; as learner_init. */
int64_t learner_fixed_bytes(const struct model *m, const struct learner_options *o, enum vision_mode vision, int place,
                            int learners, int keeps_sum);

#endif
