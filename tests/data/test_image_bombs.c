/* Images that claim, or would cost, more than they should: refused by their header, before memory is taken or time
 * spent. */
#include "data/image.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct bytes {
	unsigned char *data;
	size_t n;
};

/* A golden image, with room behind it. */
static struct bytes golden(const char *name, size_t room)
{
	const char *folder = getenv("FAVOR_GOLDEN");
	char *path = favor_format("%s/data/images/%s", folder ? folder : "tests/golden", name);
	FILE *f = fopen(path, "rb");
	if (!f)
		fail_msg("%s is missing", path);
	fseek(f, 0, SEEK_END);
	struct bytes b = {NULL, (size_t)ftell(f)};
	rewind(f);
	b.data = favor_calloc(b.n + room, 1);
	assert_int_equal(fread(b.data, 1, b.n, f), b.n);
	fclose(f);
	free(path);
	return b;
}

static void refused(struct bytes b, const char *says)
{
	struct favor_error e = {""};
	struct image im;
	assert_int_equal(image_decode(&im, b.data, b.n, "photo-7", &e), -1);
	if (!strstr(e.message, "photo-7") || !strstr(e.message, says))
		fail_msg("\"%s\" is not in: %s", says, e.message);
	free(b.data);
}

static const char sixty[] = "60000 x 60000 pixels are more than";

static void png(void **state)
{
	(void)state;
	struct bytes b = golden("png-rgb-8.png", 0);
	for (int i = 0; i < 2; i++) { /* width and height in IHDR, most significant byte first */
		b.data[18 + 4 * i] = 60000 >> 8;
		b.data[19 + 4 * i] = 60000 & 255;
	}
	uint32_t crc = 0xffffffffu;
	for (int i = 12; i < 29; i++) {
		crc ^= b.data[i];
		for (int k = 0; k < 8; k++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	for (int i = 0; i < 4; i++)
		b.data[29 + i] = (unsigned char)(~crc >> (24 - 8 * i));
	refused(b, sixty);
}

static void jpeg(void **state)
{
	(void)state;
	static const char *const names[] = {"jpeg-444.jpg", "jpeg-progressive.jpg", "jpeg-cmyk.jpg", "jpeg-gray.jpg"};
	for (int i = 0; i < 4; i++) {
		struct bytes b = golden(names[i], 0);
		int changed = 0;
		for (size_t at = 0; at + 9 < b.n && !changed; at++)
			if (b.data[at] == 0xff && (b.data[at + 1] == 0xc0 || b.data[at + 1] == 0xc2)) {
				b.data[at + 5] = b.data[at + 7] = 60000 >> 8;
				b.data[at + 6] = b.data[at + 8] = 60000 & 255;
				changed = 1;
			}
		assert_true(changed);
		refused(b, sixty);
	}
}

static void webp(void **state)
{
	(void)state;
	/* WebP's own limit of a picture is 16384 a side; an animation's canvas is larger */
	struct bytes b = golden("webp-animated.webp", 0);
	assert_memory_equal(b.data + 12, "VP8X", 4);
	for (int i = 0; i < 2; i++) {
		b.data[24 + 3 * i] = 59999 & 255;
		b.data[25 + 3 * i] = 59999 >> 8;
	}
	refused(b, sixty);
	b = golden("webp-lossless.webp", 0);
	assert_true(!memcmp(b.data + 12, "VP8L", 4) && b.data[20] == 0x2f);
	b.data[21] = b.data[22] = b.data[23] = 0xff; /* 14 bits each of width and height, less 1 */
	b.data[24] |= 0x0f;
	refused(b, "16384 x 16384 pixels are more than");
}

/* A progressive JPEG of one scan, five hundred times. */
static void scans(void **state)
{
	(void)state;
	enum { TIMES = 500 };
	struct bytes b = golden("jpeg-progressive.jpg", 1 << 20);
	size_t scan = 0, end = b.n - 2;
	assert_true(b.data[end] == 0xff && b.data[end + 1] == 0xd9);
	for (size_t at = 2; at + 1 < b.n && !scan; at++)
		if (b.data[at] == 0xff && b.data[at + 1] == 0xda)
			scan = at;
	size_t next = scan + 2; /* to the marker after the first scan's data */
	while (!(b.data[next] == 0xff && b.data[next + 1] != 0 && (b.data[next + 1] & 0xf8) != 0xd0))
		next++;
	const size_t n = next - scan;
	assert_true(scan > 0 && n * TIMES < 1 << 20);
	memmove(b.data + next + n * TIMES, b.data + next, b.n - next);
	for (int i = 0; i < TIMES; i++)
		memcpy(b.data + next + (size_t)i * n, b.data + scan, n);
	b.n += n * TIMES;
	refused(b, "more than 200 scans");
}

/* Half a gibibyte of text in a file of some hundred bytes: the chunk is skipped, which ends the file. */
static void chunk(void **state)
{
	(void)state;
	struct bytes b = golden("png-xmp.png", 0);
	unsigned char *text = memmem(b.data, b.n, "iTXt", 4);
	assert_non_null(text);
	text[-4] = 0x20;
	refused(b, "truncated PNG");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(png), cmocka_unit_test(jpeg), cmocka_unit_test(webp),
	                                   cmocka_unit_test(scans), cmocka_unit_test(chunk)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
