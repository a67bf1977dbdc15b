/* One round of groups through the ranks: rollout -> reward -> learner. Train uses it each step, evaluation for its
 * greedy answers. */
#ifndef FAVOR_APP_PHASE_H
#define FAVOR_APP_PHASE_H

#include "app/setup.h"
#include "report/evaluation.h"

/* The same on all ranks. */
struct round {
	int64_t number; /* counts rounds of the run, so that pulls of different rounds don't mix */
	int64_t step;   /* for the groups and for messages */
	const struct dataset *data;
	uint64_t order_seed; /* record of group i = dataset_order(data, order_seed, i) if shuffled, else i */
	int shuffled;
	uint64_t first, count; /* positions [first, first + count) */
	int32_t at_once;       /* groups that a rollout rank has under way, as far as their responses have places */
	uint64_t stride;   /* group index = position * stride: 1, or the number of learners so that the leader owns all */
	int32_t responses; /* G */
};

/* Plays this rank's part. 1: the run stops (world_stopping), and this rank has left the round before its end: then
 * other ranks may or may not have; 0: this rank's part is done. r: NULL where the rank rolls nothing out. Learners get
 * the scored groups they own, sorted by index: *groups (owned, free each and the array), *count. A record that can't be
 * encoded any more ends the job. */
int phase_round(struct setup *s, struct rollout *r, const struct round *q, struct group ***groups, int64_t *count);

/* Greedy answers to data.eval. Collective. On the leader *v holds all predictions (evaluation_free), elsewhere it is
 * empty. 1 on all ranks if the run stops and the evaluation was given up (*v then says nothing), else 0. */
int phase_evaluate(struct setup *s, struct rollout *r, int64_t *round_number, int64_t step, struct evaluation *v);

#endif
