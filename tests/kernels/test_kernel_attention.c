/* Attention, forward and in decoding, against the reference backend; and that a query's result has the same bits wherever it is
 * computed. */
#include "attention_cases.h"

#include "base/error.h"

static const struct layout plain = {0, 0};

struct result {
	struct matrix o, lse;
};

static struct result result_new(enum kernel_type type, struct heads h, int64_t q_rows, struct layout layout)
{
	return (struct result){matrix_empty(type, q_rows, (int64_t)h.heads * h.depth, layout),
	                       matrix_empty(KERNEL_F32, h.heads, q_rows, plain)};
}

static void result_free(struct result *r)
{
	matrix_free(&r->o);
	matrix_free(&r->lse);
}

static struct result attend(const struct inputs *in, const struct segment *list, int count, struct heads h, struct layout layout)
{
	struct result r = result_new(in->a.type, h, in->a.q_rows, layout);
	struct kernel_attention_plan plan = planned(&in->a, list, count, 0);
	launched("attention", kernel_attention(r.o.data, r.o.stride, r.lse.data, &in->a, &plan, NULL));
	device_release((void *)plan.list);
	return r;
}

/* Scores are exact sums of exact products but for float32's rounding; softmax weights are rounded to bfloat16 on tensor cores: then a mean
 * of values below 1 is off by 2^-9 at most, and rounded. */
static void forward_case(struct backend *b, enum kernel_type type, struct heads h, const struct segments *s,
                         struct layout layout, double score)
{
	struct inputs in = inputs_random(type, h, s->q_rows, s->k_rows, layout, score);
	inputs_poison(&in, s->list, s->count);
	struct result r = attend(&in, s->list, s->count, h, layout);
	b->ops.attention(b, r.o.host, r.lse.host.data, in.q.host, in.k.host, in.v.host, h.heads, h.kv_heads, in.a.scale,
	                 s->list, s->count);
	matrix_check(case_name("attention: o", s->name, h).text, &r.o, 1e-6, type == KERNEL_BF16 ? 2.5e-3 : 1e-6 * (1 + score));
	matrix_check(case_name("attention: lse", s->name, h).text, &r.lse, 5e-7, 5e-7 * (1 + score));
	inputs_free(&in);
	result_free(&r);
}

static void test_forward(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	for (int s = 0; s < attention_case_count; s++)
		for (int i = s % 4; i < SHAPES; i += 4)
			FOR_TYPES(type)
				forward_case(b, type, attention_shapes[i], &attention_cases[s], plain, 1);
	backend_destroy(b);
}

static void test_layouts(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	static const struct layout layouts[] = {{8, 8}, {3, 1}, {24, 0}, {0, 2}};
	for (int l = 0; l < 4; l++)
		FOR_TYPES(type)
			forward_case(b, type, attention_shapes[1 + l], &attention_cases[GROUP_CASE], layouts[l], 1);
	forward_case(b, KERNEL_F32, (struct heads){1, 1, 256}, &attention_cases[GROUP_CASE], plain, 1);
	forward_case(b, KERNEL_BF16, (struct heads){1, 1, 256}, &attention_cases[SMALL_CASE], plain, 1);
	forward_case(b, KERNEL_BF16, (struct heads){64, 1, 2}, &attention_cases[SMALL_CASE], plain, 1);
	forward_case(b, KERNEL_BF16, (struct heads){100, 1, 8}, &attention_cases[SMALL_CASE], plain, 1);
	backend_destroy(b);
}

