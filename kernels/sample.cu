// Sampling one token a row; a block has a row. Nothing is sorted: a truncation becomes a bound (top_k: the k-th largest z; top_p: the z of
// the last token that is kept, and how many of those with that z are; min_p: a least weight), found by counting in ever finer bins, and
// one pass over what lies within all bounds draws. All sums of weights are of integers (softmax_row.cuh): their order plays no part.
//
// Each warp takes a stretch of consecutive ids where the order of ids matters: for ties at top_p's end, and for the draw.
#include "rng.cuh"
#include "softmax_row.cuh"

namespace kernels
{
namespace
{

using units = unsigned long long;

constexpr int SAMPLE_THREADS = 1024, SAMPLE_WARPS = SAMPLE_THREADS / 32, BINS = 256;

struct Draws {
	const double *u; // or null:
	uint64_t seed;
	uint32_t domain;
	const uint64_t *index;
	const uint32_t *response, *position;
};

__device__ double draw_of(const Draws &d, int64_t row)
{
	return d.u ? d.u[row] : uniform_draw(d.seed, d.domain, d.index[row], d.response[row], d.position[row]);
}

// What lies within all bounds found so far.
struct Bounds {
	unsigned least_key;  // top_k: key >= this
	unsigned last_key;   // top_p: key > this, or equal and among the first `ties` of those in the order of ids
	units ties;
	float least_weight;  // min_p
};

struct Memory {
	units bins[BINS], chosen[2];
	units warps[SAMPLE_WARPS * 3];
};

// Bins of the first round are 1/8 wide in z, from the largest down; the last takes all that is left.
__device__ __forceinline__ int coarse_bin(float below)
{
	const float steps = below * -8.0f;
	return steps < BINS - 1 ? (int)steps : BINS - 1;
}

// Where the measures of keys, summed from the largest key down, first reach the goal: the key at which that happens and the sum over larger
// keys. measure(key, weight) is what a token adds. A first round takes coarse bins, then the key's bytes one after another. A round needs no
// barrier at its end: the bins were read before its third one, and what it chose is written again behind the next round's second.
template <class Measure>
__device__ unsigned find_key(const float *logits, int vocabulary, float temperature, float max, double goal, units *above,
                             Memory &m, Measure measure)
{
	const int thread = (int)threadIdx.x, lane = thread % 32;
	unsigned prefix = 0;
	int coarse = 0;
	units before = 0;
	for (int round = 0; round < 5; round++) {
		const int shift = 32 - 8 * round; // of the byte that this round finds
		for (int b = thread; b < BINS; b += SAMPLE_THREADS)
			m.bins[b] = 0;
		__syncthreads();
		for (int i = thread; i < vocabulary; i += SAMPLE_THREADS) {
			const float z = logits[i] / temperature, below = z - max;
			const int bin = coarse_bin(below);
			if (round > 0 && bin != coarse)
				continue;
			const unsigned key = ordered(z);
			if (round > 1 && key >> (shift + 8) != prefix)
				continue;
			const units add = measure(key, exp_weight(below));
			// bin 0 is what comes first: the largest
			if (add)
				atomicAdd(&m.bins[round == 0 ? bin : 255 - (int)(key >> shift & 255)], add);
		}
		__syncthreads();
		if (thread < 32) {
			units own = 0;
			for (int b = 0; b < BINS / 32; b++)
				own += m.bins[lane * (BINS / 32) + b];
			units upto = own; // of this lane's bins and all before
			for (int delta = 1; delta < 32; delta *= 2) {
				const units other = __shfl_up_sync(ALL_LANES, upto, delta);
				upto += lane >= delta ? other : 0;
			}
			upto += before;
			const unsigned reached = __ballot_sync(ALL_LANES, upto > before && (double)upto >= goal);
			// rounding can't keep the sum of all below the goal, which is less than it or a count; should it, the last bin is it
			if (lane == (reached ? __ffs((int)reached) - 1 : 31)) {
				units sum = upto - own;
				int b = lane * (BINS / 32);
				const int last = b + BINS / 32 - 1;
				while (b < last && !(sum + m.bins[b] > before && (double)(sum + m.bins[b]) >= goal))
					sum += m.bins[b++];
				m.chosen[0] = (units)b;
				m.chosen[1] = sum;
			}
		}
		__syncthreads();
		const int bin = (int)m.chosen[0];
		before = m.chosen[1];
		if (round == 0)
			coarse = bin;
		else
			prefix = prefix << 8 | (unsigned)(255 - bin);
	}
	*above = before;
	return prefix;
}

// Sums of each warp's own number, by warp, in shared memory; *upto is the sum of this warp and those before it. Returns the sum of all.
__device__ units share_by_warp(units own, units *shared, units *before)
{
	const int warp = (int)threadIdx.x / 32;
	if (threadIdx.x % 32 == 0)
		shared[warp] = own;
	__syncthreads();
	units all = 0;
	*before = 0;
	for (int w = 0; w < SAMPLE_WARPS; w++) {
		*before += w < warp ? shared[w] : 0;
		all += shared[w];
	}
	return all;
}

__global__ void __launch_bounds__(SAMPLE_THREADS)
	sample(kernel_sampled *out, const float *logits, int64_t stride, int vocabulary, Draws draws, kernel_sampling how)
{
	SHARED_ARRAY(Memory, memory, 1);
	Memory &m = memory[0];
	const int thread = (int)threadIdx.x, lane = thread % 32, warp = thread / 32;
	const int64_t row_index = blockIdx.x;
	logits += row_index * stride;
	const bool greedy = how.temperature == 0;
	const float temperature = greedy ? 1.0f : how.temperature;
	const SoftmaxRow row = softmax_row<SAMPLE_THREADS>(logits, vocabulary, temperature, m.warps);
	if (greedy || !row.finite) {
		// logits that are no numbers have no distribution: some token, and log-probabilities that are NaN
		if (thread == 0) {
			const float logp = softmax_logp(row, logits[row.best] / temperature);
			out[row_index] = {row.best, logp, greedy ? 0.0f : logp, (float)row.entropy};
		}
		return;
	}

	Bounds bounds = {0, 0, 0, how.min_p};
	const bool truncate_k = how.top_k > 0 && how.top_k < vocabulary, truncate_p = how.top_p < 1;
	units above;
	if (truncate_k)
		bounds.least_key = find_key(logits, vocabulary, temperature, row.max, (double)how.top_k, &above, m,
		                            [](unsigned, float) { return (units)1; });
	if (truncate_p) {
		units sum = row.units, unused;
		if (truncate_k) {
			sum = 0;
			for (int i = thread; i < vocabulary; i += SAMPLE_THREADS) {
				const float z = logits[i] / temperature;
				if (ordered(z) >= bounds.least_key)
					sum += to_units(exp_weight(z - row.max));
			}
			sum = share_by_warp(warp_sum(sum), m.warps, &unused); // find_key's barriers come before m.warps is written again
		}
		const double goal = (double)how.top_p * (double)sum;
		const unsigned least = bounds.least_key;
		bounds.last_key = find_key(logits, vocabulary, temperature, row.max, goal, &above, m,
		                           [least](unsigned key, float e) { return key >= least ? to_units(e) : (units)0; });
		// a token is kept if those before it have not reached the goal yet; the most probable always
		const units each = to_units(exp_weight(from_ordered(bounds.last_key) - row.max));
		units ties = each && goal > (double)above ? (units)((goal - (double)above) / (double)each) : 0;
		while (ties > 0 && (double)(above + (ties - 1) * each) >= goal)
			ties--;
		while (each && (double)(above + ties * each) < goal)
			ties++;
		bounds.ties = ties > 0 ? ties : 1;
	}

	const int stretch = (vocabulary + 32 * SAMPLE_WARPS - 1) / (32 * SAMPLE_WARPS) * 32;
	const int begin = min(vocabulary, warp * stretch), end = min(vocabulary, begin + stretch);
	units ties_before = 0;
	if (truncate_p) {
		units ties = 0;
		for (int i = begin + lane; i < end; i += 32)
			ties += ordered(logits[i] / temperature) == bounds.last_key;
		share_by_warp(warp_sum(ties), m.warps, &ties_before);
		__syncthreads();
	}

	// visit(id, weight) for this warp's ids, 32 at a time; all lanes come along, those that have no kept token with id -1
	auto over_kept = [&](auto visit) {
		units rank = ties_before;
		for (int first = begin; first < end; first += 32) {
			const int i = first + lane;
			const float z = i < end ? logits[i] / temperature : 0.0f;
			const unsigned key = ordered(z);
			const float e = exp_weight(z - row.max);
			bool kept = i < end && key >= bounds.least_key && e >= bounds.least_weight;
			if (truncate_p) {
				const unsigned same = __ballot_sync(ALL_LANES, i < end && key == bounds.last_key);
				const units mine = rank + (units)__popc(same & ((1u << lane) - 1));
				rank += (units)__popc(same);
				kept = kept && (key > bounds.last_key || (key == bounds.last_key && mine < bounds.ties));
			}
			if (visit(kept ? i : -1, kept ? to_units(e) : (units)0))
				return;
		}
	};

	units own = 0, count = 0, before, unused;
	over_kept([&](int id, units weight) {
		own += weight;
		count += id >= 0;
		return false;
	});
	own = warp_sum(own);
	const units kept = share_by_warp(warp_sum(count), m.warps, &unused);
	const units total = share_by_warp(own, m.warps + SAMPLE_WARPS, &before);
	const double goal = draw_of(draws, row_index) * (double)total;

	// The first id at which the sum exceeds the goal lies in the stretch that the goal falls into. Should rounding put the goal at the
	// sum of all, it is the last id that has any weight.
	const bool beyond = !((double)total > goal);
	const bool here = beyond ? own && before + own == total : (double)before <= goal && (double)(before + own) > goal;
	if (!here)
		return;
	int token = -1;
	over_kept([&](int id, units weight) {
		units upto = weight; // of this lane and those before it
		for (int delta = 1; delta < 32; delta *= 2) {
			const units other = __shfl_up_sync(ALL_LANES, upto, delta);
			upto += lane >= delta ? other : 0;
		}
		const units end_of_32 = __shfl_sync(ALL_LANES, before + upto, 31);
		const unsigned lanes =
			__ballot_sync(ALL_LANES, weight && (beyond ? before + upto == total : (double)(before + upto) > goal));
		if (lanes)
			token = __shfl_sync(ALL_LANES, id, __ffs((int)lanes) - 1);
		before = end_of_32;
		return lanes != 0;
	});
	if (lane == 0) {
		const float z = logits[token] / temperature, logp = softmax_logp(row, z);
		const float truncated = (float)((double)(z - row.max) - log(from_units(total)));
		out[row_index] = {token, logp, kept == (units)vocabulary ? logp : truncated, (float)row.entropy};
	}
}

__global__ void __launch_bounds__(256) uniforms(double *u, Draws draws, int64_t n)
{
	const int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		u[i] = draw_of(draws, i);
}

Draws draws_of(const struct kernel_draws *d)
{
	return {d->u, d->seed, d->domain, d->index, d->response, d->position};
}

} // namespace
} // namespace kernels

using namespace kernels;

extern "C" int kernel_sample(struct kernel_sampled *out, const float *logits, int64_t stride, int64_t rows,
                             int64_t vocabulary, const struct kernel_draws *draws, const struct kernel_sampling *how,
                             kernel_stream stream)
{
	if (rows < 0 || rows > INT32_MAX || vocabulary < 1 || vocabulary > MAX_VOCABULARY || !(how->temperature >= 0))
		return BAD_SIZE;
	if (!rows)
		return 0;
	return launch(sample, dim3((unsigned)rows), dim3(SAMPLE_THREADS), 0, stream, out, logits, stride, (int)vocabulary,
	              draws_of(draws), *how);
}

extern "C" int kernel_uniform(double *u, const struct kernel_draws *draws, int64_t n, kernel_stream stream)
{
	if (n < 0)
		return BAD_SIZE;
	if (!n)
		return 0;
	return launch(uniforms, dim3((unsigned)blocks_for(n, 256)), dim3(256), 0, stream, u, draws_of(draws), n);
}
