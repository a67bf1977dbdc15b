/* config.json, FUZZ_CUT, generation_config.json, FUZZ_CUT, preprocessor_config.json: the shapes that follow from them,
 * and an image cut by them. */
#include "fuzz.h"

#include "data/image.h"
#include "model/params.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favor_error e = {""};
	struct fuzz_part parts[FUZZ_PARTS];
	struct model_config c;
	struct image_settings s;
	int count = fuzz_parts(data, size, parts);
	fuzz_write("config.json", parts[0]);
	if (count > 1)
		fuzz_write("generation_config.json", parts[1]);
	else
		fuzz_remove("generation_config.json");
	if (count > 2)
		fuzz_write("preprocessor_config.json", parts[2]);
	else
		fuzz_remove("preprocessor_config.json");

	if (model_config_load(&c, fuzz_folder(), &e)) {
		fuzz_want_message(&e, "config.json");
	} else if (c.layers <= 64 && c.vision.depth <= 64) { /* (hundreds of layers take time and show nothing new) */
		struct param_list l;
		params_list(&l, &c);
		int64_t total = 0;
		for (int i = 0; i < l.count; i++) {
			FUZZ_WANT(l.params[i].offset == total && l.params[i].count > 0);
			FUZZ_WANT(!__builtin_add_overflow(total, l.params[i].count, &total));
		}
		/* the plan is made of sums of a few such numbers in bytes */
		FUZZ_WANT(total == l.total && total <= INT64_MAX / 64);
		for (int i = 0; i < c.eos_count; i++)
			FUZZ_WANT(c.eos[i] >= 0 && c.eos[i] < c.vocab_size);
		params_list_free(&l);
	}

	e.message[0] = 0;
	if (image_settings_load(&s, fuzz_folder(), &e) < 0) {
		fuzz_want_message(&e, "config.json");
		return 0;
	}
	struct image im = {.width = 37, .height = 23};
	struct patches grid, p = {0};
	if (image_grid(&s, im.width, im.height, &grid, &e)) {
		fuzz_want_message(&e, "image");
		return 0;
	}
	FUZZ_WANT(grid.rows > 0 && grid.cols > 0 && grid.grid_h % s.merge_size == 0 && grid.grid_w % s.merge_size == 0);
	if (grid.rows * grid.cols > 1 << 22)
		return 0;
	im.pixels = favor_calloc((size_t)(im.width * im.height), 3);
	FUZZ_WANT(image_patches(&p, &im, &s, &e) == 0 && p.rows == grid.rows && p.cols == grid.cols);
	patches_free(&p);
	image_free(&im);
	return 0;
}
