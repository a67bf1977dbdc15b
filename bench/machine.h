/* What the machine can do at most: what bench/roofline.c measures everything else against. */
#ifndef FAVOR_BENCH_MACHINE_H
#define FAVOR_BENCH_MACHINE_H

#include <stdint.h>

/* Floats in a vector of this build: 16 with AVX-512, 8 with AVX, else 4. */
int machine_lanes(void);
/* Whether this build has an instruction for pairs of bfloat16. */
int machine_has_pairs(void);
/* Most operations a second that `threads` threads reach together with multiply-adds in registers: of float32, or of pairs of
 * bfloat16 that are added to a float32; without an instruction for them as of float32. */
double machine_flops(int threads, int pairs);
/* Most bytes a second that `threads` threads read together out of a block of that size, again and again: small blocks
 * stay in caches, large ones come from memory. */
double machine_read_bandwidth(int threads, int64_t bytes);

#endif
