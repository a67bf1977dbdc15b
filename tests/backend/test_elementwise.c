/* Rotation, SwiGLU, activations, addition, rows, and the door: CPU against reference, finite differences, bits. */
#include "ops_test.h"

#include "../apart.h"

static const int64_t shapes[][3] = {{1, 2, 0}, {1, 14, 3}, {3, 34, 0}, {70, 130, 5}, {33, 1026, 2}};
enum { SHAPES = sizeof shapes / sizeof *shapes };

static void test_rope(void **state)
{
	struct test_backends *s = *state;
	for (int i = 0; i < SHAPES; i++) {
		for (int heads = 1; heads <= 2; heads++) {
			int64_t T = shapes[i][0], pad = shapes[i][2], D = shapes[i][1];
			struct tensor cpu = test_tensor(T, heads * D, pad, 1, 2), ref = test_copy(cpu), start = test_copy(cpu);
			struct tensor angle = test_tensor(T, D / 2, 0, 2, 3), c = test_copy(angle), sn = test_copy(angle);
			for (int64_t j = 0; j < T * (D / 2); j++) {
				c.data[j] = cosf(angle.data[j]);
				sn.data[j] = sinf(angle.data[j]);
			}
			op_rope(s->cpu, cpu, heads, c, sn, 0);
			op_rope(s->reference, ref, heads, c, sn, 0);
			test_close("rope", cpu, ref, 1e-6);
			/* by the definition, for one element */
			float a = start.data[0], b = start.data[D / 2];
			assert_true(fabsf(ref.data[0] - (a * c.data[0] - b * sn.data[0])) < 1e-6f);
			assert_true(fabsf(ref.data[D / 2] - (b * c.data[0] + a * sn.data[0])) < 1e-6f);
			/* a rotation's inverse is its transpose: this is the backward pass too */
			op_rope(s->cpu, cpu, heads, c, sn, 1);
			test_close("rope inverse", cpu, start, 1e-6);
			op_rope(s->reference, ref, heads, c, sn, 1);
			test_close("rope inverse, reference", ref, start, 1e-6);
			float *all[] = {cpu.data, ref.data, start.data, angle.data, c.data, sn.data};
			for (size_t j = 0; j < sizeof all / sizeof *all; j++)
				free(all[j]);
		}
	}
}

/* y = f(x): swiglu of the two halves of x's columns, or an activation of all of x. */
enum function { SWIGLU = 100 };
struct call {
	struct backend *b;
	int function; /* SWIGLU or an enum activation */
	struct tensor x, y, c;
};

static int64_t outputs(int function, int64_t cols)
{
	return function == SWIGLU ? cols / 2 : cols;
}

static void forward(struct call *k)
{
	if (k->function == SWIGLU)
		op_swiglu(k->b, k->y, tensor_columns(k->x, 0, k->y.cols), tensor_columns(k->x, k->y.cols, k->y.cols));
	else
		op_activation(k->b, k->y, k->x, (enum activation)k->function);
}

/* dx may be x itself (swiglu) or dy itself (activations) */
static void backward(struct call *k, struct tensor dx, struct tensor dy)
{
	int64_t n = k->y.cols;
	if (k->function == SWIGLU)
		op_swiglu_backward(k->b, tensor_columns(dx, 0, n), tensor_columns(dx, n, n), dy, tensor_columns(k->x, 0, n),
		                   tensor_columns(k->x, n, n));
	else
		op_activation_backward(k->b, dx, dy, k->x, (enum activation)k->function);
}

static double loss(void *context)
{
	struct call *k = context;
	forward(k);
	return test_dot(k->y, k->c);
}

static const int functions[] = {SWIGLU, ACT_QUICK_GELU, ACT_GELU};

