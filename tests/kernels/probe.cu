// Kernels that do nothing but show what the emulation and kernels/mma.cuh do, for test_kernel_emulation.c.
#include "../../kernels/mma.cuh"

#include "probe.h"

using namespace kernels;

namespace
{

// c[16,8] = a[16,16] b[16,8], with the fragments put together from the layout that mma.cuh documents
__global__ void product_by_hand(float *c, const bf16 *a, const bf16 *b)
{
	const int g = (int)threadIdx.x / 4, q = (int)threadIdx.x % 4;
	uint32_t fa[4], fb[2];
	for (int i = 0; i < 4; i++) {
		const bf16 *from = a + (g + i % 2 * 8) * 16 + i / 2 * 8 + 2 * q;
		fa[i] = pack_bf16(to_float(from[0]), to_float(from[1]));
	}
	for (int i = 0; i < 2; i++) {
		const bf16 *from = b + (i * 8 + 2 * q) * 8 + g;
		fb[i] = pack_bf16(to_float(from[0]), to_float(from[8]));
	}
	float sum[4] = {0, 0, 0, 0};
	mma_16x8x16(sum, fa, fb);
	for (int i = 0; i < 4; i++)
		c[(g + i / 2 * 8) * 8 + 2 * q + i % 2] = sum[i];
}

// the same with the fragments loaded by ldmatrix from tiles that cp.async brings
__global__ void product_by_ldmatrix(float *c, const bf16 *a, const bf16 *b)
{
	SHARED_ARRAY(uint4, tile_a, 16 * 16 * 2 / 16);
	SHARED_ARRAY(uint4, tile_b, 2 * 16 * 8 * 2 / 16); // twice, for the four matrices of a load
	const int lane = (int)threadIdx.x, g = lane / 4, q = lane % 4;
	copy_async_16(&tile_a[lane], reinterpret_cast<const uint4 *>(a) + lane);
	commit_copies();
	copy_async_16(&tile_b[lane], reinterpret_cast<const uint4 *>(b) + lane % 16);
	commit_copies();
	wait_copies<0>();
	__syncwarp();
	uint32_t fa[4], fb[4];
	ldmatrix_x4(fa, &tile_a[lane % 16 * 2 + lane / 16]);
	ldmatrix_x4_transposed(fb, &tile_b[lane]);
	float sum[4] = {0, 0, 0, 0};
	const uint32_t first[2] = {fb[0], fb[1]};
	mma_16x8x16(sum, fa, first);
	for (int i = 0; i < 4; i++)
		c[(g + i / 2 * 8) * 8 + 2 * q + i % 2] = sum[i];
}

// out[lane] by several exchanges: checked in the test against what the programming guide says
__global__ void exchanges(int *out)
{
	const int lane = (int)threadIdx.x % 32;
	int *mine = out + threadIdx.x * PROBE_EXCHANGES;
	mine[0] = __shfl_sync(ALL_LANES, lane, 5);
	mine[1] = __shfl_xor_sync(ALL_LANES, lane, 3);
	mine[2] = __shfl_up_sync(ALL_LANES, lane, 2, 8);
	mine[3] = __shfl_down_sync(ALL_LANES, lane, 2, 8);
	mine[4] = (int)__ballot_sync(ALL_LANES, lane % 3 == 0);
	mine[5] = __any_sync(ALL_LANES, lane == 31);
	mine[6] = __all_sync(ALL_LANES, lane < 31);
	mine[7] = lane < 16 ? (int)__ballot_sync(0xffffu, lane & 1) : (int)__ballot_sync(0xffff0000u, lane & 1);
}

__global__ void count_threads(unsigned *count, unsigned limit)
{
	unsigned before = atomicAdd(count, 1u);
	if (before >= limit)
		device_trap("thread %u of block %u is one too many\n", threadIdx.x, blockIdx.x);
}

// block b writes what its neighbour in shared memory wrote; MISTAKE leaves out what makes that right
template <int MISTAKE> __global__ void neighbours(float *out)
{
	SHARED_ARRAY(float, line, 64);
	const int t = (int)threadIdx.x;
	if (MISTAKE != PROBE_UNINITIALISED || t != 9)
		line[t + (MISTAKE == PROBE_OUT_OF_BOUNDS && t == 63)] = (float)t;
	if (MISTAKE == PROBE_DIVERGENT && t == 7)
		return;
	if (MISTAKE != PROBE_NO_BARRIER)
		__syncthreads();
	out[blockIdx.x * 64 + t] = line[63 - t];
	if (MISTAKE == PROBE_ACROSS_BLOCKS && t == 0)
		out[0] = (float)blockIdx.x;
}

// writes all of the shared memory that the launch asked for, beside an array (two kernels: each is allowed its own)
template <bool OPT_IN> __global__ void fill_shared(int bytes)
{
	SHARED_ARRAY(float, line, 64);
	DYNAMIC_SHARED(unsigned char, all);
	line[threadIdx.x] = OPT_IN;
	for (int i = (int)threadIdx.x; i < bytes; i += 64)
		all[i] = (unsigned char)line[threadIdx.x];
}

__global__ void wide_copy(float *out, const float *in)
{
	float x[4];
	load(x, in);
	store(out, x);
}

// a copy that is not waited for
template <bool WAIT> __global__ void copies(float *out, const float *in)
{
	SHARED_ARRAY(uint4, line, 2);
	if (threadIdx.x < 2)
		copy_async_16_part(&line[threadIdx.x], reinterpret_cast<const uint4 *>(in) + threadIdx.x, threadIdx.x ? 8 : 16);
	commit_copies();
	if (WAIT)
		wait_copies<0>();
	__syncwarp();
	if (threadIdx.x < 8)
		out[threadIdx.x] = reinterpret_cast<const float *>(line)[threadIdx.x];
	if (!WAIT)
		wait_copies<0>();
}

} // namespace

