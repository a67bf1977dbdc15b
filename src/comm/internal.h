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
 *   star.c        the same, and weights, where ranks may be lost: through the leader
 *   survive.c     ranks that are lost without the job
 *   reduce.c      gradients, weights
 *   outside.c     waits for what does not pass by MPI
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
/* Large data travels in blocks, some of them at once. */
enum { BLOCK_BYTES = 4 << 20, BLOCKS_IN_FLIGHT = 4 };

static inline size_t world_block_count(size_t bytes)
{
	return (bytes + BLOCK_BYTES - 1) / BLOCK_BYTES;
}
/* Of one of them. */
static inline int world_block_bytes(size_t bytes, size_t block)
{
	const size_t at = block * BLOCK_BYTES;
	return (int)(bytes - at < BLOCK_BYTES ? bytes - at : BLOCK_BYTES);
}

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
struct loss_notice {
	int64_t rank;
	int64_t frozen; /* it only does not answer: its process may still be there */
};
struct done_notice {
	int64_t round;
	uint64_t index;
};
struct over_notice {
	int64_t round;
};
struct end_notice {
	int64_t code;
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
		struct loss_notice loss;
		struct done_notice done;
		struct over_notice over;
		struct end_notice end;
	} small;
};

/* What this rank knows of another. */
struct peer {
	char host[HOST_MAX];
	int number;       /* that the launcher gave it */
	double seen;      /* when the last message came from it; the leader hears from everyone, others from the leader */
	struct beat last; /* what it said that it does */
	int heard;        /* last is filled */
	int bye;          /* goodbyes that have come: it sends nothing more, but a second one (world.c) */
	int pulls;        /* leader: it waits for work of pull_step */
	int64_t pull_step;
	int dead;  /* MPI says so */
	int lost;  /* the leader says so; the job goes on without it */
	void *gift; /* leader: what it gave to the collective call that comes next; owned, NULL: nothing yet */
	size_t gift_bytes;
	struct beat beat; /* on its way to the peer, while beat_request is active */
	MPI_Request beat_request;
};

struct item {
	struct group *group; /* owned */
	int64_t round;       /* for which it was made; -1: not said */
};
struct inbox { /* ring */
	struct item *items;
	size_t first, count, capacity;
};

/* Leader, where ranks may be lost: what has become of the groups of its offer (dispatch.c). */
struct ledger {
	uint64_t stride;      /* index = position * stride */
	uint64_t from, to;    /* positions of its groups */
	int *holder;          /* [to - from]: the rank that has pulled it; -1: none, or that one is lost */
	unsigned char *done;  /* [to - from]: it has come to its learner */
	uint64_t undone;      /* groups; 0: the round is over */
	uint64_t again;       /* groups below offer_next that nobody holds and that have not come */
};

/* Learners: groups of the newest round that have come. */
struct arrivals {
	int64_t round;
	uint64_t *index;
	size_t count, capacity;
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
	const char *remedy; /* borrowed: of a wait for what does not pass by MPI, while it lasts; else NULL */
	int stop;      /* signal for which the run stops, as the leader said; 0: it goes on */
	int stop_told; /* this rank has passed its own signal on */

	struct letter *in, *out, *spare;

