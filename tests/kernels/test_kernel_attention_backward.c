/* Attention's gradients against the reference backend. */
#include "attention_cases.h"

#include "base/error.h"

static const struct layout plain = {0, 0};
/* What a backward pass is given beside the inputs: o and lse are the reference's, so that each direction is tested by itself. */
struct pass {
	struct inputs in;
	struct matrix o, dout, dq, dk, dv;
	float *lse, *lse_there, *scratch;
	struct kernel_attention_plan plan;
};

/* Gradients of rows that a segment covers start at 0 in the reference, which adds; others stay what they are. */
static void zero_covered(struct matrix *m, int (*is_covered)(const struct segment *, int, int64_t), const struct segment *list, int count)
{
	for (int64_t row = 0; row < m->rows; row++)
		if (is_covered(list, count, row))
			memset(m->host.data + row * m->cols, 0, (size_t)m->cols * sizeof(float));
}

static struct pass pass_new(struct backend *b, enum kernel_type type, struct heads h, int64_t q_rows, int64_t k_rows,
                            const struct segment *list, int count, struct layout layout, int accumulate, double score)
{
	struct pass p = {.in = inputs_random(type, h, q_rows, k_rows, layout, score)};
	inputs_poison(&p.in, list, count);
	const int64_t queries = (int64_t)h.heads * h.depth, keys = (int64_t)h.kv_heads * h.depth;
	size_t lse_bytes = (size_t)(h.heads * q_rows) * sizeof(float);
	p.lse = favor_calloc((size_t)(h.heads * q_rows + 1), sizeof(float));
	float *o = favor_malloc((size_t)(q_rows * queries + 1) * sizeof(float));
	for (int64_t i = 0; i < q_rows * queries; i++)
		o[i] = NAN;
	b->ops.attention(b, tensor_of(o, q_rows, queries), p.lse, p.in.q.host, p.in.k.host, p.in.v.host, h.heads, h.kv_heads,
	                 p.in.a.scale, list, count);
	p.o = matrix_of(type, q_rows, queries, layout, o);
	free(o);
	p.lse_there = device_array(p.lse, lse_bytes);
	p.dout = matrix_random(type, q_rows, queries, wider(layout), 4, 1);
	if (accumulate) {
		p.dq = matrix_random(type, q_rows, queries, layout, 5, 1);
		p.dk = matrix_random(type, k_rows, keys, wider(wider(layout)), 6, 1);
		p.dv = matrix_random(type, k_rows, keys, wider(layout), 7, 1);
	} else {
		p.dq = matrix_empty(type, q_rows, queries, layout);
		p.dk = matrix_empty(type, k_rows, keys, wider(wider(layout)));
		p.dv = matrix_empty(type, k_rows, keys, wider(layout));
		zero_covered(&p.dq, is_query, list, count);
		zero_covered(&p.dk, is_key, list, count);
		zero_covered(&p.dv, is_key, list, count);
	}
	p.plan = planned(&p.in.a, list, count, 1);
	p.scratch = device_alloc((size_t)kernel_attention_backward_scratch(&p.in.a, &p.plan) * sizeof(float));
	return p;
}

static void pass_launch(struct pass *p, int accumulate)
{
	launched("attention_backward",
	         kernel_attention_backward(p->dq.data, p->dq.stride, p->dk.data, p->dk.stride, p->dv.data, p->dv.stride, accumulate,
	                                   p->dout.data, p->dout.stride, p->o.data, p->o.stride, p->lse_there, &p->in.a, &p->plan,
	                                   p->scratch, NULL));
}

static void pass_free(struct pass *p)
{
	struct matrix *all[] = {&p->o, &p->dout, &p->dq, &p->dk, &p->dv};
	for (int i = 0; i < 5; i++)
		matrix_free(all[i]);
	inputs_free(&p->in);
	free(p->lse);
	device_release(p->lse_there);
	device_release(p->scratch);
	device_release((void *)p->plan.list);
}

