/* The world with real ranks: test_world auto | colocate | ROLLOUT REWARD LEARNER, under mpirun or alone. What passes
 * between ranks is counted and summed; sums use small integers, so that they are exact in any order. A rank whose
 * check fails ends the job. */
#include "base/slice.h"
#include "comm/world.h"

#include "base/stop.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>
#include <mpi.h>

static void nap(double seconds)
{
	struct timespec t = {(time_t)seconds, (long)((seconds - (double)(time_t)seconds) * 1e9)};
	nanosleep(&t, NULL);
}

static double cpu_seconds(void)
{
	struct timespec t;
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int learners(const struct world *w)
{
	return world_role_count(w, ROLE_LEARNER);
}

static int has_rollout(const struct world *w)
{
	return world_role_count(w, ROLE_ROLLOUT) > 0;
}

static void alone_without_mpi(void **state)
{
	struct world *w = *state;
	int used = 0;
	MPI_Initialized(&used);
	assert_int_equal(used, getenv("OMPI_COMM_WORLD_SIZE") != NULL);
	assert_true(world_rank(w) >= 0 && world_rank(w) < world_size(w));
	assert_true(strlen(world_host(w)) > 0);
	assert_int_equal(world_is_leader(w), world_rank(w) == 0);
}

/* Every rank has a role; indices of a role are 0 .. count - 1, each once. */
static void roles(void **state)
{
	struct world *w = *state;
	const enum role all[] = {ROLE_ROLLOUT, ROLE_REWARD, ROLE_LEARNER};
	int played = 0;
	for (int i = 0; i < 3; i++) {
		int count = world_role_count(w, all[i]), index = world_role_index(w, all[i]);
		double seen[8] = {0};
		assert_true(count <= 8);
		assert_int_equal(world_plays(w, all[i]), index >= 0);
		if (index >= 0) {
			assert_true(index < count);
			seen[index] = 1;
			played++;
			assert_true(world_threads(w, all[i]) >= 1);
		}
		world_sum_all(w, seen, 8);
		for (int k = 0; k < 8; k++)
			assert_true(seen[k] == (k < count ? 1 : 0));
	}
	assert_true(played == 1 || played == 3);
	/* the ranks of a role that compute at once share the node's cores */
	double threads[3] = {0};
	for (int i = 0; i < 3; i++)
		threads[i] = world_plays(w, all[i]) ? world_threads(w, all[i]) : 0;
	world_sum_all(w, threads, 3);
	for (int i = 0; i < 3; i++) {
		int count = world_role_count(w, all[i]);
		long cores = sysconf(_SC_NPROCESSORS_ONLN);
		assert_true(threads[i] <= (double)(cores > count ? cores : count));
	}
	if (world_is_leader(w))
		assert_int_equal(world_role_index(w, ROLE_LEARNER), 0);
	char *text = world_placement_text(w);
	assert_true(strlen(text) > 5);
	free(text);
}

static void agree(void **state)
{
	struct world *w = *state;
	int n = world_size(w), rank = world_rank(w);
	struct favor_error e = {0};
	assert_int_equal(world_agree(w, 1, &e), 0);
	for (int first = 0; first < n; first++) {
		/* rank `first` and all above fail: the message of `first` is everywhere */
		char expected[64];
		e.message[0] = 0;
		if (rank >= first)
			favor_fail(&e, "rank %d can't open x.jsonl", rank);
		assert_int_equal(world_agree(w, rank < first, &e), -1);
		snprintf(expected, sizeof expected, "rank %d can't open x.jsonl", first);
		assert_string_equal(e.message, expected);
	}
	assert_int_equal(world_agree(w, rank != n - 1, NULL), -1);
	assert_int_equal(world_agree(w, 1, NULL), 0);
}

static void broadcast(void **state)
{
	struct world *w = *state;
	const size_t sizes[] = {0, 1, 4097, (size_t)4 << 20, ((size_t)17 << 20) + 13};
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		void *data = NULL;
		size_t n = 0;
		if (world_rank(w) == 0) {
			n = sizes[s];
			data = malloc(n ? n : 1);
			for (size_t i = 0; i < n; i++)
				((unsigned char *)data)[i] = (unsigned char)(i * 31 + (i >> 12));
		}
		world_broadcast(w, &data, &n);
		assert_int_equal(n, sizes[s]);
		size_t wrong = 0;
		for (size_t i = 0; i < n; i++)
			wrong += ((unsigned char *)data)[i] != (unsigned char)(i * 31 + (i >> 12));
		assert_int_equal(wrong, 0);
		free(data);
	}
}

