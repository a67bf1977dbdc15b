/* Sampling one token per row. Nothing sorts the vocabulary: a truncation becomes a bound (top_k: the k-th largest z;
 * top_p: the last token kept, by a heap from which only kept tokens are taken; min_p: a least weight), and one pass in
 * id order collects what lies within all bounds. The result is that of the reference, to the token: same weights
 * (exp(z - max) as float), same sums (double, same order), same treatment of ties. */
#include "backend/cpu/cpu_ops.h"
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/softmax_row.h"

struct entry {
	float z;
	int32_t id;
};

/* What one row needs of working memory, for each thread. */
struct row_memory {
	float *e;              /* [V] exp(z - max) */
	struct entry *entries; /* [V] a heap */
	int32_t *kept;         /* [V] ids, ascending */
};

/* Where the row is cut: a token is kept if it lies within all bounds. Ties with the k-th largest are all kept; ties
 * with the last of top_p only up to its id. */
struct bounds {
	float kth;         /* z >= kth */
	struct entry last; /* (z, id) not after this one in the order of falling z, then rising id */
	float min_weight;  /* e >= min_weight */
};

static inline int comes_before(struct entry a, struct entry b)
{
	return a.z > b.z || (a.z == b.z && a.id < b.id);
}

static int32_t first_largest(const float *logits, int64_t V)
{
	float largest = -INFINITY;
	int64_t best = 0;
	for (int64_t i = 0; i < V; i++)
		if (logits[i] > largest) {
			largest = logits[i];
			best = i;
		}
	return (int32_t)best;
}

/* Floats with the smallest on top. */
static void sift_smallest(float *heap, int64_t n, int64_t i)
{
	float moved = heap[i];
	for (int64_t child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && heap[child + 1] < heap[child])
			child++;
		if (heap[child] >= moved)
			break;
		heap[i] = heap[child];
	}
	heap[i] = moved;
}

/* Entries with the one that comes before all others on top. */
static void sift_first(struct entry *heap, int64_t n, int64_t i)
{
	struct entry moved = heap[i];
	for (int64_t child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && comes_before(heap[child + 1], heap[child]))
			child++;
		if (comes_before(moved, heap[child]))
			break;
		heap[i] = heap[child];
	}
	heap[i] = moved;
}

/* The k-th largest of x[V], k < V, counting equal ones separately. heap[k] is working memory. */
static float kth_largest(const float *x, int64_t V, int64_t k, float *heap)
{
	enum { GLANCE = 64 };
	memcpy(heap, x, (size_t)k * sizeof *heap);
	for (int64_t i = k / 2; i-- > 0;)
		sift_smallest(heap, k, i);
	for (int64_t first = k; first < V; first += GLANCE) {
		int64_t n = V - first < GLANCE ? V - first : GLANCE;
		/* most stretches hold nothing large enough; this loop vectorises */
		int any = 0;
		for (int64_t i = 0; i < n; i++)
			any |= x[first + i] > heap[0];
		for (int64_t i = 0; any && i < n; i++)
			if (x[first + i] > heap[0]) {
				heap[0] = x[first + i];
				sift_smallest(heap, k, 0);
			}
	}
	return heap[0];
}

/* The last token that top_p keeps among those with z >= kth. */
static struct entry nucleus_end(const float *logits, int64_t V, float temperature, float top_p, float kth,
                                struct row_memory m)
{
	double sum = 0;
	for (int64_t i = 0; i < V; i++)
		if (softmax_z(logits[i], temperature) >= kth)
			sum += m.e[i];
	/* A token lighter than (1 - top_p) sum / V is never kept: all that come after it weigh less than V of it, so those
	 * before it have reached top_p. The heap need not hold it; a margin covers the rounding of the sums. */
	double goal = top_p * sum, negligible = (sum - goal) / (double)V * 0.999;
	int64_t n = 0;
	for (int64_t i = 0; i < V; i++) {
		float z = softmax_z(logits[i], temperature);
		if (z >= kth && m.e[i] >= negligible)
			m.entries[n++] = (struct entry){z, (int32_t)i};
	}
	for (int64_t i = n / 2; i-- > 0;)
		sift_first(m.entries, n, i);
	/* a token is kept if those before it have not reached the goal yet */
	struct entry last = m.entries[0];
	double before = m.e[last.id];
	while (before < goal && n > 1) {
		m.entries[0] = m.entries[--n];
		sift_first(m.entries, n, 0);
		last = m.entries[0];
		before += m.e[last.id];
	}
	return last;
}

