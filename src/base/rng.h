/* Counter-based random numbers: Philox4x32-10 (Salmon et al., SC 2011). A draw is a function of what it is for (seed,
 * domain, index, response, position) and never of the rank, the batch or the time, so that any placement samples the
 * same. */
#ifndef FAVOR_BASE_RNG_H
#define FAVOR_BASE_RNG_H

#include <stdint.h>

/* Domains keep draws for different purposes apart. */
enum rng_domain {
	RNG_SAMPLE = 1, /* sampling of response tokens in training: index = group index, response, position */
	RNG_EVAL = 2,   /* the same in eval and generate: index = record index */
	RNG_ORDER = 3,  /* order of the data: index = epoch, position = i of the shuffle */
	RNG_SHOTS = 4,  /* few-shot selection: index = class */
	RNG_INIT = 5,   /* random initial weights: index = tensor, position = element */
	RNG_SYNTH = 6,  /* synthetic images: index = image, position = draw */
	RNG_AUGMENT = 7 /* image augmentation: index = epoch, response = record, position = draw */
};

/* Four 32-bit words for one counter. */
void rng_words(uint64_t seed, enum rng_domain domain, uint64_t index, uint32_t response, uint32_t position,
               uint32_t words[4]);
/* Uniform in [0, 1) with 53 bits. */
double rng_uniform(uint64_t seed, enum rng_domain domain, uint64_t index, uint32_t response, uint32_t position);
/* Standard normal (Box-Muller on one counter). */
double rng_normal(uint64_t seed, enum rng_domain domain, uint64_t index, uint32_t response, uint32_t position);

/* order[0..n) = a permutation of 0..n-1 (Fisher-Yates), a function of (seed, domain, index). */
void rng_permutation(uint64_t seed, enum rng_domain domain, uint64_t index, uint32_t n, uint32_t *order);

#endif
