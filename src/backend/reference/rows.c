/* Reference gathering and scattering of rows (embedding look-up, image features into the text, and their backward). */
#include "backend/reference/reference.h"

#include <string.h>

/* Row i of a list must lie in a tensor of `limit` rows; negative means "skip" and is fine. */
static int64_t check_row(const char *op, int64_t i, int32_t row, int64_t limit)
{
	if (row >= limit)
		favor_die("%s: entry %lld of the list is row %d of %lld", op, (long long)i, (int)row, (long long)limit);
	return row;
}

void ref_gather_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	(void)b;
	for (int64_t i = 0; i < y.rows; i++) {
		int64_t row = check_row("gather_rows", i, rows[i], x.rows);
		if (row >= 0)
			memcpy(y.data + i * y.stride, x.data + row * x.stride, (size_t)y.cols * sizeof(float));
	}
}

void ref_scatter_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	(void)b;
	for (int64_t i = 0; i < x.rows; i++) {
		int64_t row = check_row("scatter_rows", i, rows[i], y.rows);
		if (row >= 0)
			memcpy(y.data + row * y.stride, x.data + i * x.stride, (size_t)x.cols * sizeof(float));
	}
}

void ref_scatter_rows_add(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	(void)b;
	for (int64_t i = 0; i < x.rows; i++) {
		int64_t row = check_row("scatter_rows_add", i, rows[i], y.rows);
		for (int64_t k = 0; row >= 0 && k < x.cols; k++)
			y.data[row * y.stride + k] += x.data[i * x.stride + k];
	}
}
