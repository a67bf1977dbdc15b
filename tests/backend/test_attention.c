/* Attention: the CPU kernels against the plain reference, the reference's gradient against finite differences, and the
 * promise that a query's bits depend on its own keys alone. */
#include "backend/cpu/attention.h"
#include "backend/cpu/cpu_state.h"
#include "backend/cpu/vmath.h"
#include "backend/reference/ref_attention.h"
#include "base/rng.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SEGMENTS_MAX = 16, FORWARD_TOLERANCE = 10, BACKWARD_TOLERANCE = 10 }; /* in 1e-6 of the largest number */

/* Which queries see which keys. */
struct layout {
	struct segment segments[SEGMENTS_MAX];
	int count, query_rows, key_rows;
};

struct shape {
	int heads, kv_heads, depth;
};

/* Tensors of one case; q, k, v are column ranges of one wider array, as after a fused projection. */
struct problem {
	struct tensor q, k, v, o, do_, dq, dk, dv;
	float *lse;
	float scale;
	float *memory;
};

static float draw(uint64_t seed, uint32_t i)
{
	return (float)(2 * rng_uniform(seed, RNG_INIT, 0, 0, i) - 1);
}

static void fill(float *p, int64_t n, uint64_t seed)
{
	for (int64_t i = 0; i < n; i++)
		p[i] = draw(seed, (uint32_t)i);
}

static struct problem problem_new(const struct layout *l, struct shape s, uint64_t seed)
{
	int64_t wide = s.heads * s.depth, narrow = s.kv_heads * s.depth, tq = l->query_rows, tk = l->key_rows;
	int64_t fused = wide + 2 * narrow + 4, rows = tq > tk ? tq : tk;
	int64_t floats = 2 * rows * fused + 2 * tq * wide + s.heads * tq;
	struct problem p = {.memory = favor_malloc((size_t)floats * sizeof(float))};
	fill(p.memory, floats, seed);
	float *at = p.memory;
	p.q = (struct tensor){at, tq, wide, fused, ELEMENT_FLOAT32};
	p.k = (struct tensor){at + wide, tk, narrow, fused, ELEMENT_FLOAT32};
	p.v = (struct tensor){at + wide + narrow, tk, narrow, fused, ELEMENT_FLOAT32};
	at += rows * fused;
	p.dq = (struct tensor){at, tq, wide, fused, ELEMENT_FLOAT32};
	p.dk = (struct tensor){at + wide, tk, narrow, fused, ELEMENT_FLOAT32};
	p.dv = (struct tensor){at + wide + narrow, tk, narrow, fused, ELEMENT_FLOAT32};
	at += rows * fused;
	p.o = tensor_of(at, tq, wide);
	p.do_ = tensor_of(at + tq * wide, tq, wide);
	p.lse = at + 2 * tq * wide;
	p.scale = 2.5f / sqrtf((float)s.depth);
	return p;
}

/* A backend with nothing in its table: the functions are called by name. */
static struct backend backend_of(struct cpu_state *state, int threads)
{
	*state = (struct cpu_state){0};
	return (struct backend){.state = state, .threads = threads};
}

static void forward(const struct problem *p, const struct layout *l, struct shape s, int threads)
{
	struct cpu_state state;
	struct backend b = backend_of(&state, threads);
	cpu_attention(&b, p->o, p->lse, p->q, p->k, p->v, s.heads, s.kv_heads, p->scale, l->segments, l->count);
	free(state.scratch);
}

static void backward(const struct problem *p, const struct layout *l, struct shape s, int threads)
{
	struct cpu_state state;
	struct backend b = backend_of(&state, threads);
	cpu_attention_backward(&b, p->dq, p->dk, p->dv, p->do_, p->o, p->lse, p->q, p->k, p->v, s.heads, s.kv_heads,
	                       p->scale, l->segments, l->count);
	free(state.scratch);
}

static void assert_close(struct tensor got, struct tensor want, int millionths, const char *what)
{
	float most = 0, error = 0;
	for (int64_t i = 0; i < got.rows; i++) {
		for (int64_t d = 0; d < got.cols; d++) {
			float w = want.data[i * want.stride + d], g = got.data[i * got.stride + d];
			if (isinf(w) && w == g)
				continue;
			most = fmaxf(most, fabsf(w));
			if (!(fabsf(w - g) <= error))
				error = fabsf(w - g);
		}
	}
	if (!(error <= (float)millionths * 1e-6f * most))
		fail_msg("%s: error %g of %g", what, (double)error, (double)most);
}

