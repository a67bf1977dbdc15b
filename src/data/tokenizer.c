/* Text to ids and back. The order of things is that of `tokenizers`:
 *
 *   text -> added tokens with normalized = false -> NFC of what is between them -> added tokens with normalized = true
 *        -> split patterns -> BPE of each word
 *   ids  -> texts of the tokens in the byte alphabet -> bytes -> invalid UTF-8 replaced */
#include "data/tokenizer.h"

#include "base/file.h"
#include "data/tokenizer_private.h"
#include "data/utf8.h"

#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 1 << 28 }; /* bytes of tokenizer.json; the largest known ones are some 30 MB */

void token_ids_push(struct token_ids *t, int32_t id)
{
	if (t->count == t->capacity) {
		if (t->capacity > INT32_MAX / 2)
			favor_die("out of memory: more than %d token ids", t->count);
		t->capacity = t->capacity ? 2 * t->capacity : 64;
		t->ids = favor_realloc(t->ids, (size_t)t->capacity * sizeof *t->ids);
	}
	t->ids[t->count++] = id;
}

void token_ids_free(struct token_ids *t)
{
	free(t->ids);
	*t = (struct token_ids){0};
}

/* ---- opening ---- */

static struct tokenizer *from_text(char *json, size_t n, const char *origin, struct favor_error *e)
{
	struct tokenizer *t = favor_calloc(1, sizeof *t);
	t->json = json;
	t->json_size = n;
	if (tokenizer_read_json(t, origin, e)) {
		tokenizer_destroy(t);
		return NULL;
	}
	return t;
}

struct tokenizer *tokenizer_parse(const char *json, size_t n, const char *origin, struct favor_error *e)
{
	if (n > FILE_MAX) {
		favor_fail(e, "%s: %zu bytes are too many for a tokenizer.json (at most %d)", origin, n, FILE_MAX);
		return NULL;
	}
	char *copy = favor_malloc(n + 1);
	memcpy(copy, json, n);
	copy[n] = 0;
	return from_text(copy, n, origin, e);
}

struct tokenizer *tokenizer_open(const char *folder, struct favor_error *e)
{
	char *path = favor_format("%s/tokenizer.json", folder);
	size_t n = 0;
	char *json = file_read(path, FILE_MAX, &n, e);
	struct tokenizer *t = json ? from_text(json, n, path, e) : NULL; /* json is t's now, or freed with it */
	free(path);
	return t;
}

void tokenizer_destroy(struct tokenizer *t)
{
	if (!t)
		return;
	pretokenizer_destroy(t->pretokenizer);
	bpe_destroy(t->bpe);
	for (int i = 0; i < t->added_count; i++) {
		free(t->added[i].text);
		free(t->added[i].content);
	}
	added_set_free(&t->raw);
	added_set_free(&t->normalised);
	free(t->added);
	free(t->added_by_id);
	free(t->vocabulary_text);
	free(t->scratch.text);
	free(t->json);
	free(t);
}

const char *tokenizer_json(const struct tokenizer *t, size_t *n)
{
	*n = t->json_size;
	return t->json;
}

static const struct added_token *added_by_id(const struct tokenizer *t, int32_t id)
{
	if (!t->added_count || id < t->added_first || id >= t->vocab_size || t->added_by_id[id - t->added_first] < 0)
		return NULL;
	return &t->added[t->added_by_id[id - t->added_first]];
}

int32_t tokenizer_id(const struct tokenizer *t, const char *token)
{
	size_t n = strlen(token);
	for (int i = 0; i < t->added_count; i++)
		if (t->added[i].content_n == n && !memcmp(t->added[i].content, token, n))
			return t->added[i].id;
	return bpe_id(t->bpe, token, n);
}

int32_t tokenizer_vocab_size(const struct tokenizer *t)
{
	return t->vocab_size;
}

/* ---- encoding ---- */

struct encoding {
	struct tokenizer *t;
	struct token_ids *ids;
	struct favor_error *error;
};

static void encode_word(void *context, const char *word, size_t n)
{
	struct encoding *c = context;
	bpe_encode(c->t->bpe, word, n, c->ids);
}

static int encode_words(struct encoding *c, const char *text, size_t n)
{
	return pretokenizer_run(c->t->pretokenizer, text, n, encode_word, c, c->error);
}

