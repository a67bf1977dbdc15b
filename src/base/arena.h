/* A bump allocator for what lives as long as one step: marked, filled, rolled back. Grows by chunks that are kept, so
 * that after the first steps nothing is allocated any more. Owns all it hands out. Not thread-safe. */
#ifndef FAVOR_BASE_ARENA_H
#define FAVOR_BASE_ARENA_H

#include <stddef.h>

struct arena_chunk;
struct arena {
	/* where chunks come from: malloc, or another owner's memory (a backend's); 64-byte aligned */
	void *(*chunk_alloc)(void *owner, size_t bytes);
	void (*chunk_release)(void *owner, void *p);
	void *owner;
	struct arena_chunk *first, *current;
	size_t used;  /* bytes in current */
	size_t total; /* bytes in all chunks before current */
	size_t peak;  /* largest total + used so far */
};
struct arena_mark {
	struct arena_chunk *chunk;
	size_t used, total;
};

void arena_init(struct arena *a); /* host memory */
/* Chunks from `owner` (borrowed; must outlive the arena). alloc never returns NULL. */
void arena_init_owner(struct arena *a, void *owner, void *(*alloc)(void *owner, size_t bytes),
                      void (*release)(void *owner, void *p));
void arena_free(struct arena *a); /* gives everything back */
/* 64-byte aligned, uninitialised. */
void *arena_alloc(struct arena *a, size_t bytes);
struct arena_mark arena_mark(const struct arena *a);
void arena_reset(struct arena *a, struct arena_mark m);

#endif
