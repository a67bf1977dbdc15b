/* A product with this project's own kernel, for machines on which oneDNN has none that keeps rows independent. */
#ifndef FAVOR_BACKEND_CPU_OWN_PRODUCT_H
#define FAVOR_BACKEND_CPU_OWN_PRODUCT_H

#include <stddef.h>
#include <stdint.h>

/* c[m,n] = a[m,k] b[k,n] + bias[n] + c. Strides in elements; consecutive elements of a row of c are neighbours. */
struct own_product {
	int64_t m, n, k;
	const float *a, *b, *bias; /* bias may be NULL */
	int64_t a_row, a_col, b_row, b_col;
	float *c;
	int64_t c_row;
	int accumulate; /* 0: without "+ c" */
};

/* Floats of working memory (64-byte aligned) that own_product_run needs. */
size_t own_product_floats(const struct own_product *p, int threads);
void own_product_run(const struct own_product *p, int threads, float *memory);

#endif
