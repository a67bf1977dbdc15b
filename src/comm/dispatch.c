/* Work is pulled: the leader offers the groups of a step, rollout ranks ask for the next one whenever they are free.
 * The leader answers in every world_tick and in every wait of its own, so it needs no rank for itself. */
#include "comm/internal.h"

/* The next group of the offer, for whoever asks. Only called for steps up to the offered one. */
static struct work_answer next_work(struct world *w, int64_t step)
{
	struct work_answer a = {.step = step};
	if (step == w->offer_step && w->offer_next < w->offer_end) {
		a.left = 1;
		a.index = w->offer_next++;
	}
	return a;
}

static int is_offered(const struct world *w, int64_t step)
{
	return w->offered && step <= w->offer_step;
}

static void answer_pull(struct world *w, int peer)
{
	struct peer *p = &w->peers[peer];
	struct work_answer a = next_work(w, p->pull_step);
	p->pulls = 0;
	world_send(w, peer, TAG_WORK, &a, NULL, sizeof a);
}

void world_offer(struct world *w, int64_t step, uint64_t first, uint64_t count)
{
	if (w->rank != LEADER)
		favor_die("only the leader offers work");
	if (w->offered && (step <= w->offer_step || w->offer_next != w->offer_end))
		favor_die("step %lld can't be offered: step %lld was, and %llu of its groups are not taken", (long long)step,
		          (long long)w->offer_step, (unsigned long long)(w->offer_end - w->offer_next));
	w->offered = 1;
	w->offer_step = step;
	w->offer_next = first;
	w->offer_end = first + count;
	for (int r = 1; r < w->size; r++)
		if (w->peers[r].pulls && is_offered(w, w->peers[r].pull_step))
			answer_pull(w, r);
}

void world_take_pull(struct world *w, int peer, const struct work_request *r)
{
	struct peer *p = &w->peers[peer];
	if (w->rank != LEADER || !(world_roles_of(w, peer) & ROLE_ROLLOUT) || p->pulls)
		favor_die("rank %d (%s) pulls work although it must not; do all ranks have the same placement?", peer,
		          world_role_name(w, peer));
	p->pulls = 1;
	p->pull_step = r->step;
	w->signs++; /* it has done something since its last wait */
	w->work_heard = 1;
	if (is_offered(w, r->step))
		answer_pull(w, peer);
}

void world_take_work(struct world *w, int peer, const struct work_answer *a)
{
	if (peer != LEADER || w->pull != PULL_ASKED || a->step != w->answer.step)
		favor_die("rank %d (%s) sent work of step %lld that was not asked for", peer, world_role_name(w, peer),
		          (long long)a->step);
	w->answer = *a;
	w->pull = PULL_ANSWERED;
	w->signs++;
}

static int is_answered_or_stopped(struct world *w, void *unused)
{
	(void)unused;
	return w->pull == PULL_ANSWERED || w->stop;
}

int world_pull(struct world *w, int64_t step, uint64_t *index)
{
	if (!world_plays(w, ROLE_ROLLOUT))
		favor_die("only rollout ranks pull work");
	if (w->stop)
		return 1;
	if (w->rank == LEADER) {
		world_progress(w); /* others first: they have asked before */
		if (!is_offered(w, step))
			favor_die("the leader pulls step %lld before it has offered it", (long long)step);
		w->answer = next_work(w, step);
	} else {
		struct work_request r = {step};
		w->pull = PULL_ASKED;
		w->answer = (struct work_answer){.step = step};
		world_send(w, LEADER, TAG_PULL, &r, NULL, sizeof r);
		world_wait(w, is_answered_or_stopped, NULL, "wait for work", LEADER);
		if (w->stop)
			return 1; /* an answer that is under way is taken in later, and nobody looks at it */
	}
	w->pull = PULL_NONE;
	if (!w->answer.left)
		return 1;
	*index = w->answer.index;
	return 0;
}
