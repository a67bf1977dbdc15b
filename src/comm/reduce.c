/* Gradients and weights: the large data of a step.
 *
 * The sum over learners. Learner i owns slice i of the vector (base/slice.h). In blocks of 4 MiB every other learner sends its part
 * of the slice to i, which adds the parts in the order of the learners; then the owners send the finished slices to
 * all.
 *
 *              slice 0   slice 1   slice 2
 *   learner 0    sum <---- x         x          sum of slice 0 = ((x0 + x1) + x2), computed once, by learner 0
 *   learner 1     x       sum        x
 *   learner 2     x        x        sum
 *
 * Each element is summed by one rank, in a fixed order, and copied: all learners hold the same bits, and the bits
 * don't depend on what arrives first. (MPI_Allreduce promises neither.) Each learner sends and receives 2 (L - 1) / L
 * of the vector, as the best algorithms do. */
#include "base/slice.h"
#include "comm/internal.h"

#include <stdlib.h>
#include <string.h>

enum { BLOCK = BLOCK_BYTES / (int)sizeof(float) };

static int block_length(int64_t from, int64_t to)
{
	return to - from < BLOCK ? (int)(to - from) : BLOCK;
}

static int64_t block_count(int64_t from, int64_t to)
{
	return (to - from + BLOCK - 1) / BLOCK;
}

static void wait_received(struct world *w, MPI_Request *request, int peer, int expected)
{
	MPI_Status status;
	int n = -1;
	world_wait_request(w, request, &status, "wait for gradients", peer);
	world_check(w, MPI_Get_count(&status, MPI_FLOAT, &n), "MPI_Get_count");
	if (n != expected)
		favor_die("learner %d sent %d gradients where %d are due; do all learners train the same model?", peer, n,
		          expected);
}

/* Starts to send x[from .. to) in blocks. Returns where the next request goes. */
static MPI_Request *send_slice(struct world *w, const float *x, int64_t from, int64_t to, int peer, enum tag tag,
                               MPI_Request *next)
{
	for (int64_t at = from; at < to; at += BLOCK)
		world_isend(w, x + at, block_length(at, to), MPI_FLOAT, peer, tag, w->learners, next++);
	return next;
}

static void wait_sent(struct world *w, MPI_Request *first, const MPI_Request *end)
{
	for (; first < end; first++)
		world_wait_request(w, first, MPI_STATUS_IGNORE, "wait for gradients to be taken", -1);
}

/* The parts of my slice that others send: block by block, in a block in the order of those who give one: count
 * learners from `first` on, round the circle. A few are under way. */
struct parts {
	int64_t from, to;
	int learners, me;
	int first, count;
	int others; /* that give: count, without me */
	float *ring[BLOCKS_IN_FLIGHT];
	MPI_Request request[BLOCKS_IN_FLIGHT];
	int64_t asked; /* parts that were asked for so far */
};

static int64_t part_block(const struct parts *p, int64_t part)
{
	return p->from + part / p->others * BLOCK;
}

static int giver(const struct parts *p, int k)
{
	return (p->first + k) % p->learners;
}

/* My place among those who give; count or more: I don't. */
static int my_place(const struct parts *p)
{
	return (p->me - p->first + p->learners) % p->learners;
}

static int part_peer(const struct parts *p, int64_t part)
{
	int other = (int)(part % p->others);
	return giver(p, other < my_place(p) ? other : other + 1);
}

static void ask_part(struct world *w, struct parts *p)
{
	int64_t part = p->asked, at = p->others ? part_block(p, part) : p->to;
	if (at >= p->to)
		return;
	int64_t slot = part % BLOCKS_IN_FLIGHT;
	world_irecv(w, p->ring[slot], block_length(at, p->to), MPI_FLOAT, part_peer(p, part), TAG_SLICE, w->learners,
	            &p->request[slot]);
	p->asked++;
}

