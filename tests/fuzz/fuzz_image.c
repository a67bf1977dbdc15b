/* Images: JPEG, PNG or WebP by their first bytes, turned by their metadata, resized and cut into patches. In a build
 * with -Dfuzz=true images are limited to a megapixel (IMAGE_MAX_PIXELS), which leaves the paths the same and the runs
 * short. */
#include "fuzz.h"

#include "data/image.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favor_error e = {""};
	struct image im;
	if (image_decode(&im, data, size, "the image", &e)) {
		fuzz_want_message(&e, "the image");
		FUZZ_WANT(!im.pixels);
		return 0;
	}
	FUZZ_WANT(im.width > 0 && im.height > 0 && (int64_t)im.width * im.height <= IMAGE_MAX_PIXELS);
	unsigned sum = 0; /* every pixel can be read */
	for (int64_t i = 0; i < (int64_t)im.width * im.height * 3; i++)
		sum += im.pixels[i];
	struct image_settings s;
	struct patches p;
	image_settings_default(&s);
	s.min_pixels = 4 * 28 * 28 + sum % 2;
	s.max_pixels = 16 * 28 * 28;
	if (image_patches(&p, &im, &s, &e))
		fuzz_want_message(&e, "image");
	patches_free(&p);
	image_free(&im);
	return 0;
}