static void few_numbers(void **state)
{
	struct world *w = *state;
	int n = world_size(w), rank = world_rank(w);
	double x[3] = {rank, 1, -rank}, y[3] = {rank, -5 - rank, 0.5}, z[1] = {1.0 / (3 + rank)};
	world_sum_all(w, x, 3);
	assert_true(x[0] == n * (n - 1) / 2 && x[1] == n && x[2] == -n * (n - 1) / 2);
	world_max_all(w, y, 3);
	assert_true(y[0] == n - 1 && y[1] == -5 && y[2] == 0.5);
	/* one that rounds: the order is that of the ranks */
	double expected = 1.0 / 3;
	for (int r = 1; r < n; r++)
		expected += 1.0 / (3 + r);
	world_sum_all(w, z, 1);
	assert_true(z[0] == expected);
	world_sum_all(w, NULL, 0);
	if (!world_plays(w, ROLE_LEARNER))
		return;
	int l = learners(w), me = world_role_index(w, ROLE_LEARNER);
	double sum[2] = {me, 1}, most[1] = {me};
	world_sum_learners(w, sum, 2);
	assert_true(sum[0] == l * (l - 1) / 2 && sum[1] == l);
	world_max_learners(w, most, 1);
	assert_true(most[0] == l - 1);
}

static void gather(void **state)
{
	struct world *w = *state;
	enum { N = 70000 };
	int n = world_size(w), rank = world_rank(w), wrong = 0;
	int32_t *mine = malloc(N * sizeof *mine), *all = malloc((size_t)n * N * sizeof *all);
	for (int i = 0; i < N; i++)
		mine[i] = rank * 1000003 + i;
	world_gather(w, mine, N * sizeof *mine, all);
	for (int r = 0; r < n; r++)
		for (int i = 0; i < N; i++)
			wrong += all[(size_t)r * N + (size_t)i] != r * 1000003 + i;
	assert_int_equal(wrong, 0);
	world_gather(w, mine, 0, all);
	free(mine);
	free(all);
}

/* Rank 0 with each other rank in turn; both learn the same. */
static void ping(void **state)
{
	struct world *w = *state;
	for (int r = 1; r < world_size(w); r++) {
		struct world_pair p = {0};
		double sums[3] = {0};
		if (world_rank(w) == 0 || world_rank(w) == r) {
			assert_int_equal(world_ping(w, world_rank(w) ? 0 : r, 0.05, 10, &p), 0);
			assert_true(p.latency > 0 && p.latency < 1);
			assert_true(p.bandwidth > 1e5 && p.bandwidth < 1e12);
			assert_true(p.clock > -0.1 && p.clock < 0.1); /* one host, one clock */
			sums[0] = p.latency;
			sums[1] = p.bandwidth;
			sums[2] = p.clock;
		}
		double most[3] = {sums[0], sums[1], sums[2]};
		world_sum_all(w, sums, 3);
		world_max_all(w, most, 2);
		assert_true(sums[0] == 2 * most[0] && sums[1] == 2 * most[1]);
	}
	char version[64];
	int cores[4];
	world_mpi_version(version, sizeof version);
	assert_true(strlen(version) > 5);
	assert_true(world_cores(w, cores, 4) >= 1);
	assert_string_equal(world_host_of(w, world_rank(w)), world_host(w));
	assert_true(strlen(world_role_of(w, 0)) > 3);
}

/* Part of learner `me` of element i; the small integers sum exactly. */
static float part(int64_t i, int me)
{
	return (float)((i % 1013) * (me + 1) - 7 * me);
}

static void gradients_exact(void **state)
{
	struct world *w = *state;
	const int64_t sizes[] = {0, 1, 2, 3, 7, 101, 4099, 1048575, 1048576, 1048577, 5242957, 13631489};
	int l = learners(w), me = world_role_index(w, ROLE_LEARNER);
	if (me < 0)
		return;
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		int64_t n = sizes[s], wrong = 0;
		float *x = malloc((size_t)n * sizeof *x + 1);
		for (int64_t i = 0; i < n; i++)
			x[i] = part(i, me);
		world_sum_gradients(w, x, n);
		for (int64_t i = 0; i < n; i++) {
			float expected = 0;
			for (int r = 0; r < l; r++)
				expected += part(i, r);
			wrong += x[i] != expected;
		}
		assert_int_equal(wrong, 0);
		free(x);
	}
}

