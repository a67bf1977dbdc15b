/* compare_checkpoints A.h5 B.h5: the largest difference of two checkpoints of the same model, relative to the tensor it
 * is in, over weights and both moments. After one optimiser step the first moment is (1 - beta1) times the clipped
 * gradient, so this compares gradients too.
 *
 *   prints   <largest |a-b|/|a|> <kind and name of that tensor> <|moments| of A>
 *   |x| is the L2 norm; exit code 0, or 2 with a message if they can't be compared */
#include "checkpoint/checkpoint.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Gives every tensor of c room for its values and moments, and reads them. */
static int read_all(const char *path, struct checkpoint *c, struct favor_error *e)
{
	if (checkpoint_open(path, c, e))
		return -1;
	for (int32_t i = 0; i < c->tensor_count; i++) {
		struct checkpoint_tensor *t = &c->tensors[i];
		size_t n = 1;
		for (int k = 0; k < t->ndim; k++)
			n *= (size_t)t->shape[k];
		t->values = favor_malloc(3 * n * sizeof(float));
		t->exp_avg = t->values + n;
		t->exp_avg_sq = t->values + 2 * n;
	}
	return checkpoint_read_tensors(path, c->tensors, c->tensor_count, e);
}

static void free_all(struct checkpoint *c)
{
	for (int32_t i = 0; i < c->tensor_count; i++)
		free(c->tensors[i].values);
	checkpoint_free(c);
}

/* Compares tensor i: the largest relative difference so far and where it is; adds to the squared norm of A's first
 * moments. */
static int compare(const struct checkpoint_tensor *x, const struct checkpoint_tensor *y, double *worst, char *where,
                   size_t size, double *moments)
{
	static const char *const KINDS[] = {"weights", "exp_avg", "exp_avg_sq"};
	if (strcmp(x->name, y->name) || x->ndim != y->ndim ||
	    memcmp(x->shape, y->shape, (size_t)x->ndim * sizeof *x->shape)) {
		fprintf(stderr, "compare_checkpoints: %s and %s differ in name or shape\n", x->name, y->name);
		return -1;
	}
	const size_t n = (size_t)(x->exp_avg - x->values);
	for (int kind = 0; kind < 3; kind++) {
		const float *p = x->values + (size_t)kind * n, *q = y->values + (size_t)kind * n;
		double square = 0, difference = 0;
		for (size_t k = 0; k < n; k++) {
			square += (double)p[k] * (double)p[k];
			difference += ((double)p[k] - (double)q[k]) * ((double)p[k] - (double)q[k]);
		}
		if (kind == 1)
			*moments += square;
		const double relative = difference == 0 ? 0 : sqrt(difference / square);
		if (!(relative <= *worst)) {
			*worst = relative;
			snprintf(where, size, "%s %s", KINDS[kind], x->name);
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct favor_error e = {""};
	struct checkpoint a = {0}, b = {0};
	double worst = 0, moments = 0;
	char where[512] = "none";
	int code = 2;
	if (argc != 3) {
		fprintf(stderr, "usage: compare_checkpoints A.h5 B.h5\n");
		return 2;
	}
	if (read_all(argv[1], &a, &e) || read_all(argv[2], &b, &e)) {
		fprintf(stderr, "compare_checkpoints: %s\n", e.message);
		goto done;
	}
	if (a.tensor_count != b.tensor_count) {
		fprintf(stderr, "compare_checkpoints: %d and %d tensors\n", a.tensor_count, b.tensor_count);
		goto done;
	}
	for (int32_t i = 0; i < a.tensor_count; i++)
		if (compare(&a.tensors[i], &b.tensors[i], &worst, where, sizeof where, &moments))
			goto done;
	printf("%.3g %s %.6g\n", worst, where, sqrt(moments));
	code = 0;
done:
	free_all(&a);
	free_all(&b);
	return code;
}
