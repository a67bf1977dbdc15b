/* A training run in memory, and what its parts share: cmd_train.c (start, resume, loop), grpo.c and sft.c (a step),
 * save.c (checkpoints). */
#ifndef FAVOR_APP_TRAINER_H
#define FAVOR_APP_TRAINER_H

#include "app/phase.h"
#include "app/setup.h"
#include "app/teams.h"
#include "report/metrics.h"

enum { SAMPLES_KEPT = 64 }; /* newest responses that go into a checkpoint */

struct trainer {
	struct setup s;
	struct rollout rollout;
	struct learner learner;
	int rolls, learns, leads; /* what this rank plays */
	int64_t step;             /* optimiser steps done (grpo: rounds done; iterations count in learner.step) */
	int64_t saved_step;       /* of the newest checkpoint; -1: there is none */
	int settled;              /* the optimiser has stepped on this step's groups: it can't be given up any more */
	int64_t round_number;
	double tokens_seen; /* num_tokens of the metrics */
	struct history history;
	struct run_log *log;           /* leader */
	struct checkpoint_file *files; /* leader: small files of the model folder */
	int32_t file_count;
	char *samples[SAMPLES_KEPT]; /* leader: a ring of JSON lines */
	struct teams teams;          /* where ranks exchange by NCCL */
	float *host_blocks[2];       /* owned: exchange.c's; NULL until they are needed */
	int64_t sample_count;
};

/* One step; fills m on the leader. Collective. 1 on all ranks if the run stops (world_stopping) and the step was given
 * up: weights, moments and logs are as before it. Else 0. */
int grpo_step(struct trainer *t, struct metrics *m);
int sft_step(struct trainer *t, struct metrics *m);
/* A pass over items [at, at + n) of this rank's; adds to the learner's gradient. As learner_groups. */
typedef int (*trainer_pass)(void *arg, int64_t at, int n);
/* Share of grpo and sft: this rank's `mine` items, micro-batch by micro-batch. The step has `count` items from index
 * `first` on, item i being learner i % learners'. With comm.reproducible each item's gradient by itself, all added in
 * index order. 1: given up; -1 as pass. Collective among learners. */
int trainer_gradient(struct trainer *t, uint64_t first, int64_t count, int64_t mine, trainer_pass pass, void *arg);
/* Share of grpo and sft: sums gradients over learners, clips, steps, and if sharded brings the weights together; returns
 * the norm. Not finite ends the job. reduce (all that passes between learners) and optimizer seconds are added. */
double trainer_update(struct trainer *t, float lr, double *reduce_seconds, double *optimizer_seconds);
/* Metrics that both have: idle, memory, rates. Collective over all ranks. */
void trainer_common_metrics(struct trainer *t, struct metrics *m, double begin, double tokens);

/* Leader: writes checkpoints/step-N.h5 and prunes. The other learners give it the moments that they keep; for other ranks
 * there is nothing to do. Collective. */
int trainer_save(struct trainer *t, struct favor_error *e);
/* All ranks: weights (learners: moments too), step, history from the checkpoint. */
int trainer_restore(struct trainer *t, const char *path, struct favor_error *e);

#endif