/* Slices cover [0, n) once, whatever n and the number of learners, are of whole parts, and parts are of one length but for
 * rounding. */
static void slices(void **state)
{
	(void)state;
	const int64_t sizes[] = {0, 1, 15, 16, 4099, 1048577, 2209000000, INT64_MAX / 512};
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		const int64_t n = sizes[s];
		assert_true(slice_part(n, 0) == 0 && slice_part(n, SLICE_PARTS) == n);
		for (int i = 0; i < SLICE_PARTS; i++) {
			const int64_t length = slice_part(n, i + 1) - slice_part(n, i);
			assert_true(length >= 0 && slice_part(n, i) % SLICE_ALIGN == 0);
			assert_true(length <= n / SLICE_PARTS + 2 * SLICE_ALIGN && length >= n / SLICE_PARTS - 2 * SLICE_ALIGN);
		}
		for (int l = 1; l <= 300; l++) {
			assert_true(slice_start(n, l, 0) == 0 && slice_start(n, l, l) == n);
			for (int i = 0, p = 0; i <= l; i++) { /* whole parts */
				while (slice_part(n, p) < slice_start(n, l, i))
					p++;
				assert_true(slice_part(n, p) == slice_start(n, l, i));
			}
		}
	}
}

/* The halves of a sum: each learner's slice has the bits of the whole sum, and the rest is as it was; then all slices come to
 * all; and to the leader alone, as a checkpoint wants them. */
static void sum_in_slices(void **state)
{
	struct world *w = *state;
	enum { N = 3 * (1 << 20) + 21 };
	const int l = learners(w), me = world_role_index(w, ROLE_LEARNER);
	if (me < 0)
		return;
	float *x = malloc(N * sizeof *x), *whole = malloc(N * sizeof *whole);
	for (int i = 0; i < N; i++)
		x[i] = whole[i] = 1.0f / (float)(1 + i % 977 + 3 * me);
	world_sum_gradients(w, whole, N);
	world_sum_slices(w, x, N);
	const int64_t from = slice_start(N, l, me), to = slice_start(N, l, me + 1);
	int64_t wrong = 0;
	for (int i = 0; i < N; i++)
		wrong += x[i] != (i >= from && i < to ? whole[i] : 1.0f / (float)(1 + i % 977 + 3 * me));
	assert_int_equal(wrong, 0);
	for (int k = 0; k < l; k++) {
		const int64_t at = slice_start(N, l, k), n = slice_start(N, l, k + 1) - at;
		nap(0.01 * ((me + k) % l));
		world_bring(w, x + at, n, k, "wait for the leader to take a slice", "wait for a learner's slice");
		assert_true(me != 0 || !memcmp(x + at, whole + at, (size_t)n * sizeof *x));
		assert_true(me == 0 || k == me || n == 0 || l == 1 || x[at] == 1.0f / (float)(1 + at % 977 + 3 * me));
	}
	world_share_slices(w, x, N);
	assert_memory_equal(x, whole, N * sizeof *x);
	free(x);
	free(whole);
}

/* Parts that round: all learners must hold the bits of ((x0 + x1) + x2) ..., at uneven speeds too. */
static void gradients_same_bits(void **state)
{
	struct world *w = *state;
	enum { N = 3 * (1 << 20) + 5 };
	int l = learners(w), me = world_role_index(w, ROLE_LEARNER);
	if (me < 0)
		return;
	float *x = malloc(N * sizeof *x);
	for (int round = 0; round < 2; round++) {
		int64_t wrong = 0;
		for (int i = 0; i < N; i++)
			x[i] = 1.0f / (float)(1 + i % 977 + 3 * me);
		nap(0.02 * ((me + round) % l));
		world_sum_gradients(w, x, N);
		for (int i = 0; i < N; i++) {
			float expected = 1.0f / (float)(1 + i % 977);
			for (int r = 1; r < l; r++)
				expected += 1.0f / (float)(1 + i % 977 + 3 * r);
			wrong += memcmp(&x[i], &expected, sizeof expected) != 0;
		}
		assert_int_equal(wrong, 0);
	}
	free(x);
}

