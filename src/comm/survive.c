/* Ranks that are lost without the job.
 *
 * With most MPIs a dead rank ends the job: the launcher sees to that. One with ULFM (Open MPI 5 under mpirun --with-ft
 * ulfm) only tells those that are left. Then, from world_survive on, the job goes on without ranks that only roll out or
 * score:
 *
 *   leader    sees by MPI that a rank is dead, or that it has been silent for the deadline (frozen); tells all others;
 *             gives what the rank had pulled, and what has not come to its learner, to others (dispatch.c)
 *   rollout   sends what it had sent to a lost reward rank to another one (inbox.c); if none is left, scores itself
 *   all       make calls for all ranks through the leader (star.c), and leave without MPI_Finalize, which would wait
 *             for lost ones
 *
 * The leader's word counts, so that all agree on who is lost: a rank that sees another one die by itself only stops to
 * send to it. What comes from a lost rank is dropped. One that was frozen is killed by the ranks of its host, since the
 * launcher would wait for it; should it wake before, it ends when it hears that it is lost.
 *
 * A learner holds what nobody else does, and without a rollout rank nothing is rolled out: such a loss ends the job, and
 * so does every loss before world_survive. The leader speaks; if it is the one that is lost, the lowest rank does. With
 * such an MPI MPI_Abort leaves ranks running, so who ends the job tells the others, kills those of its host, and leaves
 * with the code. */
#include "comm/internal.h"

#include "base/watch.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#ifdef HAVE_ULFM
#include <mpi-ext.h>
#endif

static const double LOOK_SECONDS = 0.02; /* between looks without a failed call; each costs a few microseconds */
static const double END_SECONDS = 0.2;
static const double OTHERS_LATER = 1.0, STAGGER = 0.5; /* seconds, when several could speak */
static const double TURN_SECONDS = 0.01;

#ifdef HAVE_ULFM

/* mpirun --with-ft sets Open MPI's parameter mpi_ft_enable; this reads what MPI has made of it. */
int world_tells_failures(void)
{
	int provided = 0, at = 0, count = 0, enabled = 0;
	MPI_T_cvar_handle handle;
	if (MPI_T_init_thread(MPI_THREAD_SINGLE, &provided))
		return 0;
	if (!MPI_T_cvar_get_index("mpi_ft_enable", &at) && !MPI_T_cvar_handle_alloc(at, NULL, &handle, &count)) {
		int values[8] = {0};
		if (count <= 8 && !MPI_T_cvar_read(handle, values))
			enabled = values[0] != 0;
		MPI_T_cvar_handle_free(&handle);
	}
	MPI_T_finalize();
	return enabled;
}

int world_is_failure(int rc)
{
	int class = MPI_ERR_UNKNOWN;
	return !MPI_Error_class(rc, &class) &&
	       (class == MPIX_ERR_PROC_FAILED || class == MPIX_ERR_PROC_FAILED_PENDING || class == MPIX_ERR_REVOKED);
}

/* Marks ranks that MPI knows to be dead. Returns the lowest one that is new, or -1. From then on receives from any
 * rank don't fail because of them. */
static int newly_dead(struct world *w)
{
	MPI_Group failed = MPI_GROUP_NULL, all = MPI_GROUP_NULL;
	int n = 0, acknowledged = 0, lowest = -1;
	if (MPIX_Comm_get_failed(w->mail, &failed) != MPI_SUCCESS)
		return -1;
	MPI_Group_size(failed, &n);
	MPI_Comm_group(w->mail, &all);
	for (int i = 0; i < n; i++) {
		int rank = MPI_UNDEFINED;
		MPI_Group_translate_ranks(failed, 1, &i, all, &rank);
		if (rank < 0 || rank >= w->size || w->peers[rank].dead)
			continue;
		w->peers[rank].dead = 1;
		if (lowest < 0 || rank < lowest)
			lowest = rank;
	}
	if (n)
		MPIX_Comm_ack_failed(w->mail, n, &acknowledged);
	MPI_Group_free(&failed);
	MPI_Group_free(&all);
	return lowest;
}

#else

int world_tells_failures(void)
{
	return 0;
}

int world_is_failure(int rc)
{
	(void)rc;
	return 0;
}

static int newly_dead(struct world *w)
{
	(void)w;
	return -1;
}

#endif

