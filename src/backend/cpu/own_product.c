/* c is cut into pieces of ROWS x COLUMNS; a thread copies the piece's columns of b (all of k) to a panel and lets
 * tile_product run over them. Each element is one chain over k, then + bias, then + c: no rounding depends on m or on
 * the number of threads. */
#include "backend/cpu/own_product.h"

#include "backend/cpu/tile.h"

#include <omp.h>

enum { ROWS = 128, COLUMNS = 64 };

size_t own_product_floats(const struct own_product *p, int threads)
{
	return (size_t)threads * ((size_t)p->k + ROWS) * COLUMNS;
}

static void panel_pack(float *to, const struct own_product *p, int64_t column, int64_t width)
{
	const float *from = p->b + column * p->b_col;
	for (int64_t k = 0; k < p->k; k++, to += COLUMNS, from += p->b_row) {
		for (int64_t j = 0; j < width; j++)
			to[j] = from[j * p->b_col];
		for (int64_t j = width; j < COLUMNS; j++)
			to[j] = 0;
	}
}

static void piece_run(const struct own_product *p, int64_t row, int64_t column, float *panel)
{
	int64_t rows = p->m - row < ROWS ? p->m - row : ROWS, width = p->n - column < COLUMNS ? p->n - column : COLUMNS;
	float *sum = panel + p->k * COLUMNS;
	panel_pack(panel, p, column, width);
	tile_product(sum, COLUMNS, p->a + row * p->a_row, p->a_row, p->a_col, panel, COLUMNS, rows, tile_padded(width),
	             p->k, 0);
	for (int64_t i = 0; i < rows; i++, sum += COLUMNS) {
		float *c = p->c + (row + i) * p->c_row + column;
		for (int64_t j = 0; j < width; j++) {
			float with_bias = p->bias ? sum[j] + p->bias[column + j] : sum[j];
			c[j] = p->accumulate ? with_bias + c[j] : with_bias;
		}
	}
}

void own_product_run(const struct own_product *p, int threads, float *memory)
{
	int64_t down = (p->m + ROWS - 1) / ROWS, across = (p->n + COLUMNS - 1) / COLUMNS;
	size_t each = ((size_t)p->k + ROWS) * COLUMNS;
#pragma omp parallel for num_threads(threads) schedule(dynamic, 1)
	for (int64_t u = 0; u < down * across; u++)
		piece_run(p, u % down * ROWS, u / down * COLUMNS, memory + (size_t)omp_get_thread_num() * each);
}
