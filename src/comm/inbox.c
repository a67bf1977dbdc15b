/* Groups on their way: SAMPLED ones to the reward rank that owns the index, SCORED ones to the learner that owns it.
 * A group for this rank itself goes straight into its own inbox, without a copy.
 *
 * Where ranks may be lost a group may be on its way twice: rolled out again, or sent to another reward rank while the
 * first one had scored it already. Copies have the same bits, so the first that comes to the learner counts. The number
 * of the round travels behind the group: what comes after the end of its round is dropped. */
#include "comm/internal.h"

#include <stdlib.h>
#include <string.h>

/* A sent group, until its round is over. */
struct kept {
	struct kept *next;
	int to;
	uint64_t index;
	void *data; /* owned */
	size_t bytes;
};

static void inbox_add(struct inbox *b, struct group *g, int64_t round)
{
	if (b->count == b->capacity) {
		size_t capacity = b->capacity ? 2 * b->capacity : 16;
		struct item *items = favor_malloc(capacity * sizeof *items);
		for (size_t i = 0; i < b->count; i++)
			items[i] = b->items[(b->first + i) % b->capacity];
		free(b->items);
		*b = (struct inbox){items, 0, b->count, capacity};
	}
	b->items[(b->first + b->count++) % b->capacity] = (struct item){g, round};
}

static struct group *inbox_next(struct inbox *b)
{
	if (b->count == 0)
		return NULL;
	struct group *g = b->items[b->first].group;
	b->first = (b->first + 1) % b->capacity;
	b->count--;
	return g;
}

static void inbox_clear(struct inbox *b)
{
	for (struct group *g; (g = inbox_next(b));)
		group_destroy(g);
}

static void free_kept(struct world *w)
{
	for (struct kept *k; (k = w->kept);) {
		w->kept = k->next;
		free(k->data);
		free(k);
	}
}

void world_free_inbox(struct world *w)
{
	for (int s = 0; s < STAGES; s++) {
		inbox_clear(&w->inbox[s]);
		free(w->inbox[s].items);
		w->inbox[s] = (struct inbox){0};
	}
	free_kept(w);
	free(w->arrivals.index);
	w->arrivals = (struct arrivals){0};
}

void world_forget_round(struct world *w)
{
	if (w->survives) {
		free_kept(w);
		inbox_clear(&w->inbox[STAGE_SAMPLED]);
	}
}

/* The k-th reward rank that is not lost. */
static int living_reward(const struct world *w, int k)
{
	for (int i = 0; i < w->rewards; i++) {
		const int rank = world_rank_of(w, ROLE_REWARD, i);
		if (!w->peers[rank].lost && k-- == 0)
			return rank;
	}
	return -1;
}

/* The rank that gets group `index`; -1 if there is none. Ranks that play rollout and reward score what they have
 * made. */
static int owner(const struct world *w, enum stage s, uint64_t index, int maker)
{
	if (s == STAGE_SAMPLED && (w->colocate || w->scores))
		return maker;
	int count = s == STAGE_SAMPLED ? w->rewards : w->learner_count;
	if (count == 0)
		return -1;
	int rank = world_rank_of(w, s == STAGE_SAMPLED ? ROLE_REWARD : ROLE_LEARNER, (int)(index % (uint64_t)count));
	if (s == STAGE_SAMPLED && w->peers[rank].lost) {
		const int living = world_living(w, ROLE_REWARD);
		rank = living ? living_reward(w, (int)(index % (uint64_t)living)) : -1;
	}
	return rank;
}

static const char *stage_name(enum stage s)
{
	return s == STAGE_SAMPLED ? "sampled" : "scored";
}

static void send_copy(struct world *w, const struct kept *k)
{
	void *copy = favor_malloc(k->bytes);
	memcpy(copy, k->data, k->bytes);
	world_send(w, k->to, TAG_SAMPLED, NULL, copy, k->bytes);
}

/* A packed group with its round behind it. */
static void keep(struct world *w, int to, uint64_t index, const void *data, size_t bytes)
{
	struct kept *k = favor_malloc(sizeof *k);
	*k = (struct kept){w->kept, to, index, favor_malloc(bytes), bytes};
	memcpy(k->data, data, bytes);
	w->kept = k;
}

