/* Learning rate at a step. */
#ifndef FAVOR_LEARNER_SCHEDULE_H
#define FAVOR_LEARNER_SCHEDULE_H

#include "base/config.h"

/* step counts from 0. Warm-up: lr * (step + 1) / warmup for step < warmup; then over the remaining steps constant,
 * linear or half-cosine to lr_end. */
float schedule_lr(const struct learner_options *o, int64_t step);

#endif
