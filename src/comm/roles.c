/* Placement: which rank plays which roles, and how many cores it may use. A function of the options and the number of
 * ranks alone.
 *
 *   ranks:  [ learners | reward | rollout ]      colocate: every rank plays all three */
#include "comm/internal.h"

#include "base/watch.h"

#include <string.h>

int world_roles_of(const struct world *w, int rank)
{
	if (!w->assigned)
		return 0;
	if (w->colocate)
		return ROLE_ROLLOUT | ROLE_REWARD | ROLE_LEARNER;
	if (rank < w->learner_count)
		return ROLE_LEARNER;
	return rank < w->learner_count + w->rewards ? ROLE_REWARD : ROLE_ROLLOUT;
}

const char *world_role_name(const struct world *w, int rank)
{
	if (!w->assigned)
		return "no role yet";
	if (w->colocate)
		return w->size == 1 ? "single" : "all roles";
	switch (world_roles_of(w, rank)) {
	case ROLE_LEARNER:
		return "learner";
	case ROLE_REWARD:
		return "reward";
	default:
		return "rollout";
	}
}

const char *world_role_of(const struct world *w, int rank)
{
	return world_role_name(w, rank);
}

int world_cores(const struct world *w, int *cores, int max)
{
	int n = 0;
	for (int i = 0; i < CPU_SETSIZE; i++)
		if (CPU_ISSET((size_t)i, &w->own_cores) && n++ < max)
			cores[n - 1] = i;
	return n;
}

int world_plays(const struct world *w, enum role r)
{
	return ((world_roles_of(w, w->rank) | (w->scores ? ROLE_REWARD : 0)) & (int)r) != 0;
}

int world_role_count(const struct world *w, enum role r)
{
	switch (r) {
	case ROLE_LEARNER:
		return w->learner_count;
	case ROLE_REWARD:
		return w->rewards;
	default:
		return w->rollouts;
	}
}

/* The lowest rank of the role. */
static int first_rank(const struct world *w, enum role r)
{
	if (w->colocate || r == ROLE_LEARNER)
		return 0;
	return r == ROLE_REWARD ? w->learner_count : w->learner_count + w->rewards;
}

int world_rank_of(const struct world *w, enum role r, int index)
{
	return first_rank(w, r) + index;
}

int world_role_index(const struct world *w, enum role r)
{
	return world_roles_of(w, w->rank) & r ? w->rank - first_rank(w, r) : -1;
}

int world_is_leader(const struct world *w)
{
	return w->rank == LEADER;
}

char *world_placement_text(const struct world *w)
{
	if (w->colocate)
		return w->size == 1 ? favor_strdup("1 rank, all roles") : favor_format("%d ranks, all roles on each", w->size);
	return favor_format("rollout %d, reward %d, learner %d", w->rollouts, w->rewards, w->learner_count);
}

static int set_counts(struct world *w, const struct placement_options *p, struct favor_error *e)
{
	int rollout = p->rollout, reward = p->reward, learner = p->learner;
	long long sum = (long long)rollout + reward + learner;
	if (rollout < 0 || reward < 0 || learner < 1)
		return favor_fail(e, "placement: {rollout: %d, reward: %d, learner: %d}: at least 1 learner, nothing below 0",
		                  rollout, reward, learner);
	if ((rollout > 0) != (reward > 0))
		return favor_fail(e, "placement: {rollout: %d, reward: %d, learner: %d}: rollout ranks need a reward rank and "
		                     "reward ranks a rollout rank", rollout, reward, learner);
	if (sum != w->size)
		return favor_fail(e, "placement: {rollout: %d, reward: %d, learner: %d} adds up to %lld ranks, but the job has "
		                     "%d; start %lld (mpirun -n %lld), or write placement: auto",
		                  rollout, reward, learner, sum, w->size, sum, sum);
	w->rollouts = p->rollout;
	w->rewards = p->reward;
	w->learner_count = p->learner;
	return 0;
}