static void assert_same_row(struct tensor a, int64_t i, struct tensor c, int64_t j)
{
	assert_memory_equal(a.data + i * a.stride, c.data + j * c.stride, (size_t)a.cols * sizeof(float));
}

/* --- layouts --- */

static struct layout causal(int length)
{
	return (struct layout){{{0, length, 0, 0, 0, length, 1}}, 1, length, length};
}

/* Vision: windows that see all of themselves; two rows after them belong to none. */
static struct layout windows(int count, int length)
{
	struct layout l = {.count = count, .query_rows = count * length + 2, .key_rows = count * length + 2};
	for (int i = 0; i < count; i++)
		l.segments[i] = (struct segment){i * length, length, 0, 0, i * length, length, 0};
	return l;
}

/* Training: [prompt][response 1]..[response G], response g of length first + g * more. */
static struct layout packed(int prompt, int responses, int first, int more)
{
	struct layout l = {.count = responses + 1};
	l.segments[0] = (struct segment){0, prompt, 0, 0, 0, prompt, 1};
	int at = prompt;
	for (int g = 0; g < responses; g++) {
		int length = first + g * more;
		l.segments[g + 1] = (struct segment){at, length, 0, prompt, at, length, 1};
		at += length;
	}
	l.query_rows = l.key_rows = at;
	return l;
}

/* Decoding: G responses of `room` key rows each after the prompt's rows; each asks its newest token, number t. */
static struct layout decode(int prompt, int responses, int room, int t)
{
	struct layout l = {.count = responses, .query_rows = responses, .key_rows = prompt + responses * room};
	for (int g = 0; g < responses; g++)
		l.segments[g] = (struct segment){g, 1, 0, prompt, prompt + g * room, t + 1, 1};
	return l;
}

/* The odd ones: an empty segment, a single key, a prefix alone, rows that no segment covers, a prefix that starts in
 * mid-array and overlaps another segment's own keys, a part of a prompt (q_len < kv_len), and queries that see no key.
 */
static struct layout odd(void)
{
	struct layout l = {.count = 9, .query_rows = 90, .key_rows = 300};
	struct segment s[] = {{0, 1, 0, 0, 7, 1, 1},      {1, 3, 100, 70, 200, 3, 1}, {4, 0, 100, 70, 203, 0, 1},
	                      {4, 1, 100, 70, 210, 1, 1}, {7, 5, 3, 130, 40, 0, 0},   {12, 20, 0, 0, 30, 150, 1},
	                      {40, 9, 5, 1, 90, 64, 0},   {50, 30, 0, 0, 280, 20, 1}, {80, 10, 10, 65, 0, 129, 1}};
	memcpy(l.segments, s, sizeof s);
	return l;
}

/* Two groups decoded in one call, their prompts equally long but in different places. */
static struct layout two_groups(void)
{
	struct layout l = {.count = 4, .query_rows = 4, .key_rows = 300};
	for (int g = 0; g < 4; g++)
		l.segments[g] = (struct segment){g, 1, g / 2 * 80, 80, 160 + g * 30, 25, 1};
	return l;
}

/* --- tests --- */

static void check_against_reference(const struct layout *l, struct shape s, uint64_t seed)
{
	struct problem a = problem_new(l, s, seed), r = problem_new(l, s, seed);
	forward(&a, l, s, 2);
	ref_attention(NULL, r.o, r.lse, r.q, r.k, r.v, s.heads, s.kv_heads, r.scale, l->segments, l->count);
	/* rows that no segment covers still hold the same random numbers */
	assert_close(a.o, r.o, FORWARD_TOLERANCE, "o");
	assert_close(tensor_of(a.lse, s.heads, l->query_rows), tensor_of(r.lse, s.heads, l->query_rows), FORWARD_TOLERANCE,
	             "lse");
	backward(&a, l, s, 2);
	ref_attention_backward(NULL, r.dq, r.dk, r.dv, r.do_, r.o, r.lse, r.q, r.k, r.v, s.heads, s.kv_heads, r.scale,
	                       l->segments, l->count);
	assert_close(a.dq, r.dq, BACKWARD_TOLERANCE, "dq");
	assert_close(a.dk, r.dk, BACKWARD_TOLERANCE, "dk");
	assert_close(a.dv, r.dv, BACKWARD_TOLERANCE, "dv");
	free(a.memory);
	free(r.memory);
}

