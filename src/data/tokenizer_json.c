/* Reads tokenizer.json into a struct tokenizer. What is supported is what byte-level BPE models use; everything else in
 * the file that would change ids or text is refused by name, because a token that is silently another one spoils a
 * model without a trace. Not looked at: truncation and padding (transformers sets both anew for each call). */
#include "data/tokenizer_private.h"
#include "data/vocabulary_json.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

struct reader {
	struct tokenizer *t;
	const char *origin;
	struct favor_error *error;
	struct json_span vocab, merges;
	int32_t tokens; /* in the vocabulary */
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
			return favor_fail(r->error, "%s: the last pre_tokenizer is \"%s\", not ByteLevel; " SUPPORTED, r->origin,
			                  type_of(one));
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

/* A template that puts nothing around the text, as transformers 5 writes for Qwen2. */
static int adds_nothing(const json_t *template)
{
	const json_t *single = json_object_get(template, "single");
	return json_array_size(single) == 1 && json_object_get(json_array_get(single, 0), "Sequence") != NULL;
}

/* Whether ids stay as they are. ByteLevel only moves offsets, which nobody asks for here. */
static int is_idle(const json_t *post, int depth)
{
	const json_t *list = json_object_get(post, "processors");
	if (is_absent(post) || type_is(post, "ByteLevel") || (type_is(post, "TemplateProcessing") && adds_nothing(post)))
		return 1;
	if (!type_is(post, "Sequence") || !json_is_array(list) || depth > 4)
		return 0;
	for (size_t i = 0; i < json_array_size(list); i++)
		if (!is_idle(json_array_get(list, i), depth + 1))
			return 0;
	return 1;
}

static int read_post_processor_and_decoder(struct reader *r, const json_t *root)
{
	const json_t *post = json_object_get(root, "post_processor"), *decoder = json_object_get(root, "decoder");
	if (!is_idle(post, 0))
		return refuse(r, "post_processor", type_of(post));
	if (!type_is(decoder, "ByteLevel"))
		return refuse(r, "decoder", is_absent(decoder) ? "null" : type_of(decoder));
	return 0;
}

/* ---- model ---- */

static int read_model_options(struct reader *r, const json_t *model)
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

static int read_model(struct reader *r, const json_t *model)
{
	int ignore_merges = json_is_true(json_object_get(model, "ignore_merges"));
	if (!r->vocab.stop)
		return favor_fail(r->error, "%s: model.vocab is no object", r->origin);
	if (!r->merges.stop)
		return favor_fail(r->error, "%s: model.merges is no array", r->origin);
	r->t->bpe = vocabulary_read(r->t->json, r->vocab, r->merges, ignore_merges, r->origin, &r->t->vocabulary_text,
	                            &r->tokens, r->error);
	if (!r->t->bpe)
		return -1;
	r->t->vocab_size = bpe_id_count(r->t->bpe);
	return 0;
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

/* `tokenizers` gives a token that the vocabulary has the id from there and numbers the others behind the vocabulary,
 * whatever the file says. Files that say something else exist only by mistake. */
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
		                  "%s: added_tokens[%zu] \"%s\" has id %lld, but the vocabulary makes it %d; added tokens "
		                  "follow the vocabulary in "
		                  "order, or are in it with the same id",
		                  r->origin, i, a->content, (long long)json_integer_value(id), expected);
	a->id = expected;
	return 0;
}

static int read_added_tokens(struct reader *r, const json_t *list)
{
	struct tokenizer *t = r->t;
	if (is_absent(list))
		return 0;
	if (!json_is_array(list) || json_array_size(list) > 65536)
		return favor_fail(r->error, "%s: added_tokens is no array, or has more than 65536 entries", r->origin);
	size_t count = json_array_size(list);
	int32_t next_id = r->tokens;
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

/* The file's JSON with an empty vocabulary and no merges; r->vocab and r->merges say where they stand. */
static json_t *load_rest(struct reader *r)
{
	const struct tokenizer *t = r->t;
	vocabulary_find(t->json, t->json_size, &r->vocab, &r->merges);
	struct json_span first = r->vocab, second = r->merges;
	if (second.start < first.start) {
		first = r->merges;
		second = r->vocab;
	}
	/* what is kept of each is its opening and closing bracket */
	struct json_span cuts[] = {first, second};
	char *rest = favor_malloc(t->json_size + 1);
	size_t n = 0, from = 0;
	for (int i = 0; i < 2; i++) {
		if (cuts[i].stop - cuts[i].start < 2)
			continue;
		memcpy(rest + n, t->json + from, cuts[i].start + 1 - from);
		n += cuts[i].start + 1 - from;
		from = cuts[i].stop - 1;
	}
	memcpy(rest + n, t->json + from, t->json_size - from);
	n += t->json_size - from;

	json_error_t where;
	json_t *root = json_loadb(rest, n, JSON_ALLOW_NUL | JSON_REJECT_DUPLICATES, &where);
	if (!root) {
		/* the place in the file itself */
		size_t at = where.position < 0 ? 0 : (size_t)where.position;
		for (int i = 0; i < 2; i++)
			if (cuts[i].stop - cuts[i].start >= 2 && at > cuts[i].start + 1)
				at += cuts[i].stop - cuts[i].start - 2;
		int line = 1;
		for (size_t i = 0; i < at && i < t->json_size; i++)
			line += t->json[i] == '\n';
		favor_fail(r->error, "%s: line %d, byte %zu: %s", r->origin, line, at, where.text);
	}
	free(rest);
	return root;
}

int tokenizer_read_json(struct tokenizer *t, const char *origin, struct favor_error *e)
{
	struct reader r = {.t = t, .origin = origin, .error = e};
	json_t *root = load_rest(&r);
	if (!root)
		return -1;
	const json_t *model = json_object_get(root, "model");
	int result = -1;
	if (!read_model_options(&r, model) && !read_normalizer(&r, json_object_get(root, "normalizer"), 0) &&
	    !read_pre_tokenizer(&r, json_object_get(root, "pre_tokenizer")) && !read_post_processor_and_decoder(&r, root) &&
	    !read_model(&r, model) && !read_added_tokens(&r, json_object_get(root, "added_tokens")))
		result = 0;
	json_decref(root);
	return result;
}
