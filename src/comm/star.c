/* What all ranks do together where some of them may be lost in the middle of it. MPI's collective calls fail then, on
 * some ranks and not on others, and all would have to agree on what has happened. Messages between two living ranks
 * go on as ever, so everything goes through the leader, without which the job ends anyway:
 *
 *   every rank --gift--> leader         its part; a lost rank's is left out (or counts, if it came before)
 *   leader --told--> every rank         what comes of it
 *
 * All ranks make the same calls in the same order; a number travels with each message. A rank can't be further than one
 * call ahead with a gift, but the leader may be several with what it tells.
 *
 * Weights go from the leader to each rollout rank by itself, in blocks: no rank relays them that might be lost. That
 * costs the leader as many copies as there are rollout ranks. */
#include "comm/internal.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct told {
	struct told *next;
	int64_t turn;
	size_t bytes;
	unsigned char data[];
};

/* A letter: the call's number, then the bytes. */
static void send_part(struct world *w, int peer, enum tag tag, const void *data, size_t n)
{
	unsigned char *letter = favor_malloc(sizeof w->turn + n);
	memcpy(letter, &w->turn, sizeof w->turn);
	memcpy(letter + sizeof w->turn, data, n);
	world_send(w, peer, tag, NULL, letter, sizeof w->turn + n);
}

static int64_t read_turn(const struct world *w, int peer, const void *data, size_t bytes)
{
	int64_t turn = -1;
	if (w->survives && bytes >= sizeof turn)
		memcpy(&turn, data, sizeof turn);
	if (turn < w->turn)
		favor_die("rank %d (%s) has come out of step: call %lld, this rank is at %lld", peer, world_role_name(w, peer),
		          (long long)turn, (long long)w->turn);
	return turn;
}

void world_take_gift(struct world *w, int peer, const void *data, size_t bytes)
{
	struct peer *p = &w->peers[peer];
	read_turn(w, peer, data, bytes);
	if (w->rank != LEADER || p->gift)
		favor_die("rank %d (%s) has come out of step: a part of a call that nobody makes", peer,
		          world_role_name(w, peer));
	p->gift = favor_malloc(bytes);
	p->gift_bytes = bytes;
	memcpy(p->gift, data, bytes);
}

void world_take_told(struct world *w, int peer, const void *data, size_t bytes)
{
	const int64_t turn = read_turn(w, peer, data, bytes);
	struct told *t = favor_malloc(sizeof *t + bytes - sizeof turn), **last = &w->told;
	if (peer != LEADER)
		favor_die("rank %d (%s) tells others what to do, and is not the leader", peer, world_role_name(w, peer));
	*t = (struct told){.turn = turn, .bytes = bytes - sizeof turn};
	memcpy(t->data, (const char *)data + sizeof turn, t->bytes);
	while (*last)
		last = &(*last)->next;
	*last = t;
}

void world_free_star(struct world *w)
{
	for (struct told *t; (t = w->told);) {
		w->told = t->next;
		free(t);
	}
	for (int r = 0; r < w->size; r++) {
		free(w->peers[r].gift);
		w->peers[r].gift = NULL;
	}
}

static int all_given(struct world *w, void *unused)
{
	(void)unused;
	for (int r = 1; r < w->size; r++)
		if (!w->peers[r].gift && !w->peers[r].lost)
			return 0;
	return 1;
}

/* Leader: waits for the parts; others: give theirs. */
static void give(struct world *w, const void *mine, size_t n, const char *what)
{
	if (w->rank != LEADER)
		send_part(w, LEADER, TAG_GIFT, mine, n);
	else
		world_wait(w, all_given, NULL, what, -1);
}

/* Leader: what rank r gave, without the number; NULL if it is lost and gave nothing. */
static const void *gift_of(const struct world *w, int r, const void *mine, size_t n)
{
	const struct peer *p = &w->peers[r];
	if (r == LEADER)
		return mine;
	if (p->gift && p->gift_bytes != sizeof w->turn + n)
		favor_die("rank %d (%s) gave %zu bytes where %zu are due; do all ranks run the same favor?", r,
		          world_role_name(w, r), p->gift_bytes - sizeof w->turn, n);
	return p->gift ? (const char *)p->gift + sizeof w->turn : NULL;
}

static int is_told(struct world *w, void *unused)
{
	(void)unused;
	return w->told != NULL;
}

void world_star_tell(struct world *w, void *data, size_t n, const char *what)
{
	if (w->rank == LEADER) {
		for (int r = 1; r < w->size; r++) {
			free(w->peers[r].gift);
			w->peers[r].gift = NULL;
			if (!w->peers[r].lost)
				send_part(w, r, TAG_TOLD, data, n);
		}
	} else {
		world_wait(w, is_told, NULL, what, LEADER);
		struct told *t = w->told;
		if (t->turn != w->turn || t->bytes != n)
			favor_die("the leader is in another call (%lld, %zu bytes) than this rank (%lld, %zu bytes): %s",
			          (long long)t->turn, t->bytes, (long long)w->turn, n, what);
		memcpy(data, t->data, n);
		w->told = t->next;
		free(t);
	}
	w->turn++;
}

