/* See packed.h: a hash table by address. */
#include "backend/cpu/packed.h"

#include "backend/host_memory.h"
#include "base/error.h"

#include <stdlib.h>

enum { BUCKETS = 1024, ALIGNED = 64 };
static const size_t BYTES_MAX = (size_t)2 << 30;

/* A weight's packed copy. */
struct packed {
	struct packed *next; /* in its bucket */
	struct packed_key key;
	void *data; /* owned, unless it is lent */
	int lent;
	size_t bytes;
	uint64_t generation;
};

struct packed_weights {
	struct packed *buckets[BUCKETS];
	size_t bytes; /* of owned copies */
	char *lent;   /* borrowed: free memory for copies, */
	size_t lent_bytes;
	int lent_back; /* what was lent was taken back: no copies until there is some again */
	uint64_t generation; /* copies of earlier ones are no longer true */
};

struct packed_weights *packed_weights_new(void)
{
	return favor_calloc(1, sizeof(struct packed_weights));
}

void packed_weights_destroy(struct packed_weights *s)
{
	if (!s)
		return;
	packed_weights_forget(s, NULL, UINTPTR_MAX);
	free(s);
}

static size_t bucket_of(const float *from)
{
	uint64_t h = (uint64_t)(uintptr_t)from * 0x9e3779b97f4a7c15u;
	return (size_t)(h >> 32) % BUCKETS;
}

static struct packed *find(const struct packed_weights *s, const struct packed_key *key)
{
	for (struct packed *p = s->buckets[bucket_of(key->from)]; p; p = p->next)
		if (p->key.from == key->from && p->key.n == key->n && p->key.k == key->k && p->key.layout == key->layout)
			return p;
	return NULL;
}

void *packed_weights_find(const struct packed_weights *s, const struct packed_key *key)
{
	struct packed *p = find(s, key);
	return p && p->generation == s->generation ? p->data : NULL;
}

void *packed_weights_add(struct packed_weights *s, const struct packed_key *key, size_t bytes)
{
	struct packed *p = find(s, key);
	if (!p) {
		const size_t room = (bytes + ALIGNED - 1) / ALIGNED * ALIGNED;
		const int lent = room <= s->lent_bytes;
		if (!lent && (s->lent_back || s->bytes + bytes > BYTES_MAX))
			return NULL;
		p = favor_calloc(1, sizeof *p);
		*p = (struct packed){.key = *key, .bytes = bytes, .lent = lent, .data = lent ? s->lent : host_memory(bytes)};
		if (!p->data)
			favor_die("out of memory: a packed weight needs %zu bytes", bytes);
		if (lent) {
			s->lent += room;
			s->lent_bytes -= room;
		}
		struct packed **bucket = &s->buckets[bucket_of(key->from)];
		p->next = *bucket;
		*bucket = p;
		s->bytes += lent ? 0 : bytes;
	}
	p->generation = s->generation;
	return p->data;
}

void packed_weights_stale(struct packed_weights *s)
{
	s->generation++;
}

static void drop(struct packed_weights *s, struct packed **at)
{
	struct packed *p = *at;
	*at = p->next;
	if (!p->lent) {
		s->bytes -= p->bytes;
		free(p->data);
	}
	free(p);
}

void packed_weights_forget(struct packed_weights *s, const void *from, size_t bytes)
{
	uintptr_t first = (uintptr_t)from, end = first + bytes;
	for (int i = 0; i < BUCKETS; i++) {
		for (struct packed **at = &s->buckets[i]; *at;) {
			struct packed *p = *at;
			uintptr_t start = (uintptr_t)p->key.from;
			if (start >= end || start + (uintptr_t)(p->key.n * p->key.k) * sizeof(float) <= first)
				at = &p->next;
			else
				drop(s, at);
		}
	}
}

void packed_weights_lend(struct packed_weights *s, void *memory, size_t bytes)
{
	for (int i = 0; i < BUCKETS; i++) {
		for (struct packed **at = &s->buckets[i]; *at;) {
			if ((*at)->lent)
				drop(s, at);
			else
				at = &(*at)->next;
		}
	}
	s->lent = memory;
	s->lent_bytes = bytes;
	s->lent_back = !memory;
}

int64_t packed_weights_most(void)
{
	return (int64_t)BYTES_MAX;
}

size_t packed_weights_bytes(const struct packed_weights *s)
{
	return s->bytes;
}
