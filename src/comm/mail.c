/* Messages that may come at any time: heartbeats, pulls, groups, goodbyes. Everything is sent with MPI_Isend from a
 * letter that lives until it has gone, and taken in with a matched probe and MPI_Imrecv, so that no call here ever
 * blocks: a peer that stops in the middle of a large group can't hold this rank up beyond the deadline of the wait
 * that it is in. */
#include "comm/internal.h"

#include "base/watch.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

static struct letter *letter_new(struct world *w, int peer, int tag, int bytes)
{
	struct letter *l = w->spare;
	if (l)
		w->spare = l->next;
	else
		l = favor_malloc(sizeof *l);
	l->next = NULL;
	l->request = MPI_REQUEST_NULL;
	l->peer = peer;
	l->tag = tag;
	l->bytes = bytes;
	l->large = NULL;
	return l;
}

static void letter_recycle(struct world *w, struct letter *l)
{
	free(l->large);
	l->large = NULL;
	l->next = w->spare;
	w->spare = l;
}

/* To the end of the list: letters are looked at in the order in which they came. */
static void letter_append(struct letter **list, struct letter *l)
{
	while (*list)
		list = &(*list)->next;
	*list = l;
}

static void *letter_data(struct letter *l)
{
	return l->large ? l->large : (void *)&l->small;
}

void world_send(struct world *w, int peer, enum tag tag, const void *small, void *large, size_t bytes)
{
	if (bytes > INT_MAX)
		favor_die("a group of %zu bytes is too large to be sent; lower rollout.group_size or rollout.max_tokens",
		          bytes);
	struct letter *l = letter_new(w, peer, tag, (int)bytes);
	l->large = large;
	if (small)
		memcpy(&l->small, small, bytes);
	world_isend(w, letter_data(l), l->bytes, MPI_BYTE, peer, tag, w->mail, &l->request);
	letter_append(&w->out, l);
}

int world_all_sent(struct world *w, void *unused)
{
	(void)unused;
	for (const struct letter *l = w->out; l; l = l->next)
		if (!w->peers[l->peer].lost) /* a frozen rank takes nothing, for ever */
			return 0;
	return 1;
}

/* Bytes that a message of this tag has; -1: any number, 0 excluded; -2: no such tag. */
static int expected_bytes(int tag)
{
	switch (tag) {
	case TAG_BEAT:
		return (int)sizeof(struct beat);
	case TAG_PULL:
		return (int)sizeof(struct work_request);
	case TAG_WORK:
		return (int)sizeof(struct work_answer);
	case TAG_SAMPLED:
	case TAG_SCORED:
	case TAG_GIFT:
	case TAG_TOLD:
		return -1;
	case TAG_LOSS: return (int)sizeof(struct loss_notice);
	case TAG_DONE: return (int)sizeof(struct done_notice);
	case TAG_OVER: return (int)sizeof(struct over_notice);
	case TAG_END: return (int)sizeof(struct end_notice);
	case TAG_STOP: return (int)sizeof(struct stop_notice);
	case TAG_BYE:
		return 0;
	default:
		return -2;
	}
}

static void deliver(struct world *w, struct letter *l)
{
	if (w->peers[l->peer].lost)
		return; /* its part is with others now, even if it has woken up */
	world_seen(w, l->peer);
	w->taken_in++;
	switch (l->tag) {
	case TAG_BEAT:
		world_take_beat(w, l->peer, &l->small.beat);
		break;
	case TAG_PULL:
		world_take_pull(w, l->peer, &l->small.request);
		break;
	case TAG_WORK:
		world_take_work(w, l->peer, &l->small.answer);
		break;
	case TAG_SAMPLED:
		world_take_group(w, l->peer, STAGE_SAMPLED, letter_data(l), (size_t)l->bytes);
		break;
	case TAG_SCORED:
		world_take_group(w, l->peer, STAGE_SCORED, letter_data(l), (size_t)l->bytes);
		break;
	case TAG_STOP: world_take_stop(w, l->peer, &l->small.stop); break;
	case TAG_BYE:
		w->peers[l->peer].bye++;
		break;
	case TAG_LOSS: world_take_loss(w, l->peer, &l->small.loss); break;
	case TAG_DONE: world_take_done(w, l->peer, &l->small.done); break;
	case TAG_OVER: world_take_over(w, l->peer, &l->small.over); break;
	case TAG_END: world_take_end(w, l->peer, &l->small.end);
	case TAG_GIFT: world_take_gift(w, l->peer, letter_data(l), (size_t)l->bytes); break;
	case TAG_TOLD: world_take_told(w, l->peer, letter_data(l), (size_t)l->bytes); break;
	default: /* expected_bytes has let no other through */
		break;
	}
}

/* Starts to take in one message; 0 if none is there. */
static int accept_one(struct world *w)
{
	int bytes = 0;
	MPI_Message message;
	MPI_Status status;
	if (!world_improbe(w, &message, &status))
		return 0;
	world_check(w, MPI_Get_count(&status, MPI_BYTE, &bytes), "MPI_Get_count");
	int expected = expected_bytes(status.MPI_TAG);
	if (bytes < 0 || (expected == -1 ? bytes == 0 : bytes != expected)) {
		char who[128];
		world_peer_text(w, status.MPI_SOURCE, who, sizeof who);
		favor_die("%s sent a message of kind %d with %d bytes, which can't be; do all ranks run the same favor?", who,
		          status.MPI_TAG, bytes);
	}
	struct letter *l = letter_new(w, status.MPI_SOURCE, status.MPI_TAG, bytes);
	if (expected == -1)
		l->large = favor_malloc((size_t)bytes);
	if (world_imrecv(w, letter_data(l), bytes, l->peer, &message, &l->request))
		letter_recycle(w, l);
	else
		letter_append(&w->in, l);
	return 1;
}

void world_progress(struct world *w)
{
	watch_turn();
	if (w->alone)
		return;
	world_look_for_failures(w);
	while (accept_one(w))
		continue;
	for (struct letter **at = &w->in; *at;) {
		struct letter *l = *at;
		const int whole = world_test(w, &l->request, l->peer);
		if (!whole) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		if (whole > 0)
			deliver(w, l); /* may send an answer, which goes to the other list */
		letter_recycle(w, l);
	}
	for (struct letter **at = &w->out; *at;) {
		struct letter *l = *at;
		if (!world_test(w, &l->request, l->peer)) {
			at = &l->next;
			continue;
		}
		*at = l->next;
		letter_recycle(w, l);
	}
}

static void free_letters(struct letter **list)
{
	while (*list) {
		struct letter *l = *list;
		*list = l->next;
		free(l->large);
		free(l);
	}
}

void world_free_mail(struct world *w)
{
	free_letters(&w->in);
	free_letters(&w->out);
	free_letters(&w->spare);
}
