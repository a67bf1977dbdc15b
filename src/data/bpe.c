/* Byte-pair encoding. A word starts as one token per byte; again and again the pair of neighbours with the lowest rank
 * (the leftmost of equals) becomes one token, until no pair has a merge. Short words scan for it, long ones keep a heap
 * of pairs, and most words come from the cache. */
#include "data/bpe.h"

#include "base/hash.h"
#include "data/utf8.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

enum {
	SHORT_WORD = 48,       /* bytes: up to here scanning beats the heap */
	CACHED_WORD = 128,     /* bytes: longer words are not kept */
	CACHE_SLOTS = 1 << 16, /* the cache is emptied when it is three quarters full, or */
	CACHE_BYTES = 1 << 20, /* when its words or */
	CACHE_IDS = 1 << 19,   /* its ids fill their blocks */
	ALPHABET = 324         /* characters of the byte alphabet are below this */
};

struct token_text {
	const char *text; /* borrowed; NULL = no such id */
	size_t n;
};
struct merge {
	uint64_t pair; /* left id << 32 | right id; NO_PAIR = empty slot */
	int32_t rank, id;
};
#define NO_PAIR UINT64_MAX

struct cached {
	uint64_t hash;
	uint32_t bytes, ids;        /* where they stand in the blocks */
	uint16_t byte_count, count; /* byte_count 0 = empty slot */
};

struct candidate {
	uint64_t order; /* rank << 32 | position of the left token */
	int32_t id;     /* what the merge makes: tells whether the pair is still the same */
};

struct bpe {
	int32_t id_count;
	struct token_text *tokens; /* [id_count] */
	int32_t *by_text;          /* [text_mask + 1] ids by hash of the text, -1 = empty */
	size_t text_mask;
	struct merge *merges; /* [merge_mask + 1] by hash of the pair */
	size_t merge_mask;
	int32_t merge_count;
	int ignore_merges;
	char alphabet[256][2]; /* each character of the alphabet is one or two bytes of UTF-8 */
	uint8_t alphabet_n[256];
	int16_t byte_of[ALPHABET];
	int32_t byte_id[256]; /* -1 = no such token; filled by bpe_add_token */

	struct cached *cache; /* [CACHE_SLOTS] */
	char *cache_bytes;    /* [CACHE_BYTES] */
	int32_t *cache_ids;   /* [CACHE_IDS] */
	size_t cached, cache_bytes_used, cache_ids_used;

	char *scratch; /* a word in the alphabet */
	size_t scratch_capacity;
};

static size_t power_above(size_t n)
{
	size_t p = 16;
	while (p < n)
		p *= 2;
	return p;
}

static uint64_t hash_text(const char *text, size_t n)
{
	return hash_mix(hash_block(HASH_START, text, n));
}

static void fill_alphabet(struct bpe *b)
{
	memset(b->byte_of, -1, sizeof b->byte_of);
	uint32_t next = 256; /* bytes that are no visible character get the next one from here */
	for (uint32_t i = 0; i < 256; i++) {
		int visible = (i >= '!' && i <= '~') || (i >= 0xa1 && i <= 0xac) || i >= 0xae;
		uint32_t c = visible ? i : next++;
		b->alphabet_n[i] = (uint8_t)utf8_put(c, b->alphabet[i]);
		b->byte_of[c] = (int16_t)i;
	}
}

struct bpe *bpe_new(int32_t tokens, int32_t id_count, int32_t merges, int ignore_merges)
{
	struct bpe *b = favor_calloc(1, sizeof *b);
	b->id_count = id_count;
	b->tokens = favor_calloc((size_t)id_count, sizeof *b->tokens);
	b->text_mask = power_above(2 * (size_t)tokens) - 1;
	b->by_text = favor_malloc((b->text_mask + 1) * sizeof *b->by_text);
	memset(b->by_text, -1, (b->text_mask + 1) * sizeof *b->by_text);
	b->merge_mask = power_above(2 * (size_t)merges) - 1;
	b->merges = favor_malloc((b->merge_mask + 1) * sizeof *b->merges);
	memset(b->merges, -1, (b->merge_mask + 1) * sizeof *b->merges); /* NO_PAIR */
	b->ignore_merges = ignore_merges;
	memset(b->byte_id, -1, sizeof b->byte_id);
	fill_alphabet(b);
	b->cache = favor_calloc(CACHE_SLOTS, sizeof *b->cache);
	b->cache_bytes = favor_malloc(CACHE_BYTES);
	b->cache_ids = favor_malloc(CACHE_IDS * sizeof *b->cache_ids);
	return b;
}

