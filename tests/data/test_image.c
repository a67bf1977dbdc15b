/* Images against Pillow's and transformers' values (tools/golden_images.py), broken and hostile files, settings files.
 */
#include "data/image.h"

#include <jansson.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct bytes {
	unsigned char *data;
	size_t n;
};
struct fixture {
	char *folder;
	struct bytes expected;
	json_t *manifest;
};

static struct bytes read_all(const char *path)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		fail_msg("%s is missing: run tools/golden_images.py", path);
	fseek(f, 0, SEEK_END);
	struct bytes b = {NULL, (size_t)ftell(f)};
	rewind(f);
	b.data = favor_malloc(b.n);
	assert_int_equal(fread(b.data, 1, b.n, f), b.n);
	fclose(f);
	return b;
}

static int setup(void **state)
{
	struct fixture *x = favor_calloc(1, sizeof *x);
	const char *golden = getenv("FAVOR_GOLDEN");
	x->folder = favor_format("%s/data/images", golden ? golden : "tests/golden");
	char *path = favor_format("%s/expected.bin", x->folder);
	x->expected = read_all(path);
	free(path);
	path = favor_format("%s/manifest.json", x->folder);
	json_error_t bad;
	x->manifest = json_load_file(path, 0, &bad);
	assert_non_null(x->manifest);
	free(path);
	*state = x;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *x = *state;
	free(x->folder);
	free(x->expected.data);
	json_decref(x->manifest);
	free(x);
	return 0;
}

static int64_t whole(const json_t *o, const char *key)
{
	return json_integer_value(json_object_get(o, key));
}

static int64_t item(const json_t *o, const char *key, size_t i)
{
	return json_integer_value(json_array_get(json_object_get(o, key), i));
}

static const unsigned char *expected_at(const struct fixture *x, const json_t *c, const char *key, size_t n)
{
	size_t at = (size_t)whole(c, key);
	assert_true(at + n <= x->expected.n);
	return x->expected.data + at;
}

/* Equal in size and every value. */
static void assert_pixels(const char *name, const struct image *im, int64_t width, int64_t height,
                          const unsigned char *want)
{
	if (im->width != width || im->height != height)
		fail_msg("%s: %d x %d instead of %d x %d", name, im->width, im->height, (int)width, (int)height);
	for (int64_t i = 0; i < width * height * 3; i++)
		if (im->pixels[i] != want[i])
			fail_msg("%s: pixel (%d, %d) channel %d is %d instead of %d", name, (int)(i / 3 % width),
			         (int)(i / 3 / width), (int)(i % 3), im->pixels[i], want[i]);
}

static void decodes_as_pillow(void **state)
{
	struct fixture *x = *state;
	size_t i;
	json_t *c;
	json_array_foreach (json_object_get(x->manifest, "decode"), i, c) {
		struct favor_error e = {""};
		struct image im;
		int32_t width, height;
		char *path = favor_format("%s/%s", x->folder, json_string_value(json_object_get(c, "file")));
		if (image_load(&im, path, &e))
			fail_msg("%s", e.message);
		size_t n = (size_t)(whole(c, "width") * whole(c, "height") * 3);
		assert_pixels(path, &im, whole(c, "width"), whole(c, "height"), expected_at(x, c, "rgb", n));
		image_free(&im);
		assert_int_equal(image_check(path, NULL, &width, &height, &e), 0);
		assert_int_equal(width, whole(c, "width"));
		assert_int_equal(height, whole(c, "height"));
		free(path);
	}
	assert_true(i > 60);
}

/* Cut anywhere that Pillow refuses, a file is refused here too, with a message that names it. */
static void refuses_truncated(void **state)
{
	struct fixture *x = *state;
	size_t i;
	json_t *c;
	json_array_foreach (json_object_get(x->manifest, "decode"), i, c) {
		char *path = favor_format("%s/%s", x->folder, json_string_value(json_object_get(c, "file")));
		struct bytes b = read_all(path);
		for (size_t n = 0; n <= (size_t)whole(c, "refused_below"); n++) {
			struct favor_error e = {""};
			struct image im;
			unsigned char *cut = memcpy(favor_malloc(n), b.data, n); /* its own block: reading past it is seen */
			if (image_decode(&im, cut, n, "photo-7", &e) == 0)
				fail_msg("%s: accepted when cut to %zu of %zu bytes", path, n, b.n);
			assert_null(im.pixels);
			assert_ptr_equal(strstr(e.message, "photo-7: "), e.message);
			free(cut);
		}
		free(b.data);
		free(path);
	}
}