static void test_functions(void **state)
{
	struct test_backends *s = *state;
	for (int f = 0; f < 3; f++)
		for (int i = 0; i < SHAPES; i++) {
			int64_t T = shapes[i][0], K = shapes[i][1], pad = shapes[i][2], N = outputs(functions[f], K);
			struct call cpu = {s->cpu, functions[f], test_tensor(T, K, pad, 1, 12), test_tensor(T, N, pad, 2, 1),
			                   test_tensor(T, N, pad, 3, 2)};
			struct call ref = cpu;
			ref.b = s->reference;
			ref.y = test_tensor(T, N, 0, 2, 1);
			forward(&cpu);
			forward(&ref);
			test_close("y", cpu.y, ref.y, 2e-6);
			struct tensor d_cpu = test_tensor(T, K, pad, 4, 1), d_ref = test_tensor(T, K, 0, 4, 1);
			backward(&cpu, d_cpu, cpu.c);
			backward(&ref, d_ref, ref.c);
			test_close("dx", d_cpu, d_ref, 1e-5);
			/* in place of an input: the same bits */
			if (functions[f] == SWIGLU) {
				backward(&cpu, cpu.x, cpu.c);
				test_same_bits("dx in place", cpu.x, d_cpu);
			} else {
				backward(&cpu, cpu.c, cpu.c);
				test_same_bits("dx in place", cpu.c, d_cpu);
			}
			float *all[] = {cpu.x.data, cpu.y.data, cpu.c.data, ref.y.data, d_cpu.data, d_ref.data};
			for (size_t j = 0; j < sizeof all / sizeof *all; j++)
				free(all[j]);
		}
}

static void test_extremes(void **state)
{
	struct test_backends *s = *state;
	float in[] = {-1e30f, -200, -88, -20, -1e-30f, 0, 1e-30f, 20, 88, 200, 1e18f, 0};
	enum { N = sizeof in / sizeof *in / 2 };
	for (int f = 0; f < 3; f++) {
		float out[2][2 * N], slope[2][2 * N], ones[2 * N];
		for (int i = 0; i < 2 * N; i++)
			ones[i] = 1;
		for (int i = 0; i < 2; i++) {
			int64_t n = outputs(functions[f], 2 * N);
			struct call k = {i ? s->cpu : s->reference, functions[f], tensor_of(in, 1, 2 * N), tensor_of(out[i], 1, n),
			                 TENSOR_NONE};
			forward(&k);
			backward(&k, tensor_of(slope[i], 1, 2 * N), tensor_of(ones, 1, n));
		}
		test_close_array("y at extremes", out[1], out[0], outputs(functions[f], 2 * N), 1e-6);
		test_close_array("slope at extremes", slope[1], slope[0], 2 * N, 1e-5);
	}
}

static void test_gradients(void **state)
{
	struct test_backends *s = *state;
	for (int f = 0; f < 6; f++) {
		enum { T = 3, K = 26 };
		int64_t N = outputs(functions[f % 3], K);
		struct call k = {f < 3 ? s->reference : s->cpu, functions[f % 3], test_tensor(T, K, 1, 1, 3),
		                 test_tensor(T, N, 0, 2, 1), test_tensor(T, N, 0, 3, 1)};
		struct tensor dx = test_tensor(T, K, 0, 4, 1);
		backward(&k, dx, k.c);
		test_differences("dx", dx, k.x, loss, &k);
		free(k.x.data);
		free(k.y.data);
		free(k.c.data);
		free(dx.data);
	}
}

static void test_bits(void **state)
{
	struct test_backends *s = *state;
	enum { T = 37, K = 1030 };
	for (int f = 0; f < 3; f++) {
		int64_t N = outputs(functions[f], K);
		struct call k = {s->cpu, functions[f], test_tensor(T, K, 0, 1, 4), test_tensor(T, N, 0, 2, 1),
		                 test_tensor(T, N, 0, 3, 1)};
		struct tensor dx = test_tensor(T, K, 0, 4, 1);
		backend_set_threads(s->cpu, 1);
		forward(&k);
		backward(&k, dx, k.c);
		struct tensor y = test_copy(k.y), first_dx = test_copy(dx);
		backend_set_threads(s->cpu, 3);
		forward(&k);
		backward(&k, dx, k.c);
		test_same_bits("y, 3 threads", k.y, y);
		test_same_bits("dx, 3 threads", dx, first_dx);
		for (int64_t t = 0; t < T; t++) {
			struct call row = {s->cpu, functions[f], tensor_rows(k.x, t, 1), tensor_rows(k.y, t, 1), TENSOR_NONE};
			forward(&row);
			backward(&row, tensor_rows(dx, t, 1), tensor_rows(k.c, t, 1));
		}
		test_same_bits("y by rows", k.y, y);
		test_same_bits("dx by rows", dx, first_dx);
		/* an element's bits don't depend on its column (vector body or tail) */
		for (int64_t j = 0; f && j < K; j++) {
			struct call one = {s->cpu, functions[f], tensor_columns(tensor_rows(k.x, 0, 1), j, 1),
			                   tensor_columns(tensor_rows(k.y, 0, 1), j, 1), TENSOR_NONE};
			forward(&one);
		}
		test_same_bits("y by elements", k.y, y);
		float *all[] = {k.x.data, k.y.data, k.c.data, dx.data, y.data, first_dx.data};
		for (size_t j = 0; j < sizeof all / sizeof *all; j++)
			free(all[j]);
	}
	backend_set_threads(s->cpu, 2);
}