int world_can_lose(const struct world *w, int rank)
{
	return w->survives && rank >= 0 && rank < w->size && !(world_roles_of(w, rank) & ROLE_LEARNER);
}

int world_living(const struct world *w, enum role r)
{
	int n = 0;
	for (int i = 0; i < w->size; i++)
		n += (world_roles_of(w, i) & r) && !w->peers[i].lost;
	return n;
}

int world_survive(struct world *w, void (*note)(void *arg, const char *text), void *arg)
{
	if (!w->tells_failures || w->colocate || w->rollouts == 0)
		return 0;
	w->note = note;
	w->note_arg = arg;
	w->over = w->arrivals.round = -1;
	w->survives = 1;
	favor_process()->alone_if_stuck = world_can_lose(w, w->rank);
	return 1;
}

static void rank_text(const struct world *w, int rank, char *text, size_t size)
{
	const struct peer *p = &w->peers[rank];
	if (p->heard)
		snprintf(text, size, "rank %d (%s on %s, last phase %s, step %lld, sample %lld)", rank,
		         world_role_name(w, rank), p->host, p->last.phase, (long long)p->last.step, (long long)p->last.sample);
	else
		world_peer_text(w, rank, text, size);
}

static void take_turn(void)
{
	const struct timespec turn = {0, (long)(TURN_SECONDS * 1e9)};
	watch_turn();
	nanosleep(&turn, NULL);
}

/* So that one rank speaks: the leader at once, others when it should have ended them long since. */
static void wait_for_my_turn(const struct world *w)
{
	int before = 0;
	for (int r = 1; r < w->rank; r++)
		before += !w->peers[r].dead && !w->peers[r].lost;
	/* turns, not the clock: time in which the whole job did not run must not make all speak at once */
	const int turns = (int)((w->rank == LEADER ? 0 : OTHERS_LATER + STAGGER * before) / TURN_SECONDS);
	for (int i = 0; i < turns; i++)
		take_turn();
}

static _Noreturn void end_of(struct world *w, int rank, double frozen)
{
	char who[256], how[64] = "its process has ended";
	const char *why = "the job can't go on without it here";
	rank_text(w, rank, who, sizeof who);
	if (frozen > 0)
		snprintf(how, sizeof how, "no sign of life for %.0f s", frozen);
	if (w->assigned && world_roles_of(w, rank) == ROLE_LEARNER)
		why = "training can't go on without a learner";
	else if (world_can_lose(w, rank))
		why = "it was the last one that rolls out";
	wait_for_my_turn(w);
	favor_die("%s is lost: %s, and %s; the job ends, --resume auto goes on from the newest checkpoint", who, how, why);
}

_Noreturn void world_end_of_loss(struct world *w)
{
	int rank = -1;
	for (double waited = 0; w->peers && rank < 0 && waited < OTHERS_LATER; waited += TURN_SECONDS) {
		take_turn();
		newly_dead(w);
		for (int r = w->size - 1; r >= 0; r--)
			if (w->peers[r].dead && !world_can_lose(w, r))
				rank = r;
	}
	if (rank >= 0)
		end_of(w, rank, 0);
	favor_die("another rank has ended, and the job can't go on without it here");
}

_Noreturn void world_end_others(struct world *w, int code)
{
	static struct end_notice n; /* MPI may read it until the end */
	MPI_Request *requests = favor_process()->stuck ? NULL : malloc((size_t)w->size * sizeof(MPI_Request));
	int count = 0, sent = 0;
	n.code = code;
	for (int r = 0; r < w->size && requests; r++)
		if (r != w->rank && !w->peers[r].dead &&
		    MPI_Isend(&n, (int)sizeof n, MPI_BYTE, r, TAG_END, w->mail, &requests[count]) == MPI_SUCCESS)
			count++;
	const double until = clock_seconds() + END_SECONDS;
	while (requests && clock_seconds() < until && !sent) /* what went to a frozen rank may never have gone */
		if (MPI_Testall(count, requests, &sent, MPI_STATUSES_IGNORE) != MPI_SUCCESS)
			break;
	world_kill_ranks(-1);
	_exit(code); /* the launcher ends with it */
}

_Noreturn void world_take_end(struct world *w, int peer, const struct end_notice *n)
{
	if (!w->tells_failures)
		favor_die("rank %d (%s) ends the job although it must not", peer, world_role_name(w, peer));
	_exit((int)n->code); /* who sent it has said why */
}

