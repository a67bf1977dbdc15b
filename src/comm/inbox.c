/* Groups on their way: SAMPLED ones to the reward rank that owns the index, SCORED ones to the learner that owns it.
 * A group for this rank itself goes straight into its own inbox, without a copy. */
#include "comm/internal.h"

#include <stdlib.h>

static void inbox_add(struct inbox *b, struct group *g)
{
	if (b->count == b->capacity) {
		size_t capacity = b->capacity ? 2 * b->capacity : 16;
		struct group **items = favor_malloc(capacity * sizeof(struct group *));
		for (size_t i = 0; i < b->count; i++)
			items[i] = b->items[(b->first + i) % b->capacity];
		free(b->items);
		*b = (struct inbox){items, 0, b->count, capacity};
	}
	b->items[(b->first + b->count++) % b->capacity] = g;
}

static struct group *inbox_next(struct inbox *b)
{
	if (b->count == 0)
		return NULL;
	struct group *g = b->items[b->first];
	b->first = (b->first + 1) % b->capacity;
	b->count--;
	return g;
}

void world_free_inbox(struct world *w)
{
	for (int s = 0; s < STAGES; s++) {
		struct group *g;
		while ((g = inbox_next(&w->inbox[s])))
			group_destroy(g);
		free(w->inbox[s].items);
		w->inbox[s] = (struct inbox){0};
	}
}

/* The rank that gets group `index`; -1 if there is none. Ranks that play rollout and reward score what they have
 * made. */
static int owner(const struct world *w, enum stage s, uint64_t index, int maker)
{
	if (s == STAGE_SAMPLED && w->colocate)
		return maker;
	int count = s == STAGE_SAMPLED ? w->rewards : w->learner_count;
	if (count == 0)
		return -1;
	return world_rank_of(w, s == STAGE_SAMPLED ? ROLE_REWARD : ROLE_LEARNER, (int)(index % (uint64_t)count));
}

static const char *stage_name(enum stage s)
{
	return s == STAGE_SAMPLED ? "sampled" : "scored";
}

void world_push(struct world *w, enum stage s, struct group *g)
{
	int to = owner(w, s, g->index, w->rank);
	if (to < 0)
		favor_die("no rank takes %s groups in this placement", stage_name(s));
	if (to == w->rank) {
		inbox_add(&w->inbox[s], g);
	} else {
		void *data;
		size_t n;
		group_pack(g, &data, &n);
		world_send(w, to, s == STAGE_SAMPLED ? TAG_SAMPLED : TAG_SCORED, NULL, data, n);
		group_destroy(g);
	}
	world_progress(w);
}

void world_take_group(struct world *w, int peer, enum stage s, const void *data, size_t bytes)
{
	struct favor_error e = {0};
	char who[128];
	world_peer_text(w, peer, who, sizeof who);
	struct group *g = group_unpack(data, bytes, &e);
	if (!g)
		favor_die("%s sent a %s group that can't be read: %s", who, stage_name(s), e.message);
	if (owner(w, s, g->index, peer) != w->rank)
		favor_die("%s sent the %s group %llu to the wrong rank; do all ranks have the same placement?", who,
		          stage_name(s), (unsigned long long)g->index);
	inbox_add(&w->inbox[s], g);
	w->signs++;
	w->work_heard = 1;
}

static int has_group_or_stops(struct world *w, void *arg)
{
	return ((struct inbox *)arg)->count > 0 || w->stop;
}

struct group *world_take(struct world *w, enum stage s)
{
	struct inbox *b = &w->inbox[s];
	world_wait(w, has_group_or_stops, b, s == STAGE_SAMPLED ? "wait for sampled groups" : "wait for scored groups", -1);
	return w->stop ? NULL : inbox_next(b);
}

struct group *world_try(struct world *w, enum stage s)
{
	world_progress(w);
	return inbox_next(&w->inbox[s]);
}

/* How many i in [first, first + count) have i % n == own. */
static int64_t share(uint64_t first, uint64_t count, uint64_t n, uint64_t own)
{
	uint64_t skip = (own + n - first % n) % n;
	return skip < count ? (int64_t)((count - skip - 1) / n + 1) : 0;
}

int64_t world_expected(const struct world *w, enum stage s, uint64_t first, uint64_t count)
{
	if (s == STAGE_SAMPLED && w->colocate)
		return -1;
	enum role r = s == STAGE_SAMPLED ? ROLE_REWARD : ROLE_LEARNER;
	int own = world_role_index(w, r);
	return own < 0 ? 0 : share(first, count, (uint64_t)world_role_count(w, r), (uint64_t)own);
}
