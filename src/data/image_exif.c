/* The orientation tag of EXIF and XMP metadata. Broken metadata is no reason to refuse an image: it counts as absent.
 */
#include "data/image_codec.h"

#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4, ENTRY_BYTES = 12 };

struct tiff {
	const unsigned char *data;
	size_t n;
	int big_endian;
};

/* The caller has checked that `bytes` bytes are there. */
static uint32_t number(const struct tiff *t, size_t at, int bytes)
{
	uint32_t v = 0;
	for (int i = 0; i < bytes; i++)
		v |= (uint32_t)t->data[at + (size_t)i] << 8 * (t->big_endian ? bytes - 1 - i : i);
	return v;
}

int exif_orientation(const void *data, size_t n)
{
	struct tiff t = {data, n, 0};
	/* some writers put the mark twice */
	for (int i = 0; i < 2 && t.n >= 6 && !memcmp(t.data, "Exif\0\0", 6); i++) {
		t.data += 6;
		t.n -= 6;
	}
	if (t.n < 8 || (memcmp(t.data, "II*\0", 4) && memcmp(t.data, "MM\0*", 4)))
		return 0;
	t.big_endian = t.data[0] == 'M';
	const size_t directory = number(&t, 4, 4);
	if (directory > t.n - 2)
		return 0;
	const uint32_t entries = number(&t, directory, 2);
	int found = 0;
	for (uint32_t i = 0; i < entries; i++) {
		size_t at = directory + 2 + (size_t)i * ENTRY_BYTES;
		if (at + ENTRY_BYTES > t.n)
			break;
		uint32_t type = number(&t, at + 2, 2), count = number(&t, at + 4, 4);
		if (number(&t, at, 2) != TAG_ORIENTATION || count < 1)
			continue;
		if (type == TYPE_SHORT && count <= 2)
			found = (int)number(&t, at + 8, 2);
		else if (type == TYPE_LONG && count == 1)
			found = (int)(number(&t, at + 8, 4) & 0xffff);
		else
			continue;
		if (found < 1 || found > 8)
			found = 1; /* says nothing, but it is there: XMP is not asked */
	}
	return found;
}

int xmp_orientation(const void *data, size_t n)
{
	static const char key[] = "tiff:Orientation";
	const size_t length = sizeof key - 1;
	if (n < length)
		return 0;
	const char *p = data, *end = p + n;
	while ((p = memmem(p, (size_t)(end - p), key, length))) {
		p += length;
		size_t skip = end - p >= 2 && !memcmp(p, "=\"", 2) ? 2 : end - p >= 1 && *p == '>' ? 1 : 0;
		if (skip && (size_t)(end - p) > skip && p[skip] >= '0' && p[skip] <= '9')
			return p[skip] - '0';
	}
	return 0;
}