void world_push(struct world *w, enum stage s, struct group *g)
{
	int to = owner(w, s, g->index, w->rank);
	if (to < 0)
		favor_die("no rank takes %s groups in this placement", stage_name(s));
	if (to == w->rank) {
		inbox_add(&w->inbox[s], g, w->round);
	} else {
		void *data;
		size_t n;
		group_pack(g, &data, &n);
		if (w->survives) {
			data = favor_realloc(data, n + sizeof w->round);
			memcpy((char *)data + n, &w->round, sizeof w->round);
			n += sizeof w->round;
			if (s == STAGE_SAMPLED)
				keep(w, to, g->index, data, n);
		}
		world_send(w, to, s == STAGE_SAMPLED ? TAG_SAMPLED : TAG_SCORED, NULL, data, n);
		group_destroy(g);
	}
	world_progress(w);
}

/* The round behind a group. */
static int64_t split_round(const void *data, size_t *bytes, const char *who)
{
	int64_t round;
	if (*bytes <= sizeof round)
		favor_die("%s sent a group of %zu bytes", who, *bytes);
	*bytes -= sizeof round;
	memcpy(&round, (const char *)data + *bytes, sizeof round);
	return round;
}

void world_reroute(struct world *w, int lost)
{
	for (struct kept *k = w->kept; k; k = k->next) {
		if (k->to != lost)
			continue;
		k->to = owner(w, STAGE_SAMPLED, k->index, w->rank);
		if (k->to != w->rank) {
			send_copy(w, k);
			continue;
		}
		struct favor_error e = {0};
		size_t bytes = k->bytes;
		const int64_t round = split_round(k->data, &bytes, "this rank");
		struct group *g = group_unpack(k->data, bytes, &e);
		if (!g)
			favor_die("a group that was kept can't be read: %s", e.message);
		inbox_add(&w->inbox[STAGE_SAMPLED], g, round);
	}
}

/* Whether this scored group is the first of its index in a round that is not past. */
static int is_first(struct world *w, int64_t round, uint64_t index)
{
	struct arrivals *a = &w->arrivals;
	if (round < a->round)
		return 0;
	if (round > a->round)
		a->count = 0;
	a->round = round;
	for (size_t i = 0; i < a->count; i++)
		if (a->index[i] == index)
			return 0;
	if (a->count == a->capacity) {
		a->capacity = a->capacity ? 2 * a->capacity : 64;
		a->index = favor_realloc(a->index, a->capacity * sizeof *a->index);
	}
	a->index[a->count++] = index;
	return 1;
}

static void tell_done(struct world *w, int64_t round, uint64_t index)
{
	const struct done_notice n = {round, index};
	if (w->rank == LEADER)
		world_settle(w, round, index);
	else
		world_send(w, LEADER, TAG_DONE, &n, NULL, sizeof n);
}

void world_take_group(struct world *w, int peer, enum stage s, const void *data, size_t bytes)
{
	struct favor_error e = {0};
	char who[128];
	world_peer_text(w, peer, who, sizeof who);
	const int64_t round = w->survives ? split_round(data, &bytes, who) : -1;
	struct group *g = group_unpack(data, bytes, &e);
	if (!g)
		favor_die("%s sent a %s group that can't be read: %s", who, stage_name(s), e.message);
	/* ranks hear at different times that a reward rank is lost */
	const int any_will_do = w->survives && s == STAGE_SAMPLED && (world_roles_of(w, w->rank) & ROLE_REWARD);
	if (!any_will_do && owner(w, s, g->index, peer) != w->rank)
		favor_die("%s sent the %s group %llu to the wrong rank; do all ranks have the same placement?", who,
		          stage_name(s), (unsigned long long)g->index);
	w->signs++;
	w->work_heard = 1;
	if (w->survives && s == STAGE_SCORED && !is_first(w, round, g->index)) {
		group_destroy(g);
		return;
	}
	inbox_add(&w->inbox[s], g, round);
	if (w->survives && s == STAGE_SCORED)
		tell_done(w, round, g->index);
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

static int has_sampled_or_ends(struct world *w, void *round)
{
	const int64_t wanted = *(int64_t *)round;
	struct inbox *b = &w->inbox[STAGE_SAMPLED];
	while (b->count && b->items[b->first].round < wanted)
		group_destroy(inbox_next(b)); /* copies that came too late */
	return b->count > 0 || w->stop || w->over >= wanted;
}

struct group *world_take_sampled(struct world *w, int64_t round, int64_t left)
{
	if (!w->survives)
		return left > 0 ? world_take(w, STAGE_SAMPLED) : NULL;
	w->round = round;
	world_wait(w, has_sampled_or_ends, &round, "wait for sampled groups", -1);
	return w->stop || w->over >= round ? NULL : inbox_next(&w->inbox[STAGE_SAMPLED]);
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
