/* How fast is the CPU's attention? Prints GFLOP/s, counting the scores that are needed (4 D flops each forward, 10 D
 * backward), for training, vision and decoding shapes. Usage: bench_attention [threads] [few] */
#include "backend/cpu/attention.h"
#include "backend/cpu/cpu_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure(const char *name, int threads, const struct segment *segments, int count, int heads, int kv_heads,
                    int depth)
{
	int64_t queries = 0, keys = 0;
	double pairs = 0;
	for (int i = 0; i < count; i++) {
		const struct segment *s = &segments[i];
		int64_t ends[2] = {s->kv_start + s->kv_len, s->prefix_start + s->prefix_len};
		queries = s->q_start + s->q_len > queries ? s->q_start + s->q_len : queries;
		for (int k = 0; k < 2; k++)
			keys = ends[k] > keys ? ends[k] : keys;
		double own = s->causal ? s->kv_len - 0.5 * (s->q_len - 1) : s->kv_len;
		pairs += (double)s->q_len * (s->prefix_len + own);
	}
	int64_t wide = heads * depth, narrow = kv_heads * depth,
	        total = 4 * queries * wide + 4 * keys * narrow + heads * queries;
	float *memory = favor_malloc((size_t)total * sizeof(float)), *at = memory;
	for (int64_t i = 0; i < total; i++)
		memory[i] = (float)((i * 7919 + i / 13) % 1000) * 2e-3f - 1;
	struct tensor q[4], k[4];
	for (int i = 0; i < 4; i++, at += queries * wide)
		q[i] = tensor_of(at, queries, wide);
	for (int i = 0; i < 4; i++, at += keys * narrow)
		k[i] = tensor_of(at, keys, narrow);
	struct cpu_state state = {0};
	struct backend b = {.state = &state, .threads = threads};
	double flops = pairs * heads * depth, best[2] = {1e9, 1e9};
	int repeats = (int)(5e8 / flops) + 1;
	for (int round = 0; round < 7; round++) {
		double start = now();
		for (int r = 0; r < repeats; r++)
			cpu_attention(&b, q[1], at, q[0], k[0], k[1], heads, kv_heads, 0.1f, segments, count);
		double middle = now();
		for (int r = 0; r < repeats; r++)
			cpu_attention_backward(&b, q[2], k[2], k[3], q[3], q[1], at, q[0], k[0], k[1], heads, kv_heads, 0.1f,
			                       segments, count);
		double times[2] = {(middle - start) / repeats, (now() - middle) / repeats};
		for (int i = 0; i < 2; i++)
			best[i] = times[i] < best[i] ? times[i] : best[i];
	}
	printf("%-34s H %2d KH %2d D %3d: forward %6.1f, backward %6.1f GFLOP/s\n", name, heads, kv_heads, depth,
	       4e-9 * flops / best[0], 10e-9 * flops / best[1]);
	free(state.scratch);
	free(memory);
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 1;
	struct segment causal[1] = {{0, 256, 0, 0, 0, 256, 1}}, packed[9] = {{0, 700, 0, 0, 0, 700, 1}};
	struct segment vision[1] = {{0, 1024, 0, 0, 0, 1024, 0}}, decode[8];
	for (int g = 0; g < 8; g++) {
		packed[g + 1] = (struct segment){700 + g * 150, 150, 0, 700, 700 + g * 150, 150, 1};
		decode[g] = (struct segment){g, 1, 0, 700, 700 + g * 150, 100, 1};
	}
	struct segment few[9] = {{0, 124, 0, 0, 0, 124, 1}}, few_decode[8];
	for (int g = 0; g < 8; g++) {
		few[g + 1] = (struct segment){124 + g * 63, 63, 0, 124, 124 + g * 63, 63, 1};
		few_decode[g] = (struct segment){g, 1, 0, 124, 124 + g * 63, 32, 1};
	}
	measure("packed 124 + 8 x 63", threads, few, 9, 4, 2, 64);
	measure("decode 8, prompt 124", threads, few_decode, 8, 4, 2, 64);
	if (argc > 2) /* any further word: these two alone */
		return 0;
	measure("causal 256", threads, causal, 1, 8, 8, 64);
	causal[0] = (struct segment){0, 1024, 0, 0, 0, 1024, 1};
	measure("causal 1024", threads, causal, 1, 8, 8, 64);
	measure("causal 1024", threads, causal, 1, 12, 2, 128);
	measure("causal 1024", threads, causal, 1, 4, 2, 32);
	measure("vision 1024", threads, vision, 1, 8, 8, 64);
	measure("vision 1024", threads, vision, 1, 16, 16, 80);
	measure("packed 700 + 8 x 150", threads, packed, 9, 8, 2, 64);
	measure("decode 8, prompt 700", threads, decode, 8, 8, 2, 64);
	measure("decode 8, prompt 700", threads, decode, 8, 12, 2, 128);
	measure("decode 1, prompt 700", threads, decode, 1, 8, 8, 64);
	return 0;
}
