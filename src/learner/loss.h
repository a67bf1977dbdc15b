/* The GRPO loss on per-token log-probabilities, and its gradient. Host arrays; pure.
 *   ratio_t = exp(logp_t - old_t)
 *   policy_t = -min(ratio_t A, clip(ratio_t, 1 - clip_low, 1 + clip_high) A)
 *   kl_t = exp(ref_t - logp_t) - (ref_t - logp_t) - 1                         (k3)
 *   loss = sum_t weight_t (policy_t + beta kl_t), weight_t by type:
 *     grpo     1 / (sequences in the step * length of the sequence)
 *     dr_grpo  1 / (sequences in the step * max_tokens)
 *     dapo     1 / tokens in the step
 * The normalisers are of the whole step (all learners, all micro-batches): invariant 3. A masked sequence's tokens have
 * weight 0 and are not counted in dapo's tokens, but its sequence counts (as in TRL's mask_truncated_completions). */
#ifndef FAVOR_LEARNER_LOSS_H
#define FAVOR_LEARNER_LOSS_H

#include "base/config.h"

#include <stdint.h>

struct loss_step { /* the same on all learners */
	enum loss_type type;
	float clip_low, clip_high, beta;
	int64_t sequences, tokens, max_tokens;
};

struct loss_sums { /* added up over sequences, micro-batches, learners (all double: one allreduce) */
	double loss, policy_loss, kl, entropy; /* loss: with its weights; kl, entropy: plain sums over tokens */
	double clip_low, clip_high,
	    clip_region;  /* tokens: ratio < 1 - clip_low and A < 0 | ratio > 1 + clip_high and A > 0 | either */
	double ratio_max; /* maximum, not sum */
	double tokens, sequences;
	double difference_sum,
	    difference_max; /* |logp - old|: the rollout's logp; of the first iteration, one forward should make it 0 */
};

/* One sequence of n tokens. ref may be NULL (beta 0). mask 0: whole sequence adds no loss. Writes dL/dlogp to g[n];
 * adds to sums (entropy may be NULL). */
void loss_sequence(const struct loss_step *s, int n, const float *logp, const float *old, const float *ref,
                   const float *entropy, float advantage, int mask, float *g, struct loss_sums *sums);

#endif