static int encode_piece(struct encoding *c, const char *text, size_t n, int added_tokens);

/* Looks for the set's tokens and hands the text between them to `rest`. */
static int encode_around(struct encoding *c, const struct added_set *set, const char *text, size_t n,
                         int (*rest)(struct encoding *c, const char *text, size_t n))
{
	size_t search = 0, taken = 0;
	struct added_match m;
	while (added_set_find(set, text, n, &search, taken, &m)) {
		/* a token that strips to its right may have taken the next one's first bytes: taken > m.start then */
		if (taken < m.start && rest(c, text + taken, m.start - taken))
			return -1;
		token_ids_push(c->ids, m.token->id);
		taken = m.stop;
	}
	return taken < n ? rest(c, text + taken, n - taken) : 0;
}

static int encode_piece_with_added(struct encoding *c, const char *text, size_t n)
{
	return encode_piece(c, text, n, 1);
}

static int encode_piece(struct encoding *c, const char *text, size_t n, int added_tokens)
{
	if (c->t->nfc && nfc_normalise(text, n, &c->t->scratch)) {
		text = c->t->scratch.text;
		n = c->t->scratch.length;
	}
	return added_tokens ? encode_around(c, &c->t->normalised, text, n, encode_words) : encode_words(c, text, n);
}

int tokenizer_encode(struct tokenizer *t, const char *text, size_t n, int added_tokens, struct token_ids *ids,
                     struct favor_error *e)
{
	if (n > INT32_MAX / 4) /* NFC at most triples it */
		return favor_fail(e, "a text of %zu bytes is too long (at most %d)", n, INT32_MAX / 4);
	const unsigned char *bytes = (const unsigned char *)text;
	for (size_t i = 0; i < n;) {
		int length = utf8_length(bytes + i, n - i, NULL);
		if (!length)
			return favor_fail(e, "invalid UTF-8 at byte %zu (0x%02x)", i, bytes[i]);
		i += (size_t)length;
	}
	struct encoding c = {t, ids, e};
	return added_tokens ? encode_around(&c, &t->raw, text, n, encode_piece_with_added) : encode_piece(&c, text, n, 0);
}

/* ---- decoding ---- */

struct bytes {
	char *data;
	size_t n, capacity;
};

static void append(struct bytes *b, const char *data, size_t n)
{
	if (n > b->capacity - b->n) {
		b->capacity = 2 * (b->n + n) + 64;
		b->data = favor_realloc(b->data, b->capacity);
	}
	if (n)
		memcpy(b->data + b->n, data, n);
	b->n += n;
}

/* A token's bytes; one with a character outside the byte alphabet stands for its text. */
static void append_token(const struct tokenizer *t, struct bytes *b, const char *text, size_t n)
{
	size_t before = b->n;
	for (const char *p = text; p < text + n;) {
		int byte = bpe_alphabet_byte(t->bpe, utf8_next(&p));
		if (byte < 0) {
			b->n = before;
			append(b, text, n);
			return;
		}
		append(b, &(char){(char)byte}, 1);
	}
}

char *tokenizer_decode(const struct tokenizer *t, const int32_t *ids, int32_t count, int skip_special, size_t *n)
{
	struct bytes bytes = {0}, out = {0};
	for (int32_t i = 0; i < count; i++) {
		const struct added_token *a = added_by_id(t, ids[i]);
		size_t length = a ? a->n : 0;
		const char *text = a ? a->text : bpe_text(t->bpe, ids[i], &length);
		/* `tokenizers` knows special tokens by their content, so one that NFC changed is not left out */
		int special = a && a->special && a->n == a->content_n && !memcmp(a->text, a->content, a->n);
		if (text && !(skip_special && special))
			append_token(t, &bytes, text, length);
	}
	for (size_t i = 0; i < bytes.n;) {
		int bad = 0, length = utf8_length((const unsigned char *)bytes.data + i, bytes.n - i, &bad);
		append(&out, length ? bytes.data + i : "\xef\xbf\xbd", length ? (size_t)length : 3);
		i += (size_t)(length ? length : bad);
	}
	append(&out, "", 1);
	if (n)
		*n = out.n - 1;
	free(bytes.data);
	return out.data;
}
