// SwiGLU, activations, additions, casts and filling.
#include "elementwise.cuh"

namespace kernels
{
namespace
{

__device__ __forceinline__ float sigmoid(float x)
{
	return 1.0f / (1.0f + expf(-x));
}

// silu(g) u with silu(g) = g sigmoid(g)
template <class T> struct Swiglu {
	T *y;
	const T *gate, *up;
	int64_t y_stride, gate_stride, up_stride;
	template <bool WIDE> __device__ void run(int64_t row, int64_t k, int left) const
	{
		float g[ELEMENTS], u[ELEMENTS];
		load_part<WIDE>(g, gate + row * gate_stride + k, left);
		load_part<WIDE>(u, up + row * up_stride + k, left);
#pragma unroll
		for (int i = 0; i < ELEMENTS; i++)
			g[i] = g[i] * sigmoid(g[i]) * u[i];
		store_part<WIDE>(y + row * y_stride + k, g, left);
	}
};

// silu'(g) = s (1 + g (1 - s)) with s = sigmoid(g)
template <class T> struct SwigluBackward {
	T *dgate, *dup;
	const T *dy, *gate, *up;
	int64_t dgate_stride, dup_stride, dy_stride, gate_stride, up_stride;
	template <bool WIDE> __device__ void run(int64_t row, int64_t k, int left) const
	{
		float g[ELEMENTS], u[ELEMENTS], d[ELEMENTS];
		load_part<WIDE>(g, gate + row * gate_stride + k, left);
		load_part<WIDE>(u, up + row * up_stride + k, left);
		load_part<WIDE>(d, dy + row * dy_stride + k, left);
#pragma unroll
		for (int i = 0; i < ELEMENTS; i++) {
			float s = sigmoid(g[i]), silu = g[i] * s;
			g[i] = d[i] * u[i] * s * (1.0f + g[i] * (1.0f - s));
			u[i] = d[i] * silu;
		}
		store_part<WIDE>(dgate + row * dgate_stride + k, g, left);
		store_part<WIDE>(dup + row * dup_stride + k, u, left);
	}
};

// GELU, x/2 (1 + erf(x / sqrt 2)), by erfc, which keeps its digits where x is far below 0
// (KIND is an int: nvcc's host code takes the enum's name for that of the launcher)
template <int KIND> __device__ __forceinline__ float activate(float x)
{
	if constexpr (KIND == KERNEL_GELU)
		return 0.5f * x * erfcf(-0.70710678f * x);
	else
		return x * sigmoid(1.702f * x);
}

// gelu'(x) = erfc(-x / sqrt 2) / 2 + x exp(-x^2 / 2) / sqrt(2 pi); quick: s (1 + 1.702 x (1 - s)), s = sigmoid(1.702 x)
template <int KIND> __device__ __forceinline__ float slope(float x)
{
	if constexpr (KIND == KERNEL_GELU) {
		return 0.5f * erfcf(-0.70710678f * x) + x * expf(-0.5f * x * x) * 0.39894228f;
	} else {
		float s = sigmoid(1.702f * x);
		return s * (1.0f + 1.702f * x * (1.0f - s));
	}
}

template <class T, int KIND> struct Activation {
	T *y;
	const T *x;
	int64_t y_stride, x_stride;
	template <bool WIDE> __device__ void run(int64_t row, int64_t k, int left) const
	{
		float v[ELEMENTS];
		load_part<WIDE>(v, x + row * x_stride + k, left);
#pragma unroll
		for (int i = 0; i < ELEMENTS; i++)
			v[i] = activate<KIND>(v[i]);
		store_part<WIDE>(y + row * y_stride + k, v, left);
	}
};

template <class T, int KIND> struct ActivationBackward {
	T *dx;
	const T *dy, *x;
	int64_t dx_stride, dy_stride, x_stride;
	template <bool WIDE> __device__ void run(int64_t row, int64_t k, int left) const
	{
		float v[ELEMENTS], d[ELEMENTS];
		load_part<WIDE>(v, x + row * x_stride + k, left);
		load_part<WIDE>(d, dy + row * dy_stride + k, left);
#pragma unroll
		for (int i = 0; i < ELEMENTS; i++)
			v[i] = d[i] * slope<KIND>(v[i]);
		store_part<WIDE>(dx + row * dx_stride + k, v, left);
	}
};

template <class T, class C> struct Add {
	T *y;
	const T *a;
	const C *c;
	int64_t y_stride, a_stride, c_stride; // c_stride 0: one row for all (a bias)
	template <bool WIDE> __device__ void run(int64_t row, int64_t k, int left) const
	{
		float v[ELEMENTS], w[ELEMENTS];
		load_part<WIDE>(v, a + row * a_stride + k, left);
		load_part<WIDE>(w, c + row * c_stride + k, left);
#pragma unroll
		for (int i = 0; i < ELEMENTS; i++)
			v[i] += w[i];
		store_part<WIDE>(y + row * y_stride + k, v, left);
	}
};

template <class Y, class X> struct Cast {
	Y *y;
	const X *x;
	int64_t y_stride, x_stride;
	template <bool WIDE> __device__ void run(int64_t row, int64_t k, int left) const
	{
		float v[ELEMENTS];
		load_part<WIDE>(v, x + row * x_stride + k, left);
		store_part<WIDE>(y + row * y_stride + k, v, left);
	}
};

template <class T> struct Fill {
	T *y;
	int64_t y_stride;
	float value;
	template <bool WIDE> __device__ void run(int64_t row, int64_t k, int left) const
	{
		float v[ELEMENTS];
#pragma unroll
		for (int i = 0; i < ELEMENTS; i++)
			v[i] = value;
		store_part<WIDE>(y + row * y_stride + k, v, left);
	}
};

template <class T> bool wide(const T *p, int64_t stride)
{
	return packs<ELEMENTS>(p, stride);
}

template <int KIND>
int activation(void *y, int64_t y_stride, const void *x, int64_t x_stride, enum kernel_type type, int64_t rows,
               int64_t cols, cudaStream_t stream)
{
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		Activation<T, KIND> op = {(T *)y, (const T *)x, y_stride, x_stride};
		return run_elementwise(op, rows, cols, wide(op.y, y_stride) && wide(op.x, x_stride),
		                       y_stride == cols && x_stride == cols, stream);
	});
}