static void backward_case(struct backend *b, enum kernel_type type, struct heads h, const struct segments *s, struct layout layout,
                          int accumulate, double score)
{
	struct pass p = pass_new(b, type, h, s->q_rows, s->k_rows, s->list, s->count, layout, accumulate, score);
	pass_launch(&p, accumulate);
	b->ops.attention_backward(b, p.dq.host, p.dk.host, p.dv.host, p.dout.host, p.o.host, p.lse, p.in.q.host, p.in.k.host,
	                          p.in.v.host, h.heads, h.kv_heads, p.in.a.scale, s->list, s->count);
	/* bfloat16: the weights of a key's sum are rounded, errors of 2^-9 of each; those near 1 count, which are about one a head */
	double exact = 2e-6 * (1 + score), rounded = 4e-3 * sqrt((double)h.heads / h.kv_heads);
	matrix_check(case_name("attention_backward: dv", s->name, h).text, &p.dv, 1e-6, type == KERNEL_BF16 ? rounded : exact);
	matrix_check(case_name("attention_backward: dk", s->name, h).text, &p.dk, 1e-6, type == KERNEL_BF16 ? rounded : exact);
	matrix_check(case_name("attention_backward: dq", s->name, h).text, &p.dq, 1e-6, type == KERNEL_BF16 ? 4e-3 : exact);
	pass_free(&p);
}

static void test_backward(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	for (int s = 0; s < attention_case_count; s++)
		for (int i = s % 4; i < SHAPES; i += 4)
			FOR_TYPES(type)
				backward_case(b, type, attention_shapes[i], &attention_cases[s], plain, (s + i / 2) % 2, 1);
	backend_destroy(b);
}

static void test_layouts(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	static const struct layout layouts[] = {{8, 8}, {3, 1}, {24, 0}, {0, 2}};
	for (int l = 0; l < 4; l++)
		FOR_TYPES(type)
			backward_case(b, type, attention_shapes[1 + l], &attention_cases[TWO_GROUPS_CASE], layouts[l], l % 2, 1);
	/* more rows than an item has; a depth that no tensor core kernel is made for; a group larger than a tile */
	const struct segments *s = &attention_cases[GROUP_CASE];
	struct segments many = {"an item is full", 80, 80, 1, {{0, 80, 0, 0, 0, 80, 1}}};
	FOR_TYPES(type) {
		backward_case(b, type, (struct heads){16, 1, 8}, &many, plain, 0, 1);
		backward_case(b, type, (struct heads){100, 1, 8}, &attention_cases[SMALL_CASE], plain, 1, 1);
	}
	backward_case(b, KERNEL_F32, (struct heads){1, 1, 256}, s, plain, 0, 1);
	backward_case(b, KERNEL_F32, attention_shapes[2], s, plain, 0, 30);
	backend_destroy(b);
}

static void same_rows(const char *what, const struct matrix *a, const struct matrix *c, const struct segment *list, int count, int keys)
{
	float *x = matrix_values(a), *y = matrix_values(c);
	int64_t checked = 0;
	for (int64_t row = 0; row < a->rows; row++)
		for (int s = 0; s < count; s++)
			if ((keys ? is_key : is_query)(&list[s], 1, row)) {
				if (memcmp(x + row * a->cols, y + row * a->cols, (size_t)a->cols * sizeof *x))
					fail_msg("%s: row %lld of a group alone has other bits than in a batch", what, (long long)row);
				checked++;
			}
	assert_true(checked > 0);
	free(x);
	free(y);
}

/* A group's gradients have the same bits alone and beside another group. */
static void test_batch_does_not_matter(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	const struct segments *s = &attention_cases[TWO_GROUPS_CASE];
	FOR_TYPES(type) {
		struct pass all = pass_new(b, type, attention_shapes[2], s->q_rows, s->k_rows, s->list, 6, plain, 0, 1),
					one = pass_new(b, type, attention_shapes[2], s->q_rows, s->k_rows, s->list + 3, 3, plain, 0, 1);
		pass_launch(&all, 0);
		pass_launch(&one, 0);
		same_rows("dq", &one.dq, &all.dq, s->list + 3, 3, 0);
		same_rows("dk", &one.dk, &all.dk, s->list + 3, 3, 1);
		same_rows("dv", &one.dv, &all.dv, s->list + 3, 3, 1);
		pass_free(&all);
		pass_free(&one);
	}
	backend_destroy(b);
}

