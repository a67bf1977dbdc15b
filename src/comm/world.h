/* The world: all ranks of the job, their roles, and everything that passes between them. The only room that calls
 * MPI. Knows the group record and nothing of models: gradients and weights pass as pointer and count.
 *
 *   leader = learner 0: hands out work, publishes weights, writes files.
 *
 *   rollout --pull--> leader            work is pulled: the next group index of the step
 *   rollout --SAMPLED--> reward         to reward rank index % R (to itself if it plays that role too)
 *   reward  --SCORED--> learner         to learner index % L, whoever made it: sums don't depend on who was free
 *   learners  --allreduce--> learners   gradients, sums of metrics; the same bits on all
 *   leader  --publish--> rollout ranks  weights after each step
 *
 * Never talks on MPI_COMM_WORLD itself (a dup, MPI_ERRORS_RETURN). Waiting is probe or test, then sleep with back-off
 * (20 us up to 2 ms).
 *
 * Signs of life: while a rank computes it calls world_tick at least every second or so; it sends a small heartbeat
 * (phase, step, sample) to the leader, which passes on "somebody works" to all once a second; world_phase sends one
 * too. A wait ends the job (favor_die: rank, role, host, phase, step, peer, sample) when for `deadline` seconds
 * neither what it waits for nor a sign of work from anybody has come. The leader speaks first; others wait 2 s longer
 * so that one message appears.
 *
 * With an MPI that goes on after a failure ranks that only roll out or score may be lost: see world_survive.
 *
 * What can't be waited for so (MPI_Init, MPI_Comm_split, MPI_Finalize, a file on a server that is gone) is under a watch
 * (base/watch.h). docs/RELIABILITY.md lists every wait. */
#ifndef FAVOR_COMM_WORLD_H
#define FAVOR_COMM_WORLD_H

#include "base/config.h"
#include "base/error.h"
#include "base/group.h"

#include <stddef.h>
#include <stdint.h>

enum role { ROLE_ROLLOUT = 1, ROLE_REWARD = 2, ROLE_LEARNER = 4 };
enum stage { STAGE_SAMPLED, STAGE_SCORED };

struct world;

/* MPI_Init_thread (FUNNELED) and dups of the world, unless the process was started alone without mpirun or srun: then
 * no MPI call is made at all and start-up costs nothing. A Slurm batch script that runs the program itself starts it
 * alone; srun of several tasks without an MPI plugin is refused, since each would believe to be alone. The deadline is
 * that of start-up, FAVOR_START_DEADLINE seconds (60), until world_assign. Collective. */
struct world *world_open(int *argc, char ***argv);
/* Collective; MPI_Finalize. A rank that leaves with an error that others don't know of calls world_abort instead. */
void world_close(struct world *w);
_Noreturn void world_abort(struct world *w, int code);

int world_rank(const struct world *w);
int world_size(const struct world *w);
const char *world_host(const struct world *w);

/* Fixes roles and the deadline. auto: 1 or 2 ranks colocate; else 1 reward rank, max(1, (ranks - 1) / 3) learners,
 * the rest rollout. counts must add up to the ranks. Order: learners first (rank 0 is the leader), then reward, then
 * rollout. Ranks for which the environment names a role (FAVOR_ROLE=learner, reward or rollout) have that one with
 * auto, the others fill up; counts must then agree, colocate ignores it. Same arguments on all ranks; collective. */
int world_assign(struct world *w, const struct placement_options *p, double deadline, struct favor_error *e);
int world_plays(const struct world *w, enum role r);     /* this rank */
int world_role_count(const struct world *w, enum role r);
int world_role_index(const struct world *w, enum role r); /* 0.. among that role; -1 if it doesn't play it */
int world_is_leader(const struct world *w);
/* From now on the job goes on without ranks that only roll out or score, should they die or freeze: their groups go to
 * others, and if no reward rank is left rollout ranks score what they make (world_plays says so then). 1; or 0 where
 * that can't be: MPI ends the job itself, or no rank could be spared. The leader calls note with a line for each rank
 * that is lost. Same on all ranks; after a collective call that all have left. See survive.c. */
