/* 64-bit hashes for digests: FNV-1a over bytes, a mixer for words. Not cryptographic. */
#ifndef FAVOR_BASE_HASH_H
#define FAVOR_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define HASH_START 14695981039346656037ull

static inline uint64_t hash_bytes(uint64_t h, const void *data, size_t n)
{
	const unsigned char *p = data;
	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * 1099511628211ull;
	return h;
}

/* Eight bytes at a time with a finaliser a word: for large blocks of weights. n is in bytes; a tail is hashed bytewise.
 */
uint64_t hash_block(uint64_t h, const void *data, size_t n);

static inline uint64_t hash_mix(uint64_t x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ull;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebull;
	return x ^ (x >> 31);
}

#endif
