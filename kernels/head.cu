// The head's rows: from logits to log-probabilities, and back to the gradient of the logits. The logits themselves are products, made a chunk
// of rows at a time by the caller. A block walks over a row's vocabulary; all sums of weights are of integers (softmax_row.cuh), so
// that a log-probability has the bits that sampling gives the same logits.
#include "elementwise.cuh"
#include "softmax_row.cuh"

namespace kernels
{
namespace
{

constexpr int HEAD_THREADS = 512;

__global__ void __launch_bounds__(HEAD_THREADS)
	head_logprob(float *logp, float *entropy, float *lse, const float *logits, int64_t stride, const int32_t *target,
                 float temperature, int vocabulary)
{
	SHARED_ARRAY(unsigned long long, memory, HEAD_THREADS / 32 * 3);
	const int64_t row = blockIdx.x;
	const int wanted = target[row];
	if (wanted < 0 || wanted >= vocabulary)
		device_trap("head: target %d is outside the vocabulary of %d\n", wanted, vocabulary);
	const float *z = logits + row * stride;
	const SoftmaxRow softmax = softmax_row<HEAD_THREADS>(z, vocabulary, temperature, memory);
	if (threadIdx.x == 0) {
		logp[row] = softmax_logp(softmax, z[wanted] / temperature);
		lse[row] = (float)softmax.lse;
		if (entropy)
			entropy[row] = (float)softmax.entropy;
	}
}

// dL/dlogits[v] = g (1[v = target] - softmax(z)[v]) / temperature for z = logits / temperature, softmax(z) = e^(z - lse)
template <class T> struct HeadBackward {
	T *y;
	const float *logits, *g, *lse;
	const int32_t *target;
	int64_t y_stride, stride;
	float temperature;
	template <bool WIDE> __device__ void run(int64_t row, int64_t k, int left) const
	{
		float x[ELEMENTS];
		load_part<WIDE>(x, logits + row * stride + k, left);
		const float scale = g[row] / temperature, log_sum = lse[row];
		const int64_t wanted = target[row];
#pragma unroll
		for (int i = 0; i < ELEMENTS; i++)
			x[i] = scale * ((k + i == wanted ? 1.0f : 0.0f) - exp_weight(x[i] / temperature - log_sum));
		store_part<WIDE>(y + row * y_stride + k, x, left);
	}
};

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int kernel_head_logprob(float *logp, float *entropy, float *lse, const float *logits, int64_t stride,
                                   const int32_t *target, float temperature, int64_t rows, int64_t vocabulary,
                                   kernel_stream stream)
{
	if (rows < 0 || rows > INT32_MAX || vocabulary < 1 || vocabulary > MAX_VOCABULARY || !(temperature > 0))
		return BAD_SIZE;
	if (!rows)
		return 0;
	return launch(head_logprob, dim3((unsigned)rows), dim3(HEAD_THREADS), 0, stream, logp, entropy, lse, logits, stride,
	              target, temperature, (int)vocabulary);
}

extern "C" int kernel_head_backward(void *dlogits, int64_t dlogits_stride, enum kernel_type type, const float *logits,
                                    int64_t stride, const float *g, const float *lse, const int32_t *target,
                                    float temperature, int64_t rows, int64_t vocabulary, kernel_stream stream)
{
	if (!(temperature > 0))
		return BAD_SIZE;
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		HeadBackward<T> op = {(T *)dlogits, logits, g, lse, target, dlogits_stride, stride, temperature};
		return run_elementwise(op, rows, vocabulary, packs<ELEMENTS>(op.y, dlogits_stride) && packs<ELEMENTS>(logits, stride), false, stream);
	});
}
