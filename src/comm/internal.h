/* What the files of this room share: the struct behind world.h and the few functions that cross files. Nobody else
 * includes it.
 *
 *   calls.c       MPI calls with their return codes checked
 *   life.c        waiting, signs of life, deadlines
 *   muster.c      who is late, seen from outside of MPI
 *   mail.c        letters: outgoing and incoming messages, progress
 *   inbox.c       groups that came and go
 *   dispatch.c    offer and pull
 *   wishes.c      roles that the launcher's environment gives
 *   roles.c       who plays what, cores
 *   collective.c  agree, broadcast, sums of a few numbers
 *   reduce.c      gradients, weights
 *   ping.c        what two ranks find out about the way between them
 *   launcher.c    the end of the launcher, where nobody else ends it
 *   world.c       open, close */
#ifndef FAVOR_COMM_INTERNAL_H
#define FAVOR_COMM_INTERNAL_H

#include "comm/tags.h"
#include "base/clock.h"
#include "comm/world.h"

#include <mpi.h>
#include <sched.h>

enum { LEADER = 0, STAGES = STAGE_SCORED + 1, HOST_MAX = 64, PHASE_MAX = 48 };
enum { BLOCK_BYTES = 4 << 20, BLOCKS_IN_FLIGHT = 4 }; /* large data travels so */

struct stop_notice {
	int64_t signal;
};
struct beat {
	char phase[PHASE_MAX];
	int64_t step, sample;
	int64_t works; /* from the leader: somebody works; from others: this rank works (0: it waits) */
};
struct work_request {
	int64_t step;
};
struct work_answer {
	int64_t step;
	uint64_t index;
	int64_t left; /* 0: no group is left of the step, index says nothing */
};

/* A message under way. Letters are recycled, and small ones need no memory of their own, so that progress allocates
 * nothing. */
struct letter {
	struct letter *next;
	MPI_Request request;
	int peer, tag, bytes;
	void *large; /* owned; NULL: the bytes are in small */
	union {
		struct beat beat;
		struct work_request request;
		struct work_answer answer;
		struct stop_notice stop;
	} small;
};

/* What this rank knows of another. */
struct peer {
	char host[HOST_MAX];
	double seen;      /* when the last message came from it; the leader hears from everyone, others from the leader */
	struct beat last; /* what it said that it does */
	int heard;        /* last is filled */
	int bye;          /* it sends nothing more */
	int pulls;        /* leader: it waits for work of pull_step */
	int64_t pull_step;
	struct beat beat; /* on its way to the peer, while beat_request is active */
	MPI_Request beat_request;
};

struct inbox { /* ring of owned groups */
	struct group **items;
	size_t first, count, capacity;
};

struct world {
	int rank, size;
	int alone;                    /* no launcher: no MPI call is made */
	MPI_Comm mail, team;          /* messages that any rank takes in at any time | collectives */
	MPI_Comm learners, publish;   /* learners | leader + rollout ranks that are no learners; else MPI_COMM_NULL */
	struct peer *peers;           /* [size], own entry included */

	/* placement */
	struct asked_roles {
		int any, unknown; /* ranks named a role | of these, how many named none that there is */
		int learner, reward, rollout;
	} asked; /* what the environment asks for (wishes.c) */
	int assigned, colocate;
	int rollouts, rewards, learner_count;
	cpu_set_t node_cores, own_cores; /* what the job may use of this node | what this rank is bound to */
	int may_widen;                   /* nobody asked for that binding */

	/* life */
	double deadline, opened;
	const char *phase; /* borrowed, static */
	int64_t step, sample;
	uint64_t signs;    /* of work, from anybody, so far */
	uint64_t taken_in; /* letters so far */
	int work_heard;    /* leader: since it last told the others */
	double beat_time;  /* when this rank last sent one */
	int bye_said;      /* it sends no more */
	double idle;
	int stop;      /* signal for which the run stops, as the leader said; 0: it goes on */
	int stop_told; /* this rank has passed its own signal on */

	struct letter *in, *out, *spare;
	struct inbox inbox[STAGES];

