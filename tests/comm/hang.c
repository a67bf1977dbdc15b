/* A job that would hang: hang MODE VICTIM. The victim stops in the middle of its work and the others wait for it,
 * each in its own way; test_deadline.sh looks at how the job ends. MODE: sleep (its own watch notices), stop (SIGSTOP:
 * only others can), half (SIGSTOP after half of a large group has gone out), close (SIGSTOP while the others are done), slow (works for longer than the deadline, with ticks: nothing is wrong),
 * deadlock (nobody hangs, all wait). */
#include "comm/world.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static void nap(double seconds)
{
	struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
	nanosleep(&t, NULL);
}

static void fall_ill(struct world *w, const char *mode)
{
	world_phase(w, "decode", 12, 97);
	for (int i = 0; i < 6; i++) { /* until a heartbeat is due */
		nap(0.1);
		world_tick(w);
	}
	if (strcmp(mode, "sleep") == 0)
		pause();
	if (strcmp(mode, "half") == 0) {
		struct group *g = group_new(1, 10000000);
		g->start[1] = 10000000;
		world_push(w, STAGE_SAMPLED, g);
		raise(SIGSTOP);
	}
	if (strcmp(mode, "stop") == 0)
		raise(SIGSTOP);
	for (int i = 0; i < 50; i++) { /* slow: 5 s */
		nap(0.1);
		world_tick(w);
	}
}

static void wait_for_others(struct world *w)
{
	uint64_t index;
	if (world_plays(w, ROLE_LEARNER) && world_role_index(w, ROLE_LEARNER) == 1) {
		float x[100] = {0};
		world_sum_gradients(w, x, 100);
	} else if (world_plays(w, ROLE_LEARNER)) {
		group_destroy(world_take(w, STAGE_SCORED));
	} else if (world_plays(w, ROLE_REWARD)) {
		group_destroy(world_take(w, STAGE_SAMPLED));
	} else {
		world_pull(w, 12, &index);
	}
}

int main(int argc, char **argv)
{
	struct world *w = world_open(&argc, &argv);
	struct placement_options p = {.mode = PLACEMENT_AUTO};
	struct favor_error e = {0};
	if (argc != 3 || world_assign(w, &p, 2, &e)) {
		fprintf(stderr, "hang MODE VICTIM %s\n", e.message);
		world_abort(w, 2);
	}
	double together = 1;
	int slow = strcmp(argv[1], "slow") == 0, close = strcmp(argv[1], "close") == 0;
	if (world_rank(w) == atoi(argv[2]))
		fall_ill(w, close ? "stop" : argv[1]);
	else if (!slow && !close)
		wait_for_others(w);
	if (!close)
		world_sum_all(w, &together, 1);
	world_close(w);
	return 0;
}