static void add(float *restrict sum, const float *restrict x, int n)
{
	for (int i = 0; i < n; i++)
		sum[i] += x[i];
}

/* to[from .. to) = the givers' x, added in their order; with `more` what is in `to` comes first. to may be x. */
static void sum_slice(struct world *w, float *to, const float *x, int more, struct parts *p)
{
	float *sum = favor_malloc(BLOCK_BYTES);
	for (int i = 0; i < BLOCKS_IN_FLIGHT; i++) {
		p->ring[i] = favor_malloc(BLOCK_BYTES);
		p->request[i] = MPI_REQUEST_NULL;
	}
	for (int i = 0; i < BLOCKS_IN_FLIGHT; i++)
		ask_part(w, p);
	int64_t part = 0;
	for (int64_t at = p->from; at < p->to; at += BLOCK) {
		int n = block_length(at, p->to), begun = more;
		if (more)
			memcpy(sum, to + at, (size_t)n * sizeof *sum);
		for (int k = 0; k < p->count; k++) {
			const float *x_k = x + at;
			int64_t slot = part % BLOCKS_IN_FLIGHT;
			if (giver(p, k) != p->me) {
				wait_received(w, &p->request[slot], giver(p, k), n);
				x_k = p->ring[slot];
			}
			if (begun)
				add(sum, x_k, n);
			else
				memcpy(sum, x_k, (size_t)n * sizeof *sum);
			begun = 1;
			if (giver(p, k) != p->me) {
				part++;
				ask_part(w, p); /* into the slot that is free now */
			}
		}
		memcpy(to + at, sum, (size_t)n * sizeof *sum);
	}
	for (int i = 0; i < BLOCKS_IN_FLIGHT; i++)
		free(p->ring[i]);
	free(sum);
}

/* Every slice from its owner to all. */
static void gather_slices(struct world *w, float *x, int64_t n, int learners, int me, MPI_Request *requests)
{
	MPI_Request *next = requests;
	for (int i = 0; i < learners; i++) {
		int64_t to = slice_start(n, learners, i + 1);
		for (int64_t at = slice_start(n, learners, i); at < to && i != me; at += BLOCK)
			world_irecv(w, x + at, block_length(at, to), MPI_FLOAT, i, TAG_WHOLE, w->learners, next++);
	}
	MPI_Request *received = next;
	for (int i = 0; i < learners; i++)
		if (i != me)
			next = send_slice(w, x, slice_start(n, learners, me), slice_start(n, learners, me + 1), i, TAG_WHOLE, next);
	MPI_Request *request = requests;
	for (int i = 0; i < learners; i++) {
		int64_t to = slice_start(n, learners, i + 1);
		for (int64_t at = slice_start(n, learners, i); at < to && i != me; at += BLOCK)
			wait_received(w, request++, i, block_length(at, to));
	}
	wait_sent(w, received, next);
}

static void check_learner(const struct world *w)
{
	if (!world_plays(w, ROLE_LEARNER))
		favor_die("only learners sum over learners");
}

static struct parts parts_of(int64_t n, int learners, int me, int first, int count)
{
	struct parts p = {.from = slice_start(n, learners, me), .to = slice_start(n, learners, me + 1),
	                  .learners = learners, .me = me, .first = first, .count = count};
	p.others = my_place(&p) < count ? count - 1 : count;
	return p;
}

/* Blocks of all slices together. */
static int64_t all_blocks(int64_t n, int learners)
{
	int64_t blocks = 0;
	for (int i = 0; i < learners; i++)
		blocks += block_count(slice_start(n, learners, i), slice_start(n, learners, i + 1));
	return blocks;
}

