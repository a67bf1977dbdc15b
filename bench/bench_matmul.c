/* How fast are the CPU's products? Prints GFLOP/s of linear (after a first call, which packs the weights; its time stands
 * beside it), of its two gradients, and, to compare with, of oneDNN's product with packed weights; then the same for
 * bfloat16 products, where oneDNN gets its left operand rounded beforehand and favor rounds it each time.
 * Usage: bench_matmul [threads] */
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/matmul.h"
#include "onednn.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { ROUNDS = 5, LINEAR = 0, INPUT, WEIGHT, ONEDNN, KINDS };

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void fill(float *to, int64_t n)
{
	for (int64_t i = 0; i < n; i++)
		to[i] = (float)((i * 7919 + i / 13) % 1000) * 2e-3f - 1;
}

static void measure(int threads, enum products products, int64_t m, int64_t n, int64_t k)
{
	struct cpu_state state = {.matmul = matmul_state_new(threads)};
	struct backend b = {.state = &state, .threads = threads, .products = products};
	int64_t total = m * n + m * k + n * k;
	float *memory = favor_malloc((size_t)total * sizeof *memory);
	fill(memory, total);
	struct tensor y = tensor_of(memory, m, n), x = tensor_of(memory + m * n, m, k), w = tensor_of(x.data + m * k, n, k);
	struct onednn_product *onednn = onednn_product_new(m, n, k, x.data, w.data, y.data, products == PRODUCTS_BFLOAT16);
	const int kinds = onednn ? KINDS : ONEDNN;
	double flops = 2.0 * (double)m * (double)n * (double)k, best[KINDS] = {1e9, 1e9, 1e9, 1e9}, start = now();
	cpu_linear(&b, y, x, w, NULL, 0);
	double first = now() - start;
	int repeats = (int)(3e8 / flops) + 1;
	for (int round = 0; round < ROUNDS; round++) {
		for (int kind = 0; kind < kinds; kind++) {
			start = now();
			for (int r = 0; r < repeats; r++) {
				if (kind == LINEAR)
					cpu_linear(&b, y, x, w, NULL, 0);
				else if (kind == INPUT)
					cpu_linear_backward_input(&b, x, y, w, 0);
				else if (kind == WEIGHT)
					cpu_linear_backward_weight(&b, w, NULL, y, x);
				else
					onednn_product_run(onednn);
			}
			double time = (now() - start) / repeats;
			best[kind] = time < best[kind] ? time : best[kind];
			fill(memory, total); /* gradients fed back would grow without bounds */
		}
	}
	printf("M %4d N %5d K %5d %s: linear %6.1f (first call %7.3f ms), backward input %6.1f, weight %6.1f", (int)m, (int)n, (int)k,
	       products == PRODUCTS_FLOAT32 ? "float32" : "bfloat16", 1e-9 * flops / best[LINEAR], 1e3 * first,
	       1e-9 * flops / best[INPUT], 1e-9 * flops / best[WEIGHT]);
	if (onednn)
		printf(", oneDNN %6.1f, linear %3.0f%% of it", 1e-9 * flops / best[ONEDNN], 100 * best[ONEDNN] / best[LINEAR]);
	printf("\n");
	if (onednn)
		onednn_product_destroy(onednn);
	matmul_state_destroy(state.matmul);
	free(memory);
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 1;
	const int shapes[][3] = {{1024, 1024, 1024}, {628, 4096, 512}, {628, 512, 2048}, {628, 768, 512}, {628, 1408, 256},
	                         {628, 256, 704},    {256, 1536, 384}, {256, 384, 1536}, {124, 4096, 512}, {8, 4096, 512},
	                         {8, 512, 512},      {8, 2048, 512},   {8, 8192, 512},   {8, 4096, 4096},  {1, 2048, 512},
	                         {32, 2048, 512}};
	omp_set_num_threads(threads);
	for (int products = PRODUCTS_FLOAT32; products <= PRODUCTS_BFLOAT16; products++)
		for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
			measure(threads, (enum products)products, shapes[i][0], shapes[i][1], shapes[i][2]);
	return 0;
}