/* A group as a function of its index alone; large ones among them (beyond any eager limit). */
static struct group *make_group(uint64_t index, int64_t step)
{
	int32_t g = 2 + (int32_t)(index % 3), tokens = index % 5 == 0 ? 60000 : 10 + (int32_t)(index % 17);
	struct group *group = group_new(g, tokens);
	group->index = index;
	group->step = step;
	group->record = (uint32_t)(index * 7);
	group->policy_version = (uint64_t)step;
	for (int32_t i = 1; i <= g; i++)
		group->start[i] = (int32_t)((int64_t)tokens * i / g);
	for (int32_t i = 0; i < tokens; i++) {
		group->token_ids[i] = (int32_t)((index * 31 + (uint64_t)i) % 1000);
		group->logp[i] = -1.0f / (float)(1 + group->token_ids[i]);
		group->sampling_logp[i] = group->logp[i] * 0.5f;
	}
	for (int32_t i = 0; i < g; i++)
		group->text[i] = favor_format("response %d of %llu", i, (unsigned long long)index);
	return group;
}

static void score_group(struct group *g)
{
	group_set_rewards(g, 2);
	for (int32_t i = 0; i < g->responses; i++) {
		g->rewards[i] = (float)(g->index % 2);
		g->rewards[g->responses + i] = (float)(i % 2);
		g->reward[i] = g->rewards[i] + g->rewards[g->responses + i];
		g->answer[i] = favor_strdup("running");
	}
}

struct step {
	int64_t step;
	uint64_t first, count;
	double *made;    /* [count]: how often this rank has made it */
	int64_t learned; /* groups that came to this learner */
	uint64_t digest;
};

static void learn(struct world *w, struct step *s, struct group *g)
{
	int l = learners(w);
	assert_true(g->index >= s->first && g->index < s->first + s->count);
	assert_int_equal(g->index % (uint64_t)l, world_role_index(w, ROLE_LEARNER));
	assert_int_equal(g->step, s->step);
	assert_int_equal(g->reward_count, 2);
	s->learned++;
	s->digest += group_digest(g);
	group_destroy(g);
}

/* The loop of a rank that plays one or all roles. */
static void run_step(struct world *w, struct step *s)
{
	uint64_t index;
	int64_t scored = 0, to_learn = world_expected(w, STAGE_SCORED, s->first, s->count);
	struct group *g;
	if (world_is_leader(w))
		world_offer(w, s->step, s->first, s->count, 1);
	while (world_plays(w, ROLE_ROLLOUT) && world_pull(w, s->step, &index) == 0) {
		assert_true(index >= s->first && index < s->first + s->count);
		s->made[index - s->first]++;
		world_phase(w, "rollout", s->step, (int64_t)index);
		nap(0.001 * (double)((uint64_t)(world_rank(w) * 3) + index % 4)); /* uneven speeds */
		world_tick(w);
		world_push(w, STAGE_SAMPLED, make_group(index, s->step));
		if (world_plays(w, ROLE_REWARD)) {
			g = world_take(w, STAGE_SAMPLED);
			assert_int_equal(g->index, index);
			score_group(g);
			world_push(w, STAGE_SCORED, g);
		}
		while ((g = world_try(w, STAGE_SCORED))) {
			learn(w, s, g);
			to_learn--;
		}
	}
	int64_t to_score = world_plays(w, ROLE_ROLLOUT) ? 0 : world_expected(w, STAGE_SAMPLED, s->first, s->count);
	for (; scored < to_score; scored++) {
		g = world_take(w, STAGE_SAMPLED);
		assert_int_equal(g->index % (uint64_t)world_role_count(w, ROLE_REWARD), world_role_index(w, ROLE_REWARD));
		score_group(g);
		world_push(w, STAGE_SCORED, g);
	}
	for (; to_learn > 0; to_learn--)
		learn(w, s, world_take(w, STAGE_SCORED));
	assert_int_equal(to_learn, 0);
}

/* Each index is made once, and the digest of all is that of groups made here, so it is the same for every number of
 * ranks. */