int world_survive(struct world *w, void (*note)(void *arg, const char *text), void *arg);
/* "rollout 2, reward 1, learner 1"; new string, owned by the caller. */
char *world_placement_text(const struct world *w);
/* Ranks on this rank's node, itself included. */
int world_node_ranks(const struct world *w);
/* Ranks on this rank's node that compute (roll out or learn), once roles are assigned, and this one's place among them (in
 * rank order; -1 if it only scores): which GPU is whose. */
int world_node_computing(const struct world *w, int *place);
/* Cores that this rank may use while ranks of that role compute: the node's cores / ranks of the role on this node,
 * at least 1. A binding that was asked for (mpirun --bind-to, srun) is kept to; mpirun's default one is lifted by
 * world_assign where it is in the way, so call that before the first parallel region. */
int world_threads(const struct world *w, enum role r);

/* All ranks; collective. Returns 0 if every rank passed ok != 0. Else the message of the lowest failing rank is in *e
 * on every rank, and -1: all leave together. */
int world_agree(struct world *w, int ok, struct favor_error *e);
/* Rank 0's bytes on all ranks: *data is allocated on the others (owned by the caller). Collective. */
void world_broadcast(struct world *w, void **data, size_t *n);
/* Element-wise over all ranks; collective. */
void world_sum_all(struct world *w, double *x, int n);
void world_max_all(struct world *w, double *x, int n);

/* Every rank's n bytes on all ranks, in rank order: all has size * n. Same n everywhere; collective. */
void world_gather(struct world *w, const void *mine, size_t n, void *all);

/* What two ranks find out about the way between them. */
struct world_pair {
	double latency;   /* seconds, one way: half of the shortest round trip */
	double bandwidth; /* bytes per second, the best of some transfers from the lower to the higher rank */
	double clock;     /* seconds by which the higher rank's clock (real time) is ahead of the lower's */
};
/* Both ranks of a pair call it with one another, at about the same time; takes about `seconds`, more where one transfer
 * of 64 KiB does. 0; or -1 if the other does not answer for `patience` seconds: then what is under way stays under way,
 * and the job can only be left by world_abort. Other pairs may measure meanwhile. */
int world_ping(struct world *w, int peer, double seconds, double patience, struct world_pair *p);

/* "Open MPI v4.1.4, ..." of the library that this process has loaded; at most size bytes. */
void world_mpi_version(char *text, size_t size);
const char *world_host_of(const struct world *w, int rank);
const char *world_role_of(const struct world *w, int rank); /* "rollout", "all roles", ...; static */
/* Cores that this rank is bound to now, as numbers; returns how many, of which at most max are stored. */
int world_cores(const struct world *w, int *cores, int max);

/* What this rank does now, for messages and heartbeats; text is static. sample: index of the group in hand, or -1. */
void world_phase(struct world *w, const char *phase, int64_t step, int64_t sample);
/* Progress: answers pulls, takes in groups, passes signals on, sends heartbeats (at most one a second). Cheap: call it
 * for every decoded token and every layer. Returns world_stopping. */
int world_tick(struct world *w);
/* The signal for which the run stops (base/stop.h), whichever rank it came to; 0: it goes on. Ranks learn of it at
 * different times, the leader first, and it never goes back to 0. From then on world_pull finds nothing left and
 * world_take gives nothing; what is under way is dropped. All other calls work as ever: who has to decide together
 * sums up who knows of it, or asks world_leader_says. */
int world_stopping(const struct world *w);
/* The leader's x on all ranks; collective. */
int64_t world_leader_says(struct world *w, int64_t x);

/* Leader: groups at the positions [first, first + count) may be pulled from now on, one a pull; the group at a position
 * has the index position * stride. Pulls for a later step wait until it is offered, those for an earlier one find nothing
 * left. Steps of offers grow, and an offer follows when the one before is all taken. */