static void test_reference(void **unused)
{
	(void)unused;
	const struct shape shapes[] = {{2, 2, 8},  {6, 2, 16}, {3, 1, 20},  {4, 4, 24},  {7, 1, 32},
	                               {4, 2, 64}, {2, 1, 80}, {2, 2, 128}, {1, 1, 256}, {120, 1, 4}};
	const struct layout layouts[] = {causal(1),           causal(63),
	                                 causal(130),         windows(3, 40),
	                                 windows(1, 100),     packed(70, 3, 1, 40),
	                                 packed(1, 2, 65, 3), decode(100, 4, 80, 70),
	                                 two_groups(),        odd()};
	for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
		for (size_t l = 0; l < sizeof layouts / sizeof *layouts; l++)
			if (shapes[s].heads < 100 || layouts[l].query_rows <= 90)
				check_against_reference(&layouts[l], shapes[s], 100 * s + l);
}

static double weighted_output(struct problem *p, const struct layout *l, struct shape s)
{
	ref_attention(NULL, p->o, p->lse, p->q, p->k, p->v, s.heads, s.kv_heads, p->scale, l->segments, l->count);
	double sum = 0;
	for (int64_t i = 0; i < p->o.rows * p->o.cols; i++)
		sum += (double)p->o.data[i] * p->do_.data[i];
	return sum;
}

static void check_differences(struct problem *p, const struct layout *l, struct shape s, struct tensor x,
                              struct tensor dx)
{
	const float step = 1.0f / 128;
	for (int64_t i = 0; i < x.rows; i++) {
		for (int64_t d = 0; d < x.cols; d++) {
			float *at = &x.data[i * x.stride + d], old = *at;
			*at = old + step;
			double up = weighted_output(p, l, s);
			*at = old - step;
			double down = weighted_output(p, l, s);
			*at = old;
			double want = (up - down) / (2 * step), got = dx.data[i * dx.stride + d];
			if (!(fabs(want - got) < 4e-4))
				fail_msg("row %d, column %d: gradient %g, difference quotient %g", (int)i, (int)d, got, want);
		}
	}
}

static void test_differences(void **unused)
{
	(void)unused;
	struct shape s = {2, 1, 4};
	struct layout l = packed(3, 2, 2, 1);
	struct problem p = problem_new(&l, s, 5);
	for (int64_t i = 0; i < p.dq.rows; i++)
		memset(p.dq.data + i * p.dq.stride, 0, (size_t)(p.dq.cols + p.dk.cols + p.dv.cols) * sizeof(float));
	weighted_output(&p, &l, s);
	ref_attention_backward(NULL, p.dq, p.dk, p.dv, p.do_, p.o, p.lse, p.q, p.k, p.v, s.heads, s.kv_heads, p.scale,
	                       l.segments, l.count);
	check_differences(&p, &l, s, p.q, p.dq);
	check_differences(&p, &l, s, p.k, p.dk);
	check_differences(&p, &l, s, p.v, p.dv);
	free(p.memory);
}

/* A causal sequence at once, in pieces, and token by token, with rubbish in the rows that are yet to come. */
static void test_decode_is_training(void **unused)
{
	(void)unused;
	enum { LENGTH = 150 };
	const struct shape shapes[] = {{6, 2, 16}, {2, 2, 64}, {4, 1, 20}, {1, 1, 80}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		struct shape s = shapes[i];
		struct layout whole = causal(LENGTH);
		struct problem p = problem_new(&whole, s, i), piece = problem_new(&whole, s, i);
		forward(&p, &whole, s, 2);
		for (int at = 0, take; at < LENGTH; at += take) {
			take = at < 100 ? 1 : 1 + at % 17;
			if (take > LENGTH - at)
				take = LENGTH - at;
			struct layout l = {{{at, take, 0, 0, 0, at + take, 1}}, 1, LENGTH, at + take};
			for (int r = at + take; r < LENGTH; r++)
				for (int64_t d = 0; d < p.k.cols; d++)
					piece.k.data[r * p.k.stride + d] = piece.v.data[r * p.v.stride + d] = NAN;
			forward(&piece, &l, s, 1 + at % 3);
			for (int r = at; r < at + take; r++) {
				assert_same_row(piece.o, r, p.o, r);
				for (int h = 0; h < s.heads; h++)
					assert_memory_equal(&piece.lse[h * LENGTH + r], &p.lse[h * LENGTH + r], sizeof(float));
			}
			memcpy(piece.q.data, p.q.data, (size_t)(LENGTH * p.q.stride) * sizeof(float));
		}
		free(p.memory);
		free(piece.memory);
	}
}

/* [prompt][response 1..G] in one row, each response alone with the prompt in another place, and all responses decoded
 * together: the same bits. */
