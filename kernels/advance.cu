// The end of a step of decoding: what the next one begins with, without the host.
#include "device.cuh"

namespace kernels
{
namespace
{

constexpr int ADVANCE_THREADS = 128;

__global__ void __launch_bounds__(ADVANCE_THREADS) advance(kernel_slots slots, int64_t count)
{
	const int64_t i = (int64_t)blockIdx.x * ADVANCE_THREADS + threadIdx.x;
	if (i >= count)
		return;
	int left = slots.left[i];
	if (left > 0) {
		const int token = slots.sampled[i].token;
		left--;
		for (int s = 0; s < slots.stop_count; s++)
			left = slots.stop[s] == token ? 0 : left;
		slots.left[i] = left;
		slots.drawn[i]++;
		if (left > 0) {
			slots.token[i] = token;
			slots.row[i]++;
			slots.position[i]++;
			slots.segments[i].kv_len++;
			return;
		}
	} else {
		slots.sampled[i].token = -1;
	}
	slots.token[i] = slots.row[i] = -1;
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int kernel_advance(const struct kernel_slots *slots, int64_t count, kernel_stream stream)
{
	if (count < 0 || count > INT32_MAX || slots->stop_count < 0)
		return BAD_SIZE;
	if (!count)
		return 0;
	return launch(advance, dim3((unsigned)blocks_for(count, ADVANCE_THREADS)), dim3(ADVANCE_THREADS), 0, stream, *slots, count);
}