/* Any byte changed: an image or an error, no crash (run under ASan), and the message is never empty. */
static void survives_damage(void **state)
{
	struct fixture *x = *state;
	size_t i;
	json_t *c;
	uint32_t seed = 12345;
	json_array_foreach (json_object_get(x->manifest, "decode"), i, c) {
		char *path = favor_format("%s/%s", x->folder, json_string_value(json_object_get(c, "file")));
		struct bytes b = read_all(path);
		for (int round = 0; round < 60; round++) {
			struct favor_error e = {""};
			struct image im;
			unsigned char *copy = memcpy(favor_malloc(b.n), b.data, b.n);
			for (int k = 0; k < 1 + round % 3; k++) {
				seed = seed * 1664525u + 1013904223u;
				/* sizes are left alone: a huge picture would only take long */
				size_t at = 40 + (seed >> 8) % (b.n - 40);
				copy[at] ^= (unsigned char)(1u << (seed & 7));
			}
			if (image_decode(&im, copy, b.n, "photo-7", &e) == 0) {
				assert_true(im.width > 0 && im.height > 0);
				image_free(&im);
			} else {
				assert_ptr_equal(strstr(e.message, "photo-7: "), e.message);
			}
			free(copy);
		}
		free(b.data);
		free(path);
	}
}

static void assert_refused(const void *data, size_t n, const char *reason)
{
	struct favor_error e = {""};
	struct image im;
	if (image_decode(&im, data, n, "photo-7", &e) == 0)
		fail_msg("accepted: %s", reason);
	if (!strstr(e.message, reason))
		fail_msg("\"%s\" does not say \"%s\"", e.message, reason);
}