/* x of `count` learners from `first` on is added to my slice of `to` (more), or replaces it. */
static void sum_parts(struct world *w, float *to, const float *x, int64_t n, int more, int first, int count)
{
	int learners = w->learner_count, me = w->rank;
	struct parts p = parts_of(n, learners, me, first, count);
	MPI_Request *requests = favor_malloc((size_t)all_blocks(n, learners) * sizeof(MPI_Request)), *next = requests;
	for (int k = 1; k < learners && my_place(&p) < count; k++) {
		int peer = (me + k) % learners; /* each begins with another one */
		next = send_slice(w, x, slice_start(n, learners, peer), slice_start(n, learners, peer + 1), peer, TAG_SLICE,
		                  next);
	}
	sum_slice(w, to, x, more, &p);
	wait_sent(w, requests, next); /* what they were sent from is written to next */
	free(requests);
}

/* Every learner's slice of x to all. */
static void share(struct world *w, float *x, int64_t n)
{
	int learners = w->learner_count, me = w->rank;
	/* at most all of it received and my slice sent to each */
	int64_t own = block_count(slice_start(n, learners, me), slice_start(n, learners, me + 1));
	MPI_Request *requests =
	    favor_malloc((size_t)(all_blocks(n, learners) + own * (learners - 1)) * sizeof(MPI_Request));
	gather_slices(w, x, n, learners, me, requests);
	free(requests);
}

void world_sum_slices(struct world *w, float *x, int64_t n)
{
	check_learner(w);
	if (w->learner_count > 1 && n > 0)
		sum_parts(w, x, x, n, 0, 0, w->learner_count);
}

void world_sum_gradients(struct world *w, float *x, int64_t n)
{
	world_sum_slices(w, x, n);
	world_share_slices(w, x, n);
}

void world_add_in_order(struct world *w, float *sum, const float *x, int64_t n, int first, int count)
{
	check_learner(w);
	if (first < 0 || first >= w->learner_count || count < 0 || count > w->learner_count)
		favor_die("world_add_in_order: %d learners from %d on, of %d", count, first, w->learner_count);
	if (n > 0 && count > 0)
		sum_parts(w, sum, x, n, 1, first, count);
}

void world_share_slices(struct world *w, float *x, int64_t n)
{
	check_learner(w);
	if (w->learner_count > 1 && n > 0)
		share(w, x, n);
}

void world_bring(struct world *w, float *x, int64_t n, int from, const char *taken, const char *brought)
{
	check_learner(w);
	if (from == LEADER || (w->rank != LEADER && w->rank != from))
		return;
	for (int64_t at = 0; at < n; at += BLOCK) { /* one at a time: the leader sets the pace */
		MPI_Request request;
		const int count = block_length(at, n);
		if (w->rank == from) {
			world_isend(w, x + at, count, MPI_FLOAT, LEADER, TAG_WHOLE, w->learners, &request);
			world_wait_request(w, &request, MPI_STATUS_IGNORE, taken, LEADER);
		} else {
			MPI_Status status;
			int got = -1;
			world_irecv(w, x + at, count, MPI_FLOAT, from, TAG_WHOLE, w->learners, &request);
			world_wait_request(w, &request, &status, brought, from);
			world_check(w, MPI_Get_count(&status, MPI_FLOAT, &got), "MPI_Get_count");
			if (got != count)
				favor_die("learner %d sent %d numbers where %d are due", from, got, count);
		}
	}
}

void world_sum_learners(struct world *w, double *x, int n)
{
	check_learner(w);
	world_combine(w, w->learners, x, n, 0, "wait for the sum over learners");
}

void world_max_learners(struct world *w, double *x, int n)
{
	check_learner(w);
	world_combine(w, w->learners, x, n, 1, "wait for the maximum over learners");
}

void world_publish(struct world *w, float *weights, int64_t n, uint64_t *version, int *stop)
{
	static const char what[] = "wait for the leader's weights";
	if (!world_announce(w, n, version, stop))
		return;
	if (w->survives)
		world_star_publish(w, weights, (size_t)n * sizeof *weights, what);
	else
		world_spread(w, w->publish, weights, (size_t)n * sizeof *weights, what);
}