static void check_step(struct world *w, const struct step *s)
{
	world_sum_all(w, s->made, (int)s->count);
	for (uint64_t i = 0; i < s->count; i++)
		assert_true(s->made[i] == 1);
	double half[3] = {(double)(s->digest & 0xffffffff), (double)(s->digest >> 32), (double)s->learned};
	world_sum_all(w, half, 3);
	uint64_t digest = (uint64_t)half[0] + ((uint64_t)half[1] << 32), expected = 0;
	for (uint64_t i = 0; i < s->count; i++) {
		struct group *g = make_group(s->first + i, s->step);
		score_group(g);
		expected += group_digest(g);
		group_destroy(g);
	}
	assert_true(half[2] == (double)s->count);
	assert_true(digest == expected);
}

static void steps(void **state)
{
	struct world *w = *state;
	const uint64_t counts[] = {0, 1, 7, 32, 5};
	uint64_t first = 1000;
	float *weights = malloc(3000001 * sizeof *weights);
	if (!has_rollout(w)) {
		free(weights);
		return;
	}
	for (int64_t k = 0; k < 5; k++) {
		struct step s = {.step = k, .first = first, .count = counts[k], .made = calloc(32, sizeof(double))};
		run_step(w, &s);
		/* the next step's pulls begin right after publishing: no barrier but that */
		int is_leader = world_is_leader(w), stop = is_leader ? k == 4 : 7;
		uint64_t version = is_leader ? (uint64_t)k + 1 : 0;
		for (int i = 0; i < 3000001; i++)
			weights[i] = is_leader ? (float)(i % 7001) + (float)k : -1;
		world_publish(w, weights, 3000001, &version, &stop);
		assert_int_equal(version, k + 1);
		assert_int_equal(stop, k == 4);
		/* a step that was given up (stop) has no weights */
		int receives = world_plays(w, ROLE_ROLLOUT) && !world_plays(w, ROLE_LEARNER) && !stop, wrong = 0;
		for (int i = 0; i < 3000001; i++)
			wrong += weights[i] != (is_leader || receives ? (float)(i % 7001) + (float)k : -1);
		assert_int_equal(wrong, 0);
		check_step(w, &s);
		free(s.made);
		first += counts[k];
	}
	free(weights);
}

/* Items 0 .. count - 1 of which item i is learner (first + i) % learners': their sum is that of one process that adds them
 * one after the other, to the bit. */
static void add_in_order(void **state)
{
	enum { N = 100003 };
	struct world *w = *state;
	const int L = learners(w), me = world_role_index(w, ROLE_LEARNER);
	if (me < 0)
		return;
	float *x = malloc(N * sizeof *x), *sum = malloc(N * sizeof *sum), *expected = calloc(N, sizeof *expected);
	for (int count = 0; count < 2 * L + 2; count++) {
		const int first = count % L;
		memset(sum, 0, N * sizeof *sum);
		memset(expected, 0, N * sizeof *expected);
		for (int at = 0; at < count; at += L) {
			for (int k = at; k < count && k < at + L; k++) {
				for (int i = 0; i < N; i++) {
					const float value = 1.0f / (float)(1 + (i * 31 + k * 17) % 1009);
					expected[i] += value;
					if ((first + k) % L == me)
						x[i] = value;
				}
			}
			world_add_in_order(w, sum, x, N, first, count - at < L ? count - at : L);
			memset(x, 0xff, N * sizeof *x); /* it was taken */
		}
		world_share_slices(w, sum, N);
		assert_memory_equal(sum, expected, N * sizeof *sum);
	}
	free(x);
	free(sum);
	free(expected);
}

/* Shares of all owners add up, for ranges that begin anywhere. */
static void expected_counts(void **state)
{
	struct world *w = *state;
	for (uint64_t first = 0; first < 9; first++) {
		for (uint64_t count = 0; count < 11; count++) {
			int64_t mine = 0;
			int me = world_role_index(w, ROLE_LEARNER), own = world_role_index(w, ROLE_REWARD);
			for (uint64_t i = first; i < first + count; i++)
				mine += (int)(i % (uint64_t)learners(w)) == me;
			assert_int_equal(world_expected(w, STAGE_SCORED, first, count), mine);
			int64_t sampled = world_expected(w, STAGE_SAMPLED, first, count);
			if (world_plays(w, ROLE_ROLLOUT) && world_plays(w, ROLE_REWARD)) {
				assert_int_equal(sampled, -1);
				continue;
			}
			mine = 0;
			for (uint64_t i = first; i < first + count && own >= 0; i++)
				mine += (int)(i % (uint64_t)world_role_count(w, ROLE_REWARD)) == own;
			assert_int_equal(sampled, mine);
		}
	}
}