/* Ids of the tokens within the bounds into m.kept, ascending; returns how many. */
static int64_t collect(const float *logits, int64_t V, float temperature, struct bounds bounds, struct row_memory m)
{
	int64_t n = 0;
	for (int64_t i = 0; i < V; i++) {
		struct entry token = {softmax_z(logits[i], temperature), (int32_t)i};
		if (token.z >= bounds.kth && !comes_before(bounds.last, token) && m.e[i] >= bounds.min_weight)
			m.kept[n++] = token.id;
	}
	return n;
}

/* The first token, in id order, at which the cumulative weight exceeds u of the sum; if rounding lets none, the last
 * that has any weight. *before: the weight before `first`. */
static int32_t draw_within(const float *e, const int32_t *kept, int64_t first, int64_t end, double *before, double goal)
{
	int32_t last = -1;
	for (int64_t i = first; i < end; i++) {
		int32_t id = kept ? kept[i] : (int32_t)i;
		if (e[id] > 0)
			last = id;
		*before += e[id];
		if (*before > goal)
			break;
	}
	return last;
}

static int32_t draw_kept(const float *e, const int32_t *kept, int64_t n, double u, double *sum)
{
	double total = 0, before = 0;
	for (int64_t i = 0; i < n; i++)
		total += e[kept[i]];
	*sum = total;
	return draw_within(e, kept, 0, n, &before, u * total);
}

/* Of all tokens: whole blocks are passed over, as they were summed. */
static int32_t draw_any(const float *e, int64_t V, double u, double sum)
{
	double goal = u * sum, before = 0;
	int64_t first = 0, weighty = 0; /* the last block that has any weight, should rounding let none exceed */
	for (; first < V; first += REDUCE_BLOCK) {
		double block = reduce_sum(e + first, V - first < REDUCE_BLOCK ? V - first : REDUCE_BLOCK);
		if (block > 0)
			weighty = first;
		if (before + block > goal)
			break;
		before += block;
	}
	if (first >= V) {
		first = weighty;
		goal = INFINITY;
	}
	return draw_within(e, NULL, first, V - first < REDUCE_BLOCK ? V : first + REDUCE_BLOCK, &before, goal);
}

static struct sampled sample_row(const float *logits, int64_t V, double u, const struct sampling *how,
                                 struct row_memory m)
{
	int greedy = how->temperature == 0;
	float temperature = greedy ? 1.0f : how->temperature;
	struct softmax_row row = softmax_row(logits, V, temperature, m.e);
	struct sampled out = {.token = -1, .entropy = (float)row.entropy};
	int truncate_k = how->top_k > 0 && how->top_k < V, truncate_p = how->top_p < 1;
	int64_t n = V;
	double sum = 0;
	/* logits that are no numbers have no distribution: the log-probability is NaN too, which the caller sees */
	if (!greedy && isfinite(row.lse)) {
		struct bounds bounds = {.kth = -INFINITY, .last = {-INFINITY, INT32_MAX}, .min_weight = how->min_p};
		if (truncate_k) /* found before the division, which keeps the order */
			bounds.kth = softmax_z(kth_largest(logits, V, how->top_k, (float *)m.entries), temperature);
		if (truncate_p)
			bounds.last = nucleus_end(logits, V, temperature, how->top_p, bounds.kth, m);
		if (truncate_k || truncate_p || how->min_p > 0)
			n = collect(logits, V, temperature, bounds, m);
		out.token = n < V ? draw_kept(m.e, m.kept, n, u, &sum) : draw_any(m.e, V, u, row.sum);
	}
	if (out.token < 0)
		out.token = first_largest(logits, V);
	out.logp = softmax_logp(&row, logits[out.token]);
	if (!greedy)
		out.sampling_logp = n == V ? out.logp
		                           : (float)((double)(softmax_z(logits[out.token], temperature) - row.max) - log(sum));
	return out;
}

void cpu_sample(struct backend *b, struct sampled *out, struct tensor logits, const double *u,
                const struct sampling *how)
{
	int64_t V = logits.cols, per_array = (V + 15) / 16 * 16; /* each array on cache lines of its own */
	size_t per_thread = (size_t)per_array * (sizeof(float) + sizeof(struct entry) + sizeof(int32_t));
	int threads = cpu_threads(b, logits.rows * V);
	if (threads > logits.rows)
		threads = (int)logits.rows;
	char *memory = cpu_scratch(b, per_thread * (size_t)threads);
#pragma omp parallel for num_threads(threads) schedule(static)
	for (int thread = 0; thread < threads; thread++) {
		char *own = memory + per_thread * (size_t)thread;
		struct row_memory m = {.e = (float *)own};
		m.entries = (struct entry *)(own + (size_t)per_array * sizeof(float));
		m.kept = (int32_t *)(own + (size_t)per_array * (sizeof(float) + sizeof(struct entry)));
		for (int64_t t = thread; t < logits.rows; t += threads)
			out[t] = sample_row(logits.data + t * logits.stride, V, u[t], how, m);
	}
}
