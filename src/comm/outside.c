/* What passes between ranks by other means than MPI: waits for it have the same signs of life and the same deadline. */
#include "comm/internal.h"

struct outside {
	int (*done)(void *arg);
	void *arg;
};

static int is_done(struct world *w, void *arg)
{
	const struct outside *o = arg;
	(void)w;
	return o->done(o->arg);
}

void world_wait_outside(struct world *w, int (*done)(void *arg), void *arg, const char *what, const char *remedy)
{
	struct outside o = {done, arg};
	w->remedy = remedy;
	world_wait(w, is_done, &o, what, -1);
	w->remedy = NULL;
}

int world_announce(struct world *w, int64_t n, uint64_t *version, int *stop)
{
	struct {
		uint64_t version;
		int64_t n, stop;
	} head = {*version, n, *stop};
	if (w->alone)
		return 0;
	world_spread(w, w->team, &head, sizeof head, "wait for the end of the step");
	*version = head.version;
	*stop = (int)head.stop;
	if (w->publish == MPI_COMM_NULL || *stop)
		return 0;
	if (head.n != n)
		favor_die("the leader publishes %lld weights, this rank has room for %lld; do all ranks load the same model?",
		          (long long)head.n, (long long)n);
	return 1;
}
