/* Reads tokenizer.json into a struct tokenizer. What is supported is what byte-level BPE models use; everything else in the file
 * that would change ids or text is refused by name, because a token that is silently another one spoils a model without a
 * trace. Not looked at: truncation and padding (transformers sets both anew for each call). */
#include "data/tokenizer_private.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct reader {
	struct tokenizer *t;
	const char *origin;
	struct favor_error *error;
};

#define SUPPORTED "favor reads byte-level BPE tokenizers as Qwen2-VL's"

static int type_is(const json_t *object, const char *type)
{
	const char *have = json_string_value(json_object_get(object, "type"));
	return have && !strcmp(have, type);
}

/* The "type" of a component, for messages. */
static const char *type_of(const json_t *object)
{
	const char *have = json_string_value(json_object_get(object, "type"));
	return have ? have : "(no type)";
}

static int is_absent(const json_t *value)
{
	return !value || json_is_null(value);
}

static int refuse(struct reader *r, const char *component, const char *what)
{
	return favor_fail(r->error, "%s: %s \"%s\" is not supported; " SUPPORTED, r->origin, component, what);
}

/* ---- normalizer, pre_tokenizer, post_processor, decoder ---- */

static int read_normalizer(struct reader *r, const json_t *normalizer, int depth)
{
	if (is_absent(normalizer))
		return 0;
	if (type_is(normalizer, "NFC")) {
		r->t->nfc = 1; /* twice is once */
		return 0;
	}
	if (!type_is(normalizer, "Sequence") || depth > 4)
		return refuse(r, "normalizer", type_of(normalizer));
	const json_t *list = json_object_get(normalizer, "normalizers");
	if (!json_is_array(list))
		return favor_fail(r->error, "%s: normalizer.normalizers is no array", r->origin);
	for (size_t i = 0; i < json_array_size(list); i++)
		if (read_normalizer(r, json_array_get(list, i), depth + 1))
			return -1;
	return 0;
}

static int add_split(struct reader *r, const char *pattern, size_t n)
{
	if (pretokenizer_add(r->t->pretokenizer, pattern, n, r->error))
		return favor_fail_prefix(r->error, "%s: pre_tokenizer", r->origin);
	return 0;
}

static int read_split(struct reader *r, const json_t *split)
{
	const json_t *regex = json_object_get(json_object_get(split, "pattern"), "Regex");
	const char *behavior = json_string_value(json_object_get(split, "behavior"));
	if (!json_is_string(regex))
		return refuse(r, "pre_tokenizer", "Split by a pattern that is no Regex");
	if (!behavior || strcmp(behavior, "Isolated"))
		return refuse(r, "pre_tokenizer Split behavior", behavior ? behavior : "(none)");
	if (json_is_true(json_object_get(split, "invert")))
		return refuse(r, "pre_tokenizer", "Split with invert");
	return add_split(r, json_string_value(regex), json_string_length(regex));
}

/* ByteLevel has to be there, and last: after it the text is in the byte alphabet. */
static int read_pre_tokenizer(struct reader *r, const json_t *pre_tokenizer)
{
	const json_t *list = NULL;
	size_t count = 1;
	r->t->pretokenizer = pretokenizer_new();
	if (is_absent(pre_tokenizer))
		return refuse(r, "pre_tokenizer", "null");
	if (type_is(pre_tokenizer, "Sequence")) {
		list = json_object_get(pre_tokenizer, "pretokenizers");
		if (!json_is_array(list) || !json_array_size(list))
			return favor_fail(r->error, "%s: pre_tokenizer.pretokenizers is no array, or empty", r->origin);
		count = json_array_size(list);
	}
	for (size_t i = 0; i < count; i++) {
		const json_t *one = list ? json_array_get(list, i) : pre_tokenizer;
		if (i + 1 < count) {
			if (!type_is(one, "Split"))
				return refuse(r, i ? "pre_tokenizer" : "first pre_tokenizer", type_of(one));
			if (read_split(r, one))
				return -1;
			continue;
		}
		if (!type_is(one, "ByteLevel"))
			return favor_fail(r->error, "%s: the last pre_tokenizer is \"%s\", not ByteLevel; " SUPPORTED, r->origin, type_of(one));
		if (!json_is_false(json_object_get(one, "add_prefix_space")))
			return refuse(r, "pre_tokenizer", "ByteLevel with add_prefix_space");
		const json_t *use_regex = json_object_get(one, "use_regex");
		if (!use_regex || json_is_true(use_regex)) {
			if (add_split(r, PRETOKENIZE_GPT2, sizeof PRETOKENIZE_GPT2 - 1))
				return -1;
		} else if (!json_is_false(use_regex)) {
			return favor_fail(r->error, "%s: pre_tokenizer ByteLevel: use_regex is neither true nor false", r->origin);
		}
	}
	return 0;
}

