/* The gradient's norm and AdamW. A step is four launches and an upload, however many ranges there are: the host waits
 * for nothing. */
#include "backend/cuda/state.h"

#include <stdlib.h>

void cuda_sum_squares(struct backend *b, double *out, const float *x, int64_t n)
{
	struct cuda_state *s = cuda_of(b);
	double *partial = cuda_scratch(s, KERNEL_SUM_SQUARES_SCRATCH * sizeof *partial);
	KERNEL(s, kernel_sum_squares(out, x, n, 0, partial, s->stream));
}

void cuda_adamw(struct backend *b, float *w, const float *g, float *m, float *v, const struct adamw_range *ranges,
                int count, const double *squares, const struct adamw *how)
{
	struct cuda_state *s = cuda_of(b);
	const size_t bytes = (size_t)count * sizeof *s->steps;
	if (count > s->steps_room) { /* in the first step */
		free(s->steps);
		s->steps = malloc(bytes);
		s->steps_room = count;
		if (!s->steps)
			s->host.die("out of memory: no room for the optimiser's %d ranges", count);
	}
	for (int i = 0; i < count; i++) {
		const int64_t at = ranges[i].first;
		s->steps[i] = (struct kernel_adamw_tensor){.weight = w + at,
		                                           .gradient = g + at,
		                                           .moment = m + at,
		                                           .square = v + at,
		                                           .copy = cuda_narrow_to_write(s, w + at, ranges[i].count),
		                                           .count = ranges[i].count,
		                                           .weight_decay = ranges[i].weight_decay};
	}
	const struct kernel_adamw step = {.lr = how->lr,
	                                  .beta1 = how->beta1,
	                                  .beta2 = how->beta2,
	                                  .eps = how->eps,
	                                  .max_norm = how->max_norm,
	                                  .step = how->step};
	const int64_t blocks = kernel_adamw_plan(s->steps, count);
	struct kernel_adamw_tensor *there = cuda_scratch(s, bytes); /* in stream order: the next one waits for this */
	cuda_upload(b, there, s->steps, bytes);
	KERNEL(s, kernel_adamw(there, count, blocks, squares, &step, s->stream));
}
