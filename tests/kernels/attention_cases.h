/* Segments for the tests of attention, and attention's matrices. */
#ifndef FAVOR_TESTS_KERNELS_ATTENTION_CASES_H
#define FAVOR_TESTS_KERNELS_ATTENTION_CASES_H

#include "kernel_test.h"

#include <stdio.h>

enum { MOST_SEGMENTS = 16 };

struct segments {
	const char *name;
	int64_t q_rows, k_rows;
	int count;
	struct segment list[MOST_SEGMENTS];
};
extern const struct segments attention_cases[];
extern const int attention_case_count;
enum { CHUNKS_CASE = 5, SMALL_CASE = 7, GROUP_CASE = 3, TWO_GROUPS_CASE = 4 }; /* some of them */

struct heads {
	int heads, kv_heads, depth;
};
/* On tensor cores in bfloat16, where the depth is a multiple of 8: all sizes that the kernels are made for, whole and padded. */
enum { SHAPES = 8 };
extern const struct heads attention_shapes[SHAPES];

/* q, k, v and what a launcher is told of them. */
struct inputs {
	struct matrix q, k, v;
	struct kernel_attention a;
};
/* Uniform in [-size, size) times 1 for v, and q and k such that scaled scores are of size `score`. */
struct inputs inputs_random(enum kernel_type type, struct heads h, int64_t q_rows, int64_t k_rows, struct layout layout,
                            double score);
/* The layout with rows 16 bytes further apart (bfloat16), so that no two matrices have the same stride by chance. */
struct layout wider(struct layout layout);
/* Whether a segment of the list has row `row` as a query, or as a key. */
int is_query(const struct segment *list, int count, int64_t row);
int is_key(const struct segment *list, int count, int64_t row);
/* Rows that no segment covers become NaN: nobody may look at them. */
void inputs_poison(struct inputs *in, const struct segment *list, int count);
void inputs_free(struct inputs *in);

/* A plan of the first `count` of the list, uploaded: device_release((void *)plan.list). */
struct kernel_attention_plan planned(const struct kernel_attention *a, const struct segment *list, int count, int backward);
struct kernel_decode_plan decode_planned(const struct kernel_attention *a, const struct segment *list, int count,
                                         int64_t items);

/* For what a case is called. */
struct case_name {
	char text[160];
};
struct case_name case_name(const char *what, const char *name, struct heads h);

#endif
