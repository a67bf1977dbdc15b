/* Group-relative advantages (GRPO, arXiv 2402.03300, section 4.1.2; as TRL computes them). */
#ifndef FAVOR_LEARNER_ADVANTAGE_H
#define FAVOR_LEARNER_ADVANTAGE_H

#include "base/config.h"

/* A_i = (r_i - mean) / (std + 1e-4), std with Bessel's correction; SCALE_NONE: A_i = r_i - mean. Returns std. */
#define ADVANTAGE_EPS 1e-4f
float advantage_group(const float *reward, int n, enum scale_rewards scale, float *advantage);

#endif
