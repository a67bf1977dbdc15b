#include "base/hash.h"

#include <string.h>

uint64_t hash_block(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;
	size_t words = n / 8;
	for (size_t i = 0; i < words; i++) {
		uint64_t w;
		memcpy(&w, p + 8 * i, 8);
		h = (h ^ w) * 0x9fb21c651e98df25ull;
		h ^= h >> 32;
	}
	return hash_bytes(h, p + 8 * words, n - 8 * words);
}
