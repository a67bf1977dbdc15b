/* The plan of memory: what a rank needs, computed before the first step and refused where it doesn't fit; and the choices that
 * it rests on, which the run then asks for here. */
#ifndef FAVOR_APP_PLAN_H
#define FAVOR_APP_PLAN_H

#include "app/setup.h"

/* In bytes. */
struct memory_plan {
	int64_t weights, fixed, activations, rollout, features; /* fixed: gradients, moments, reference */
	int64_t host;  /* memory of the host that tensors pass through to and from checkpoints, and on_device blocks to and from MPI */
	int64_t total; /* of all; on_device without host */
	int64_t limit; /* of total: run.memory_limit, or this rank's share of the node's memory, or of its GPU's */
	int on_device;
	enum { SHARD_IS_NO_HELP, SHARD_HELPS, SHARD_WANTS_LEARNERS } shard; /* what learner.shard would do */
};

/* What this rank needs. -1 if the longest prompt and response are longer than the model can take. */
int plan_memory(const struct setup *s, struct memory_plan *plan, struct favor_error *e);
/* What makes such a plan smaller, for a message: "lower ..., or set ...", of what this rank does alone. */
enum { PLAN_ADVICE_MAX = 320 };
void plan_advice(const struct memory_plan *p, char *text, size_t size);
/* Prints the largest of all ranks (leader) and refuses what doesn't fit. Collective: -1 with the same message on all ranks. */
int plan_check(struct setup *s, struct favor_error *e);

/* Whether this rank's backend keeps packed weights in the gradient's memory (learner_lend). */
int plan_lends(const struct setup *s);
enum { EVAL_AT_ONCE = 8 }; /* records that decode together in an evaluation */
/* How many groups' responses a rollout rank decodes together: rollout.groups, at most learner.groups_per_step. The same on
 * all ranks. */
int32_t plan_groups_at_once(const struct setup *s);
/* Bytes for features of images (model_keep_features); 0: none are kept. */
int64_t plan_feature_bytes(const struct setup *s);

#endif