/* On every rank, in the same order as the leader. */
static void take_leave_of(struct world *w, int rank, int frozen)
{
	struct peer *p = &w->peers[rank];
	if (p->lost)
		return;
	if (rank == w->rank) {
		fprintf(stderr, "favor: rank %d (%s) on %s was silent for longer than run.deadline and is counted as lost; "
		                "it ends, the others go on\n", rank, world_role_name(w, rank), p->host);
		fflush(stderr);
		raise(SIGKILL); /* of a mere exit this MPI would not tell */
	}
	p->lost = 1;
	w->lost++;
	w->signs++; /* others have waited for it: the deadline begins anew */
	if (frozen && !strcmp(p->host, w->peers[w->rank].host))
		world_kill_ranks(p->number);
	if (world_roles_of(w, rank) == ROLE_REWARD && world_plays(w, ROLE_ROLLOUT)) {
		w->scores = world_living(w, ROLE_REWARD) == 0;
		world_reroute(w, rank);
	}
}

/* What becomes of its work, for the message. */
static void inheritance(const struct world *w, int rank, char *text, size_t size)
{
	char hand[192];
	const int rewards = world_living(w, ROLE_REWARD) - 1;
	world_in_hand(w, rank, hand, sizeof hand);
	if (*hand)
		snprintf(text, size, "it had groups %s in hand, which go to others", hand);
	else if (world_roles_of(w, rank) == ROLE_ROLLOUT)
		snprintf(text, size, "it had no group in hand");
	else if (rewards > 0)
		snprintf(text, size, "what it had to score goes to %d other%s", rewards, rewards == 1 ? "" : "s");
	else
		snprintf(text, size, "rollout ranks score what they make from now on");
}

void world_lose(struct world *w, int rank, double frozen)
{
	struct peer *p = &w->peers[rank];
	if (p->lost)
		return;
	if (!world_can_lose(w, rank) ||
	    (world_roles_of(w, rank) == ROLE_ROLLOUT && world_living(w, ROLE_ROLLOUT) == 1 && !w->parting))
		end_of(w, rank, frozen);
	char who[256], what[256], how[64] = "its process has ended";
	rank_text(w, rank, who, sizeof who);
	inheritance(w, rank, what, sizeof what);
	if (frozen > 0)
		snprintf(how, sizeof how, "no sign of life for %.0f s", frozen);
	const struct loss_notice n = {rank, frozen > 0};
	for (int r = 1; r < w->size; r++) /* the frozen one too, should it wake */
		if (!w->peers[r].lost && !w->peers[r].dead)
			world_send(w, r, TAG_LOSS, &n, NULL, sizeof n);
	take_leave_of(w, rank, frozen > 0);
	char *text = favor_format("favor: %s is lost: %s; %s; training goes on with rollout %d, reward %d, learner %d", who,
	                          how, what, world_living(w, ROLE_ROLLOUT), world_living(w, ROLE_REWARD),
	                          w->learner_count);
	if (w->note)
		w->note(w->note_arg, text);
	else
		fprintf(stderr, "%s\n", text);
	free(text);
	world_give_again(w, rank);
}

void world_take_loss(struct world *w, int peer, const struct loss_notice *n)
{
	if (peer != LEADER || n->rank != (int)n->rank || !world_can_lose(w, (int)n->rank))
		favor_die("rank %d (%s) counts a rank as lost that can't be", peer, world_role_name(w, peer));
	take_leave_of(w, (int)n->rank, n->frozen != 0);
}

void world_look_for_failures(struct world *w)
{
	if (!w->tells_failures || !w->peers)
		return;
	const double now = clock_seconds();
	if (now - w->looked < LOOK_SECONDS)
		return;
	w->looked = now;
	if (newly_dead(w) < 0)
		return;
	/* those that have said their last may leave; who has said its own cares for the leader alone */
	const int last = w->rank == LEADER && w->survives ? 2 : 1;
	for (int r = 0; r < w->size; r++) {
		if (!w->peers[r].dead || w->peers[r].lost || w->peers[r].bye >= last ||
		    (w->bye_said && w->rank != LEADER && r != LEADER))
			continue;
		if (!world_can_lose(w, r))
			end_of(w, r, 0);
		if (w->rank == LEADER)
			world_lose(w, r, 0);
	}
}
