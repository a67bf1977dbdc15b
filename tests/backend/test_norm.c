/* RMSNorm and LayerNorm: CPU against reference, finite differences, and bits that rows, threads and strides don't
 * change. */
#include "ops_test.h"

/* One call of forward and backward with all that they read and write. rms: no mean and no bias. */
struct norm {
	int rms;
	struct tensor x, y, dy, dx;
	float *weight, *bias, *mean, *rstd, *dweight, *dbias;
};

static struct norm norm_new(int rms, int64_t T, int64_t K, int64_t pad)
{
	struct norm n = {.rms = rms, .x = test_tensor(T, K, pad, 1, 3), .y = test_tensor(T, K, pad + 1, 2, 1)};
	n.dy = test_tensor(T, K, pad, 3, 1);
	n.dx = test_tensor(T, K, pad + 2, 4, 1); /* the backward adds to what is there */
	n.weight = test_array(K, 5, 2);
	n.bias = test_array(K, 6, 1);
	n.mean = test_array(T, 7, 1);
	n.rstd = test_array(T, 8, 1);
	n.dweight = test_array(K, 9, 1);
	n.dbias = test_array(K, 10, 1);
	return n;
}

static void norm_free(struct norm *n)
{
	float *all[] = {n->x.data, n->y.data, n->dy.data, n->dx.data, n->weight,
	                n->bias,   n->mean,   n->rstd,    n->dweight, n->dbias};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		free(all[i]);
}

static void forward(struct backend *b, struct norm *n)
{
	if (n->rms)
		op_rmsnorm(b, n->y, n->rstd, n->x, n->weight, 1e-6f);
	else
		op_layernorm(b, n->y, n->mean, n->rstd, n->x, n->weight, n->bias, 1e-6f);
}

static void backward(struct backend *b, struct norm *n)
{
	if (n->rms)
		op_rmsnorm_backward(b, n->dx, n->dweight, n->dy, n->x, n->weight, n->rstd);
	else
		op_layernorm_backward(b, n->dx, n->dweight, n->dbias, n->dy, n->x, n->weight, n->mean, n->rstd);
}

static void test_against_reference(void **state)
{
	struct test_backends *s = *state;
	static const int64_t shapes[][3] = {{1, 1, 0}, {1, 7, 0}, {3, 16, 5}, {5, 33, 3}, {2, 1024, 0}, {70, 1280, 1},
	                                    {9, 3001, 7}};
	for (int rms = 0; rms < 2; rms++)
		for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
			int64_t T = shapes[i][0], K = shapes[i][1], pad = shapes[i][2];
			struct norm a = norm_new(rms, T, K, pad), r = norm_new(rms, T, K, 0);
			forward(s->cpu, &a);
			forward(s->reference, &r);
			test_close("y", a.y, r.y, 2e-6);
			test_close_array("rstd", a.rstd, r.rstd, T, 1e-6);
			if (!rms)
				test_close_array("mean", a.mean, r.mean, T, 1e-6);
			if (K > 1) { /* one column has no variance: nothing but eps is left */
				memcpy(a.rstd, r.rstd, (size_t)T * sizeof *a.rstd);
				memcpy(a.mean, r.mean, (size_t)T * sizeof *a.mean);
				backward(s->cpu, &a);
				backward(s->reference, &r);
				test_close("dx", a.dx, r.dx, 5e-6);
				test_close_array("dweight", a.dweight, r.dweight, K, 2e-6);
				test_close_array("dbias", a.dbias, r.dbias, K, 2e-6);
			}
			norm_free(&a);
			norm_free(&r);
		}
}

struct norm_loss {
	struct backend *b;
	struct norm *n;
};

static double loss(void *context)
{
	struct norm_loss *l = context;
	forward(l->b, l->n);
	return test_dot(l->n->y, l->n->dy);
}

static void test_gradients(void **state)
{
	struct test_backends *s = *state;
	struct backend *both[] = {s->reference, s->cpu};
	for (int i = 0; i < 4; i++) {
		enum { T = 3, K = 21 };
		struct norm n = norm_new(i & 1, T, K, 2);
		struct norm_loss l = {both[i / 2], &n};
		op_zero(l.b, n.dweight, K * sizeof(float));
		op_zero(l.b, n.dbias, K * sizeof(float));
		for (int64_t t = 0; t < T; t++)
			op_zero(l.b, n.dx.data + t * n.dx.stride, K * sizeof(float));
		forward(l.b, &n);
		backward(l.b, &n);
		test_differences("dx", n.dx, n.x, loss, &l);
		test_differences("dweight", tensor_of(n.dweight, 1, K), tensor_of(n.weight, 1, K), loss, &l);
		if (!n.rms)
			test_differences("dbias", tensor_of(n.dbias, 1, K), tensor_of(n.bias, 1, K), loss, &l);
		norm_free(&n);
	}
}

static void test_bits(void **state)
{
	struct test_backends *s = *state;
	enum { T = 41, K = 531 };
	for (int rms = 0; rms < 2; rms++) {
		struct norm whole = norm_new(rms, T, K, 0);
		backend_set_threads(s->cpu, 1);
		forward(s->cpu, &whole);
		backward(s->cpu, &whole);
		for (int threads = 1; threads <= 3; threads++) {
			struct norm n = norm_new(rms, T, K, 3);
			backend_set_threads(s->cpu, threads);
			forward(s->cpu, &n);
			backward(s->cpu, &n);
			test_same_bits("y", n.y, whole.y);
			test_same_bits("dx", n.dx, whole.dx);
			test_same_bits_array("dweight", n.dweight, whole.dweight, K);
			test_same_bits_array("dbias", n.dbias, whole.dbias, K);
			norm_free(&n);
		}
		struct norm n = norm_new(rms, T, K, 0);
		for (int64_t t = 0; t < T; t++) {
			struct norm row = n;
			row.x = tensor_rows(n.x, t, 1);
			row.y = tensor_rows(n.y, t, 1);
			row.dx = tensor_rows(n.dx, t, 1);
			row.dy = tensor_rows(n.dy, t, 1);
			row.mean = n.mean + t;
			row.rstd = n.rstd + t;
			row.dweight = NULL;
			row.dbias = NULL;
			forward(s->cpu, &row);
			backward(s->cpu, &row);
		}
		test_same_bits("y by rows", n.y, whole.y);
		test_same_bits("dx by rows", n.dx, whole.dx);
		norm_free(&n);
		norm_free(&whole);
	}
	backend_set_threads(s->cpu, 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_against_reference),
		cmocka_unit_test(test_gradients),
		cmocka_unit_test(test_bits),
	};
	return cmocka_run_group_tests(tests, test_backends_new, test_backends_destroy);
}