void world_star_combine(struct world *w, double *x, int n, int maximum, const char *what)
{
	const size_t bytes = (size_t)n * sizeof *x;
	give(w, x, bytes, what);
	for (int r = 1; r < w->size && w->rank == LEADER; r++) {
		const void *given = gift_of(w, r, x, bytes);
		for (int i = 0; i < n && given; i++) {
			double next;
			memcpy(&next, (const double *)given + i, sizeof next);
			if (!maximum)
				x[i] += next;
			else if (isnan(next) || next > x[i]) /* a NaN stays to be seen */
				x[i] = next;
		}
	}
	world_star_tell(w, x, bytes, what);
}

void world_star_gather(struct world *w, const void *mine, size_t n, void *all, const char *what)
{
	give(w, mine, n, what);
	for (int r = 0; r < w->size && w->rank == LEADER; r++) {
		const void *given = gift_of(w, r, mine, n);
		if (given)
			memcpy((char *)all + (size_t)r * n, given, n);
		else
			memset((char *)all + (size_t)r * n, 0, n);
	}
	world_star_tell(w, all, n * (size_t)w->size, what);
}

int world_star_agree(struct world *w, int ok, struct favor_error *e, const char *what)
{
	char message[FAVOR_ERROR_MAX] = ""; /* "": good */
	if (!ok)
		snprintf(message, sizeof message, "%s", e && e->message[0] ? e->message : "failed without a message");
	give(w, message, sizeof message, what);
	for (int r = 1; r < w->size && w->rank == LEADER && !message[0]; r++) {
		const char *given = gift_of(w, r, message, sizeof message);
		if (given)
			memcpy(message, given, sizeof message);
	}
	world_star_tell(w, message, sizeof message, what);
	message[sizeof message - 1] = 0;
	return message[0] ? favor_fail(e, "%s", message) : 0;
}

/* ---- weights */

struct hand_out {
	int peer;
	MPI_Request flight[BLOCKS_IN_FLIGHT];
	size_t next; /* block */
	int over;
};

struct handing {
	struct hand_out *to;
	int count;
	char *data;
	size_t bytes, blocks;
};

/* Keeps some blocks under way to that rank; whether it has all, or is lost. */
static int push_blocks(struct world *w, const struct handing *h, struct hand_out *o)
{
	int flying = 0;
	for (int i = 0; i < BLOCKS_IN_FLIGHT; i++) {
		if (w->peers[o->peer].lost)
			return 1; /* what is on its way to a frozen rank stays so */
		if (o->flight[i] != MPI_REQUEST_NULL && !world_test(w, &o->flight[i], o->peer)) {
			flying = 1;
		} else if (o->next < h->blocks) {
			world_isend(w, h->data + o->next * BLOCK_BYTES, world_block_bytes(h->bytes, o->next), MPI_BYTE, o->peer,
			            TAG_WEIGHTS, w->team, &o->flight[i]);
			o->next++;
			flying = 1;
		}
	}
	return !flying;
}

static int all_handed_out(struct world *w, void *arg)
{
	struct handing *h = arg;
	int over = 1;
	for (int i = 0; i < h->count; i++) {
		struct hand_out *o = &h->to[i];
		o->over = o->over || push_blocks(w, h, o);
		over = over && o->over;
	}
	return over;
}

static void hand_out(struct world *w, void *data, size_t bytes, const char *what)
{
	struct handing h = {favor_calloc((size_t)w->size, sizeof *h.to), 0, data, bytes, world_block_count(bytes)};
	for (int r = 1; r < w->size; r++)
		if ((world_roles_of(w, r) & ROLE_ROLLOUT) && !w->peers[r].lost) {
			h.to[h.count].peer = r;
			for (int i = 0; i < BLOCKS_IN_FLIGHT; i++)
				h.to[h.count].flight[i] = MPI_REQUEST_NULL;
			h.count++;
		}
	world_wait(w, all_handed_out, &h, what, -1);
	free(h.to);
}

static void receive_block(struct world *w, MPI_Comm comm, void *data, int bytes, MPI_Request *request)
{
	world_irecv(w, data, bytes, MPI_BYTE, LEADER, TAG_WEIGHTS, comm, request);
}

void world_star_publish(struct world *w, void *data, size_t bytes, const char *what)
{
	if (w->rank == LEADER)
		hand_out(w, data, bytes, what);
	else
		world_pass_blocks(w, w->team, data, bytes, receive_block, what, LEADER);
}
