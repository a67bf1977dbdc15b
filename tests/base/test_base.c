/* What every room stands on: errors, the arena, random numbers (published vectors of Philox4x32-10), hashes (published
 * vectors of FNV-1a). */
#include "base/arena.h"
#include "base/error.h"
#include "base/fault.h"
#include "base/hash.h"
#include "base/rng.h"
#include "base/stop.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "../apart.h"
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static void test_fail(void **state)
{
	(void)state;
	struct favor_error e = {""};
	assert_int_equal(favor_fail(&e, "line %d is bad", 3), -1);
	assert_string_equal(e.message, "line 3 is bad");
	assert_int_equal(favor_fail_prefix(&e, "%s", "x.csv"), -1);
	assert_string_equal(e.message, "x.csv: line 3 is bad");
	assert_int_equal(favor_fail(NULL, "nobody listens"), -1);
	assert_int_equal(favor_fail_prefix(NULL, "nobody listens"), -1);
	/* cut, never overrun */
	char *big = favor_malloc(3 * FAVOR_ERROR_MAX);
	memset(big, 'x', 3 * FAVOR_ERROR_MAX - 1);
	big[3 * FAVOR_ERROR_MAX - 1] = '\0';
	favor_fail(&e, "%s", big);
	assert_int_equal(strlen(e.message), FAVOR_ERROR_MAX - 1);
	favor_fail_prefix(&e, "%s", "place");
	assert_int_equal(strlen(e.message), FAVOR_ERROR_MAX - 1);
	assert_memory_equal(e.message, "place: xxx", 10);
	favor_fail_prefix(&e, "%s", big);
	assert_int_equal(strlen(e.message), FAVOR_ERROR_MAX - 1);
	char *copy = favor_format("%s!", big);
	assert_int_equal(strlen(copy), 3 * FAVOR_ERROR_MAX);
	free(copy);
	free(big);
}

static void leave_with_7(int code)
{
	_exit(code == 1 ? 7 : 8);
}

static void die(void *abort_job)
{
	*favor_process() = (struct favor_process){.rank = 3, .ranks = 4, .role = "learner", .phase = "backward", .step = 17,
	                                           .sample = 5, .abort_job = *(void (**)(int))abort_job};
	favor_die("the %s broke", "thing");
}