/* Pulls for a step that is offered later wait for it. */
static void early_pull(void **state)
{
	struct world *w = *state;
	uint64_t index;
	double pulled = 0;
	if (world_is_leader(w)) {
		nap(0.1);
		world_tick(w);
		world_offer(w, 100, 50, 3, 1);
	}
	while (world_plays(w, ROLE_ROLLOUT) && world_pull(w, 100, &index) == 0)
		pulled += (double)index;
	if (world_plays(w, ROLE_ROLLOUT)) /* a step that is past has nothing left */
		assert_int_equal(world_pull(w, 99, &index), 1);
	world_sum_all(w, &pulled, 1);
	assert_true(pulled == (has_rollout(w) ? 50 + 51 + 52 : 0));
}

/* The answer of world_try_pull when it has come. */
static int pull_without_waiting(struct world *w, int64_t step, uint64_t *position)
{
	int none;
	while ((none = world_try_pull(w, step, position)) == 2)
		nap(0.0005);
	return none;
}

/* Asking ahead: world_try_pull never waits; who asks again before the answer was taken, whether it has come or not, has asked
 * once, so that no group is lost or given twice; the answer is that of the next pull of either kind; when nothing is left,
 * asking finds nothing again. */
static void ask_ahead(void **state)
{
	struct world *w = *state;
	enum { FIRST = 40, COUNT = 29, STEP = 150, UNTOUCHED = 7 };
	const int rolls = world_plays(w, ROLE_ROLLOUT), others = rolls && !world_is_leader(w);
	double made[COUNT] = {0}, sum = 1;
	uint64_t position = UNTOUCHED, before = 0;
	if (!has_rollout(w))
		return;
	if (others) { /* not offered yet */
		world_ask(w, STEP);
		world_ask(w, STEP);
		for (int i = 0; i < 5; i++)
			assert_int_equal(world_try_pull(w, STEP, &position), 2);
		assert_int_equal(position, UNTOUCHED);
	}
	world_sum_all(w, &sum, 1);
	if (world_is_leader(w))
		world_offer(w, STEP, FIRST, COUNT, 1);
	int none = 0;
	for (int turn = 0; rolls && !none; turn++) {
		if (turn % 4 == 1 || turn % 4 == 2) {
			world_ask(w, STEP);
			if (turn % 4 == 2 && others) { /* its answer comes, and stays */
				nap(0.01);
				world_tick(w);
			}
			world_ask(w, STEP);
		}
		none = turn % 2 ? world_pull(w, STEP, &position) : pull_without_waiting(w, STEP, &position);
		assert_true(none == 0 || none == 1);
		if (none)
			break;
		assert_true(position >= FIRST && position < FIRST + COUNT && position > before);
		before = position;
		made[position - FIRST]++;
		nap(0.001);
	}
	for (int i = 0; rolls && i < 2; i++) { /* nothing is left, however often and in whatever way it asks */
		world_ask(w, STEP);
		assert_int_equal(world_pull(w, STEP, &position), 1);
		world_ask(w, STEP);
		assert_int_equal(pull_without_waiting(w, STEP, &position), 1);
		assert_int_equal(pull_without_waiting(w, STEP - 1, &position), 1);
	}
	world_sum_all(w, made, COUNT);
	for (int i = 0; i < COUNT; i++)
		assert_true(made[i] == 1);
}

/* The last rank gets a signal while the others wait for work and groups that never come: all stop waiting, and go on
 * with what they do together. */
