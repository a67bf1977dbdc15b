/* The gradient's norm and AdamW. */
#include "backend/cuda/state.h"

double cuda_sum_squares(struct backend *b, const float *x, int64_t n)
{
	struct cuda_state *s = cuda_of(b);
	double sum, *there = cuda_scratch(s, (1 + KERNEL_SUM_SQUARES_SCRATCH) * sizeof *there);
	KERNEL(s, kernel_sum_squares(there, x, n, 0, there + 1, s->stream));
	cuda_download(b, &sum, there, sizeof sum);
	return sum;
}

void cuda_adamw(struct backend *b, float *w, const float *g, float *m, float *v, int64_t n, float grad_scale,
                const struct adamw *how)
{
	struct cuda_state *s = cuda_of(b);
	struct kernel_adamw_tensor one = {
	    .weight = w, .gradient = g, .moment = m, .square = v, .copy = cuda_narrow_to_write(s, w, n), .count = n};
	const struct kernel_adamw step = {.lr = how->lr,
	                                  .beta1 = how->beta1,
	                                  .beta2 = how->beta2,
	                                  .eps = how->eps,
	                                  .weight_decay = how->weight_decay,
	                                  .gradient_scale = grad_scale,
	                                  .step = how->step};
	const int64_t blocks = kernel_adamw_plan(&one, 1);
	struct kernel_adamw_tensor *there = cuda_scratch(s, sizeof one); /* in stream order: the next one waits for this */
	cuda_upload(b, there, &one, sizeof one);
	KERNEL(s, kernel_adamw(there, 1, blocks, &step, s->stream));
}