template <int KIND>
int activation_backward(void *dx, int64_t dx_stride, const void *dy, int64_t dy_stride, const void *x, int64_t x_stride,
                        enum kernel_type type, int64_t rows, int64_t cols, cudaStream_t stream)
{
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		ActivationBackward<T, KIND> op = {(T *)dx, (const T *)dy, (const T *)x, dx_stride, dy_stride, x_stride};
		return run_elementwise(op, rows, cols, wide(op.dx, dx_stride) && wide(op.dy, dy_stride) && wide(op.x, x_stride),
		                       dx_stride == cols && dy_stride == cols && x_stride == cols, stream);
	});
}

int add(void *y, int64_t y_stride, const void *a, int64_t a_stride, enum kernel_type type, const void *c,
        int64_t c_stride, enum kernel_type c_type, int64_t rows, int64_t cols, cudaStream_t stream)
{
	return with_type(type, [&](auto element) {
		return with_type(c_type, [&](auto c_element) {
			using T = decltype(element);
			using C = decltype(c_element);
			Add<T, C> op = {(T *)y, (const T *)a, (const C *)c, y_stride, a_stride, c_stride};
			return run_elementwise(op, rows, cols, wide(op.y, y_stride) && wide(op.a, a_stride) && wide(op.c, c_stride),
			                       y_stride == cols && a_stride == cols && c_stride == cols, stream);
		});
	});
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int kernel_swiglu(void *y, int64_t y_stride, const void *gate, int64_t gate_stride, const void *up,
                             int64_t up_stride, enum kernel_type type, int64_t rows, int64_t cols,
                             kernel_stream stream)
{
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		Swiglu<T> op = {(T *)y, (const T *)gate, (const T *)up, y_stride, gate_stride, up_stride};
		return run_elementwise(op, rows, cols,
		                       wide(op.y, y_stride) && wide(op.gate, gate_stride) && wide(op.up, up_stride),
		                       y_stride == cols && gate_stride == cols && up_stride == cols, stream);
	});
}

