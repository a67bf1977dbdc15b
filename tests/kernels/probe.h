/* Launchers of probe.cu, and the mistakes that it can make on purpose. */
#ifndef FAVOR_TESTS_KERNELS_PROBE_H
#define FAVOR_TESTS_KERNELS_PROBE_H

#ifdef __cplusplus
extern "C" {
#endif

enum { PROBE_EXCHANGES = 8 };
enum probe_mistake {
	PROBE_NONE,
	PROBE_NO_BARRIER,    /* between writing and reading shared memory */
	PROBE_UNINITIALISED, /* one element of shared memory that nobody writes */
	PROBE_OUT_OF_BOUNDS, /* one element beyond the shared array */
	PROBE_DIVERGENT,     /* one thread leaves before the barrier */
	PROBE_ACROSS_BLOCKS  /* all blocks write one number */
};

/* c[16,8] float32 = a[16,16] b[16,8] bfloat16 */
int probe_product(float *c, const void *a, const void *b, int by_ldmatrix);
/* out[threads][PROBE_EXCHANGES] */
int probe_exchanges(int *out, int threads);
/* Each thread adds 1 to *count, and traps if it was limit or more. */
int probe_count(unsigned *count, unsigned limit, int blocks, int threads);
/* out[8] = in[0..6), 0, 0 by asynchronous copies; without the wait, what shared memory had */
int probe_copies(float *out, const float *in, int wait);
/* out[blocks][64]: out[b][t] = 63 - t */
int probe_neighbours(float *out, int blocks, enum probe_mistake mistake);
/* A launch that asks for so much dynamic shared memory, which it uses, beside an array. opt_in: as launch() does, else not at all. */
int probe_shared(int bytes, int opt_in);
/* A launch of so many blocks; only its code is of interest. */
int probe_grid(unsigned x, unsigned y, unsigned z);
/* out[4] = in[0..4) by one access of 16 bytes */
int probe_wide(float *out, const float *in);

#ifdef __cplusplus
}
#endif

#endif
