/* Ranks on GPUs of their own exchange gradients and weights among these, by what the backend has for it (backend/team.h: NCCL).
 * Which way a team goes is chosen once, before the first step, the same on all ranks.
 *
 * Gradients are summed in buckets from the end of the weights' block to its beginning, since that is the order in which the
 * backward pass completes them: the sum of one bucket runs while the next ones are made. The buckets, their order and so the
 * bits don't depend on when the sums start.
 *
 * With learner.shard a bucket ends where a learner's slice does (base/slice.h): it is of one learner, and its sum goes to that
 * one. After the step each slice of the weights goes from its learner to all. */
#ifndef FAVOR_APP_TEAMS_H
#define FAVOR_APP_TEAMS_H

#include "app/setup.h"
#include "backend/team.h"

/* Zeroed before teams_open. */
struct teams {
	struct setup *s;                        /* borrowed */
	struct learner *learner;                /* borrowed; used on learners alone */
	struct backend_team *gradients, *weights; /* owned; NULL: through the host and MPI, or this rank is no member */
	int64_t left; /* the gradient's elements from l->first + left on are given to the sum */
};

/* Looks at all ranks' devices, chooses, joins; the leader says which way is taken and why (note). survives: as world_survive
 * said. -1: comm.transport asks for NCCL and it can't be, with the same message on all ranks. A team that can't be formed
 * after all ends the job. Collective over all ranks. */
int teams_open(struct teams *t, struct setup *s, struct learner *l, int survives, void (*note)(void *arg, const char *text),
               void *arg, struct favor_error *e);
/* Collective among the members. */
void teams_close(struct teams *t);

/* The learner's `ready` (learner.h) of the step's last backward pass; arg: struct teams. */
void teams_ready(void *teams, const float *from);
/* What is still under way from a step that was given up ends, since the gradient is to be written. */
void teams_begin_gradient(struct teams *t);
/* The gradient is all there (or good for nothing, where the step is given up: the others' sums wait for it): with
 * comm.overlap starts what is left. */
void teams_end_gradient(struct teams *t);
/* Sums it; the gradient (sharded: this learner's slice of it) can be used. */
void teams_sum_gradients(struct teams *t);
/* Sharded: every learner's slice of the weights to all learners. */
void teams_share_weights(struct teams *t);
/* The leader's n weights to the members. */
void teams_publish(struct teams *t, float *weights, int64_t n);

#endif
