/* What all ranks (or all of a team) do together with little data: agree, broadcast, sums and maxima of a few numbers.
 * Only nonblocking collectives, completed under world_wait, so that each has a deadline. */
#include "comm/internal.h"

#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void world_combine(struct world *w, MPI_Comm comm, double *x, int n, int maximum, const char *what)
{
	if (w->alone || n == 0)
		return;
	if (w->survives && comm == w->team) {
		world_star_combine(w, x, n, maximum, what);
		return;
	}
	int members = 0;
	MPI_Request request = MPI_REQUEST_NULL;
	world_check(w, MPI_Comm_size(comm, &members), "MPI_Comm_size");
	/* Everybody gets everybody's numbers and combines them in rank order: no algorithm of the library's choice
	 * decides the bits. */
	double *all = favor_malloc((size_t)members * (size_t)n * sizeof *all);
	world_iallgather(w, x, all, n, MPI_DOUBLE, comm, &request);
	world_wait_request(w, &request, MPI_STATUS_IGNORE, what, -1);
	for (int i = 0; i < n; i++) {
		double value = all[i];
		for (int r = 1; r < members; r++) {
			double next = all[(size_t)r * (size_t)n + (size_t)i];
			if (!maximum)
				value += next;
			else if (isnan(next) || next > value) /* a NaN stays to be seen */
				value = next;
		}
		x[i] = value;
	}
	free(all);
}

void world_sum_all(struct world *w, double *x, int n)
{
	world_combine(w, w->team, x, n, 0, "wait for the sum over all ranks");
}

void world_max_all(struct world *w, double *x, int n)
{
	world_combine(w, w->team, x, n, 1, "wait for the maximum over all ranks");
}

void world_pass_blocks(struct world *w, MPI_Comm comm, void *data, size_t bytes,
                       void (*start)(struct world *w, MPI_Comm comm, void *data, int bytes, MPI_Request *request),
                       const char *what, int peer)
{
	MPI_Request flight[BLOCKS_IN_FLIGHT];
	const size_t blocks = world_block_count(bytes);
	for (size_t b = 0; b < blocks + BLOCKS_IN_FLIGHT; b++) {
		MPI_Request *r = &flight[b % BLOCKS_IN_FLIGHT];
		if (b >= BLOCKS_IN_FLIGHT && b - BLOCKS_IN_FLIGHT < blocks)
			world_wait_request(w, r, MPI_STATUS_IGNORE, what, peer);
		if (b < blocks)
			start(w, comm, (char *)data + b * BLOCK_BYTES, world_block_bytes(bytes, b), r);
	}
}

static void spread_block(struct world *w, MPI_Comm comm, void *data, int bytes, MPI_Request *request)
{
	world_ibcast(w, data, bytes, 0, comm, request);
}

void world_spread(struct world *w, MPI_Comm comm, void *data, size_t bytes, const char *what)
{
	if (w->alone)
		return;
	if (w->survives && comm == w->team)
		world_star_tell(w, data, bytes, what);
	else
		world_pass_blocks(w, comm, data, bytes, spread_block, what, -1);
}

void world_broadcast(struct world *w, void **data, size_t *n)
{
	static const char what[] = "wait for data from rank 0";
	if (w->alone)
		return;
	uint64_t bytes = *n;
	world_spread(w, w->team, &bytes, sizeof bytes, what);
	if (w->rank != 0) {
		*n = (size_t)bytes;
		*data = favor_malloc(*n);
	}
	world_spread(w, w->team, *data, *n, what);
}

int64_t world_leader_says(struct world *w, int64_t x)
{
	world_spread(w, w->team, &x, sizeof x, "wait for the leader's word");
	return x;
}

void world_gather(struct world *w, const void *mine, size_t n, void *all)
{
	static const char what[] = "wait for what all ranks say";
	memcpy(all, mine, w->alone ? n : 0);
	if (w->alone || n == 0)
		return;
	if (w->survives) {
		world_star_gather(w, mine, n, all, what);
		return;
	}
	if (n > INT_MAX)
		favor_die("%zu bytes of each rank are too many to be gathered", n);
	MPI_Request request = MPI_REQUEST_NULL;
	world_iallgather(w, mine, all, (int)n, MPI_BYTE, w->team, &request);
	world_wait_request(w, &request, MPI_STATUS_IGNORE, what, -1);
}

int world_agree(struct world *w, int ok, struct favor_error *e)
{
	static const char what[] = "wait for all ranks to agree";
	if (w->alone)
		return ok ? 0 : -1;
	if (w->survives)
		return world_star_agree(w, ok, e, what);
	/* the lowest rank that failed; as a maximum of negatives, since that is what there is */
	double lowest = ok ? -(double)w->size : -(double)w->rank;
	world_combine(w, w->team, &lowest, 1, 1, what);
	int failed = (int)-lowest;
	if (failed == w->size)
		return 0;
	char message[FAVOR_ERROR_MAX] = "";
	if (failed == w->rank)
		snprintf(message, sizeof message, "%s", e && e->message[0] ? e->message : "failed without a message");
	MPI_Request request = MPI_REQUEST_NULL;
	world_ibcast(w, message, (int)sizeof message, failed, w->team, &request);
	world_wait_request(w, &request, MPI_STATUS_IGNORE, what, failed);
	message[sizeof message - 1] = 0;
	return favor_fail(e, "%s", message);
}