/* The derivative of sum(o dout) with respect to some numbers of q, k and v, by the forward kernel itself. */
static void test_finite_differences(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	const struct segments *s = &attention_cases[SMALL_CASE];
	const struct heads h = {4, 2, 10};
	struct pass p = pass_new(b, KERNEL_F32, h, s->q_rows, s->k_rows, s->list, s->count, plain, 0, 1);
	pass_launch(&p, 0);
	struct matrix *inputs[] = {&p.in.q, &p.in.k, &p.in.v}, *gradients[] = {&p.dq, &p.dk, &p.dv};
	const void **where[] = {&p.in.a.q, &p.in.a.k, &p.in.a.v};
	for (int m = 0; m < 3; m++) {
		float *gradient = matrix_values(gradients[m]);
		for (int64_t at = 0; at < gradients[m]->rows * gradients[m]->cols; at += 97) {
			if (isnan(gradient[at]))
				continue; /* a row that nobody covers */
			double loss[2];
			const float step = 0x1p-6f, before = inputs[m]->host.data[at];
			for (int side = 0; side < 2; side++) {
				inputs[m]->host.data[at] = before + (side ? step : -step);
				struct matrix moved = matrix_of(KERNEL_F32, inputs[m]->rows, inputs[m]->cols, m == 2 ? wider(plain) : plain, inputs[m]->host.data),
							  o = matrix_empty(KERNEL_F32, p.o.rows, p.o.cols, plain);
				*where[m] = moved.data;
				launched("attention", kernel_attention(o.data, o.stride, NULL, &p.in.a, &p.plan, NULL));
				float *values = matrix_values(&o);
				loss[side] = 0;
				for (int64_t i = 0; i < o.rows * o.cols; i++)
					if (!isnan(values[i]))
						loss[side] += (double)values[i] * p.dout.host.data[i];
				free(values);
				matrix_free(&moved);
				matrix_free(&o);
			}
			inputs[m]->host.data[at] = before;
			*where[m] = inputs[m]->data;
			double want = (loss[1] - loss[0]) / (2 * (double)step);
			if (fabs(want - gradient[at]) > 1e-3)
				fail_msg("gradient %d, element %lld is %g, finite differences say %g", m, (long long)at, gradient[at], want);
		}
		free(gradient);
	}
	pass_free(&p);
	backend_destroy(b);
}

static void test_bad_arguments(void **state)
{
	(void)state;
	struct kernel_attention a = {.q_rows = 10, .k_rows = 20, .heads = 4, .kv_heads = 2, .head_dim = 8, .scale = 1};
	struct kernel_attention_plan plan;
	const struct kernel_segment good = {0, 2, 0, 0, 0, 2, 1};
	assert_true(kernel_attention_plan(&plan, NULL, &good, 1, &a, 1) > 0);
	a.q_rows = 11;
	assert_string_equal(kernel_error(kernel_attention_backward(NULL, 0, NULL, 0, NULL, 0, 0, NULL, 0, NULL, 0, NULL, &a, &plan, NULL,
	                                                           NULL)),
	                    "invalid argument");
	/* nothing to do: nothing is touched */
	a.q_rows = 10;
	assert_int_equal(kernel_attention_plan(&plan, NULL, &good, 0, &a, 1), 0);
	assert_int_equal(kernel_attention_backward(NULL, 0, NULL, 0, NULL, 0, 0, NULL, 0, NULL, 0, NULL, &a, &plan, NULL, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_backward), cmocka_unit_test(test_layouts),
	                                   cmocka_unit_test(test_batch_does_not_matter), cmocka_unit_test(test_finite_differences),
	                                   cmocka_unit_test(test_bad_arguments)};
	return run_in_all_orders("attention_backward", tests, sizeof tests / sizeof *tests);
}
