/* Roles that the launcher gives, by the environment of each rank: for jobs whose hosts differ. FAVOR_ROLE=learner,
 * reward or rollout; ranks without it fill up what is missing, as placement: auto does. In a heterogeneous job of Slurm
 * (SLURM_HET_SIZE) where some ranks have GPUs and others none, and nobody names a role, those without score.
 *
 * The world's order is learners, reward, rollout (roles.c), so the ranks are put in that order once, before anything
 * else is said; among ranks of a role the launcher's order stays. */
#include "comm/internal.h"

#include "base/watch.h"

#include <stdlib.h>
#include <string.h>

enum wish { WISH_NONE, WISH_LEARNER, WISH_REWARD, WISH_ROLLOUT, WISH_UNKNOWN };
static const char *const names[] = {"", "learner", "reward", "rollout"};

struct told {
	int wish, has_gpu, heterogeneous;
};

static int is_given(const char *name)
{
	const char *value = getenv(name);
	return value && *value;
}

static struct told own_wish(void)
{
	struct told t = {.wish = WISH_UNKNOWN,
	                 .has_gpu = is_given("SLURM_STEP_GPUS") || is_given("SLURM_JOB_GPUS"),
	                 .heterogeneous = is_given("SLURM_HET_SIZE")};
	const char *role = getenv("FAVOR_ROLE");
	for (int i = WISH_NONE; i < WISH_UNKNOWN; i++)
		if (strcmp(role ? role : "", names[i]) == 0)
			t.wish = i;
	return t;
}

/* Nobody has named a role: GPUs do. */
static void wishes_by_gpu(struct told *all, int n)
{
	int named = 0, with = 0, heterogeneous = 0;
	for (int i = 0; i < n; i++) {
		named += all[i].wish != WISH_NONE;
		with += all[i].has_gpu;
		heterogeneous += all[i].heterogeneous;
	}
	for (int i = 0; i < n && !named && heterogeneous == n && with > 0; i++)
		if (!all[i].has_gpu)
			all[i].wish = WISH_REWARD;
}

/* Ranks without a wish become learners if there is none (a third of them, as auto has it), one reward if there is none,
 * and rollout. */
static void fill_up(struct told *all, int n, int *counts)
{
	int free_ranks = 0;
	memset(counts, 0, (WISH_UNKNOWN + 1) * sizeof *counts);
	for (int i = 0; i < n; i++)
		counts[all[i].wish]++;
	free_ranks = counts[WISH_NONE];
	int need_reward = counts[WISH_REWARD] == 0, others = free_ranks - need_reward;
	int need_learners = counts[WISH_LEARNER] ? 0 : others / 3 > 1 ? others / 3 : 1;
	for (int i = 0; i < n; i++) {
		if (all[i].wish != WISH_NONE)
			continue;
		all[i].wish = need_learners > 0 ? WISH_LEARNER : need_reward ? WISH_REWARD : WISH_ROLLOUT;
		need_reward -= need_learners <= 0 && need_reward;
		need_learners -= need_learners > 0;
		counts[WISH_NONE]--;
		counts[all[i].wish]++;
	}
}

static void reorder(struct world *w, MPI_Comm *comm, int key)
{
	MPI_Comm sorted = MPI_COMM_NULL;
	watch_enter("MPI_Comm_split", 1);
	world_check(w, MPI_Comm_split(*comm, 0, key, &sorted), "MPI_Comm_split");
	watch_leave();
	watch_enter("MPI_Comm_free", 1);
	world_check(w, MPI_Comm_free(comm), "MPI_Comm_free");
	watch_leave();
	world_check(w, MPI_Comm_set_errhandler(sorted, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
	*comm = sorted;
}

void world_hear_wishes(struct world *w)
{
	struct told own = own_wish(), *all = favor_calloc((size_t)w->size, sizeof *all);
	int counts[WISH_UNKNOWN + 1], asked = 0;
	watch_enter("MPI_Allgather", 1);
	world_check(w, MPI_Allgather(&own, (int)sizeof own, MPI_BYTE, all, (int)sizeof own, MPI_BYTE, w->team),
	            "MPI_Allgather");
	watch_leave();
	wishes_by_gpu(all, w->size);
	for (int i = 0; i < w->size; i++)
		asked += all[i].wish != WISH_NONE;
	if (asked) {
		fill_up(all, w->size, counts);
		w->asked = (struct asked_roles){1, counts[WISH_UNKNOWN], counts[WISH_LEARNER], counts[WISH_REWARD],
		                                counts[WISH_ROLLOUT]};
		const int key = all[w->rank].wish * w->size + w->rank;
		reorder(w, &w->mail, key);
		reorder(w, &w->team, key);
		world_check(w, MPI_Comm_rank(w->mail, &w->rank), "MPI_Comm_rank");
		favor_process()->rank = w->rank;
	}
	free(all);
}

int world_check_wishes(const struct world *w, struct favor_error *e)
{
	const struct asked_roles *a = &w->asked;
	if (a->unknown)
		return favor_fail(e, "FAVOR_ROLE: %d rank%s neither learner, reward nor rollout in it; unset it, or give one of "
		                     "these", a->unknown, a->unknown == 1 ? " has" : "s have");
	if (a->learner < 1 || a->reward < 1 || a->rollout < 1)
		return favor_fail(e, "FAVOR_ROLE: the ranks' roles come to %d learner, %d reward, %d rollout; each must be there, "
		                     "or ranks without FAVOR_ROLE that fill up", a->learner, a->reward, a->rollout);
	return 0;
}
