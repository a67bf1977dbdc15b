/* One image as the vision tower takes it: what passes from data (which owns the patches) to model. */
#ifndef FAVOR_BASE_IMAGE_INPUT_H
#define FAVOR_BASE_IMAGE_INPUT_H

#include <stdint.h>

struct image_input {
	int32_t grid_t, grid_h, grid_w; /* in patches */
	const float *values;            /* [t*h*w, patch_dim]; borrowed */
};

#endif