static void test_shared_prefix(void **unused)
{
	(void)unused;
	enum { PROMPT = 100, RESPONSES = 4, LENGTH = 70, SHIFT = 9 };
	const struct shape shapes[] = {{6, 1, 16}, {2, 2, 64}, {14, 2, 24}};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		struct shape s = shapes[i];
		struct layout row = packed(PROMPT, RESPONSES, LENGTH, 0);
		struct problem p = problem_new(&row, s, i);
		forward(&p, &row, s, 2);
		for (int g = 0; g < RESPONSES; g++) {
			struct layout one = packed(PROMPT, 1, LENGTH, 0);
			for (int k = 0; k < 2; k++) {
				one.segments[k].prefix_start += SHIFT;
				one.segments[k].kv_start += SHIFT;
			}
			one.key_rows += SHIFT;
			struct problem alone = problem_new(&one, s, 77);
			for (int r = 0; r < PROMPT + LENGTH; r++) {
				int from = r < PROMPT ? r : r + g * LENGTH;
				memcpy(alone.q.data + r * alone.q.stride, p.q.data + from * p.q.stride,
				       (size_t)p.q.cols * sizeof(float));
				memcpy(alone.k.data + (r + SHIFT) * alone.k.stride, p.k.data + from * p.k.stride,
				       (size_t)(p.k.cols + p.v.cols) * sizeof(float));
			}
			forward(&alone, &one, s, 3);
			for (int r = 0; r < PROMPT + LENGTH; r++)
				assert_same_row(alone.o, r, p.o, r < PROMPT ? r : r + g * LENGTH);
			free(alone.memory);
		}
		for (int t = 0; t < LENGTH; t++) {
			struct layout step = decode(PROMPT, RESPONSES, LENGTH, t);
			struct problem d = problem_new(&step, s, 78);
			struct tensor own = d.q;
			for (int g = 0; g < RESPONSES; g++)
				memcpy(own.data + g * own.stride, p.q.data + (PROMPT + g * LENGTH + t) * p.q.stride,
				       (size_t)p.q.cols * sizeof(float));
			d.k = p.k;
			d.v = p.v;
			forward(&d, &step, s, 1 + t % 3);
			for (int g = 0; g < RESPONSES; g++)
				assert_same_row(d.o, g, p.o, PROMPT + g * LENGTH + t);
			free(d.memory);
		}
		free(p.memory);
	}
}

static void test_threads(void **unused)
{
	(void)unused;
	const struct shape shapes[] = {{6, 2, 16}, {2, 2, 64}, {1, 1, 80}};
	const struct layout layouts[] = {causal(200), windows(3, 40), packed(70, 3, 1, 40), odd()};
	for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
		for (size_t k = 0; k < sizeof layouts / sizeof *layouts; k++) {
			const struct layout *l = &layouts[k];
			struct shape s = shapes[i];
			struct problem one = problem_new(l, s, k);
			forward(&one, l, s, 1);
			backward(&one, l, s, 1);
			for (int threads = 2; threads <= 5; threads += threads == 3 ? 2 : 1) {
				struct problem many = problem_new(l, s, k);
				forward(&many, l, s, threads);
				backward(&many, l, s, threads);
				for (int r = 0; r < l->query_rows; r++) {
					assert_same_row(many.o, r, one.o, r);
					assert_same_row(many.dq, r, one.dq, r);
				}
				for (int r = 0; r < l->key_rows; r++) {
					assert_same_row(many.dk, r, one.dk, r);
					assert_same_row(many.dv, r, one.dv, r);
				}
				free(many.memory);
			}
			free(one.memory);
		}
	}
}

/* A sample of all floats: within two units in the last place of the C library's result. */
static void test_exponential(void **unused)
{
	(void)unused;
	for (uint64_t bits = 0; bits <= UINT32_MAX; bits += 10007) {
		uint32_t word = (uint32_t)bits;
		float x;
		memcpy(&x, &word, sizeof x);
		float got = vexp(x), want = expf(x);
		if (isnan(x))
			assert_true(isnan(got));
		else if (x < -87.33f)
			assert_true(got == 0);
		else
			assert_true(got == want || fabsf(got - want) <= 2 * (nextafterf(want, INFINITY) - want));
	}
	assert_true(vexp(0) == 1 && vexp(-INFINITY) == 0 && isinf(vexp(INFINITY)) && isfinite(vexp(88.72283f)));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_reference),
		cmocka_unit_test(test_differences),
		cmocka_unit_test(test_decode_is_training),
		cmocka_unit_test(test_shared_prefix),
		cmocka_unit_test(test_threads),
		cmocka_unit_test(test_exponential),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
