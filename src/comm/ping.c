/* Latency, bandwidth and clocks between two ranks.
 *
 *   lower                      higher
 *     ---- ping {0 bytes} ---->           many times: latency, clocks
 *     <--- ping {clock} -------
 *     ---- ping {n bytes}, load ->        n grows while there is time: bandwidth
 *     <--- ping ----------------
 *     ---- ping {over, result} ->
 *
 * The lower rank leads, so that both agree on when it is over. Waiting spins for a moment, since a nap would be longer
 * than what is measured, and then sleeps. */
#include "comm/internal.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LATENCY_ROUNDS = 200, LOAD_FIRST = 64 << 10, LOAD_MOST = 4 << 20 };
static const double SPIN_SECONDS = 0.002;
static const double PAUSE = 0.25; /* a turn that took longer: this process did not run */

struct ping {
	int64_t bytes; /* of the load that follows */
	int64_t over;
	double clock;
	struct world_pair result;
};

static double real_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* 0 when it is complete, -1 when patience is over. */
static int complete(struct world *w, int peer, MPI_Request *request, double patience)
{
	const double start = clock_seconds();
	double last = start, waited = 0;
	while (!world_test(w, request, peer)) {
		const double now = clock_seconds();
		waited += now - last < PAUSE ? now - last : PAUSE;
		last = now;
		if (waited > patience)
			return -1;
		if (now - start < SPIN_SECONDS) {
			sched_yield();
		} else {
			world_tick(w);
			nanosleep(&(struct timespec){0, 100000}, NULL);
		}
	}
	return 0;
}

/* A buffer that an operation may still use when patience is over is left to it. */
static int send_wait(struct world *w, int peer, enum tag tag, const void *data, int bytes, double patience)
{
	MPI_Request request = MPI_REQUEST_NULL;
	world_isend(w, data, bytes, MPI_BYTE, peer, tag, w->team, &request);
	return complete(w, peer, &request, patience);
}

static int receive_wait(struct world *w, int peer, enum tag tag, void *data, int bytes, double patience)
{
	MPI_Request request = MPI_REQUEST_NULL;
	world_irecv(w, data, bytes, MPI_BYTE, peer, tag, w->team, &request);
	return complete(w, peer, &request, patience);
}

struct buffers {
	struct ping out, in;
	unsigned char load[LOAD_MOST];
};

/* One exchange by the lower rank; *took: seconds of the round trip. */
static int exchange(struct world *w, int peer, struct buffers *b, int64_t bytes, double patience, double *took)
{
	const double start = clock_seconds();
	b->out = (struct ping){.bytes = bytes};
	if (send_wait(w, peer, TAG_PING, &b->out, (int)sizeof b->out, patience) ||
	    (bytes && send_wait(w, peer, TAG_LOAD, b->load, (int)bytes, patience)) ||
	    receive_wait(w, peer, TAG_PING, &b->in, (int)sizeof b->in, patience))
		return -1;
	*took = clock_seconds() - start;
	return 0;
}

static int lead(struct world *w, int peer, struct buffers *b, double seconds, double patience, struct world_pair *p)
{
	double shortest = 0, took, start = clock_seconds();
	*p = (struct world_pair){0};
	/* the first opens the connection, and the other may come late: not measured */
	if (exchange(w, peer, b, 0, patience, &took))
		return -1;
	start = clock_seconds();
	for (int i = 0; i < LATENCY_ROUNDS && (i < 2 || clock_seconds() - start < seconds / 3); i++) {
		const double before = real_seconds();
		if (exchange(w, peer, b, 0, patience, &took))
			return -1;
		const double after = real_seconds();
		if (i == 0 || took < shortest) {
			shortest = took;
			p->clock = b->in.clock - (before + after) / 2;
		}
	}
	p->latency = shortest / 2;
	double left = seconds - (clock_seconds() - start);
	for (int64_t bytes = LOAD_FIRST, i = 0;; i++) {
		if (exchange(w, peer, b, bytes, patience, &took))
			return -1;
		const double net = took - shortest > took / 10 ? took - shortest : took / 10;
		if ((double)bytes / net > p->bandwidth)
			p->bandwidth = (double)bytes / net;
		left -= took;
		if (bytes < LOAD_MOST && 8 * took < left)
			bytes *= 4;
		else if (took > left || i >= 40)
			break;
	}
	b->out = (struct ping){.over = 1, .result = *p};
	return send_wait(w, peer, TAG_PING, &b->out, (int)sizeof b->out, patience);
}

static int follow(struct world *w, int peer, struct buffers *b, double patience, struct world_pair *p)
{
	for (;;) {
		if (receive_wait(w, peer, TAG_PING, &b->in, (int)sizeof b->in, patience))
			return -1;
		if (b->in.over) {
			*p = b->in.result;
			return 0;
		}
		if (b->in.bytes < 0 || b->in.bytes > LOAD_MOST)
			favor_die("rank %d sends a load of %lld bytes, which can't be; do all ranks run the same favor?", peer,
			          (long long)b->in.bytes);
		if (b->in.bytes && receive_wait(w, peer, TAG_LOAD, b->load, (int)b->in.bytes, patience))
			return -1;
		b->out = (struct ping){.clock = real_seconds()};
		if (send_wait(w, peer, TAG_PING, &b->out, (int)sizeof b->out, patience))
			return -1;
	}
}

int world_ping(struct world *w, int peer, double seconds, double patience, struct world_pair *p)
{
	if (w->alone || peer == w->rank || peer < 0 || peer >= w->size)
		favor_die("rank %d can't measure the way to rank %d", w->rank, peer);
	struct buffers *b = favor_calloc(1, sizeof *b);
	memset(b->load, 1, sizeof b->load); /* pages that were never written are all one, and too fast */
	int rc = w->rank < peer ? lead(w, peer, b, seconds, patience, p) : follow(w, peer, b, patience, p);
	if (rc == 0)
		free(b);
	return rc;
}