void world_offer(struct world *w, int64_t step, uint64_t first, uint64_t count, uint64_t stride);
/* Rollout ranks: the next group of the step; 0 with its position, or 1 if none is left or the run stops. Waits. 2: there
 * are groups in the inbox to be scored by this rank (world_try; see world_survive), then ask again. */
int world_pull(struct world *w, int64_t step, uint64_t *position);
/* The same for a rank that has something else to do: never waits. 2: the answer has not come yet. What it has asked for
 * stays asked: the answer is that of the next world_pull or world_try_pull, of the same step. */
int world_try_pull(struct world *w, int64_t step, uint64_t *position);
/* Asks for the group that will be pulled next, so that its answer comes meanwhile. To ask again before that pull asks for
 * nothing more. When the run stops it asks for nothing. */
void world_ask(struct world *w, int64_t step);
/* Sends the group on; takes ownership. Does not wait for delivery. */
void world_push(struct world *w, enum stage s, struct group *g);
/* Next group in this rank's inbox of that stage, owned by the caller. take waits, and returns NULL if the run stops;
 * try returns NULL if there is none now. */
struct group *world_take(struct world *w, enum stage s);
struct group *world_try(struct world *w, enum stage s);
/* Reward ranks: the next group of that round (the step of its offer) to be scored; NULL if the run stops or the round
 * is over, which is after `left` more groups of this rank's own, or, where ranks may be lost, when the leader says
 * so. */
struct group *world_take_sampled(struct world *w, int64_t round, int64_t left);
/* How many groups of [first, first + count) come to this rank in that stage (owner by index). With colocate and
 * SAMPLED this is not known before (-1): own ones are scored where they are made. */
int64_t world_expected(const struct world *w, enum stage s, uint64_t first, uint64_t count);

/* Over learners; collective among them. Sum of n floats in place, the same bits on every learner: added
 * element by element in the learners' order. */
void world_sum_gradients(struct world *w, float *x, int64_t n);
/* Its two halves: the sum in this learner's slice of x alone (base/slice.h; the rest of x stays as it is), and every
 * learner's slice of x to all. */
void world_sum_slices(struct world *w, float *x, int64_t n);
void world_share_slices(struct world *w, float *x, int64_t n);
/* A sum whose order does not depend on the number of learners, made in rounds: the x of `count` learners from learner
 * `first` on (round the circle, each once) are added one after the other to this learner's slice of sum; others pass
 * what they like for x. When all rounds are done world_share_slices brings every slice to all. Collective among the
 * learners, with the same first and count. */
void world_add_in_order(struct world *w, float *sum, const float *x, int64_t n, int first, int count);
/* The x[n] of learner `from` to the leader's x; from: 0 is the leader itself. Of interest to the two alone, others return at
 * once: collective in so far as all learners may make the same calls. taken, brought: static, what that learner and the leader
 * wait for: "wait for the leader to take moments", "wait for a learner's moments". */
void world_bring(struct world *w, float *x, int64_t n, int from, const char *taken, const char *brought);
void world_sum_learners(struct world *w, double *x, int n);
void world_max_learners(struct world *w, double *x, int n);
/* All ranks; collective. The leader's *version and *stop come to everybody: so all ranks know how far training is,
 * and whether the step was given up. Its n weights come to the rollout ranks that are no learners (not if *stop);
 * others pass what they like for weights and n. */
void world_publish(struct world *w, float *weights, int64_t n, uint64_t *version, int *stop);

/* The same without the weights, which then travel by other means: 1 on the leader and the ranks that weights go to, else 0.
 * n: as above; another than the leader's ends the job. */
int world_announce(struct world *w, int64_t n, uint64_t *version, int *stop);
/* Waits until done(arg) is not 0, for what passes between ranks by other means than MPI, as all waits here do: with signs of
 * life, and the deadline. what: static, "wait for ...". remedy: what to do if nothing comes. Not collective. */
void world_wait_outside(struct world *w, int (*done)(void *arg), void *arg, const char *what, const char *remedy);

/* Seconds that this rank has spent waiting since the last call of it. */
double world_idle_seconds(struct world *w);

#endif
