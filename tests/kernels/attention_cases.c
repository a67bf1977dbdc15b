/* See attention_cases.h. */
#include "attention_cases.h"

#include "base/error.h"

_Static_assert(sizeof(struct kernel_segment) == sizeof(struct segment) &&
                   offsetof(struct kernel_segment, q_len) == offsetof(struct segment, q_len) &&
                   offsetof(struct kernel_segment, prefix_start) == offsetof(struct segment, prefix_start) &&
                   offsetof(struct kernel_segment, prefix_len) == offsetof(struct segment, prefix_len) &&
                   offsetof(struct kernel_segment, kv_start) == offsetof(struct segment, kv_start) &&
                   offsetof(struct kernel_segment, kv_len) == offsetof(struct segment, kv_len) &&
                   offsetof(struct kernel_segment, causal) == offsetof(struct segment, causal),
               "a kernel's segment must be the backend's");

/* {q_start, q_len, prefix_start, prefix_len, kv_start, kv_len, causal} */
const struct segments attention_cases[] = {
	{"one token", 1, 1, 1, {{0, 1, 0, 0, 0, 1, 1}}},
	{"no segment", 3, 3, 0, {{0}}},
	{"images", 140, 140, 2, {{0, 101, 0, 0, 0, 101, 0}, {101, 37, 0, 0, 101, 37, 0}}},
	{"a group, one response empty",
     150,
     150,
     4,
     {{0, 70, 0, 0, 0, 70, 1}, {70, 5, 0, 70, 70, 5, 1}, {75, 0, 0, 70, 75, 0, 1}, {75, 67, 0, 70, 75, 67, 1}}},
	{"two groups among rows that nobody covers",
     119,
     125,
     6,
     {{60, 33, 0, 0, 64, 33, 1},
      {3, 1, 64, 33, 1, 1, 1},
      {4, 20, 64, 33, 2, 20, 1},
      {95, 10, 0, 0, 100, 10, 1},
      {30, 7, 100, 10, 30, 7, 1},
      {40, 17, 100, 10, 40, 17, 1}}},
	{"chunks", 85, 600, 3, {{0, 12, 0, 0, 0, 300, 1}, {12, 70, 0, 280, 300, 300, 1}, {82, 3, 0, 0, 0, 600, 0}}},
	{"more and fewer own keys than queries",
     80,
     200,
     4,
     {{0, 3, 0, 0, 0, 130, 1}, {3, 30, 130, 9, 140, 10, 1}, {33, 20, 0, 0, 150, 5, 1}, {53, 20, 0, 0, 160, 33, 0}}},
	{"prefix alone, own keys alone, no keys",
     20,
     70,
     3,
     {{0, 4, 1, 65, 0, 0, 1}, {4, 5, 0, 0, 66, 4, 0}, {9, 6, 0, 0, 0, 0, 0}}},
};
const int attention_case_count = sizeof attention_cases / sizeof *attention_cases;

const struct heads attention_shapes[SHAPES] = {{1, 1, 8},  {4, 2, 16},  {6, 1, 32}, {7, 1, 64},
                                               {2, 2, 80}, {2, 1, 128}, {3, 3, 10}, {12, 2, 40}};

struct inputs inputs_random(enum kernel_type type, struct heads h, int64_t q_rows, int64_t k_rows, struct layout layout,
                            double score)
{
	/* a score is a sum of `depth` products of two uniform numbers: sqrt(depth) / 3 in size */
	double size = sqrt(score * 3);
	struct inputs in = {
		.q = matrix_random(type, q_rows, (int64_t)h.heads * h.depth, layout, 1, size),
		.k = matrix_random(type, k_rows, (int64_t)h.kv_heads * h.depth, layout, 2, size),
		.v = matrix_random(type, k_rows, (int64_t)h.kv_heads * h.depth, wider(layout), 3, 1),
	};
	in.a = (struct kernel_attention){.type = type,
	                                 .q = in.q.data,
	                                 .k = in.k.data,
	                                 .v = in.v.data,
	                                 .q_stride = in.q.stride,
	                                 .k_stride = in.k.stride,
	                                 .v_stride = in.v.stride,
	                                 .q_rows = q_rows,
	                                 .k_rows = k_rows,
	                                 .heads = h.heads,
	                                 .kv_heads = h.kv_heads,
	                                 .head_dim = h.depth,
	                                 .scale = 1 / sqrtf((float)h.depth)};
	return in;
}

