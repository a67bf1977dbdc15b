// AdamW over many tensors in one launch. The weights' increment is summed before it is taken off: 1 - lr * weight_decay has too few
// digits in float32 where it is close to 1.
#include "device.cuh"

#include <math.h>

namespace kernels
{
namespace
{

constexpr int ADAMW_THREADS = 256, ADAMW_ELEMENTS = 4, ADAMW_ROUNDS = 4;
constexpr int64_t PER_BLOCK = ADAMW_THREADS * ADAMW_ELEMENTS * ADAMW_ROUNDS;

struct Step {
	float beta1, beta2, one_minus_beta1, one_minus_beta2;
	float rate;              // lr / (1 - beta1^t)
	float inverse_correction; // 1 / (1 - beta2^t)
	float eps, lr, max_norm;
};

// What is the tensor's and the gradient's own.
struct Factors {
	float clip, decay; // decay = lr weight_decay
};

// m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2; w -= lr (m/(1-b1^t) / (sqrt(v/(1-b2^t)) + eps) + weight_decay w)
__device__ __forceinline__ void update(float &w, float g, float &m, float &v, const Step &s, const Factors &f)
{
	g *= f.clip;
	m = fmaf(s.beta1, m, s.one_minus_beta1 * g);
	v = fmaf(s.beta2, v, s.one_minus_beta2 * g * g);
	w -= fmaf(f.decay, w, s.rate * m / (sqrtf(v * s.inverse_correction) + s.eps));
}

template <bool WIDE> __device__ __forceinline__ void update_part(const kernel_adamw_tensor &t, int64_t i, int left, const Step &s,
                                                               const Factors &f)
{
	float w[ADAMW_ELEMENTS], g[ADAMW_ELEMENTS], m[ADAMW_ELEMENTS], v[ADAMW_ELEMENTS];
	load_part<WIDE>(w, t.weight + i, left);
	load_part<WIDE>(g, t.gradient + i, left);
	load_part<WIDE>(m, t.moment + i, left);
	load_part<WIDE>(v, t.square + i, left);
#pragma unroll
	for (int e = 0; e < ADAMW_ELEMENTS; e++)
		update(w[e], g[e], m[e], v[e], s, f);
	store_part<WIDE>(t.weight + i, w, left);
	store_part<WIDE>(t.moment + i, m, left);
	store_part<WIDE>(t.square + i, v, left);
	if (t.copy)
		store_part<WIDE>(static_cast<bf16 *>(t.copy) + i, w, left);
}

__global__ void __launch_bounds__(ADAMW_THREADS) adamw(const kernel_adamw_tensor *tensors, int count, const double *squares, Step step)
{
	if (!isfinite(*squares))
		return;
	// the last tensor that begins at this block or before it
	int low = 0, high = count - 1;
	while (low < high) {
		const int middle = (low + high + 1) / 2;
		if (tensors[middle].first_block <= (int64_t)blockIdx.x)
			low = middle;
		else
			high = middle - 1;
	}
	const kernel_adamw_tensor t = tensors[low];
	const uintptr_t together = (uintptr_t)t.weight | (uintptr_t)t.gradient | (uintptr_t)t.moment | (uintptr_t)t.square;
	const bool wide = together % 16 == 0 && (uintptr_t)t.copy % 8 == 0;
	// in double: the host's product and quotient have the same bits
	const Factors factors = {step.max_norm > 0 ? (float)fmin(1.0, (double)step.max_norm / (sqrt(*squares) + 1e-6)) : 1.0f,
	                         (float)((double)step.lr * (double)t.weight_decay)};
	const int64_t begin = ((int64_t)blockIdx.x - t.first_block) * PER_BLOCK, end = min(t.count, begin + PER_BLOCK);
	for (int64_t i = begin + (int)threadIdx.x * ADAMW_ELEMENTS; i < end; i += ADAMW_THREADS * ADAMW_ELEMENTS) {
		const int left = (int)(end - i);
		if (wide && left >= ADAMW_ELEMENTS)
			update_part<true>(t, i, left, step, factors);
		else
			update_part<false>(t, i, left, step, factors);
	}
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int64_t kernel_adamw_plan(struct kernel_adamw_tensor *tensors, int64_t count)
{
	int64_t blocks = 0;
	for (int64_t i = 0; i < count; i++) {
		tensors[i].first_block = blocks;
		blocks += blocks_for(tensors[i].count, PER_BLOCK);
	}
	return blocks;
}

extern "C" int kernel_adamw(const struct kernel_adamw_tensor *tensors, int64_t count, int64_t blocks, const double *squares,
                            const struct kernel_adamw *how, kernel_stream stream)
{
	if (count < 0 || count > INT32_MAX || blocks < 0 || blocks > INT32_MAX || how->step < 1 || !(how->max_norm >= 0))
		return BAD_SIZE;
	if (!count || !blocks)
		return 0;
	const double beta1 = how->beta1, beta2 = how->beta2;
	const double correction1 = 1 - pow(beta1, (double)how->step), correction2 = 1 - pow(beta2, (double)how->step);
	const Step step = {how->beta1,
	                   how->beta2,
	                   (float)(1 - beta1),
	                   (float)(1 - beta2),
	                   (float)(how->lr / correction1),
	                   (float)(1 / correction2),
	                   how->eps,
	                   how->lr,
	                   how->max_norm};
	return launch(adamw, dim3((unsigned)blocks), dim3(ADAMW_THREADS), 0, stream, tensors, (int)count, squares, step);
}