/* Large scores: 2^(x - m) neither overflows nor are all weights 0. Scores of thousands are good to 1e-3 as exponents. */
static void test_large_scores(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	const struct heads h = {2, 1, 64};
	const struct segments *s = &attention_cases[GROUP_CASE];
	FOR_TYPES(type) {
		struct inputs in = inputs_random(type, h, s->q_rows, s->k_rows, plain, 1);
		/* whole numbers up to 16 in size: scores are exact, of size 1000 */
		for (int64_t i = 0; i < in.q.rows * in.q.cols; i++)
			in.q.host.data[i] = roundf(in.q.host.data[i] * 9);
		for (int64_t i = 0; i < in.k.rows * in.k.cols; i++)
			in.k.host.data[i] = roundf(in.k.host.data[i] * 9);
		struct matrix q = matrix_of(type, in.q.rows, in.q.cols, plain, in.q.host.data),
					  k = matrix_of(type, in.k.rows, in.k.cols, plain, in.k.host.data);
		in.a.q = q.data;
		in.a.k = k.data;
		in.a.scale = 8;
		struct result r = attend(&in, s->list, s->count, h, plain);
		b->ops.attention(b, r.o.host, r.lse.host.data, q.host, k.host, in.v.host, h.heads, h.kv_heads, 8, s->list, s->count);
		matrix_check("attention with large scores: o", &r.o, 1e-6, type == KERNEL_BF16 ? 3e-3 : 1e-3);
		matrix_check("attention with large scores: lse", &r.lse, 2e-7, 0);
		matrix_free(&q);
		matrix_free(&k);
		result_free(&r);
		inputs_free(&in);
	}
	backend_destroy(b);
}

/* What one row of o and lse is, in a batch and elsewhere, must have the same bits. */
static void same_row(const char *what, const struct result *got, int64_t got_row, const struct result *want, int64_t want_row)
{
	float *a = matrix_values(&got->o), *c = matrix_values(&want->o), *x = matrix_values(&got->lse), *y = matrix_values(&want->lse);
	int64_t cols = want->o.cols;
	if (memcmp(a + got_row * cols, c + want_row * cols, (size_t)cols * sizeof *a))
		fail_msg("%s: row %lld of o has other bits than row %lld", what, (long long)got_row, (long long)want_row);
	for (int64_t head = 0; head < want->lse.rows; head++)
		if (memcmp(x + head * got->lse.cols + got_row, y + head * want->lse.cols + want_row, sizeof *x))
			fail_msg("%s: row %lld of lse has other bits than row %lld", what, (long long)got_row, (long long)want_row);
	free(a);
	free(c);
	free(x);
	free(y);
}

/* A group as it is trained: its prompt, then responses of these lengths, which see it. */
enum { PROMPT = 270, RESPONSES = 2, RESPONSE = 280, TOKENS = PROMPT + RESPONSES * RESPONSE };

static void group_segments(struct segment *list, int32_t first)
{
	list[0] = (struct segment){first, PROMPT, 0, 0, first, PROMPT, 1};
	for (int32_t r = 0; r < RESPONSES; r++) {
		int32_t at = first + PROMPT + r * RESPONSE;
		list[1 + r] = (struct segment){at, RESPONSE - 7 * r, first, PROMPT, at, RESPONSE - 7 * r, 1};
	}
}

/* Decoding gives the bits that training has for the same query: at first, at ends of blocks and of chunks, and at the end; beside another
 * group, in any order of segments, and with places that are empty. */