extern "C" int probe_product(float *c, const void *a, const void *b, int by_ldmatrix)
{
	return launch(by_ldmatrix ? product_by_ldmatrix : product_by_hand, dim3(1), dim3(32), 0, nullptr, c, (const bf16 *)a,
	              (const bf16 *)b);
}

extern "C" int probe_exchanges(int *out, int threads)
{
	return launch(exchanges, dim3(1), dim3((unsigned)threads), 0, nullptr, out);
}

extern "C" int probe_count(unsigned *count, unsigned limit, int blocks, int threads)
{
	return launch(count_threads, dim3((unsigned)blocks), dim3((unsigned)threads), 0, nullptr, count, limit);
}

extern "C" int probe_copies(float *out, const float *in, int wait)
{
	return launch(wait ? copies<true> : copies<false>, dim3(1), dim3(32), 0, nullptr, out, in);
}

extern "C" int probe_neighbours(float *out, int blocks, enum probe_mistake mistake)
{
	auto run = [&](void (*kernel)(float *)) {
		return launch(kernel, dim3((unsigned)blocks), dim3(64), 0, nullptr, out);
	};
	switch (mistake) {
	case PROBE_NONE: return run(neighbours<PROBE_NONE>);
	case PROBE_NO_BARRIER: return run(neighbours<PROBE_NO_BARRIER>);
	case PROBE_UNINITIALISED: return run(neighbours<PROBE_UNINITIALISED>);
	case PROBE_OUT_OF_BOUNDS: return run(neighbours<PROBE_OUT_OF_BOUNDS>);
	case PROBE_DIVERGENT: return run(neighbours<PROBE_DIVERGENT>);
	case PROBE_ACROSS_BLOCKS: return run(neighbours<PROBE_ACROSS_BLOCKS>);
	}
	return BAD_SIZE;
}

extern "C" int probe_shared(int bytes, int opt_in)
{
	if (opt_in)
		return launch(fill_shared<true>, dim3(1), dim3(64), (size_t)bytes, nullptr, bytes);
#ifdef __CUDACC__
	fill_shared<false><<<1, 64, (size_t)bytes>>>(bytes);
#else
	emulation::run({reinterpret_cast<const void *>(&fill_shared<false>), 1, 64, (size_t)bytes, nullptr, [=] { fill_shared<false>(bytes); }},
	               nullptr, 0);
#endif
	return (int)cudaGetLastError();
}

extern "C" int probe_grid(unsigned x, unsigned y, unsigned z)
{
	return launch(fill_shared<true>, dim3(x, y, z), dim3(64), 64, nullptr, 64);
}

extern "C" int probe_wide(float *out, const float *in)
{
	return launch(wide_copy, dim3(1), dim3(1), 0, nullptr, out, in);
}