static void stop_on_a_signal(void **state)
{
	struct world *w = *state;
	uint64_t index = 0;
	int last = world_rank(w) == world_size(w) - 1;
	assert_int_equal(world_tick(w), 0);
	stop_watch();
	if (last) {
		nap(0.1);
		raise(SIGUSR1);
		raise(SIGTERM); /* the first one counts */
	}
	if (world_plays(w, ROLE_ROLLOUT) && !world_is_leader(w))
		assert_int_equal(world_pull(w, 200, &index), 1);
	if (world_plays(w, ROLE_REWARD))
		assert_null(world_take(w, STAGE_SAMPLED));
	if (world_plays(w, ROLE_LEARNER))
		assert_null(world_take(w, STAGE_SCORED));
	assert_int_equal(world_stopping(w), SIGUSR1);
	assert_int_equal(world_tick(w), SIGUSR1);
	if (world_plays(w, ROLE_ROLLOUT)) { /* nothing is asked for any more, and what was has no answer */
		world_ask(w, 200);
		assert_int_equal(world_try_pull(w, 200, &index), 1);
		assert_int_equal(world_pull(w, 200, &index), 1);
	}
	double one = 1;
	world_sum_all(w, &one, 1);
	assert_true(one == world_size(w));
	assert_int_equal(world_leader_says(w, world_is_leader(w) ? 77 : -1), 77);
	stop_unwatch();
}

/* Ranks that wait 2 s for rank 0 sleep. */
static void waiting_sleeps(void **state)
{
	struct world *w = *state;
	double one = 1, cpu = cpu_seconds();
	world_idle_seconds(w);
	if (world_rank(w) == 0)
		for (int i = 0; i < 40; i++) {
			nap(0.05);
			world_tick(w);
		}
	world_sum_all(w, &one, 1);
	assert_true(one == world_size(w));
	cpu = cpu_seconds() - cpu;
	double idle = world_idle_seconds(w);
	if (world_rank(w) > 0) {
		if (cpu >= 0.1)
			print_message("rank %d used %.3f s\n", world_rank(w), cpu);
		assert_true(cpu < 0.1);
		assert_true(idle > 1.5 && idle < 10);
	}
}

/* Bad placements are refused before anything is exchanged; the world stays usable. */
static int refuses(struct world *w)
{
	int n = world_size(w);
	const struct placement_options bad[] = {
		{PLACEMENT_COUNTS, n, 1, 1}, {PLACEMENT_COUNTS, 0, 0, n - 1}, {PLACEMENT_COUNTS, -1, 1, n},
		{PLACEMENT_COUNTS, 1, 0, n - 1}, {PLACEMENT_COUNTS, 0, 1, n - 1}};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct favor_error e = {0};
		if (world_assign(w, &bad[i], 20, &e) != -1 || !strstr(e.message, "placement"))
			return 0;
	}
	struct favor_error e = {0};
	const struct placement_options good = {.mode = PLACEMENT_AUTO};
	return world_assign(w, &good, 0, &e) == -1 && strstr(e.message, "run.deadline");
}

int main(int argc, char **argv)
{
	struct world *w = world_open(&argc, &argv);
	struct placement_options p = {.mode = PLACEMENT_AUTO};
	struct favor_error e = {0};
	if (argc == 4)
		p = (struct placement_options){PLACEMENT_COUNTS, atoi(argv[1]), atoi(argv[2]), atoi(argv[3])};
	else if (argc == 2 && strcmp(argv[1], "colocate") == 0)
		p.mode = PLACEMENT_COLOCATE;
	if (!refuses(w) || world_assign(w, &p, 20, &e)) {
		fprintf(stderr, "world_assign: %s\n", e.message);
		world_abort(w, 1);
	}
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test_prestate(alone_without_mpi, w),
	    cmocka_unit_test_prestate(roles, w),
	    cmocka_unit_test_prestate(agree, w),
	    cmocka_unit_test_prestate(broadcast, w),
	    cmocka_unit_test_prestate(gather, w),
	    cmocka_unit_test_prestate(ping, w),
	    cmocka_unit_test_prestate(few_numbers, w),
	    cmocka_unit_test_prestate(slices, w), cmocka_unit_test_prestate(gradients_exact, w),
	    cmocka_unit_test_prestate(sum_in_slices, w),
	    cmocka_unit_test_prestate(gradients_same_bits, w), cmocka_unit_test_prestate(add_in_order, w),
	    cmocka_unit_test_prestate(expected_counts, w),
	    cmocka_unit_test_prestate(steps, w),
	    cmocka_unit_test_prestate(early_pull, w),
	    cmocka_unit_test_prestate(ask_ahead, w),
	    cmocka_unit_test_prestate(waiting_sleeps, w),
	    cmocka_unit_test_prestate(stop_on_a_signal, w),
	};
	if (cmocka_run_group_tests(tests, NULL, NULL))
		world_abort(w, 1);
	world_close(w);
	return 0;
}
