/* Attention's gradients against the reference backend. */
#include "attention_cases.h"

#include "base/error.h"

static const struct layout plain = {0, 0};
static const struct heads shapes[] = {{1, 1, 8}, {4, 2, 16}, {6, 1, 32}, {7, 1, 64}, {2, 2, 80}, {2, 1, 128}, {3, 3, 10}, {12, 2, 40}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

/* What a backward pass is given beside the inputs: o and lse are the reference's, so that each direction is tested by itself. */
struct pass {
	struct inputs in;
	struct matrix o, dout, dq, dk, dv;
	float *lse, *lse_there, *scratch;
	struct kernel_attention_plan plan;
};

static int covers(int64_t start, int64_t length, int64_t row)
{
	return row >= start && row < start + length;
}

/* Gradients of rows that a segment covers start at 0 in the reference, which adds; others stay what they are. */
static void zero_covered(struct matrix *m, const struct segment *list, int count, int keys)
{
	for (int64_t row = 0; row < m->rows; row++)
		for (int s = 0; s < count; s++)
			if (keys ? covers(list[s].prefix_start, list[s].prefix_len, row) || covers(list[s].kv_start, list[s].kv_len, row)
			         : covers(list[s].q_start, list[s].q_len, row))
				memset(m->host.data + row * m->cols, 0, (size_t)m->cols * sizeof(float));
}

static struct pass pass_new(struct backend *b, enum kernel_type type, struct heads h, int64_t q_rows, int64_t k_rows,
                            const struct segment *list, int count, struct layout layout, int accumulate, double score)
{
	struct pass p = {.in = inputs_random(type, h, q_rows, k_rows, layout, score)};
	const int64_t queries = (int64_t)h.heads * h.depth, keys = (int64_t)h.kv_heads * h.depth;
	size_t lse_bytes = (size_t)(h.heads * q_rows) * sizeof(float);
	p.lse = favor_calloc((size_t)(h.heads * q_rows + 1), sizeof(float));
	float *o = favor_calloc((size_t)(q_rows * queries + 1), sizeof(float));
	b->ops.attention(b, tensor_of(o, q_rows, queries), p.lse, p.in.q.host, p.in.k.host, p.in.v.host, h.heads, h.kv_heads,
	                 p.in.a.scale, list, count);
	p.o = matrix_of(type, q_rows, queries, layout, o);
	free(o);
	p.lse_there = device_array(p.lse, lse_bytes);
	p.dout = matrix_random(type, q_rows, queries, layout, 4, 1);
	if (accumulate) {
		p.dq = matrix_random(type, q_rows, queries, layout, 5, 1);
		p.dk = matrix_random(type, k_rows, keys, layout, 6, 1);
		p.dv = matrix_random(type, k_rows, keys, layout, 7, 1);
	} else {
		p.dq = matrix_empty(type, q_rows, queries, layout);
		p.dk = matrix_empty(type, k_rows, keys, layout);
		p.dv = matrix_empty(type, k_rows, keys, layout);
		zero_covered(&p.dq, list, count, 0);
		zero_covered(&p.dk, list, count, 1);
		zero_covered(&p.dv, list, count, 1);
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
		for (int i = s % 2; i < SHAPES; i += 2)
			FOR_TYPES(type)
				backward_case(b, type, shapes[i], &attention_cases[s], plain, (s + i / 2) % 2, 1);
	backend_destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_backward)};
	return run_in_all_orders("attention_backward", tests, sizeof tests / sizeof *tests);
}
