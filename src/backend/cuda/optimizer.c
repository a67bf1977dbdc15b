/* The gradient's norm and AdamW. Each is an upload and one launch over all parts or ranges, however many there are, and the
 * norm one small one more. */
#include "backend/cuda/state.h"

#include <stdlib.h>

void cuda_sum_squares(struct backend *b, double *out, const float *x, const int64_t *bounds, int parts)
{
	struct cuda_state *s = cuda_of(b);
	const size_t partial_bytes = (size_t)parts * KERNEL_SQUARES_PIECES * sizeof(double),
	             bounds_bytes = (size_t)(parts + 1) * sizeof *bounds;
	double *partial = cuda_scratch(s, partial_bytes + bounds_bytes);
	int64_t *there = (int64_t *)(void *)((char *)partial + partial_bytes);
	cuda_upload(b, there, bounds, bounds_bytes);
	KERNEL(s, kernel_sum_squares(out, x, there, parts, kernel_sum_squares_plan(bounds, parts), partial, s->stream));
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