extern "C" int kernel_swiglu_backward(void *dgate, int64_t dgate_stride, void *dup, int64_t dup_stride, const void *dy,
                                      int64_t dy_stride, const void *gate, int64_t gate_stride, const void *up,
                                      int64_t up_stride, enum kernel_type type, int64_t rows, int64_t cols,
                                      kernel_stream stream)
{
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		SwigluBackward<T> op = {(T *)dgate,   (T *)dup,   (const T *)dy, (const T *)gate, (const T *)up,
		                        dgate_stride, dup_stride, dy_stride,     gate_stride,     up_stride};
		bool is_wide = wide(op.dgate, dgate_stride) && wide(op.dup, dup_stride) && wide(op.dy, dy_stride) &&
		               wide(op.gate, gate_stride) && wide(op.up, up_stride);
		bool flat = dgate_stride == cols && dup_stride == cols && dy_stride == cols && gate_stride == cols &&
		            up_stride == cols;
		return run_elementwise(op, rows, cols, is_wide, flat, stream);
	});
}

extern "C" int kernel_activation(void *y, int64_t y_stride, const void *x, int64_t x_stride,
                                 enum kernel_activation kind, enum kernel_type type, int64_t rows, int64_t cols,
                                 kernel_stream stream)
{
	switch (kind) {
	case KERNEL_QUICK_GELU:
		return activation<KERNEL_QUICK_GELU>(y, y_stride, x, x_stride, type, rows, cols, stream);
	case KERNEL_GELU: return activation<KERNEL_GELU>(y, y_stride, x, x_stride, type, rows, cols, stream);
	}
	return BAD_SIZE;
}

extern "C" int kernel_activation_backward(void *dx, int64_t dx_stride, const void *dy, int64_t dy_stride, const void *x,
                                          int64_t x_stride, enum kernel_activation kind, enum kernel_type type,
                                          int64_t rows, int64_t cols, kernel_stream stream)
{
	switch (kind) {
	case KERNEL_QUICK_GELU:
		return activation_backward<KERNEL_QUICK_GELU>(dx, dx_stride, dy, dy_stride, x, x_stride, type, rows, cols,
		                                              stream);
	case KERNEL_GELU:
		return activation_backward<KERNEL_GELU>(dx, dx_stride, dy, dy_stride, x, x_stride, type, rows, cols, stream);
	}
	return BAD_SIZE;
}

extern "C" int kernel_add(void *y, int64_t y_stride, const void *a, int64_t a_stride, enum kernel_type type,
                          const void *c, int64_t c_stride, enum kernel_type c_type, int64_t rows, int64_t cols,
                          kernel_stream stream)
{
	return add(y, y_stride, a, a_stride, type, c, c_stride, c_type, rows, cols, stream);
}

extern "C" int kernel_add_bias(void *y, int64_t y_stride, enum kernel_type type, const float *bias, int64_t rows,
                               int64_t cols, kernel_stream stream)
{
	return add(y, y_stride, y, y_stride, type, bias, 0, KERNEL_F32, rows, cols, stream);
}

extern "C" int kernel_cast(void *y, int64_t y_stride, enum kernel_type y_type, const void *x, int64_t x_stride,
                           enum kernel_type x_type, int64_t rows, int64_t cols, kernel_stream stream)
{
	return with_type(y_type, [&](auto y_element) {
		return with_type(x_type, [&](auto x_element) {
			using Y = decltype(y_element);
			using X = decltype(x_element);
			Cast<Y, X> op = {(Y *)y, (const X *)x, y_stride, x_stride};
			return run_elementwise(op, rows, cols, wide(op.y, y_stride) && wide(op.x, x_stride),
			                       y_stride == cols && x_stride == cols, stream);
		});
	});
}

extern "C" int kernel_fill(void *y, int64_t y_stride, enum kernel_type type, float value, int64_t rows, int64_t cols,
                           kernel_stream stream)
{
	return with_type(type, [&](auto element) {
		using T = decltype(element);
		Fill<T> op = {(T *)y, y_stride, value};
		return run_elementwise(op, rows, cols, wide(op.y, y_stride), y_stride == cols, stream);
	});
}
