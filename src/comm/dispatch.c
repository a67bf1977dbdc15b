/* Work is pulled: the leader offers the groups of a step, rollout ranks ask for the next one whenever they are free.
 * The leader answers in every world_tick and in every wait of its own, so it needs no rank for itself.
 *
 * Where ranks may be lost, learners tell the leader of each group that has come, and the leader keeps a ledger: who has
 * pulled which group, which groups have come. What a lost rank has pulled and has not come is given again. Nobody is
 * told that nothing is left before all groups have come, so that there is always a rank that waits for what may be
 * given again. */
#include "comm/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the ledger */

void world_free_ledger(struct world *w)
{
	free(w->ledger.holder);
	free(w->ledger.done);
	w->ledger = (struct ledger){0};
}

static void open_ledger(struct world *w, uint64_t first, uint64_t count, uint64_t stride)
{
	struct ledger *l = &w->ledger;
	world_free_ledger(w);
	l->stride = stride;
	l->from = first;
	l->to = first + count;
	l->undone = count;
	l->done = favor_calloc((size_t)count, sizeof *l->done);
	l->holder = favor_malloc((size_t)count * sizeof *l->holder);
	for (uint64_t i = 0; i < count; i++)
		l->holder[i] = -1;
}

/* A group that was given to a rank which is lost, for `rank`; 0 if there is none. */
static int take_again(struct world *w, int rank, uint64_t *position)
{
	struct ledger *l = &w->ledger;
	for (uint64_t p = l->from; l->again && p < w->offer_next; p++)
		if (l->holder[p - l->from] < 0 && !l->done[p - l->from]) {
			l->holder[p - l->from] = rank;
			l->again--;
			*position = p;
			return 1;
		}
	return 0;
}

/* ---- offer and pull */