/* Runs favor_die in a child; its exit code and what it wrote to stderr. */
static int die_in_child(void (*abort_job)(int), char *said, size_t n)
{
	const int status = run_apart(die, &abort_job, said, n);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void test_die(void **state)
{
	(void)state;
	char said[4096];
	assert_int_equal(die_in_child(NULL, said, sizeof said), 1);
	assert_non_null(strstr(said, "favor: rank 3 (learner) on "));
	assert_non_null(strstr(said, ", phase backward, step 17, sample 5: the thing broke\n"));
	assert_int_equal(die_in_child(leave_with_7, said, sizeof said), 7);
}

/* In a child: FAVOR_FAULT as given, then three passages of "work" in steps 4 and 5. The exit code is that of the fault;
 * 50: none happened; 60: not understood. */
static int faults_in_child(const char *variable)
{
	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		struct favor_error e = {""};
		setenv("FAVOR_FAULT", variable, 1);
		favor_process()->rank = 3;
		if (fault_read(&e))
			_exit(strstr(e.message, variable) ? 60 : 61);
		for (int step = 4; step <= 5; step++)
			for (int i = 0; i < 3; i++) {
				fault_point("idle", step);
				fault_point("work", step);
			}
		_exit(50);
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_faults(void **state)
{
	(void)state;
	static const struct {
		const char *variable;
		int code;
	} cases[] = {
	    {"", 50},
	    {"work:3:4:exit", 7},
	    {"work:3:4:exit:9", 9},
	    {"work@3:3:4:exit:9,work@2:3:4:exit:8", 8},
	    {"work@4:3:4:exit", 50},
	    {"work@4:3:*:exit", 7},
	    {"work:*:5:exit:11,work:*:4:exit:12", 12},
	    {"work:2:*:exit", 50},
	    {"play:3:*:exit", 50},
	    {"work:3:4:kill", -SIGKILL},
	    {"work:3:4:abort", -SIGABRT},
	    {"work:3:4:signal:10", -SIGUSR1},
	    {"work:3:4:signal", 60},
	    {"work:3:4:signal:99", 60},
	    {"work:3:4:sleep:0,work:3:5:exit", 7},
	    {"work:3:4:oom:2", 1}, /* nothing stops it */
	    {"work", 60},
	    {"work:3:4", 60},
	    {"work:3:4:jump", 60},
	    {"work:x:4:kill", 60},
	    {"work:3:4x:kill", 60},
	    {"work@0:3:4:kill", 60},
	    {":3:4:kill", 60},
	    {"work:3:4:kill:1", 60},
	    {"work:3:4:sleep:-1", 60},
	    {"work:3:4:enospc", 60},
	    {"work:3:4:exit,", 60},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int code = faults_in_child(cases[i].variable);
		if (code != cases[i].code)
			fail_msg("FAVOR_FAULT=%s: %d instead of %d", cases[i].variable, code, cases[i].code);
	}
}

/* In a child: stop_watch, the signals one after the other. Exit code: the signal that is noted; or minus the signal
 * that ended it. */
static int signals_in_child(int count, const int *signals)
{
	fflush(NULL);
	pid_t child = fork();
	assert_true(child >= 0);
	if (child == 0) {
		for (int i = 0; i < count; i++)
			signal(signals[i], SIG_DFL); /* whoever started this test may ignore some (nohup: SIGHUP) */
		stop_watch();
		if (stop_signal())
			_exit(99);
		for (int i = 0; i < count; i++)
			raise(signals[i]);
		_exit(stop_signal());
	}
	int status;
	assert_int_equal(waitpid(child, &status, 0), child);
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static void test_stop(void **state)
{
	(void)state;
	assert_int_equal(signals_in_child(0, NULL), 0);
	assert_int_equal(signals_in_child(1, (int[]){SIGTERM}), SIGTERM);
	assert_int_equal(signals_in_child(4, (int[]){SIGUSR1, SIGTERM, SIGTERM, SIGINT}), SIGUSR1);
	assert_int_equal(signals_in_child(2, (int[]){SIGUSR2, SIGUSR1}), SIGUSR2);
	assert_int_equal(signals_in_child(1, (int[]){SIGINT}), SIGINT);
	assert_int_equal(signals_in_child(2, (int[]){SIGINT, SIGINT}), -SIGINT);
	assert_int_equal(signals_in_child(1, (int[]){SIGHUP}), -SIGHUP);
	assert_string_equal(stop_name(SIGUSR1), "SIGUSR1");
}

static void test_arena(void **state)
{
	(void)state;
	struct arena a;
	arena_init(&a);
	struct arena_mark start = arena_mark(&a);
	char *first = arena_alloc(&a, 1), *second = arena_alloc(&a, 0), *third = arena_alloc(&a, 65);
	assert_int_equal((uintptr_t)first % 64, 0);
	assert_ptr_equal(second, first + 64);
	assert_ptr_equal(third, second + 64);
	assert_int_equal(a.peak, 64 + 64 + 128);

	/* a mark inside a chunk, left over a chunk's end and come back to */
	struct arena_mark middle = arena_mark(&a);
	char *big = arena_alloc(&a, 3 << 20);
	memset(big, 1, 3 << 20);
	char *after = arena_alloc(&a, 1 << 20);
	memset(after, 2, 1 << 20);
	assert_true(after >= big + (3 << 20) || after + (1 << 20) <= big);
	size_t peak = a.peak;
	assert_int_equal(peak, 256 + (3 << 20) + (1 << 20));
	arena_reset(&a, middle);
	assert_ptr_equal(arena_alloc(&a, 64), third + 128);

	/* the second round finds the chunks of the first one: the same addresses, and no higher peak */
	arena_reset(&a, middle);
	assert_ptr_equal(arena_alloc(&a, 3 << 20), big);
	assert_ptr_equal(arena_alloc(&a, 1 << 20), after);
	assert_int_equal(a.peak, peak);

	/* another order of sizes must not overlap either */
	arena_reset(&a, start);
	enum { BLOCKS = 40 };
	unsigned char *blocks[BLOCKS];
	size_t sizes[BLOCKS];
	for (int i = 0; i < BLOCKS; i++) {
		sizes[i] = (size_t)(rng_uniform(1, RNG_INIT, 0, 0, (uint32_t)i) * (2 << 20));
		blocks[i] = arena_alloc(&a, sizes[i]);
		assert_int_equal((uintptr_t)blocks[i] % 64, 0);
		memset(blocks[i], i, sizes[i]);
	}
	for (int i = 0; i < BLOCKS; i++)
		for (size_t k = 0; k < sizes[i]; k += 4093)
			assert_int_equal(blocks[i][k], i);
	arena_free(&a);
	assert_null(a.first);
}

static void test_philox(void **state)
{
	(void)state;
	/* counter words position, response, index low, index high ^ domain << 24; key words of the seed.
	 * Vectors: kat_vectors of Random123, philox4x32 with 10 rounds. */
	static const struct {
		uint64_t seed, index;
		uint32_t response, position, words[4];
	} vectors[] = {
		{0, 0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{UINT64_MAX, UINT64_MAX, UINT32_MAX, UINT32_MAX, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{0x299f31d0a4093822,
	     0x0370734413198a2e,
	     0x85a308d3,
	     0x243f6a88,
	     {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	};
	for (size_t i = 0; i < sizeof vectors / sizeof *vectors; i++) {
		uint32_t words[4];
		/* a domain of 5 with its bits taken out of the index again: the plain counter */
		rng_words(vectors[i].seed, RNG_INIT, vectors[i].index ^ (uint64_t)RNG_INIT << 56, vectors[i].response,
		          vectors[i].position, words);
		assert_memory_equal(words, vectors[i].words, sizeof words);
	}
	/* 53 bits of the first two words */
	double expected = (double)(0x6627e8d5e169c58d >> 11) / 9007199254740992.0;
	assert_true(rng_uniform(0, RNG_INIT, (uint64_t)RNG_INIT << 56, 0, 0) == expected);
}

static void test_distributions(void **state)
{
	(void)state;
	enum { N = 20000 };
	double mean = 0, square = 0, normal_mean = 0, normal_square = 0, least = 1, most = 0;
	for (uint32_t i = 0; i < N; i++) {
		double u = rng_uniform(5, RNG_SAMPLE, 0, 0, i), z = rng_normal(5, RNG_SAMPLE, 1, 0, i);
		least = fmin(least, u);
		most = fmax(most, u);
		mean += u / N;
		square += u * u / N;
		normal_mean += z / N;
		normal_square += z * z / N;
		assert_true(isfinite(z));
	}
	/* five standard errors: 1/sqrt(12 N) = 0.002, 1/sqrt(N) = 0.007, sqrt(2/N) = 0.01 */
	assert_true(least >= 0 && most < 1);
	assert_true(fabs(mean - 0.5) < 0.0103);
	assert_true(fabs(square - mean * mean - 1.0 / 12) < 0.003);
	assert_true(fabs(normal_mean) < 0.036);
	assert_true(fabs(normal_square - 1) < 0.05);
	/* each part of what a draw is for matters */
	double u = rng_uniform(5, RNG_SAMPLE, 7, 2, 3);
	assert_true(u == rng_uniform(5, RNG_SAMPLE, 7, 2, 3));
	assert_true(u != rng_uniform(6, RNG_SAMPLE, 7, 2, 3) && u != rng_uniform(5, RNG_EVAL, 7, 2, 3));
	assert_true(u != rng_uniform(5, RNG_SAMPLE, 8, 2, 3) && u != rng_uniform(5, RNG_SAMPLE, 7, 3, 3));
	assert_true(u != rng_uniform(5, RNG_SAMPLE, 7, 2, 4) && u != rng_uniform(5, RNG_SAMPLE, 7 + (1ull << 32), 2, 3));
}

static void test_permutation(void **state)
{
	(void)state;
	uint32_t order[1000], again[1000], seen[1000] = {0};
	rng_permutation(3, RNG_ORDER, 0, 1000, order);
	int in_place = 0;
	for (uint32_t i = 0; i < 1000; i++) {
		assert_in_range(order[i], 0, 999);
		assert_int_equal(seen[order[i]]++, 0);
		in_place += order[i] == i;
	}
	assert_true(in_place < 10); /* one expected */
	rng_permutation(3, RNG_ORDER, 0, 1000, again);
	assert_memory_equal(order, again, sizeof order);
	rng_permutation(3, RNG_ORDER, 1, 1000, again);
	assert_memory_not_equal(order, again, sizeof order);
	rng_permutation(3, RNG_ORDER, 0, 0, again);
	rng_permutation(3, RNG_ORDER, 0, 1, again);
	assert_int_equal(again[0], 0);
	/* all 6 orders of 3 come about equally often */
	int counts[27] = {0};
	for (uint64_t k = 0; k < 6000; k++) {
		rng_permutation(4, RNG_ORDER, k, 3, order);
		counts[9 * order[0] + 3 * order[1] + order[2]]++;
	}
	for (int i = 0; i < 27; i++)
		assert_true(counts[i] == 0 || (counts[i] > 850 && counts[i] < 1150)); /* 1000 +- 5 * 29 */
}

static void test_hash(void **state)
{
	(void)state;
	assert_true(hash_bytes(HASH_START, "", 0) == 0xcbf29ce484222325);
	assert_true(hash_bytes(HASH_START, "a", 1) == 0xaf63dc4c8601ec8c);
	assert_true(hash_bytes(HASH_START, "foobar", 6) == 0x85944171f73967e8);
	assert_true(hash_mix(0x9e3779b97f4a7c15) == 0xe220a8397b1dcdaf); /* splitmix64, seed 0, first output */
	/* a block hash sees every bit and the order of words, at any alignment */
	unsigned char data[48], copy[64];
	for (int i = 0; i < 48; i++)
		data[i] = (unsigned char)(7 * i);
	uint64_t h = hash_block(HASH_START, data, 45);
	memcpy(copy + 3, data, 45);
	assert_true(hash_block(HASH_START, copy + 3, 45) == h);
	for (int bit = 0; bit < 45 * 8; bit++) {
		data[bit / 8] ^= (unsigned char)(1 << bit % 8);
		assert_true(hash_block(HASH_START, data, 45) != h);
		data[bit / 8] ^= (unsigned char)(1 << bit % 8);
	}
	memcpy(copy, data + 8, 8);
	memcpy(copy + 8, data, 8);
	assert_true(hash_block(HASH_START, copy, 16) != hash_block(HASH_START, data, 16));
	assert_true(hash_block(HASH_START, data, 44) != h);
	/* fed in pieces of whole words it is the same */
	assert_true(hash_block(hash_block(HASH_START, data, 24), data + 24, 21) == h);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_fail),   cmocka_unit_test(test_die),           cmocka_unit_test(test_arena),
	    cmocka_unit_test(test_philox), cmocka_unit_test(test_distributions), cmocka_unit_test(test_permutation),
	    cmocka_unit_test(test_hash),   cmocka_unit_test(test_faults),        cmocka_unit_test(test_stop),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