struct layout wider(struct layout layout)
{
	return (struct layout){layout.pad + 8, layout.offset};
}

static int covers(int64_t start, int64_t length, int64_t row)
{
	return row >= start && row < start + length;
}

int is_query(const struct segment *list, int count, int64_t row)
{
	for (int s = 0; s < count; s++)
		if (covers(list[s].q_start, list[s].q_len, row))
			return 1;
	return 0;
}

int is_key(const struct segment *list, int count, int64_t row)
{
	for (int s = 0; s < count; s++)
		if (covers(list[s].prefix_start, list[s].prefix_len, row) || covers(list[s].kv_start, list[s].kv_len, row))
			return 1;
	return 0;
}

static void poison(struct matrix *m, int (*is_covered)(const struct segment *, int, int64_t), const struct segment *list, int count)
{
	struct matrix old = *m;
	struct layout layout = {m->stride - m->cols, ((char *)m->data - (char *)m->block) / (m->type == KERNEL_BF16 ? 2 : 4)};
	for (int64_t row = 0; row < m->rows; row++)
		for (int64_t c = 0; c < m->cols && !is_covered(list, count, row); c++)
			old.host.data[row * m->cols + c] = NAN;
	*m = matrix_of(m->type, m->rows, m->cols, layout, old.host.data);
	matrix_free(&old);
}

void inputs_poison(struct inputs *in, const struct segment *list, int count)
{
	poison(&in->q, is_query, list, count);
	poison(&in->k, is_key, list, count);
	poison(&in->v, is_key, list, count);
	in->a.q = in->q.data;
	in->a.k = in->k.data;
	in->a.v = in->v.data;
}

void inputs_free(struct inputs *in)
{
	matrix_free(&in->q);
	matrix_free(&in->k);
	matrix_free(&in->v);
}

static const struct kernel_segment *kernel_segments(const struct segment *list)
{
	return (const struct kernel_segment *)(const void *)list;
}

struct kernel_attention_plan planned(const struct kernel_attention *a, const struct segment *list, int count, int backward)
{
	struct kernel_attention_plan plan;
	int64_t ints = kernel_attention_plan(&plan, NULL, kernel_segments(list), count, a, backward);
	assert_true(ints >= 0);
	int32_t *host = favor_malloc((size_t)(ints + 1) * sizeof *host);
	host[ints] = 12345;
	assert_int_equal(kernel_attention_plan(&plan, host, kernel_segments(list), count, a, backward), ints);
	assert_int_equal(host[ints], 12345);
	plan.list = device_array(host, (size_t)ints * sizeof *host);
	free(host);
	return plan;
}

struct kernel_decode_plan decode_planned(const struct kernel_attention *a, const struct segment *list, int count,
                                         int64_t items)
{
	struct kernel_decode_plan plan;
	int64_t ints = kernel_decode_plan(&plan, NULL, kernel_segments(list), count, a, items);
	assert_true(ints >= 0);
	int32_t *host = favor_malloc((size_t)(ints + 1) * sizeof *host);
	host[ints] = 12345;
	assert_int_equal(kernel_decode_plan(&plan, host, kernel_segments(list), count, a, items), ints);
	assert_int_equal(host[ints], 12345);
	assert_true(plan.items >= items);
	plan.list = device_array(host, (size_t)ints * sizeof *host);
	free(host);
	return plan;
}

struct case_name case_name(const char *what, const char *name, struct heads h)
{
	struct case_name n;
	snprintf(n.text, sizeof n.text, "%s, heads %d/%d of %d, %s", what, h.heads, h.kv_heads, h.depth, name);
	return n;
}