static void test_decode_is_training(void **state)
{
	(void)state;
	static const struct {
		enum kernel_type type;
		struct heads heads;
	} ways[] = {{KERNEL_BF16, {3, 1, 32}}, {KERNEL_BF16, {2, 1, 80}}, {KERNEL_F32, {2, 1, 10}}};
	enum { WAYS = sizeof ways / sizeof *ways };
	static const int32_t lengths[] = {1, 64, 65, 256, 257, RESPONSE - 14};
	for (int w = 0; w < WAYS; w++) {
		enum kernel_type type = ways[w].type;
		struct heads h = ways[w].heads;
		struct inputs in = inputs_random(type, h, TOKENS, TOKENS, plain, 2);
		struct segment training[1 + RESPONSES];
		group_segments(training, 0);
		struct result trained = attend(&in, training, 1 + RESPONSES, h, plain);
		/* places: response 1, an empty one, one of another prefix, response 0, response 0 again */
		static const int place[] = {1, -1, -2, 0, 0};
		struct segment list[5];
		for (int p = 0; p < 5; p++) {
			if (place[p] >= 0) {
				list[p] = training[1 + place[p]];
				list[p].q_len = 1;
			} else {
				list[p] = (struct segment){0, place[p] == -2, 10, 100, 120, 70, 1};
			}
			list[p].q_start = 4 - p;
		}
		for (int t = 0; t < 6; t++) {
			int32_t kv_len[5] = {0, 0, lengths[t] < 70 ? lengths[t] : 70, 0, 0};
			float *rows = favor_calloc((size_t)(5 * in.q.cols), sizeof *rows);
			for (int p = 0; p < 5; p++)
				if (place[p] >= 0) {
					kv_len[p] = lengths[t];
					memcpy(rows + list[p].q_start * in.q.cols,
					       in.q.host.data + (training[1 + place[p]].q_start + lengths[t] - 1) * in.q.cols,
					       (size_t)in.q.cols * sizeof *rows);
				}
			struct matrix q = matrix_of(type, 5, in.q.cols, plain, rows);
			struct kernel_attention a = in.a;
			a.q = q.data;
			a.q_rows = 5;
			int32_t *now = device_array(kv_len, sizeof kv_len);
			struct kernel_decode_plan plan = decode_planned(&a, list, 5, t % 2 ? 20 : 0);
			float *scratch = device_alloc((size_t)kernel_attention_decode_scratch(&a, &plan) * sizeof(float));
			struct result decoded = result_new(type, h, 5, plain);
			launched("attention_decode", kernel_attention_decode(decoded.o.data, decoded.o.stride, decoded.lse.data, &a, &plan,
			                                                     now, 1, scratch, NULL));
			for (int p = 0; p < 5; p++)
				if (place[p] >= 0)
					same_row("decoding and training", &decoded, list[p].q_start, &trained,
					         training[1 + place[p]].q_start + lengths[t] - 1);
			float *o = matrix_values(&decoded.o);
			for (int64_t c = 0; c < decoded.o.cols; c++)
				assert_true(isnan(o[list[1].q_start * decoded.o.cols + c])); /* the empty place */
			free(o);
			result_free(&decoded);
			matrix_free(&q);
			device_release(now);
			device_release(scratch);
			device_release((void *)plan.list);
			free(rows);
		}
		result_free(&trained);
		inputs_free(&in);
	}
}

/* Decoding against the reference, of all shapes; a segment without any key; more own keys than planned stop it. */
static void test_decode(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	enum { N = 12, KEYS = 420 };
	for (int i = 0; i < SHAPES; i++)
		FOR_TYPES(type) {
			struct heads h = attention_shapes[i];
			struct inputs in = inputs_random(type, h, N + 1, KEYS, plain, 1);
			struct segment list[N];
			int32_t kv_len[N];
			for (int32_t s = 0; s < N; s++) {
				list[s] = (struct segment){s, 1, s < 9 ? 0 : 40, s < 9 ? 37 : s == 9 ? 0 : 260, 300 + 8 * s, s + 3, s % 2};
				kv_len[s] = s == 9 ? 0 : s % 4 + 1;
			}
			struct segment seen[N]; /* what nobody sees yet must not matter */
			memcpy(seen, list, sizeof seen);
			for (int s = 0; s < N; s++)
				seen[s].kv_len = kv_len[s];
			inputs_poison(&in, seen, N);
			int32_t *now = device_array(kv_len, sizeof kv_len);
			struct kernel_decode_plan plan = decode_planned(&in.a, list, N, 0);
			float *scratch = device_alloc((size_t)kernel_attention_decode_scratch(&in.a, &plan) * sizeof(float));
			struct result r = result_new(type, h, N + 1, plain);
			launched("attention_decode", kernel_attention_decode(r.o.data, r.o.stride, r.lse.data, &in.a, &plan, now, 1, scratch,
			                                                     NULL));
			b->ops.attention(b, r.o.host, r.lse.host.data, in.q.host, in.k.host, in.v.host, h.heads, h.kv_heads, in.a.scale,
			                 seen, N);
			matrix_check("attention_decode: o", &r.o, 1e-6, type == KERNEL_BF16 ? 2.5e-3 : 2e-6);
			matrix_check("attention_decode: lse", &r.lse, 5e-7, 1e-6);
			launched("attention_decode without lse", kernel_attention_decode(r.o.data, r.o.stride, NULL, &in.a, &plan, now, 1, scratch,
			                                                                 NULL));
			if (device_orders() > 1) { /* a GPU would be lost for the rest of the program */
				kv_len[2] = 6;
				device_upload(now, kv_len, sizeof kv_len);
				int code = kernel_attention_decode(r.o.data, r.o.stride, NULL, &in.a, &plan, now, 1, scratch, NULL);
				assert_string_equal(kernel_error(code ? code : device_wait()), "unspecified launch failure");
				assert_non_null(strstr(device_trap_message(), "segment 2 has 6 own keys, planned were 5"));
			}
			result_free(&r);
			device_release(now);
			device_release(scratch);
			device_release((void *)plan.list);
			inputs_free(&in);
		}
	backend_destroy(b);
}

