/* How fast are the CPU's products? Prints GFLOP/s of linear (after a first call, which packs the weights where that
 * pays; its time stands beside it), of its two gradients, of the own kernel that stands in where oneDNN has none, and, to
 * compare with, of oneDNN's fastest product with packed weights, whatever it does to rows.
 * Usage: bench_matmul [threads] */
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/matmul.h"
#include "backend/cpu/onednn.h"
#include "backend/cpu/own_product.h"

#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void measure(int threads, int64_t m, int64_t n, int64_t k)
{
	struct cpu_state state = {.matmul = matmul_state_new(threads)};
	struct backend b = {.state = &state, .threads = threads};
	int64_t total = m * n + m * k + n * k;
	float *memory = favor_malloc((size_t)total * sizeof(float));
	for (int64_t i = 0; i < total; i++)
		memory[i] = (float)((i * 7919 + i / 13) % 1000) * 2e-3f - 1;
	struct tensor y = tensor_of(memory, m, n), x = tensor_of(memory + m * n, m, k), w = tensor_of(x.data + m * k, n, k);
	struct own_product own = {.m = m, .n = n, .k = k, .a = (const union own_word *)x.data, .a_row = k, .a_col = 1, .c = y.data, .c_row = n};
	size_t own_bytes = ((size_t)own_packed_words(k, n) * sizeof(union own_word) + 63) / 64 * 64;
	union own_word *panels = aligned_alloc(64, own_bytes);
	if (!panels)
		favor_die("out of memory: the own kernel needs %zu bytes", own_bytes);
	own_pack(panels, w.data, 1, k, k, n, threads);
	own.panels = panels;
	struct onednn *onednn = onednn_new();
	onednn_allow_all(onednn);
	omp_set_num_threads(threads);
	const struct product packed_product = {.m = m, .n = n, .k = k, .a = BY_ROWS, .b = PACKED};
	float *packed = aligned_alloc(64, (onednn_packed_bytes(onednn, n, k) + 63) / 64 * 64);
	if (!packed)
		favor_die("out of memory: oneDNN's packed weights");
	onednn_pack(onednn, packed, w.data, n, k);
	struct onednn_primitive *primitive = onednn_for(onednn, &packed_product);
	double flops = 2.0 * (double)m * (double)n * (double)k, best[5] = {1e9, 1e9, 1e9, 1e9, 1e9}, start = now();
	cpu_linear(&b, y, x, w, NULL, 0);
	double first = now() - start;
	int repeats = (int)(3e8 / flops) + 1;
	for (int round = 0; round < 5; round++) {
		for (int what = 0; what < 5; what++) {
			start = now();
			for (int r = 0; r < repeats; r++) {
				if (what == 0)
					cpu_linear(&b, y, x, w, NULL, 0);
				else if (what == 1)
					cpu_linear_backward_input(&b, x, y, w, 0);
				else if (what == 2)
					cpu_linear_backward_weight(&b, w, NULL, y, x);
				else if (what == 3)
					own_product_run(&own, threads);
				else
					onednn_run(onednn, primitive, x.data, packed, NULL, y.data);
			}
			double time = (now() - start) / repeats;
			best[what] = time < best[what] ? time : best[what];
			for (int64_t i = 0; what < 3 && i < total; i++) /* gradients fed back would grow without bounds */
				memory[i] = (float)((i * 7919 + i / 13) % 1000) * 2e-3f - 1;
		}
	}
	printf(
	    "M %4d N %5d K %5d: linear %6.1f (first call %7.3f ms), backward input %6.1f, weight %6.1f, own kernel %6.1f, "
	    "oneDNN %6.1f\n",
	    (int)m, (int)n, (int)k, 1e-9 * flops / best[0], 1e3 * first, 1e-9 * flops / best[1], 1e-9 * flops / best[2],
	    1e-9 * flops / best[3], 1e-9 * flops / best[4]);
	onednn_destroy(onednn);
	free(packed);
	matmul_state_destroy(state.matmul);
	free(panels);
	free(memory);
}

int main(int argc, char **argv)
{
	int threads = argc > 1 ? atoi(argv[1]) : 1;
	const int shapes[][3] = {{1024, 1024, 1024}, {628, 4096, 512}, {628, 512, 2048}, {628, 768, 512}, {628, 1408, 256},
	                         {628, 256, 704}, {256, 1536, 384}, {256, 384, 1536}, {124, 4096, 512}, {8, 4096, 512}, {8, 512, 512},
	                         {8, 2048, 512},     {8, 8192, 512},   {8, 4096, 4096},  {1, 2048, 512},  {32, 2048, 512}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
		measure(threads, shapes[i][0], shapes[i][1], shapes[i][2]);
	return 0;
}
