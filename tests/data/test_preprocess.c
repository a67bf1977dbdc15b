/* favor preprocess: the safetensors file it writes, and its refusals. The values themselves are test_image's business.
 */
#include "app/commands.h"
#include "data/image.h"

#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static int command(struct favor_error *e, int argc, const char *const *argv)
{
	char *copy[16] = {0};
	for (int i = 0; i < argc; i++)
		copy[i] = (char *)argv[i];
	e->message[0] = 0;
	return cmd_preprocess(argc, copy, e);
}

static char *golden_image(const char *name)
{
	const char *golden = getenv("FAVOR_GOLDEN");
	return favor_format("%s/data/images/%s", golden ? golden : "tests/golden", name);
}

static void writes_two_images(void **state)
{
	(void)state;
	struct favor_error e;
	char folder[] = "/tmp/favor-preprocess-XXXXXX";
	assert_non_null(mkdtemp(folder));
	char *names[2] = {golden_image("jpeg-exif-6.jpg"), golden_image("png-filters.png")},
		 *out = favor_format("%s/x.safetensors", folder);
	const char *argv[] = {"preprocess", "--model", folder, "--image", names[0], "--image", names[1], "--out", out};
	assert_int_equal(command(&e, 9, argv), 0);

	FILE *f = fopen(out, "rb");
	assert_non_null(f);
	unsigned char length[8];
	assert_int_equal(fread(length, 1, 8, f), 8);
	size_t n = length[0] | (size_t)length[1] << 8;
	assert_true(n % 8 == 0 && !length[2] && !length[7]);
	char *header = favor_calloc(n + 1, 1);
	assert_int_equal(fread(header, 1, n, f), n);
	json_t *root = json_loads(header, 0, NULL);
	assert_non_null(root);
	const char *dtype[2];
	int shape[4], from[2], to[2];
	assert_int_equal(json_unpack(root, "{s:{s:s,s:[ii],s:[ii]},s:{s:s,s:[ii],s:[ii]}}", "pixel_values", "dtype",
	                             &dtype[0], "shape", &shape[0], &shape[1], "data_offsets", &from[0], &to[0],
	                             "image_grid_thw", "dtype", &dtype[1], "shape", &shape[2], &shape[3], "data_offsets",
	                             &from[1], &to[1]),
	                 0);
	assert_string_equal(dtype[0], "F32");
	assert_string_equal(dtype[1], "I64");
	assert_true(from[0] == 0 && to[0] == shape[0] * shape[1] * 4 && from[1] == to[0] && to[1] == from[1] + 48 &&
	            shape[2] == 2 && shape[3] == 3);

	struct image_settings s;
	struct patches p[2];
	image_settings_default(&s);
	for (int i = 0; i < 2; i++) {
		struct image im;
		assert_int_equal(image_load(&im, names[i], &e), 0);
		assert_int_equal(image_patches(&p[i], &im, &s, &e), 0);
		image_free(&im);
		size_t bytes = (size_t)(p[i].rows * p[i].cols) * sizeof(float);
		float *read = favor_malloc(bytes);
		assert_int_equal(fread(read, 1, bytes, f), bytes);
		assert_memory_equal(read, p[i].values, bytes);
		free(read);
	}
	assert_true(p[0].rows + p[1].rows == shape[0] && p[0].cols == shape[1]);
	for (int i = 0; i < 2; i++) {
		int64_t grid[3];
		assert_int_equal(fread(grid, 8, 3, f), 3);
		assert_true(grid[0] == 1 && grid[1] == p[i].grid_h && grid[2] == p[i].grid_w);
		patches_free(&p[i]);
	}
	assert_int_equal(fgetc(f), EOF);
	fclose(f);
	json_decref(root);
	free(header);
	unlink(out);
	rmdir(folder);
	free(out);
	free(names[0]);
	free(names[1]);
}

static void refuses_bad_input(void **state)
{
	(void)state;
	struct favor_error e;
	char *image = golden_image("png-filters.png");
	static const char *const reasons[] = {"--model",  "--image",        "--out",
	                                      "what is",  "unknown option", "needs a value",
	                                      "/nowhere", "/nowhere/x.jpg", "/nowhere/out"};
	const char *cases[][8] = {
		{"preprocess", "--image", image, "--out", "/tmp/x"},
		{"preprocess", "--model", "/tmp", "--out", "/tmp/x"},
		{"preprocess", "--model", "/tmp", "--image", image},
		{"preprocess", "--model", "/tmp", "--image", image, "--out", "/tmp/x", "more"},
		{"preprocess", "--modell=x"},
		{"preprocess", "--model"},
		{"preprocess", "--model", "/nowhere", "--image", image, "--out", "/tmp/x"},
		{"preprocess", "--model", "/tmp", "--image", "/nowhere/x.jpg", "--out", "/tmp/x"},
		{"preprocess", "--model", "/tmp", "--image", image, "--out", "/nowhere/out"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int argc = 0;
		while (argc < 8 && cases[i][argc])
			argc++;
		assert_int_equal(command(&e, argc, cases[i]), 2);
		if (!strstr(e.message, reasons[i]))
			fail_msg("\"%s\" does not say \"%s\"", e.message, reasons[i]);
	}
	free(image);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(writes_two_images), cmocka_unit_test(refuses_bad_input)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
