/* How a block of n numbers is divided among learners: which gradients one of them sums (comm), which moments it keeps
 * (learner). The block is cut into SLICE_PARTS parts, whose borders depend on n alone; learner i of L has some of them,
 * neighbours and whole. So what is computed part by part and added in their order has the same bits for any L. */
#ifndef FAVOR_BASE_SLICE_H
#define FAVOR_BASE_SLICE_H

#include <stdint.h>

enum { SLICE_PARTS = 256, SLICE_ALIGN = 16 };

/* Where a part begins, in numbers: a multiple of SLICE_ALIGN; n for part SLICE_PARTS. */
static inline int64_t slice_part(int64_t n, int part)
{
	if (part == SLICE_PARTS)
		return n;
	return (n / SLICE_PARTS * part + n % SLICE_PARTS * part / SLICE_PARTS) / SLICE_ALIGN * SLICE_ALIGN;
}

/* Where learner i's slice begins; n for i = learners. */
static inline int64_t slice_start(int64_t n, int learners, int i)
{
	return slice_part(n, (int)((int64_t)SLICE_PARTS * i / learners));
}

#endif
