/* Chunks in a list; a reset moves back to an earlier chunk and keeps the later ones for the next round. Rounds of
 * varying sizes would leave many chunks too small to use, so an arena that is empty again starts anew with one chunk of
 * its peak. */
#include "base/arena.h"

#include "base/error.h"

#include <stdint.h>
#include <stdlib.h>

enum { ALIGN = 64 };
static const size_t CHUNK_MIN = (size_t)1 << 20;

struct arena_chunk {
	struct arena_chunk *next;
	size_t size;
	char *data;
};

static void *host_alloc(void *owner, size_t bytes)
{
	(void)owner;
	void *p = aligned_alloc(ALIGN, bytes);
	if (!p)
		favor_die("out of memory: a step needs %zu more bytes; lower group_size, max_tokens, max_pixels or micro_batch",
		          bytes);
	return p;
}

static void host_release(void *owner, void *p)
{
	(void)owner;
	free(p);
}

void arena_init(struct arena *a)
{
	arena_init_owner(a, NULL, host_alloc, host_release);
}

void arena_init_owner(struct arena *a, void *owner, void *(*alloc)(void *owner, size_t bytes),
                      void (*release)(void *owner, void *p))
{
	*a = (struct arena){.chunk_alloc = alloc, .chunk_release = release, .owner = owner};
}

static void drop_chunks(struct arena *a)
{
	struct arena_chunk *c = a->first;
	while (c) {
		struct arena_chunk *next = c->next;
		a->chunk_release(a->owner, c->data);
		free(c);
		c = next;
	}
	a->first = a->current = NULL;
	a->used = a->total = 0;
}

void arena_free(struct arena *a)
{
	drop_chunks(a);
	a->peak = 0;
}

static struct arena_chunk *chunk_new(struct arena *a, size_t bytes)
{
	struct arena_chunk *c = favor_malloc(sizeof *c);
	c->next = NULL;
	c->size = bytes > CHUNK_MIN ? bytes : CHUNK_MIN;
	if (!a->first && c->size < a->peak + a->peak / 8)
		c->size = a->peak + a->peak / 8; /* one chunk for all that was ever needed, and a little more */
	c->size = (c->size + ALIGN - 1) / ALIGN * ALIGN;
	c->data = a->chunk_alloc(a->owner, c->size);
	return c;
}

void *arena_alloc(struct arena *a, size_t bytes)
{
	bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
	if (bytes == 0)
		bytes = ALIGN;
	while (!a->current || a->used + bytes > a->current->size) {
		struct arena_chunk *next = a->current ? a->current->next : a->first;
		if (!next || next->size < bytes) {
			/* a fresh chunk goes before one that is too small */
			struct arena_chunk *fresh = chunk_new(a, bytes);
			fresh->next = next;
			if (a->current)
				a->current->next = fresh;
			else
				a->first = fresh;
			next = fresh;
		}
		if (a->current)
			a->total += a->used;
		a->current = next;
		a->used = 0;
	}
	void *p = a->current->data + a->used;
	a->used += bytes;
	if (a->total + a->used > a->peak)
		a->peak = a->total + a->used;
	return p;
}

struct arena_mark arena_mark(const struct arena *a)
{
	return (struct arena_mark){a->current, a->used, a->total};
}

void arena_reset(struct arena *a, struct arena_mark m)
{
	/* empty again, after it grew by pieces: the next round gets one piece that fits */
	if (!m.chunk && a->first && a->first->next)
		drop_chunks(a);
	a->current = m.chunk;
	a->used = m.used;
	a->total = m.total;
}
