/* The GRPO loss of one sequence and its gradient with respect to the log-probabilities. Called by the learner between
 * forward and backward; pure. It does two exponentials a token, so all of it can be in double: how a step is cut
 * into micro-batches changes the sums by float64 rounding at most, and the gradient not at all.
 *
 * Equal to TRL 1.16's GRPOTrainer with importance_sampling_level "token" and use_bias_correction_kl False, loss and
 * metrics (tests/learner/test_loss.c). The step's metrics are made of the sums over all learners so:
 *   loss                     loss
 *   kl, entropy              kl / tokens, entropy / tokens
 *   clip_ratio/..._mean      clip_low / tokens, clip_high / tokens, clip_region / tokens
 *   sampling/sampling_logp_difference/mean, max      difference_sum / tokens, difference_max (of the first iteration)
 * tokens being those that are not masked. */
#include "learner/loss.h"

#include <math.h>

/* What a token's loss is multiplied with. `tokens` may be 0 where every sequence of a dapo step is masked. */
static double token_weight(const struct loss_step *s, int n)
{
	switch (s->type) {
	case LOSS_GRPO:
		return 1.0 / ((double)s->sequences * n);
	case LOSS_DR_GRPO:
		return 1.0 / ((double)s->sequences * (double)s->max_tokens);
	case LOSS_DAPO:
		return 1.0 / (double)(s->tokens > 0 ? s->tokens : 1);
	}
	return 0;
}

void loss_sequence(const struct loss_step *s, int n, const float *logp, const float *old, const float *ref,
                   const float *entropy, float advantage, int mask, float *g, struct loss_sums *sums)
{
	sums->sequences += 1;
	if (!mask || n <= 0) { /* its sequence counts in the normaliser, its tokens nowhere */
		for (int t = 0; t < n; t++)
			g[t] = 0;
		return;
	}

	/* policy_loss is weighted like loss: loss = policy_loss + beta * (weighted KL) */
	const double weight = token_weight(s, n), beta = ref ? s->beta : 0, a = advantage;
	const double low = 1 - (double)s->clip_low, high = 1 + (double)s->clip_high;
	double policy_sum = 0, kl_sum = 0;
	for (int t = 0; t < n; t++) {
		/* ratio_t = exp(logp_t - old_t);  policy_t = -min(ratio_t A, clip(ratio_t) A) */
		double difference = (double)logp[t] - (double)old[t], ratio = exp(difference);
		int clip_low = ratio < low && a < 0;
		int clip_high = ratio > high && a > 0;
		/* The clipped term is the smaller one, and is flat, exactly where the ratio has left the region in the
		 * direction that A asks for; elsewhere the minimum is ratio_t A, with d ratio / d logp = ratio. */
		double policy = clip_low ? -low * a : clip_high ? -high * a : -ratio * a;
		double gradient = clip_low || clip_high ? 0 : policy;

		double kl = 0;
		if (ref) { /* kl_t = exp(ref_t - logp_t) - (ref_t - logp_t) - 1;  d kl / d logp = 1 - exp(ref_t - logp_t) */
			double away = (double)ref[t] - (double)logp[t], grown = expm1(away);
			kl = grown - away; /* not exp(x) - x - 1: near 0 that is all cancellation */
			gradient -= beta * grown;
		}
		g[t] = (float)(weight * gradient);

		policy_sum += policy;
		kl_sum += kl;
		sums->clip_low += clip_low;
		sums->clip_high += clip_high;
		sums->clip_region += clip_low || clip_high;
		sums->ratio_max = fmax(sums->ratio_max, ratio);
		sums->difference_sum += fabs(difference);
		sums->difference_max = fmax(sums->difference_max, fabs(difference));
		if (entropy)
			sums->entropy += entropy[t];
	}
	sums->tokens += n;
	sums->policy_loss += weight * policy_sum;
	sums->loss += weight * (policy_sum + beta * kl_sum);
	sums->kl += kl_sum;
}