static int set_placement(struct world *w, const struct placement_options *p, struct favor_error *e)
{
	const struct asked_roles *a = &w->asked;
	if (p->mode == PLACEMENT_COUNTS && a->any && (p->learner != a->learner || p->reward != a->reward))
		return favor_fail(e, "placement: {rollout: %d, reward: %d, learner: %d}, but FAVOR_ROLE gives rollout %d, reward "
		                     "%d, learner %d; write placement: auto, or unset FAVOR_ROLE",
		                  p->rollout, p->reward, p->learner, a->rollout, a->reward, a->learner);
	if (p->mode == PLACEMENT_COUNTS)
		return set_counts(w, p, e);
	if (p->mode == PLACEMENT_AUTO && a->any) {
		if (world_check_wishes(w, e))
			return -1;
		w->rollouts = a->rollout;
		w->rewards = a->reward;
		w->learner_count = a->learner;
		return 0;
	}
	if (p->mode == PLACEMENT_COLOCATE || w->size <= 2) {
		w->colocate = 1;
		w->rollouts = w->rewards = w->learner_count = w->size;
		return 0;
	}
	w->rewards = 1;
	w->learner_count = (w->size - 1) / 3 > 1 ? (w->size - 1) / 3 : 1;
	w->rollouts = w->size - w->rewards - w->learner_count;
	return 0;
}

static int same_node(const struct world *w, int rank)
{
	return strcmp(w->peers[rank].host, w->peers[w->rank].host) == 0;
}

int world_node_ranks(const struct world *w)
{
	int ranks = 0;
	for (int i = 0; i < w->size; i++)
		ranks += same_node(w, i);
	return ranks;
}

int world_node_computing(const struct world *w, int *place)
{
	int ranks = 0;
	*place = -1;
	for (int i = 0; i < w->size; i++) {
		if (!same_node(w, i) || !(world_roles_of(w, i) & (ROLE_ROLLOUT | ROLE_LEARNER)))
			continue;
		if (i == w->rank)
			*place = ranks;
		ranks++;
	}
	return ranks;
}

/* The node's cores / ranks of the role on this node, at least 1. */
static int core_share(const struct world *w, enum role r)
{
	int ranks = 0;
	for (int i = 0; i < w->size; i++)
		ranks += (world_roles_of(w, i) & r) && same_node(w, i);
	int cores = CPU_COUNT(&w->node_cores) / (ranks ? ranks : 1);
	return cores ? cores : 1;
}

int world_threads(const struct world *w, enum role r)
{
	int share = core_share(w, r), own = CPU_COUNT(&w->own_cores);
	return share < own ? share : own;
}

/* Roles compute in turns: a rank whose share of the node is larger than what it is bound to by default may use the
 * whole node. */
static void widen_binding(struct world *w)
{
	static const enum role roles[] = {ROLE_ROLLOUT, ROLE_REWARD, ROLE_LEARNER};
	int most = 0;
	for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
		if (world_plays(w, roles[i]) && core_share(w, roles[i]) > most)
			most = core_share(w, roles[i]);
	/* where it is refused the binding stays, and world_threads keeps to it */
	if (w->may_widen && most > CPU_COUNT(&w->own_cores) &&
	    sched_setaffinity(0, sizeof w->node_cores, &w->node_cores) == 0)
		w->own_cores = w->node_cores;
}

static void split(struct world *w, int in, MPI_Comm *comm)
{
	watch_enter("MPI_Comm_split", 1);
	world_check(w, MPI_Comm_split(w->team, in ? 0 : MPI_UNDEFINED, w->rank, comm), "MPI_Comm_split");
	watch_leave();
	if (*comm != MPI_COMM_NULL)
		world_check(w, MPI_Comm_set_errhandler(*comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

int world_assign(struct world *w, const struct placement_options *p, double deadline, struct favor_error *e)
{
	if (w->assigned)
		favor_die("roles are assigned once");
	if (!(deadline > 0))
		return favor_fail(e, "run.deadline: %g is no number of seconds above 0", deadline);
	if (set_placement(w, p, e))
		return -1;
	w->assigned = 1;
	w->deadline = deadline;
	world_watch(w, NULL);
	favor_process()->role = world_role_name(w, w->rank);
	widen_binding(w);
	if (!w->alone) {
		/* the splits block: enter them together, so that their deadline counts from the same moment */
		double here = 0;
		world_combine(w, w->team, &here, 1, 0, "wait for all ranks to get their roles");
		split(w, world_plays(w, ROLE_LEARNER), &w->learners);
		split(w, w->rank == LEADER || (world_plays(w, ROLE_ROLLOUT) && !world_plays(w, ROLE_LEARNER)), &w->publish);
	}
	return 0;
}