	/* ranks that may be lost (survive.c) */
	int tells_failures; /* this MPI does */
	int survives;       /* from now on: the job goes on without ranks that only roll out or score */
	int parting;        /* all is done but goodbyes */
	int lost;           /* ranks that were */
	int scores;         /* this rollout rank scores what it makes, since no reward rank is left */
	double looked;      /* when it last looked for failures */
	void (*note)(void *arg, const char *text); /* see world_survive */
	void *note_arg;
	int64_t round;      /* the one that this rank works on */
	int64_t over;       /* the newest that is over, as the leader says; -1: none */
	struct kept *kept;  /* rollout ranks: copies of what they sent in this round */
	struct arrivals arrivals;
	struct ledger ledger;
	int64_t turn;       /* collective calls through the leader so far (star.c) */
	struct told *told;  /* what the leader said in those that this rank has still to come to, in their order */
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
 * namesakes begin; peer is a rank of the world. What goes to a rank that is lost without the job is complete at
 * once. */
void world_check(struct world *w, int rc, const char *call);
void world_isend(struct world *w, const void *data, int n, MPI_Datatype type, int peer, enum tag tag, MPI_Comm comm,
                 MPI_Request *request);
void world_irecv(struct world *w, void *data, int n, MPI_Datatype type, int peer, enum tag tag, MPI_Comm comm,
                 MPI_Request *request);
/* -1: the sender is lost, and with it the message. */
int world_imrecv(struct world *w, void *data, int bytes, int peer, MPI_Message *message, MPI_Request *request);
void world_ibcast(struct world *w, void *data, int bytes, int root, MPI_Comm comm, MPI_Request *request);
void world_iallgather(struct world *w, const void *mine, void *all, int n, MPI_Datatype type, MPI_Comm comm,
                      MPI_Request *request);
/* 1: it is complete and free; 0: not yet; -1: it never will be, since peer is lost, and is free. */
int world_test(struct world *w, MPI_Request *request, int peer);
/* Whether there is a message from anybody in the mail. */
int world_improbe(struct world *w, MPI_Message *message, MPI_Status *status);

/* survive.c */
/* Whether MPI tells of failed ranks instead of ending the job; after MPI_Init. */
int world_tells_failures(void);
/* Whether this code says that another rank has failed. */
int world_is_failure(int rc);
/* The job can do without that rank. */
int world_can_lose(const struct world *w, int rank);
/* Takes in which ranks MPI knows to be dead; ends the job where it can't do without. Cheap to call often. */
void world_look_for_failures(struct world *w);
/* A call has failed since another rank is dead: names it and ends the job. */
_Noreturn void world_end_of_loss(struct world *w);
/* Ends all ranks. In place of MPI_Abort, which leaves ranks running with such an MPI. */
_Noreturn void world_end_others(struct world *w, int code);
_Noreturn void world_take_end(struct world *w, int peer, const struct end_notice *n);
/* Leader: that rank is lost; tells all, gives its work to others. Ends the job where it can't do without. frozen: for
 * so many seconds it has not answered; 0: it is dead. */
void world_lose(struct world *w, int rank, double frozen);
void world_take_loss(struct world *w, int peer, const struct loss_notice *n);
/* Of that role, those that are not lost. */
int world_living(const struct world *w, enum role r);

/* star.c: what all ranks do together where some may be lost. A lost rank's part is left out. */
void world_star_combine(struct world *w, double *x, int n, int maximum, const char *what);
void world_star_gather(struct world *w, const void *mine, size_t n, void *all, const char *what);
void world_star_tell(struct world *w, void *data, size_t n, const char *what);
int world_star_agree(struct world *w, int ok, struct favor_error *e, const char *what);
/* The leader's bytes on all ranks of the publish communicator. */
void world_star_publish(struct world *w, void *data, size_t bytes, const char *what);
void world_take_gift(struct world *w, int peer, const void *data, size_t bytes);
void world_take_told(struct world *w, int peer, const void *data, size_t bytes);
void world_free_star(struct world *w);

/* life.c */
/* Waits until done(w, arg), with progress and sleep; ends the job when the deadline passes. what: static, "wait for
 * ...". peer: who is waited for, or -1. */
void world_wait(struct world *w, int (*done)(struct world *w, void *arg), void *arg, const char *what, int peer);
/* Completes the request; status may be MPI_STATUS_IGNORE. */
void world_wait_request(struct world *w, MPI_Request *request, MPI_Status *status, const char *what, int peer);
/* A message came from peer: it lives. */
void world_seen(struct world *w, int peer);
/* Its last goodbye has come: nothing of it is waited for. */
int world_has_left(const struct world *w, int peer);
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
/* SIGKILL to this job's rank with that number of the launcher's, -1: to all others, as far as they are on this host. */
void world_kill_ranks(int number);

/* launcher.c: ends the launcher should it still be there 20 s from now. Returns at once. */
void world_watch_launcher(void);

/* mail.c */
/* Takes in what has come and completes what has gone. Does nothing when alone. */
void world_progress(struct world *w);
/* Sends bytes; small ones are copied, with `large` the letter owns it. */
void world_send(struct world *w, int peer, enum tag tag, const void *small, void *large, size_t bytes);
int world_all_sent(struct world *w, void *unused); /* but what is on its way to lost ranks */
void world_free_mail(struct world *w);

/* inbox.c, dispatch.c: a letter has come (checked for its size, not for its content). */
void world_take_group(struct world *w, int peer, enum stage s, const void *data, size_t bytes);
void world_take_pull(struct world *w, int peer, const struct work_request *r);
void world_take_work(struct world *w, int peer, const struct work_answer *a);
void world_free_inbox(struct world *w);
void world_free_ledger(struct world *w);

/* Where ranks may be lost. */
/* dispatch.c: leader: that group has come to its learner. */
void world_settle(struct world *w, int64_t round, uint64_t index);
void world_take_done(struct world *w, int peer, const struct done_notice *n);
void world_take_over(struct world *w, int peer, const struct over_notice *n);
/* Leader: what the lost rank has in hand, as text ("" for nothing); then it is for others. */
void world_in_hand(const struct world *w, int rank, char *text, size_t size);
void world_give_again(struct world *w, int rank);
/* inbox.c: rollout ranks: what went to a reward rank that is lost goes to another one. */
void world_reroute(struct world *w, int lost);
/* The round is over: copies and what is left of it in the inbox are of no use any more. */
void world_forget_round(struct world *w);

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
/* Has all blocks of data travel, BLOCKS_IN_FLIGHT at once: `start` begins one. peer: whom the wait is for, or -1. */
void world_pass_blocks(struct world *w, MPI_Comm comm, void *data, size_t bytes,
                       void (*start)(struct world *w, MPI_Comm comm, void *data, int bytes, MPI_Request *request),
                       const char *what, int peer);
/* Rank 0 of comm's bytes to all of comm, in blocks. */
void world_spread(struct world *w, MPI_Comm comm, void *data, size_t bytes, const char *what);

#endif
