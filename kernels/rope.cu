// Rotary positions, in place. The tables hold cos and sin for each token and each pair of a head; the 2-D positions of vision and the
// sections of M-RoPE are in the tables, not here.
#include "elementwise.cuh"

namespace kernels
{
namespace
{

// Column k of the rows x (heads * half) pairs is pair k % half of head k / half.
template <class T> struct Rope {
	T *x;
	const float *cos, *sin;
	int64_t x_stride, cos_stride, sin_stride;
	int half;
	float sign; // of the sine
	template <bool WIDE> __device__ void run(int64_t row, int64_t k, int left) const
	{
		const float *c = cos + row * cos_stride, *s = sin + row * sin_stride;
		T *to = x + row * x_stride;
		if constexpr (WIDE) { // half is a multiple of ELEMENTS: all pairs are of one head
			const int head = (int)k / half, pair = (int)k % half;
			float a[ELEMENTS], b[ELEMENTS], cs[ELEMENTS], sn[ELEMENTS];
			to += (int64_t)head * 2 * half + pair;
			load(a, to);
			load(b, to + half);
			load(cs, c + pair);
			load(sn, s + pair);
#pragma unroll
			for (int i = 0; i < ELEMENTS; i++)
				rotate(a[i], b[i], cs[i], sn[i]);
			store(to, a);
			store(to + half, b);
		} else {
			for (int i = 0; i < left; i++) {
				const int head = (int)(k + i) / half, pair = (int)(k + i) % half;
				T *at = to + (int64_t)head * 2 * half + pair;
				float a = to_float(at[0]), b = to_float(at[half]);
				rotate(a, b, c[pair], s[pair]);
				at[0] = from_float<T>(a);
				at[half] = from_float<T>(b);
			}
		}
	}
	// a, b = a c - b s, b c + a s
	__device__ void rotate(float &a, float &b, float c, float s) const
	{
		s *= sign;
		float first = a * c - b * s;
		b = b * c + a * s;
		a = first;
	}
};

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int kernel_rope(void *x, int64_t x_stride, enum kernel_type type, int64_t heads, int64_t head_dim,
                           const float *cos, int64_t cos_stride, const float *sin, int64_t sin_stride, int inverse,
                           int64_t rows, kernel_stream stream)
{
	if (heads < 0 || head_dim < 0 || head_dim % 2 || heads * head_dim > INT32_MAX)
		return BAD_SIZE;
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		const int64_t half = head_dim / 2;
		Rope<T> op = {(T *)x, cos, sin, x_stride, cos_stride, sin_stride, (int)half, inverse ? -1.0f : 1.0f};
		bool wide = half % ELEMENTS == 0 && packs<ELEMENTS>(op.x, x_stride) && packs<ELEMENTS>(cos, cos_stride) &&
		            packs<ELEMENTS>(sin, sin_stride);
		return run_elementwise(op, rows, heads * half, wide, false, stream);
	});
}