	/* dispatch; leader: the offer */
	int offered;
	int64_t offer_step;
	uint64_t offer_next, offer_end;
	/* rollout ranks: the answer to the pull */
	enum { PULL_NONE, PULL_ASKED, PULL_ANSWERED } pull;
	struct work_answer answer;
};

/* calls.c. world_check ends the job, naming the call, unless rc is MPI_SUCCESS. The others begin what their MPI
 * namesakes begin. */
void world_check(int rc, const char *call);
void world_isend(const void *data, int n, MPI_Datatype type, int peer, enum tag tag, MPI_Comm comm,
                 MPI_Request *request);
void world_irecv(void *data, int n, MPI_Datatype type, int peer, enum tag tag, MPI_Comm comm, MPI_Request *request);
void world_imrecv(void *data, int bytes, MPI_Message *message, MPI_Request *request);
void world_ibcast(void *data, int bytes, int root, MPI_Comm comm, MPI_Request *request);
void world_iallgather(const void *mine, void *all, int n, MPI_Datatype type, MPI_Comm comm, MPI_Request *request);
int world_test(MPI_Request *request); /* whether it is complete (and then free) */

/* life.c */
/* Waits until done(w, arg), with progress and sleep; ends the job when the deadline passes. what: static, "wait for
 * ...". peer: who is waited for, or -1. */
void world_wait(struct world *w, int (*done)(struct world *w, void *arg), void *arg, const char *what, int peer);
/* Completes the request; status may be MPI_STATUS_IGNORE. */
void world_wait_request(struct world *w, MPI_Request *request, MPI_Status *status, const char *what, int peer);
/* A message came from peer: it lives. */
void world_seen(struct world *w, int peer);
void world_take_beat(struct world *w, int peer, const struct beat *b);
/* Passes a signal that came to this process on to the leader; the leader tells all. */
void world_watch_signals(struct world *w);
void world_take_stop(struct world *w, int peer, const struct stop_notice *n);
/* Sends a heartbeat if one is due. `works`: this rank computes; 0: it waits in `phase`. */
void world_beat(struct world *w, const char *phase, int works);
/* Seconds between heartbeats: short deadlines need quicker hearts. */
double world_beat_seconds(const struct world *w);
/* "rank 3 (rollout on node7)" in text. */
void world_peer_text(const struct world *w, int peer, char *text, size_t size);

/* world.c: the watch (base/watch.h) gets the world's deadline. remedy: NULL for the one of run.deadline. */
void world_watch(struct world *w, const char *remedy);

/* muster.c: a watch_missing. */
double world_missing(int call, char *text, size_t size);

/* launcher.c: ends the launcher should it still be there 20 s from now. Returns at once. */
void world_watch_launcher(void);

/* mail.c */
/* Takes in what has come and completes what has gone. Does nothing when alone. */
void world_progress(struct world *w);
/* Sends bytes; small ones are copied, with `large` the letter owns it. */
void world_send(struct world *w, int peer, enum tag tag, const void *small, void *large, size_t bytes);
int world_all_sent(struct world *w, void *unused);
void world_free_mail(struct world *w);

/* inbox.c, dispatch.c: a letter has come (checked for its size, not for its content). */
void world_take_group(struct world *w, int peer, enum stage s, const void *data, size_t bytes);
void world_take_pull(struct world *w, int peer, const struct work_request *r);
void world_take_work(struct world *w, int peer, const struct work_answer *a);
void world_free_inbox(struct world *w);

/* wishes.c. Collective, before anything else is said: may change this rank's number. */
void world_hear_wishes(struct world *w);
int world_check_wishes(const struct world *w, struct favor_error *e);

/* roles.c */
int world_roles_of(const struct world *w, int rank);      /* bits of enum role */
const char *world_role_name(const struct world *w, int rank); /* static */
/* The rank that plays the role with that index. */
int world_rank_of(const struct world *w, enum role r, int index);

/* collective.c. x[i] = sum or maximum over the communicator's ranks in rank order: the same bits on all, whatever
 * comes first. */
void world_combine(struct world *w, MPI_Comm comm, double *x, int n, int maximum, const char *what);
/* Rank 0 of comm's bytes to all of comm, in blocks. */
void world_spread(struct world *w, MPI_Comm comm, void *data, size_t bytes, const char *what);

#endif