static int read_post_processor_and_decoder(struct reader *r, const json_t *root)
{
	const json_t *post = json_object_get(root, "post_processor"), *decoder = json_object_get(root, "decoder");
	if (!is_absent(post) && !type_is(post, "ByteLevel")) /* ByteLevel only moves offsets, which nobody asks for here */
		return refuse(r, "post_processor", type_of(post));
	if (!type_is(decoder, "ByteLevel"))
		return refuse(r, "decoder", is_absent(decoder) ? "null" : type_of(decoder));
	return 0;
}

/* ---- model ---- */

static int read_model_options(struct reader *r, json_t *model)
{
	static const char *const unwanted[] = {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"};
	if (!json_is_object(model))
		return favor_fail(r->error, "%s: there is no model; is this a tokenizer.json?", r->origin);
	/* old files name no type; BPE is the one with merges */
	if (json_object_get(model, "type") ? !type_is(model, "BPE") : !json_object_get(model, "merges"))
		return refuse(r, "model", type_of(model));
	for (size_t i = 0; i < sizeof unwanted / sizeof *unwanted; i++) {
		const json_t *value = json_object_get(model, unwanted[i]);
		int empty_affix = i >= 2 && json_is_string(value) && !json_string_length(value);
		if (!is_absent(value) && !empty_affix)
			return refuse(r, "model option", unwanted[i]);
	}
	if (json_is_true(json_object_get(model, "byte_fallback")))
		return refuse(r, "model option", "byte_fallback");
	return 0;
}

/* What both need: the entry's number, counted from 0. */
static int bad_merge(struct reader *r, size_t i, const char *why)
{
	return favor_fail(r->error, "%s: model.merges[%zu] %s", r->origin, i, why);
}

static int read_merges(struct reader *r, const json_t *merges)
{
	for (size_t i = 0; i < json_array_size(merges); i++) {
		const json_t *merge = json_array_get(merges, i);
		const char *left, *right;
		size_t left_n, right_n;
		if (json_is_string(merge)) { /* "a b" */
			left = json_string_value(merge);
			size_t n = json_string_length(merge);
			if (!strncmp(left, "#version", 8))
				continue;
			const char *space = memchr(left, ' ', n);
			if (!space)
				return bad_merge(r, i, "has no space between two tokens");
			left_n = (size_t)(space - left);
			right = space + 1;
			right_n = n - left_n - 1;
			if (memchr(right, ' ', right_n))
				return bad_merge(r, i, "has more than one space");
		} else { /* ["a", "b"] */
			const json_t *a = json_array_get(merge, 0), *b = json_array_get(merge, 1);
			if (!json_is_string(a) || !json_is_string(b) || json_array_size(merge) != 2)
				return bad_merge(r, i, "is neither \"a b\" nor [\"a\", \"b\"]");
			left = json_string_value(a);
			left_n = json_string_length(a);
			right = json_string_value(b);
			right_n = json_string_length(b);
		}
		if (bpe_add_merge(r->t->bpe, left, left_n, right, right_n, r->error))
			return favor_fail_prefix(r->error, "%s: model.merges[%zu]", r->origin, i);
	}
	return 0;
}

static int read_model(struct reader *r, json_t *model)
{
	json_t *vocab = json_object_get(model, "vocab"), *value;
	const json_t *merges = json_object_get(model, "merges");
	if (!json_is_object(vocab) || !json_object_size(vocab))
		return favor_fail(r->error, "%s: model.vocab is no object, or empty", r->origin);
	if (!json_is_array(merges))
		return favor_fail(r->error, "%s: model.merges is no array", r->origin);

	const char *key;
	size_t text_bytes = 0;
	json_int_t largest = 0;
	json_object_foreach(vocab, key, value) {
		json_int_t id = json_integer_value(value);
		if (!json_is_integer(value) || id < 0 || id >= BPE_IDS_MAX)
			return favor_fail(r->error, "%s: model.vocab: the id of \"%.100s\" is no number from 0 to %d", r->origin, key, BPE_IDS_MAX - 1);
		largest = id > largest ? id : largest;
		text_bytes += strlen(key);
	}
	size_t tokens = json_object_size(vocab);
	if ((size_t)largest > 64 * tokens + 65536) /* the tables by id would be almost empty */
		return favor_fail(r->error, "%s: model.vocab has %zu tokens but an id of %lld", r->origin, tokens, (long long)largest);
	if (json_array_size(merges) > INT32_MAX / 4)
		return favor_fail(r->error, "%s: model.merges has too many entries", r->origin);
	r->t->bpe = bpe_new((int32_t)tokens, (int32_t)largest + 1, (int32_t)json_array_size(merges),
	                    json_is_true(json_object_get(model, "ignore_merges")));
	r->t->vocab_size = (int32_t)largest + 1;

	char *text = r->t->vocabulary_text = favor_malloc(text_bytes);
	json_object_foreach(vocab, key, value) {
		size_t n = strlen(key);
		memcpy(text, key, n);
		if (bpe_add_token(r->t->bpe, text, n, (int32_t)json_integer_value(value), r->error))
			return favor_fail_prefix(r->error, "%s: model.vocab", r->origin);
		text += n;
	}
	return read_merges(r, merges);
}

/* ---- added tokens ---- */

/* A flag of an added token: false if absent. */
static int read_flag(struct reader *r, const json_t *token, size_t i, const char *name, int *flag)
{
	const json_t *value = json_object_get(token, name);
	if (value && !json_is_boolean(value))
		return favor_fail(r->error, "%s: added_tokens[%zu].%s is neither true nor false", r->origin, i, name);
	*flag = json_is_true(value);
	return 0;
}

static char *copy_text(const char *text, size_t n)
{
	char *copy = favor_malloc(n + 1);
	memcpy(copy, text, n);
	copy[n] = 0;
	return copy;
}

/* `tokenizers` gives a token that the vocabulary has the id from there and numbers the others behind the vocabulary, whatever the
 * file says. Files that say something else exist only by mistake. */
static int read_added_token(struct reader *r, const json_t *token, size_t i, int32_t *next_id)
{
	struct added_token *a = &r->t->added[i];
	const json_t *content = json_object_get(token, "content"), *id = json_object_get(token, "id");
	if (!json_is_string(content) || !json_string_length(content) || !json_is_integer(id))
		return favor_fail(r->error, "%s: added_tokens[%zu] has no content or no id", r->origin, i);
	if (read_flag(r, token, i, "special", &a->special) || read_flag(r, token, i, "lstrip", &a->lstrip) ||
	    read_flag(r, token, i, "rstrip", &a->rstrip) || read_flag(r, token, i, "single_word", &a->single_word) ||
	    read_flag(r, token, i, "normalized", &a->normalised))
		return -1;
	a->content_n = a->n = json_string_length(content);
	a->content = copy_text(json_string_value(content), a->n);
	r->t->added_count++;
	struct nfc_text normal = {0};
	int changed = a->normalised && r->t->nfc && nfc_normalise(a->content, a->n, &normal);
	if (changed)
		a->n = normal.length;
	a->text = copy_text(changed ? normal.text : a->content, a->n);
	free(normal.text);
	for (size_t k = 0; k < i; k++)
		if (r->t->added[k].n == a->n && !memcmp(r->t->added[k].text, a->text, a->n))
			return favor_fail(r->error, "%s: added_tokens[%zu] and [%zu] are both \"%s\"", r->origin, k, i, a->text);

	int32_t expected = bpe_id(r->t->bpe, a->content, a->content_n);
	if (expected < 0)
		expected = (*next_id)++;
	if (json_integer_value(id) != expected)
		return favor_fail(r->error,
		                  "%s: added_tokens[%zu] \"%s\" has id %lld, but the vocabulary makes it %d; added tokens follow the vocabulary in "
		                  "order, or are in it with the same id",
		                  r->origin, i, a->content, (long long)json_integer_value(id), expected);
	a->id = expected;
	return 0;
}

static int read_added_tokens(struct reader *r, const json_t *list, size_t vocabulary)
{
	struct tokenizer *t = r->t;
	if (is_absent(list))
		return 0;
	if (!json_is_array(list) || json_array_size(list) > 65536)
		return favor_fail(r->error, "%s: added_tokens is no array, or has more than 65536 entries", r->origin);
	size_t count = json_array_size(list);
	int32_t next_id = (int32_t)vocabulary;
	t->added = favor_calloc(count, sizeof *t->added);
	for (size_t i = 0; i < count; i++)
		if (read_added_token(r, json_array_get(list, i), i, &next_id))
			return -1;
	added_set_build(&t->raw, t->added, t->added_count, 0);
	added_set_build(&t->normalised, t->added, t->added_count, 1);
	t->added_first = INT32_MAX;
	for (size_t i = 0; i < count; i++) {
		t->added_first = t->added[i].id < t->added_first ? t->added[i].id : t->added_first;
		t->vocab_size = t->added[i].id >= t->vocab_size ? t->added[i].id + 1 : t->vocab_size;
	}
	if (count) {
		size_t span = (size_t)(t->vocab_size - t->added_first);
		t->added_by_id = favor_malloc(span * sizeof *t->added_by_id);
		memset(t->added_by_id, -1, span * sizeof *t->added_by_id);
		for (size_t i = 0; i < count; i++)
			t->added_by_id[t->added[i].id - t->added_first] = (int32_t)i;
	}
	return 0;
}

int tokenizer_read_json(struct tokenizer *t, const char *origin, struct favor_error *e)
{
	struct reader r = {t, origin, e};
	json_error_t where;
	int result = -1;
	json_t *root = json_loadb(t->json, t->json_size, JSON_ALLOW_NUL, &where);
	if (!root)
		return favor_fail(e, "%s: line %d, column %d: %s", origin, where.line, where.column, where.text);
	json_t *model = json_object_get(root, "model");
	if (read_model_options(&r, model) || read_normalizer(&r, json_object_get(root, "normalizer"), 0) ||
	    read_pre_tokenizer(&r, json_object_get(root, "pre_tokenizer")) || read_post_processor_and_decoder(&r, root) ||
	    read_model(&r, model) ||
	    read_added_tokens(&r, json_object_get(root, "added_tokens"), json_object_size(json_object_get(model, "vocab"))))
		goto done;
	result = 0;
done:
	json_decref(root);
	return result;
}
