/* Backends of several processes as a team: sums and copies between their devices, without the host. One interface for what
 * a backend may have (CUDA: NCCL, backend/cuda/team.c); the CPU has none, there MPI reads the memory itself.
 *
 * Nothing here waits for another process: what needs others is started, and asked for until it is done, so that the caller
 * keeps its deadline and its signs of life. All members start the same things with the same sizes in the same order.
 * Functions that may fail return -1 and leave what went wrong in `error`; after that the team is good for nothing, and
 * its end is the process's. */
#ifndef FAVOR_BACKEND_TEAM_H
#define FAVOR_BACKEND_TEAM_H

#include "backend/backend.h"

enum { TEAM_ID_BYTES = 128 };

/* What all kinds begin with. */
struct backend_team {
	struct backend *backend; /* borrowed */
	char error[512];
};

struct backend_team_ops {
	/* Whether this process has what teams need; `text` (size bytes): "NCCL 2.28.9", or with -1 what is missing. */
	int (*look)(struct backend *b, char *text, size_t size);
	/* One process makes the id of a team; all members pass it to join. -1: `why` (size bytes). */
	int (*new_id)(struct backend *b, unsigned char id[TEAM_ID_BYTES], char *why, size_t size);
	/* Starts to join as member `rank` of `members`, which are all on devices of their own. The team is ready when `settled`
	 * says so. Owned by the caller (leave), who keeps the backend until then. NULL: `why`. */
	struct backend_team *(*join)(struct backend *b, const unsigned char id[TEAM_ID_BYTES], int rank, int members,
	                             char *why, size_t size);
	/* 1: what was started last is accepted and the next may be started; 0: not yet; -1. */
	int (*settled)(struct backend_team *t);
	/* x[n] of all members summed in place, the same bits on all. Comes after all that the backend has queued so far, and
	 * beside what it queues from now on: nobody reads or writes x until `finished` says 1. 0, -1. Needs settled. */
	int (*start_sum)(struct backend_team *t, float *x, int64_t n);
	/* The same sum for member root alone: the others' x stays as it is. */
	int (*start_sum_to)(struct backend_team *t, float *x, int64_t n, int root);
	/* Member root's x[n] to all, likewise. */
	int (*start_spread)(struct backend_team *t, float *x, int64_t n, int root);
	/* 1: all that was started is done; 0: not yet; -1. Needs settled. */
	int (*finished)(struct backend_team *t);
	/* Starts to part, after finished; when that is settled, leave frees the team. */
	int (*start_leave)(struct backend_team *t);
	void (*leave)(struct backend_team *t);
};

#endif