void bpe_destroy(struct bpe *b)
{
	if (!b)
		return;
	free(b->tokens);
	free(b->by_text);
	free(b->merges);
	free(b->cache);
	free(b->cache_bytes);
	free(b->cache_ids);
	free(b->scratch);
	free(b);
}

int bpe_alphabet_byte(const struct bpe *b, uint32_t character)
{
	return character < ALPHABET ? b->byte_of[character] : -1;
}

/* Slot of the text: it holds its id, or -1 where it would go. */
static size_t text_slot(const struct bpe *b, const char *text, size_t n)
{
	size_t i = hash_text(text, n) & b->text_mask;
	for (; b->by_text[i] >= 0; i = (i + 1) & b->text_mask) {
		const struct token_text *t = &b->tokens[b->by_text[i]];
		if (t->n == n && !memcmp(t->text, text, n))
			break;
	}
	return i;
}

int32_t bpe_id(const struct bpe *b, const char *text, size_t n)
{
	return b->by_text[text_slot(b, text, n)];
}

const char *bpe_text(const struct bpe *b, int32_t id, size_t *n)
{
	if (id < 0 || id >= b->id_count || !b->tokens[id].text)
		return NULL;
	*n = b->tokens[id].n;
	return b->tokens[id].text;
}

int32_t bpe_id_count(const struct bpe *b)
{
	return b->id_count;
}

int bpe_add_token(struct bpe *b, const char *text, size_t n, int32_t id, struct favor_error *e)
{
	if (b->tokens[id].text)
		return favor_fail(e, "id %d of \"%.*s\" is also that of \"%.*s\"", id, (int)n, text, (int)b->tokens[id].n,
		                  b->tokens[id].text);
	size_t slot = text_slot(b, text, n);
	if (b->by_text[slot] >= 0)
		return favor_fail(e, "\"%.*s\" has two ids, %d and %d", (int)n, text, b->by_text[slot], id);
	b->tokens[id] = (struct token_text){text, n};
	b->by_text[slot] = id;
	if (n == 1 || n == 2) {
		const char *p = text, *end = text + n;
		int byte = bpe_alphabet_byte(b, utf8_next(&p));
		if (p == end && byte >= 0)
			b->byte_id[byte] = id;
	}
	return 0;
}

static struct merge *merge_slot(const struct bpe *b, uint64_t pair)
{
	size_t i = hash_mix(pair) & b->merge_mask;
	while (b->merges[i].pair != pair && b->merges[i].pair != NO_PAIR)
		i = (i + 1) & b->merge_mask;
	return &b->merges[i];
}