static void test_add_and_rows(void **state)
{
	struct test_backends *s = *state;
	struct backend *both[] = {s->reference, s->cpu};
	enum { T = 90, LIMIT = 50, K = 333 };
	int32_t list[T], distinct[T];
	for (int i = 0; i < T; i++) {
		list[i] = i % 7 == 3 ? -1 : (int32_t)(i * 13 % LIMIT);
		distinct[i] = i < LIMIT ? (int32_t)((i * 7 + 5) % LIMIT) : -1;
	}
	distinct[4] = -5;
	for (int i = 0; i < 2; i++) {
		struct backend *b = both[i];
		struct tensor a = test_tensor(T, K, 3, 1, 1), c = test_tensor(T, K, 0, 2, 1),
		              table = test_tensor(LIMIT, K, 1, 3, 1);
		struct tensor sum = test_tensor(T, K, 2, 4, 1);
		op_add(b, sum, a, c);
		struct tensor alias = test_copy(a);
		op_add(b, alias, alias, c);
		test_same_bits("add in place", alias, sum);
		for (int t = 0; t < T; t++)
			for (int k = 0; k < K; k++)
				assert_true(sum.data[t * sum.stride + k] == a.data[t * a.stride + k] + c.data[t * c.stride + k]);

		struct tensor y = test_copy(c), expected = test_copy(c);
		op_gather_rows(b, y, table, list);
		for (int t = 0; t < T; t++)
			if (list[t] >= 0)
				memcpy(expected.data + t * K, table.data + list[t] * table.stride, K * sizeof(float));
		test_same_bits("gather_rows", y, expected);

		struct tensor to = test_copy(table), want = test_copy(table);
		op_scatter_rows(b, to, a, distinct);
		for (int t = 0; t < T; t++)
			if (distinct[t] >= 0)
				memcpy(want.data + distinct[t] * K, a.data + t * a.stride, K * sizeof(float));
		test_same_bits("scatter_rows", to, want);

		struct tensor onto = test_copy(table), total = test_copy(table);
		op_scatter_rows_add(b, onto, a, list);
		for (int t = 0; t < T; t++)
			for (int k = 0; list[t] >= 0 && k < K; k++)
				total.data[list[t] * K + k] += a.data[t * a.stride + k];
		test_same_bits("scatter_rows_add", onto, total);
		float *all[] = {a.data,        c.data,  table.data, sum.data,  alias.data, y.data,
		                expected.data, to.data, want.data,  onto.data, total.data};
		for (size_t j = 0; j < sizeof all / sizeof *all; j++)
			free(all[j]);
	}
}

static void test_memory(void **state)
{
	struct test_backends *s = *state;
	struct backend *both[] = {s->reference, s->cpu};
	for (int i = 0; i < 2; i++) {
		int32_t in[] = {1, 2, 3}, out[3] = {9, 9, 9};
		void *p = op_alloc(both[i], sizeof in);
		assert_int_equal((uintptr_t)p % 64, 0);
		op_upload(both[i], p, in, sizeof in);
		op_zero(both[i], p, sizeof *in);
		op_sync(both[i]);
		op_download(both[i], out, p, sizeof out);
		assert_int_equal(out[0], 0);
		assert_int_equal(out[2], 3);
		op_release(both[i], p);
		op_release(both[i], op_alloc(both[i], 0));
		op_release(both[i], NULL);
		op_upload(both[i], NULL, NULL, 0);
	}
	/* a product never sees weights that are no longer there */
	enum { N = 64, K = 48 };
	float *x = test_array(K, 1, 1), y[N], first[N], *other = test_array(N * K, 2, 1);
	float *w = op_alloc(s->cpu, N * K * sizeof *w);
	for (int i = 0; i < 4; i++) {
		if (i & 1)
			op_zero(s->cpu, w, N * K * sizeof *w);
		else
			op_upload(s->cpu, w, other, N * K * sizeof *w);
		op_linear(s->cpu, tensor_of(y, 1, N), tensor_of(x, 1, K), tensor_of(w, N, K), NULL, 0);
		if (i == 0)
			memcpy(first, y, sizeof first);
		for (int k = 0; k < N; k++)
			assert_true(y[k] == (i & 1 ? 0 : first[k]));
	}
	op_release(s->cpu, w);
	free(x);
	free(other);
	assert_int_equal(s->reference->threads, 1);
	backend_set_threads(s->reference, 5);
	assert_int_equal(s->reference->threads, 1);
	backend_set_threads(s->cpu, 0);
	assert_true(s->cpu->threads >= 1);
	backend_set_threads(s->cpu, 2);
	assert_int_equal(s->cpu->threads, 2);
}

