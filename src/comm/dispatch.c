/* Work is pulled: the leader offers the groups of a step, rollout ranks ask for the next one whenever they are free.
 * The leader answers in every world_tick and in every wait of its own, so it needs no rank for itself.
 *
 * Where ranks may be lost, learners tell the leader of each group that has come, and the leader keeps a ledger: who has
 * pulled which unit, which groups have come. What a lost rank has pulled and has not come is given again. Nobody is
 * told that nothing is left before all groups have come, so that there is always a rank that waits for what may be
 * given again. */
#include "comm/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the ledger */

static uint64_t unit_from(const struct ledger *l, uint64_t unit)
{
	return unit * (uint64_t)l->units.unit;
}

static uint64_t unit_to(const struct ledger *l, uint64_t unit)
{
	const uint64_t to = unit_from(l, unit + 1);
	return to < l->units.end ? to : l->units.end;
}

/* Groups of the unit that have not come. */
static int unit_undone(const struct ledger *l, uint64_t unit)
{
	int n = 0;
	for (uint64_t p = unit_from(l, unit); p < unit_to(l, unit); p++)
		n += !l->done[p - l->from];
	return n;
}

void world_free_ledger(struct world *w)
{
	free(w->ledger.holder);
	free(w->ledger.done);
	w->ledger = (struct ledger){0};
}

static void open_ledger(struct world *w, uint64_t first, uint64_t count, const struct world_units *units)
{
	struct ledger *l = &w->ledger;
	world_free_ledger(w);
	l->units = *units;
	l->first = first;
	l->from = unit_from(l, first);
	l->to = count ? unit_to(l, first + count - 1) : l->from;
	l->undone = l->to - l->from;
	l->done = favor_calloc((size_t)l->undone, sizeof *l->done);
	l->holder = favor_malloc((size_t)count * sizeof *l->holder);
	for (uint64_t u = 0; u < count; u++)
		l->holder[u] = -1;
}

/* A unit that was given to a rank which is lost, for `rank`; 0 if there is none. */
static int take_again(struct world *w, int rank, uint64_t *unit)
{
	struct ledger *l = &w->ledger;
	for (uint64_t u = l->first; l->again && u < w->offer_next; u++)
		if (l->holder[u - l->first] < 0 && unit_undone(l, u)) {
			l->holder[u - l->first] = rank;
			l->again--;
			*unit = u;
			return 1;
		}
	return 0;
}

/* ---- offer and pull */

/* The next unit of the offer, for `rank`. Only called for steps up to the offered one. */
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
			w->ledger.holder[a.index - w->ledger.first] = rank;
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

void world_offer(struct world *w, int64_t step, uint64_t first, uint64_t count)
{
	world_offer_units(w, step, first, count, &(struct world_units){.unit = 1, .end = UINT64_MAX, .stride = 1});
}

void world_offer_units(struct world *w, int64_t step, uint64_t first, uint64_t count, const struct world_units *units)
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
		open_ledger(w, first, count, units);
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
		w->answer = next_work(w, step, w->rank);
	} else {
		struct work_request r = {step};
		if (w->pull == PULL_NONE) { /* not if this rank only left the wait to score */
			w->pull = PULL_ASKED;
			w->answer = (struct work_answer){.step = step};
			world_send(w, LEADER, TAG_PULL, &r, NULL, sizeof r);
		}
		w->round = step;
		world_wait(w, is_answered_or_stopped, NULL, "wait for work", LEADER);
		if (w->stop)
			return 1; /* an answer that is under way is taken in later, and nobody looks at it */
		if (w->pull != PULL_ANSWERED)
			return 2;
	}
	w->pull = PULL_NONE;
	if (!w->answer.left) {
		world_forget_round(w);
		return 1;
	}
	*index = w->answer.index;
	return 0;
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
	const uint64_t position = index / l->units.stride;
	if (index % l->units.stride || position < l->from || position >= l->to || l->done[position - l->from])
		return; /* who takes the group says what is wrong with it */
	l->done[position - l->from] = 1;
	l->undone--;
	const uint64_t unit = position / (uint64_t)l->units.unit;
	if (l->holder[unit - l->first] < 0 && unit < w->offer_next && !unit_undone(l, unit))
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
		if (l->done[p - l->from] || l->holder[p / (uint64_t)l->units.unit - l->first] != rank)
			continue;
		if (count++ < NAMED && n < size)
			n += (size_t)snprintf(text + n, size - n, "%s%llu", count > 1 ? ", " : "",
			                      (unsigned long long)(p * l->units.stride));
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
	for (uint64_t u = l->first; u < w->offer_next; u++)
		if (l->holder[u - l->first] == rank) {
			l->holder[u - l->first] = -1;
			l->again += unit_undone(l, u) > 0;
		}
	answer_pulls(w);
}
