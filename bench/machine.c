/* Peaks by plain loops over vector types, so that the same code is AVX-512, AVX2 or what the machine has. The best of
 * some short runs counts: a peak is what nothing has disturbed. */
#include "machine.h"

#include "base/clock.h"
#include "base/error.h"

#if defined __AVX512BF16__
#include <immintrin.h>
#endif
#include <stdlib.h>
#include <string.h>

#if defined __AVX512F__
enum { LANES = 16 };
#elif defined __AVX__
enum { LANES = 8 };
#else
enum { LANES = 4 };
#endif
typedef float lanes __attribute__((vector_size(LANES * sizeof(float))));

enum { CHAINS = 12 }; /* more than latency x units of any core (4 x 2), fewer than its registers */
enum { RUNS = 9 };
static const double RUN_SECONDS = 0.02;

int machine_lanes(void)
{
	return LANES;
}

static float sum_of(lanes x)
{
	float sum = 0;
	for (int i = 0; i < LANES; i++)
		sum += x[i];
	return sum;
}

/* 2 * CHAINS * LANES operations a round. The factor comes from outside, so that nothing is folded. */
static float multiply_add(int64_t rounds, float factor)
{
	lanes x[CHAINS], a, b, sum = {0};
	for (int i = 0; i < LANES; i++) {
		a[i] = factor;
		b[i] = 1 - factor;
	}
	for (int i = 0; i < CHAINS; i++)
		x[i] = a + (float)i;
	for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 12
		for (int i = 0; i < CHAINS; i++)
			x[i] = x[i] * a + b;
	for (int i = 0; i < CHAINS; i++)
		sum += x[i];
	return sum_of(sum);
}

#if defined __AVX512BF16__
/* 4 * CHAINS * LANES operations a round: a lane adds two products. */
static float multiply_add_pairs(int64_t rounds, float factor)
{
	__m512 x[CHAINS];
	lanes sum = {0};
	const __m512bh a = _mm512_cvtne2ps_pbh(_mm512_set1_ps(factor), _mm512_set1_ps(factor));
	for (int i = 0; i < CHAINS; i++)
		x[i] = _mm512_set1_ps((float)i);
	for (int64_t r = 0; r < rounds; r++)
#pragma GCC unroll 12
		for (int i = 0; i < CHAINS; i++)
			x[i] = _mm512_dpbf16_ps(x[i], a, a);
	for (int i = 0; i < CHAINS; i++)
		sum += (lanes)x[i];
	return sum_of(sum);
}
#else
static float multiply_add_pairs(int64_t rounds, float factor)
{
	return multiply_add(rounds, factor);
}
#endif

/* `bytes` is a multiple of CHAINS vectors. */
static float read_block(const float *block, int64_t bytes, int64_t rounds)
{
	enum { STEP = CHAINS * LANES };
	lanes x[CHAINS] = {{0}}, sum = {0};
	const int64_t n = bytes / (int64_t)sizeof *block;
	for (int64_t r = 0; r < rounds; r++)
		for (int64_t at = 0; at < n; at += STEP)
#pragma GCC unroll 12
			for (int i = 0; i < CHAINS; i++) {
				lanes v;
				memcpy(&v, block + at + i * LANES, sizeof v);
				x[i] += v;
			}
	for (int i = 0; i < CHAINS; i++)
		sum += x[i];
	return sum_of(sum);
}

/* Results of the loops go here, so that they are needed. */
static void keep(float x)
{
	__asm__ volatile("" : : "m"(x));
}

int machine_has_pairs(void)
{
#if defined __AVX512BF16__
	return 1;
#else
	return 0;
#endif
}

double machine_flops(int threads, int pairs)
{
	const double operations = 2.0 * CHAINS * LANES * (pairs && machine_has_pairs() ? 2 : 1); /* a round */
	volatile float factor = 0.9f;
	double best = 0;
	int64_t rounds = 1 << 12;
	for (int run = 0; run < RUNS;) {
		const double begin = clock_seconds();
#pragma omp parallel num_threads(threads)
		keep(pairs ? multiply_add_pairs(rounds, factor) : multiply_add(rounds, factor));
		const double seconds = clock_seconds() - begin;
		if (seconds < RUN_SECONDS) {
			rounds *= 2;
			continue;
		}
		const double rate = operations * (double)rounds * threads / seconds;
		best = rate > best ? rate : best;
		run++;
	}
	return best;
}

double machine_read_bandwidth(int threads, int64_t bytes)
{
	const int64_t grain = CHAINS * LANES * (int64_t)sizeof(float);
	const int64_t share = (bytes / threads + grain - 1) / grain * grain; /* of a thread */
	float **blocks = favor_calloc((size_t)threads, sizeof *blocks);
	double best = 0;
	int64_t rounds = 1;
#pragma omp parallel for num_threads(threads) schedule(static, 1)
	for (int i = 0; i < threads; i++) { /* each touches its own first: memory near its core */
		blocks[i] = aligned_alloc(64, (size_t)share);
		if (!blocks[i])
			favor_die("out of memory: measuring the bandwidth needs %lld bytes a thread", (long long)share);
		memset(blocks[i], 0, (size_t)share);
	}
	for (int run = 0; run < RUNS;) {
		const double begin = clock_seconds();
#pragma omp parallel for num_threads(threads) schedule(static, 1)
		for (int i = 0; i < threads; i++)
			keep(read_block(blocks[i], share, rounds));
		const double seconds = clock_seconds() - begin;
		if (seconds < RUN_SECONDS) {
			rounds *= 2;
			continue;
		}
		const double rate = (double)share * threads * (double)rounds / seconds;
		best = rate > best ? rate : best;
		run++;
	}
	for (int i = 0; i < threads; i++)
		free(blocks[i]);
	free(blocks);
	return best;
}