static uint64_t pair_of(int32_t left, int32_t right)
{
	return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static const struct merge *find_merge(const struct bpe *b, int32_t left, int32_t right)
{
	const struct merge *m = merge_slot(b, pair_of(left, right));
	return m->pair == NO_PAIR ? NULL : m;
}

static char *scratch(struct bpe *b, size_t n)
{
	if (n > b->scratch_capacity) {
		free(b->scratch);
		b->scratch = favor_malloc(2 * n);
		b->scratch_capacity = 2 * n;
	}
	return b->scratch;
}

int bpe_add_merge(struct bpe *b, const char *left, size_t left_n, const char *right, size_t right_n,
                  struct favor_error *e)
{
	char *joint = scratch(b, left_n + right_n + 1);
	memcpy(joint, left, left_n);
	memcpy(joint + left_n, right, right_n);
	int32_t l = bpe_id(b, left, left_n), r = bpe_id(b, right, right_n), id = bpe_id(b, joint, left_n + right_n);
	if (l < 0)
		return favor_fail(e, "\"%.*s\" is not in the vocabulary", (int)left_n, left);
	if (r < 0)
		return favor_fail(e, "\"%.*s\" is not in the vocabulary", (int)right_n, right);
	if (id < 0)
		return favor_fail(e, "\"%.*s\" is not in the vocabulary", (int)(left_n + right_n), joint);
	/* a pair that is given twice keeps its last rank, as in `tokenizers` */
	struct merge *m = merge_slot(b, pair_of(l, r));
	*m = (struct merge){pair_of(l, r), b->merge_count++, id};
	return 0;
}

/* ---- one word ---- */

/* Scans for the lowest rank after every merge. ids[0..n) in place; returns how many are left. */
static size_t merge_short(const struct bpe *b, int32_t *ids, size_t n)
{
	const struct merge *merges[SHORT_WORD];
	for (size_t i = 0; i + 1 < n; i++)
		merges[i] = find_merge(b, ids[i], ids[i + 1]);
	for (;;) {
		size_t best = n;
		int32_t rank = INT32_MAX;
		for (size_t i = 0; i + 1 < n; i++)
			if (merges[i] && merges[i]->rank < rank)
				rank = merges[i]->rank, best = i;
		if (best == n)
			return n;
		ids[best] = merges[best]->id;
		n--;
		memmove(ids + best + 1, ids + best + 2, (n - best - 1) * sizeof *ids);
		if (best + 1 < n) {
			memmove(merges + best + 1, merges + best + 2, (n - best - 2) * sizeof *merges);
			merges[best] = find_merge(b, ids[best], ids[best + 1]);
		}
		if (best > 0)
			merges[best - 1] = find_merge(b, ids[best - 1], ids[best]);
	}
}

struct heap {
	struct candidate *items;
	size_t count;
};

static void heap_push(struct heap *h, struct candidate c)
{
	size_t i = h->count++;
	for (; i > 0 && h->items[(i - 1) / 2].order > c.order; i = (i - 1) / 2)
		h->items[i] = h->items[(i - 1) / 2];
	h->items[i] = c;
}

static struct candidate heap_pop(struct heap *h)
{
	struct candidate top = h->items[0], last = h->items[--h->count];
	size_t i = 0;
	for (;;) {
		size_t child = 2 * i + 1;
		if (child >= h->count)
			break;
		if (child + 1 < h->count && h->items[child + 1].order < h->items[child].order)
			child++;
		if (h->items[child].order >= last.order)
			break;
		h->items[i] = h->items[child];
		i = child;
	}
	h->items[i] = last;
	return top;
}

/* The same for long words, O(n log n). Tokens form a list by position of their first byte; a pair in the heap whose
 * left token is gone, or that would now make another token, is out of date and skipped. */
static size_t merge_long(const struct bpe *b, int32_t *ids, size_t n)
{
	int32_t *next = favor_malloc(n * sizeof *next), *before = favor_malloc(n * sizeof *before);
	/* n - 1 pairs at first, and each of at most n - 1 merges takes one out and puts at most two in */
	struct heap heap = {favor_malloc(2 * n * sizeof *heap.items), 0};
	for (size_t i = 0; i < n; i++) {
		before[i] = (int32_t)i - 1;
		next[i] = i + 1 < n ? (int32_t)i + 1 : -1;
		const struct merge *m = i + 1 < n ? find_merge(b, ids[i], ids[i + 1]) : NULL;
		if (m)
			heap_push(&heap, (struct candidate){(uint64_t)m->rank << 32 | i, m->id});
	}
	while (heap.count) {
		struct candidate c = heap_pop(&heap);
		int32_t at = (int32_t)(c.order & UINT32_MAX);
		int32_t right = ids[at] < 0 ? -1 : next[at];
		const struct merge *m = right < 0 ? NULL : find_merge(b, ids[at], ids[right]);
		if (!m || m->id != c.id)
			continue;
		ids[at] = c.id;
		ids[right] = -1;
		next[at] = next[right];
		if (next[at] >= 0)
			before[next[at]] = at;
		int32_t left = before[at];
		m = left < 0 ? NULL : find_merge(b, ids[left], ids[at]);
		if (m)
			heap_push(&heap, (struct candidate){(uint64_t)m->rank << 32 | (uint32_t)left, m->id});
		m = next[at] < 0 ? NULL : find_merge(b, ids[at], ids[next[at]]);
		if (m)
			heap_push(&heap, (struct candidate){(uint64_t)m->rank << 32 | (uint32_t)at, m->id});
	}
	size_t count = 0;
	for (int32_t i = 0; i >= 0; i = next[i])
		ids[count++] = ids[i];
	free(next);
	free(before);
	free(heap.items);
	return count;
}

static void encode_uncached(struct bpe *b, const char *word, size_t n, struct token_ids *ids)
{
	if (b->ignore_merges) { /* a word that is a token needs no merges */
		char *text = scratch(b, 2 * n);
		size_t length = 0;
		for (size_t i = 0; i < n; i++) {
			uint8_t byte = (uint8_t)word[i];
			memcpy(text + length, b->alphabet[byte], b->alphabet_n[byte]);
			length += b->alphabet_n[byte];
		}
		int32_t id = bpe_id(b, text, length);
		if (id >= 0) {
			token_ids_push(ids, id);
			return;
		}
	}
	int32_t few[SHORT_WORD], *list = n <= SHORT_WORD ? few : favor_malloc(n * sizeof *list);
	size_t count = 0;
	for (size_t i = 0; i < n; i++) {
		int32_t id = b->byte_id[(uint8_t)word[i]];
		if (id >= 0)
			list[count++] = id;
	}
	if (count > 1)
		count = count <= SHORT_WORD ? merge_short(b, list, count) : merge_long(b, list, count);
	for (size_t i = 0; i < count; i++)
		token_ids_push(ids, list[i]);
	if (list != few)
		free(list);
}

void bpe_encode(struct bpe *b, const char *word, size_t n, struct token_ids *ids)
{
	if (n == 0)
		return;
	if (n > CACHED_WORD) {
		encode_uncached(b, word, n, ids);
		return;
	}
	uint64_t hash = hash_text(word, n);
	size_t i = hash % CACHE_SLOTS;
	for (; b->cache[i].byte_count; i = (i + 1) % CACHE_SLOTS) {
		const struct cached *c = &b->cache[i];
		if (c->hash == hash && c->byte_count == n && !memcmp(b->cache_bytes + c->bytes, word, n)) {
			for (int k = 0; k < c->count; k++)
				token_ids_push(ids, b->cache_ids[c->ids + (uint32_t)k]);
			return;
		}
	}
	int32_t first = ids->count;
	encode_uncached(b, word, n, ids);
	size_t count = (size_t)(ids->count - first);
	if (b->cached >= CACHE_SLOTS / 4 * 3 || b->cache_bytes_used + n > CACHE_BYTES ||
	    b->cache_ids_used + count > CACHE_IDS) {
		memset(b->cache, 0, CACHE_SLOTS * sizeof *b->cache);
		b->cached = b->cache_bytes_used = b->cache_ids_used = 0;
		i = hash % CACHE_SLOTS;
	}
	b->cache[i] =
		(struct cached){hash, (uint32_t)b->cache_bytes_used, (uint32_t)b->cache_ids_used, (uint16_t)n, (uint16_t)count};
	memcpy(b->cache_bytes + b->cache_bytes_used, word, n);
	if (count)
		memcpy(b->cache_ids + b->cache_ids_used, ids->ids + first, count * sizeof *ids->ids);
	b->cached++;
	b->cache_bytes_used += n;
	b->cache_ids_used += count;
}