/* A group's rows have the same bits alone and beside other segments. */
static void test_batch_does_not_matter(void **state)
{
	(void)state;
	const struct segments *s = &attention_cases[TWO_GROUPS_CASE];
	for (int i = 2; i < 8; i += 4)
		FOR_TYPES(type) {
			struct inputs in = inputs_random(type, attention_shapes[i], s->q_rows, s->k_rows, plain, 1);
			struct result all = attend(&in, s->list, s->count, attention_shapes[i], plain),
						  one = attend(&in, s->list + 3, 3, attention_shapes[i], plain);
			for (int g = 3; g < 6; g++)
				for (int32_t q = 0; q < s->list[g].q_len; q += 3)
					same_row("a group alone", &one, s->list[g].q_start + q, &all, s->list[g].q_start + q);
			result_free(&all);
			result_free(&one);
			inputs_free(&in);
		}
}

static void test_bad_arguments(void **state)
{
	(void)state;
	struct kernel_attention a = {.q_rows = 10, .k_rows = 20, .heads = 4, .kv_heads = 2, .head_dim = 8, .scale = 1};
	struct kernel_attention_plan plan;
	struct kernel_decode_plan decode;
	static const struct kernel_segment bad[] = {{8, 3, 0, 0, 0, 3, 1},  {-1, 3, 0, 0, 0, 3, 1}, {0, 3, 18, 3, 0, 3, 1},
	                                            {0, 3, -2, 3, 0, 3, 1}, {0, 3, 0, 0, 18, 3, 1}, {0, -1, 0, 0, 0, 3, 1},
	                                            {0, 3, 0, 0, -1, 3, 1}, {0, 3, 0, -1, 0, 3, 1}, {0, 3, 0, 0, 0, -3, 1}};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(kernel_attention_plan(&plan, NULL, &bad[i], 1, &a, 1), -1);
		assert_int_equal(kernel_decode_plan(&decode, NULL, &bad[i], 1, &a, 0), -1);
	}
	const struct kernel_segment good = {0, 2, 0, 0, 0, 2, 1};
	assert_int_equal(kernel_decode_plan(&decode, NULL, &good, 1, &a, 0), -1); /* two queries */
	assert_true(kernel_attention_plan(&plan, NULL, &good, 1, &a, 1) > 0);
	struct kernel_attention other = a;
	other.k_rows = 19;
	assert_string_equal(kernel_error(kernel_attention(NULL, 32, NULL, &other, &plan, NULL)), "invalid argument");
	other = a;
	other.head_dim = 7;
	assert_string_equal(kernel_error(kernel_attention(NULL, 32, NULL, &other, &plan, NULL)), "invalid argument");
	other = a;
	other.scale = 0;
	assert_string_equal(kernel_error(kernel_attention(NULL, 32, NULL, &other, &plan, NULL)), "invalid argument");
	other = a;
	other.kv_heads = 3;
	assert_int_equal(kernel_attention_plan(&plan, NULL, &good, 1, &other, 1), -1);
	other.heads = 129;
	other.kv_heads = 1;
	assert_int_equal(kernel_attention_plan(&plan, NULL, &good, 1, &other, 1), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_forward),
	                                   cmocka_unit_test(test_layouts),
	                                   cmocka_unit_test(test_large_scores),
	                                   cmocka_unit_test(test_decode),
	                                   cmocka_unit_test(test_decode_is_training),
	                                   cmocka_unit_test(test_batch_does_not_matter),
	                                   cmocka_unit_test(test_bad_arguments)};
	return run_in_all_orders("attention", tests, sizeof tests / sizeof *tests);
}