static void refuses_other_files(void **state)
{
	(void)state;
	struct favor_error e = {""};
	struct image im;
	assert_refused("", 0, "empty");
	assert_refused("GIF89a..............", 20, "no JPEG, PNG or WebP");
	assert_int_equal(image_load(&im, "/nowhere/x.jpg", &e), -1);
	assert_non_null(strstr(e.message, "/nowhere/x.jpg"));
	assert_int_equal(image_load(&im, "/tmp", &e), -1);
	assert_non_null(strstr(e.message, "/tmp"));
	/* a PNG that claims 30,000 x 30,000 pixels is refused before any memory is asked for */
	static const unsigned char huge[] = {
		0x89, 'P', 'N', 'G', 13, 10, 26, 10, 0, 0, 0, 13, 'I', 'H', 'D', 'R', 0,   0,   0x75, 0x30, 0,    0,   0x75,
		0x30, 8,   2,   0,   0,  0,  0,  0,  0, 0, 0, 0,  0,   0,   'I', 'D', 'A', 'T', 0x35, 0xaf, 0x06, 0x1e};
	unsigned char fixed[sizeof huge];
	memcpy(fixed, huge, sizeof huge);
	uint32_t crc = 0xffffffffu; /* of IHDR */
	for (int i = 12; i < 29; i++) {
		crc ^= fixed[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	crc = ~crc;
	for (int i = 0; i < 4; i++)
		fixed[29 + i] = (unsigned char)(crc >> (24 - 8 * i));
	assert_refused(fixed, sizeof fixed, "30000 x 30000 pixels are more than");
}

static void resizes_as_pillow(void **state)
{
	struct fixture *x = *state;
	size_t i;
	json_t *c;
	json_array_foreach (json_object_get(x->manifest, "resize"), i, c) {
		int32_t w = (int32_t)item(c, "from", 0), h = (int32_t)item(c, "from", 1), to_w = (int32_t)item(c, "to", 0),
				to_h = (int32_t)item(c, "to", 1);
		struct image in = {w, h, favor_malloc((size_t)w * (size_t)h * 3)}, out;
		memcpy(in.pixels, expected_at(x, c, "pixels", (size_t)w * (size_t)h * 3), (size_t)w * (size_t)h * 3);
		image_resize_bicubic(&out, &in, to_w, to_h);
		char *name = favor_format("%d x %d to %d x %d", w, h, to_w, to_h);
		assert_pixels(name, &out, to_w, to_h, expected_at(x, c, "expected", (size_t)to_w * (size_t)to_h * 3));
		free(name);
		image_free(&in);
		image_free(&out);
	}
	assert_true(i >= 18);
}

static void patches_as_transformers(void **state)
{
	struct fixture *x = *state;
	size_t i;
	json_t *c;
	json_array_foreach (json_object_get(x->manifest, "patches"), i, c) {
		struct favor_error e = {""};
		struct image_settings s;
		struct patches p, grid;
		int32_t w = (int32_t)item(c, "size", 0), h = (int32_t)item(c, "size", 1);
		struct image in = {w, h, favor_malloc((size_t)w * (size_t)h * 3)};
		memcpy(in.pixels, expected_at(x, c, "pixels", (size_t)w * (size_t)h * 3), (size_t)w * (size_t)h * 3);
		char *text = json_dumps(json_object_get(c, "settings"), 0);
		if (image_settings_parse(&s, text, strlen(text), "settings", &e) || image_patches(&p, &in, &s, &e) ||
		    image_grid(&s, w, h, &grid, &e))
			fail_msg("case %zu: %s", i, e.message);
		assert_int_equal(p.grid_t, item(c, "grid", 0));
		assert_int_equal(p.grid_h, item(c, "grid", 1));
		assert_int_equal(p.grid_w, item(c, "grid", 2));
		assert_int_equal(p.rows, (int64_t)p.grid_h * p.grid_w);
		assert_int_equal(p.cols, whole(c, "cols"));
		assert_true(grid.grid_h == p.grid_h && grid.grid_w == p.grid_w && grid.rows == p.rows && grid.cols == p.cols &&
		            !grid.values);
		/* equal to the bit: the same operations in the same order */
		size_t n = (size_t)(p.rows * p.cols) * sizeof(float);
		assert_memory_equal(p.values, expected_at(x, c, "values", n), n);
		patches_free(&p);
		image_free(&in);
		free(text);
	}
	assert_true(i >= 5);
}

static void sizes_as_transformers(void **state)
{
	struct fixture *x = *state;
	size_t i;
	json_t *c;
	int refused = 0;
	json_array_foreach (json_object_get(x->manifest, "smart_size"), i, c) {
		int64_t v[7];
		struct favor_error e = {""};
		int32_t w = 0, h = 0;
		for (size_t k = 0; k < 7; k++)
			v[k] = json_integer_value(json_array_get(c, k));
		int rc = image_smart_size((int32_t)v[0], (int32_t)v[1], (int32_t)v[2], v[3], v[4], &w, &h, &e);
		if (rc != (v[5] ? 0 : -1) || (rc == 0 && (w != v[5] || h != v[6])))
			fail_msg("%d x %d, factor %d: %d x %d instead of %d x %d", (int)v[0], (int)v[1], (int)v[2], w, h, (int)v[5],
			         (int)v[6]);
		refused += rc != 0;
	}
	assert_true(i >= 300 && refused > 0);
}

static void write_file(const char *folder, const char *name, const char *text)
{
	char *path = favor_format("%s/%s", folder, name);
	FILE *f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	free(path);
}

static void remove_file(const char *folder, const char *name)
{
	char *path = favor_format("%s/%s", folder, name);
	unlink(path);
	free(path);
}

static void settings_from_folders(void **state)
{
	(void)state;
	struct favor_error e = {""};
	struct image_settings s;
	char folder[] = "/tmp/favor-settings-XXXXXX";
	assert_non_null(mkdtemp(folder));
	/* nothing there: Qwen2-VL's */
	assert_int_equal(image_settings_load(&s, folder, &e), 1);
	assert_true(s.patch_size == 14 && s.min_pixels == 3136 && s.max_pixels == 12845056 && s.do_resize);
	/* the old kind */
	write_file(folder, "preprocessor_config.json",
	           "{\"min_pixels\": 784, \"max_pixels\": 50176, \"patch_size\": 14, \"image_processor_type\": "
	           "\"Qwen2VLImageProcessor\", \"do_resize\": false}");
	write_file(folder, "processor_config.json", "{\"processor_class\": \"Qwen2VLProcessor\"}");
	assert_int_equal(image_settings_load(&s, folder, &e), 0);
	assert_true(s.min_pixels == 784 && s.max_pixels == 50176 && !s.do_resize);
	/* the newer kind wins, and its old keys win over its new ones */
	write_file(folder, "processor_config.json",
	           "{\"image_processor\": {\"size\": {\"shortest_edge\": 3136, \"longest_edge\": 100352}, \"min_pixels\": "
	           "6272, \"max_pixels\": null, \"merge_size\": 1, "
	           "\"image_mean\": 0.5, \"image_processor_type\": \"Qwen2VLImageProcessorFast\"}}");
	assert_int_equal(image_settings_load(&s, folder, &e), 0);
	assert_true(s.min_pixels == 6272 && s.max_pixels == 100352 && s.merge_size == 1 && s.mean[2] == 0.5f &&
	            s.do_resize);
	write_file(folder, "processor_config.json", "{\"image_processor\": ");
	assert_int_equal(image_settings_load(&s, folder, &e), -1);
	assert_non_null(strstr(e.message, "processor_config.json:1:"));
	remove_file(folder, "processor_config.json");
	remove_file(folder, "preprocessor_config.json");
	rmdir(folder);
	assert_int_equal(image_settings_load(&s, folder, &e), -1);
	assert_non_null(strstr(e.message, folder));
}

static void refuses_other_settings(void **state)
{
	(void)state;
	static const struct {
		const char *text, *reason;
	} cases[] = {
		{"[1]", "JSON object"},
		{"{\"image_processor_type\": \"CLIPImageProcessor\"}", "CLIPImageProcessor"},
		{"{\"resample\": 2}", "bicubic"},
		{"{\"patch_size\": -14}", "patch_size"},
		{"{\"patch_size\": 14.5}", "patch_size"},
		{"{\"merge_size\": 0}", "merge_size"},
		{"{\"size\": {\"height\": 224, \"width\": 224}}", "shortest_edge"},
		{"{\"size\": 224}", "shortest_edge"},
		{"{\"min_pixels\": 5000, \"max_pixels\": 4000}", "exceeds"},
		{"{\"max_pixels\": 99999999999}", "max_pixels"},
		{"{\"image_mean\": [0.5, 0.5]}", "image_mean"},
		{"{\"image_std\": [0.5, 0, 0.5]}", "image_std"},
		{"{\"do_resize\": 1}", "do_resize"},
		{"{\"rescale_factor\": \"1/255\"}", "rescale_factor"},
		{"{\"image_processor\": 3}", "image_processor"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct favor_error e = {""};
		struct image_settings s;
		assert_int_equal(
			image_settings_parse(&s, cases[i].text, strlen(cases[i].text), "m/preprocessor_config.json", &e), -1);
		if (!strstr(e.message, cases[i].reason) || strncmp(e.message, "m/preprocessor_config.json", 26))
			fail_msg("\"%s\" does not say \"%s\"", e.message, cases[i].reason);
	}
	/* an image that does not divide, where resizing is off */
	struct favor_error e = {""};
	struct image_settings s;
	struct patches grid;
	const char *off = "{\"do_resize\": false}";
	assert_int_equal(image_settings_parse(&s, off, strlen(off), "m", &e), 0);
	assert_int_equal(image_grid(&s, 56, 29, &grid, &e), -1);
	assert_non_null(strstr(e.message, "do_resize"));
	assert_int_equal(image_grid(&s, 56, 28, &grid, &e), 0);
}

/* What is written can be read again: PNG without loss, JPEG nearly. */
static void writes_what_it_reads(void **state)
{
	(void)state;
	struct favor_error e = {""};
	struct image im = {21, 17, favor_malloc(21 * 17 * 3)}, back;
	for (int i = 0; i < 21 * 17 * 3; i++)
		im.pixels[i] = (uint8_t)(i / 3 % 21 * 9 + i % 3 * 20);
	char path[] = "/tmp/favor-image-XXXXXX";
	int fd = mkstemp(path);
	assert_true(fd >= 0);
	close(fd);
	assert_int_equal(image_write_png(&im, path, &e), 0);
	assert_int_equal(image_load(&back, path, &e), 0);
	assert_pixels("png", &back, 21, 17, im.pixels);
	image_free(&back);
	assert_int_equal(image_write_jpeg(&im, path, 95, &e), 0);
	assert_int_equal(image_load(&back, path, &e), 0);
	for (int i = 0; i < 21 * 17 * 3; i++)
		assert_true(abs(back.pixels[i] - im.pixels[i]) < 24);
	image_free(&back);
	unlink(path);
	assert_int_equal(image_write_png(&im, "/nowhere/x.png", &e), -1);
	assert_non_null(strstr(e.message, "/nowhere/x.png"));
	assert_int_equal(image_write_jpeg(&im, "/nowhere/x.jpg", 90, &e), -1);
	assert_non_null(strstr(e.message, "/nowhere/x.jpg"));
	image_free(&im);
	struct image wide = {70000, 1, favor_calloc(70000, 3)};
	assert_int_equal(image_write_jpeg(&wide, path, 90, &e), -1);
	assert_non_null(strstr(e.message, "70000 x 1"));
	image_free(&wide);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(decodes_as_pillow),      cmocka_unit_test(refuses_truncated),
		cmocka_unit_test(survives_damage),        cmocka_unit_test(refuses_other_files),
		cmocka_unit_test(resizes_as_pillow),      cmocka_unit_test(patches_as_transformers),
		cmocka_unit_test(sizes_as_transformers),  cmocka_unit_test(settings_from_folders),
		cmocka_unit_test(refuses_other_settings), cmocka_unit_test(writes_what_it_reads),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