struct bad_call {
	struct backend *b;
	void (*bad)(struct backend *b);
};

static void make_bad_call(void *arg)
{
	const struct bad_call *c = arg;
	c->bad(c->b);
}

/* Runs `bad` in a child process and expects it to die with this text. */
static void expect_death(struct backend *b, void (*bad)(struct backend *b), const char *text)
{
	struct bad_call c = {b, bad};
	char message[1024];
	const int status = run_apart(make_bad_call, &c, message, sizeof message);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 1);
	if (!strstr(message, text))
		fail_msg("expected \"%s\" in \"%s\"", text, message);
}

static void bad_linear(struct backend *b)
{
	float m[64] = {0};
	op_linear(b, tensor_of(m, 2, 4), tensor_of(m, 2, 5), tensor_of(m, 3, 5), NULL, 0);
}

static void bad_stride(struct backend *b)
{
	float m[64] = {0};
	op_add(b, tensor_of(m, 2, 4), (struct tensor){m, 2, 4, 3, ELEMENT_FLOAT32}, tensor_of(m, 2, 4));
}

static void bad_null(struct backend *b)
{
	float m[64] = {0};
	op_add(b, tensor_of(m, 2, 4), TENSOR_NONE, tensor_of(m, 2, 4));
}

static void bad_data(struct backend *b)
{
	op_activation(b, tensor_of(NULL, 2, 4), tensor_of(NULL, 2, 4), ACT_GELU);
}

static void bad_row(struct backend *b)
{
	float m[64] = {0};
	op_gather_rows(b, tensor_of(m, 2, 4), tensor_of(m, 3, 4), (int32_t[]){1, 3});
}

static void bad_target(struct backend *b)
{
	float m[64] = {0};
	op_head_logprob(b, m, m, m, tensor_of(m, 1, 4), tensor_of(m, 3, 4), (int32_t[]){3}, 1);
}

static void bad_heads(struct backend *b)
{
	float m[64] = {0};
	op_rope(b, tensor_of(m, 2, 6), 2, tensor_of(m, 2, 1), tensor_of(m, 2, 1), 0);
}

static void bad_sampling(struct backend *b)
{
	struct sampling how = {.temperature = 1, .top_p = 0};
	struct sampled out;
	float m[8] = {0};
	op_sample(b, &out, tensor_of(m, 1, 8), (double[]){0}, &how);
}

static void test_door(void **state)
{
	struct test_backends *s = *state;
	expect_death(s->reference, bad_linear, "linear: y is [2, 4], but must be [2, 3]");
	expect_death(s->reference, bad_stride, "add: a is [2, 4] with stride 3");
	expect_death(s->reference, bad_null, "add: a is [0, 0]");
	expect_death(s->reference, bad_data, "activation: x is [2, 4], but its data is NULL");
	expect_death(s->reference, bad_row, "gather_rows: entry 1 of the list is row 3 of 3");
	expect_death(s->reference, bad_target, "head_logprob: target 0 is token 3, but the vocabulary has 3");
	expect_death(s->reference, bad_heads, "rope: x is [2, 6], which 2 heads of even size can't fill");
	expect_death(s->reference, bad_sampling, "sample: temperature 1, top_p 0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_rope),      cmocka_unit_test(test_functions), cmocka_unit_test(test_extremes),
	    cmocka_unit_test(test_gradients), cmocka_unit_test(test_bits),      cmocka_unit_test(test_add_and_rows),
	    cmocka_unit_test(test_memory),    cmocka_unit_test(test_door),
	};
	return cmocka_run_group_tests(tests, test_backends_new, test_backends_destroy);
}
