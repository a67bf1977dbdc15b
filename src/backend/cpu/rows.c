/* Gathering and scattering of rows: embedding look-up, image features into the text, and the backward of both. */
#include "backend/cpu/cpu_ops.h"

#include <string.h>

/* Every row of the list must lie in a tensor of `limit` rows; negative means "skip" and is fine. */
static void check_rows(const char *op, const int32_t *rows, int64_t count, int64_t limit)
{
	for (int64_t i = 0; i < count; i++)
		if (rows[i] >= limit)
			favor_die("%s: entry %lld of the list is row %d of %lld", op, (long long)i, (int)rows[i], (long long)limit);
}

void cpu_gather_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	check_rows("gather_rows", rows, y.rows, x.rows);
#pragma omp parallel for num_threads(cpu_threads(b, y.rows * y.cols)) schedule(static)
	for (int64_t i = 0; i < y.rows; i++)
		if (rows[i] >= 0)
			memcpy(y.data + i * y.stride, x.data + rows[i] * x.stride, (size_t)y.cols * sizeof(float));
}

void cpu_scatter_rows(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	check_rows("scatter_rows", rows, x.rows, y.rows);
#pragma omp parallel for num_threads(cpu_threads(b, x.rows * x.cols)) schedule(static)
	for (int64_t i = 0; i < x.rows; i++)
		if (rows[i] >= 0)
			memcpy(y.data + rows[i] * y.stride, x.data + i * x.stride, (size_t)x.cols * sizeof(float));
}

/* Rows may repeat, so threads share columns: each sees all rows of its columns, in order. */
void cpu_scatter_rows_add(struct backend *b, struct tensor y, struct tensor x, const int32_t *rows)
{
	enum { COLUMN_BLOCK = 256 };
	check_rows("scatter_rows_add", rows, x.rows, y.rows);
#pragma omp parallel for num_threads(cpu_threads(b, x.rows * x.cols)) schedule(static)
	for (int64_t first = 0; first < x.cols; first += COLUMN_BLOCK) {
		int64_t n = x.cols - first < COLUMN_BLOCK ? x.cols - first : COLUMN_BLOCK;
		for (int64_t i = 0; i < x.rows; i++) {
			if (rows[i] < 0)
				continue;
			const float *from = x.data + i * x.stride + first;
			float *to = y.data + rows[i] * y.stride + first;
#pragma omp simd
			for (int64_t k = 0; k < n; k++)
				to[k] += from[k];
		}
	}
}
