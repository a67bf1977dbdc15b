/* The learning rate of each step. Called by the training loop of both methods; pure. */
#include "learner/schedule.h"

#include <math.h>

float schedule_lr(const struct learner_options *o, int64_t step)
{
	double lr = o->lr, lr_end = o->lr_end;
	if (step < o->warmup)
		return (float)(lr * (double)(step + 1) / o->warmup);
	if (o->schedule == SCHEDULE_CONSTANT)
		return o->lr;

	/* Done share of the steps after warm-up. 1 is reached when the run is over: were lr_end (often 0) the rate of the
	 * last step, that step would be for nothing. */
	int64_t rest = o->steps - (int64_t)o->warmup;
	double done = rest > 0 ? (double)(step - o->warmup) / (double)rest : 1;
	if (done > 1)
		done = 1;
	double left = o->schedule == SCHEDULE_COSINE ? 0.5 * (1 + cos(M_PI * done)) : 1 - done;
	return (float)(lr_end + (lr - lr_end) * left);
}