/* The next group of the offer, for `rank`. Only called for steps up to the offered one. */
static struct work_answer next_work(struct world *w, int64_t step, int rank)
{
	struct work_answer a = {.step = step};
	if (step != w->offer_step)
		return a;
	a.left = w->survives && take_again(w, rank, &a.index);
	if (!a.left && w->offer_next < w->offer_end) {
		a.left = 1;
		a.index = w->offer_next++;
		if (w->survives)
			w->ledger.holder[a.index - w->ledger.from] = rank;
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
	struct work_answer a = next_work(w, p->pull_step, peer);
	if (!a.left && w->survives && p->pull_step == w->offer_step && w->ledger.undone)
		return; /* there may be something yet */
	p->pulls = 0;
	world_send(w, peer, TAG_WORK, &a, NULL, sizeof a);
}

static void answer_pulls(struct world *w)
{
	for (int r = 1; r < w->size; r++)
		if (w->peers[r].pulls && !w->peers[r].lost && is_offered(w, w->peers[r].pull_step))
			answer_pull(w, r);
}

void world_offer(struct world *w, int64_t step, uint64_t first, uint64_t count, uint64_t stride)
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
	if (w->survives)
		open_ledger(w, first, count, stride);
	answer_pulls(w);
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

/* Or has something to score: only where no reward rank is left. */
static int is_answered_or_stopped(struct world *w, void *unused)
{
	(void)unused;
	return w->pull == PULL_ANSWERED || w->stop || (w->scores && w->inbox[STAGE_SAMPLED].count);
}

static void check_pull(const struct world *w, int64_t step)
{
	if (!world_plays(w, ROLE_ROLLOUT))
		favor_die("only rollout ranks pull work");
	if (w->rank == LEADER && !w->stop && !is_offered(w, step))
		favor_die("the leader pulls step %lld before it has offered it", (long long)step);
}

void world_ask(struct world *w, int64_t step)
{
	const struct work_request r = {step};
	check_pull(w, step);
	w->round = step;
	if (w->rank == LEADER || w->stop || w->pull != PULL_NONE)
		return;
	w->pull = PULL_ASKED;
	w->answer = (struct work_answer){.step = step};
	world_send(w, LEADER, TAG_PULL, &r, NULL, sizeof r);
}

/* What the answer says. */
static int take_answer(struct world *w, uint64_t *index)
{
	w->pull = PULL_NONE;
	if (!w->answer.left) {
		world_forget_round(w);
		return 1;
	}
	*index = w->answer.index;
	return 0;
}

/* The leader asks itself; others first: they have asked before. */
static int pull_own(struct world *w, int64_t step, uint64_t *index)
{
	world_progress(w);
	w->answer = next_work(w, step, w->rank);
	return take_answer(w, index);
}

int world_pull(struct world *w, int64_t step, uint64_t *index)
{
	world_ask(w, step); /* nothing to do if it has asked before */
	if (w->stop)
		return 1;
	if (w->rank == LEADER)
		return pull_own(w, step, index);
	world_wait(w, is_answered_or_stopped, NULL, "wait for work", LEADER);
	if (w->stop)
		return 1; /* an answer that is under way is taken in later, and nobody looks at it */
	return w->pull == PULL_ANSWERED ? take_answer(w, index) : 2;
}

int world_try_pull(struct world *w, int64_t step, uint64_t *index)
{
	world_ask(w, step);
	if (w->stop)
		return 1;
	if (w->rank == LEADER)
		return pull_own(w, step, index);
	world_progress(w);
	return w->pull == PULL_ANSWERED ? take_answer(w, index) : 2;
}

/* ---- what has come, what is lost */

/* Nothing is left, and nothing will be given again. */
static void end_round(struct world *w)
{
	const struct over_notice n = {w->offer_step};
	for (int r = 1; r < w->size; r++)
		if (!w->peers[r].lost && (world_roles_of(w, r) & ROLE_REWARD))
			world_send(w, r, TAG_OVER, &n, NULL, sizeof n);
	answer_pulls(w);
}

void world_settle(struct world *w, int64_t round, uint64_t index)
{
	struct ledger *l = &w->ledger;
	if (round != w->offer_step || !l->done)
		return;
	const uint64_t position = index / l->stride;
	if (index % l->stride || position < l->from || position >= l->to || l->done[position - l->from])
		return; /* who takes the group says what is wrong with it */
	l->done[position - l->from] = 1;
	l->undone--;
	if (l->holder[position - l->from] < 0 && position < w->offer_next)
		l->again--; /* a copy was on its way, and nobody has begun anew */
	if (!l->undone)
		end_round(w);
}

void world_take_done(struct world *w, int peer, const struct done_notice *n)
{
	if (w->rank != LEADER || !w->survives || !(world_roles_of(w, peer) & ROLE_LEARNER))
		favor_die("rank %d (%s) tells of groups that have come although it must not", peer, world_role_name(w, peer));
	world_settle(w, n->round, n->index);
}

void world_take_over(struct world *w, int peer, const struct over_notice *n)
{
	if (peer != LEADER || !w->survives)
		favor_die("rank %d (%s) ends a round although it must not", peer, world_role_name(w, peer));
	w->over = n->round;
}

void world_in_hand(const struct world *w, int rank, char *text, size_t size)
{
	enum { NAMED = 8 };
	const struct ledger *l = &w->ledger;
	size_t n = 0;
	int count = 0;
	text[0] = 0;
	for (uint64_t p = l->from; p < l->to; p++) {
		if (l->done[p - l->from] || l->holder[p - l->from] != rank)
			continue;
		if (count++ < NAMED && n < size)
			n += (size_t)snprintf(text + n, size - n, "%s%llu", count > 1 ? ", " : "",
			                      (unsigned long long)(p * l->stride));
	}
	if (count > NAMED && n < size)
		snprintf(text + n, size - n, " and %d more", count - NAMED);
}

void world_give_again(struct world *w, int rank)
{
	struct ledger *l = &w->ledger;
	w->peers[rank].pulls = 0;
	if (!l->done)
		return;
	for (uint64_t p = l->from; p < w->offer_next; p++)
		if (l->holder[p - l->from] == rank) {
			l->holder[p - l->from] = -1;
			l->again += !l->done[p - l->from];
		}
	answer_pulls(w);
}
