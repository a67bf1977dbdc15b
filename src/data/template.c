/* The chat template. Qwen2-VL's is a Jinja program that ships with the model; favor renders the one conversation that
 * it needs itself, and knows the official program by hashes of its pieces, so that it can warn about a folder whose
 * program differs and say where. */
#include "data/template.h"

#include "base/file.h"
#include "base/hash.h"

#include <errno.h>
#include <jansson.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PIECE = 32, OFFICIAL_BYTES = 1017, FILE_MAX = 1 << 24 };

/* FNV-1a of each 32 bytes of the official template, folded to 32 bits, and of all its bytes that are no white space.
 * Qwen2-VL and Qwen2.5-VL share the file; tools/golden_tokenizer.py checks the numbers against a copy of it. */
static const uint64_t official_ink = 0xb2bb11d84deaf152;
/* The same for the template of tools/make_base.py, which renders the same text in fewer words. */
static const uint64_t base_ink = 0xca7d3c02896b5d93;
static const uint32_t official[(OFFICIAL_BYTES + PIECE - 1) / PIECE] = {
	0x090e7050, 0x61a798e0, 0x7d6b697c, 0x25caa0c8, 0x4bc350aa, 0x899bee72, 0xe0ae8c31, 0x158f246c,
	0xa6cc7bcb, 0xe60c26f0, 0x16c0ce16, 0xda3e59ab, 0x867ba610, 0x2625cc5a, 0x7519e04a, 0x05819c6a,
	0xc9359b71, 0xc530084d, 0x049c124c, 0x3fb1fac7, 0x210588ed, 0x6036408b, 0xff7360fd, 0x6dfcd25b,
	0x29270b43, 0x9e68ca49, 0xc32ecfbe, 0xc2fcb96b, 0xd513ed28, 0x1c37124a, 0x64e55e98, 0x6ccc320c,
};

char *template_render(const char *system, int images, const char *user)
{
	static const char image[] = "<|vision_start|><|image_pad|><|vision_end|>";
	char *pads = favor_malloc((size_t)images * (sizeof image - 1) + 1);
	for (int i = 0; i < images; i++)
		memcpy(pads + (size_t)i * (sizeof image - 1), image, sizeof image - 1);
	pads[(size_t)images * (sizeof image - 1)] = 0;
	char *text = favor_format("%s%s%s<|im_start|>user\n%s%s<|im_end|>\n<|im_start|>assistant\n",
	                          system ? "<|im_start|>system\n" : "", system ? system : "", system ? "<|im_end|>\n" : "",
	                          pads, user);
	free(pads);
	return text;
}

const char *template_system(const char *option)
{
	if (!strcmp(option, "none"))
		return NULL;
	return strcmp(option, "default") ? option : TEMPLATE_DEFAULT_SYSTEM;
}

/* ---- the folder's own template ---- */

/* The text under "chat_template": a string, or a list of named ones of which "default" counts. NULL if there is none.
 */
static const json_t *template_of(const json_t *root)
{
	const json_t *value = json_object_get(root, "chat_template");
	for (size_t i = 0; i < json_array_size(value); i++) {
		const json_t *one = json_array_get(value, i);
		const char *name = json_string_value(json_object_get(one, "name"));
		if (name && !strcmp(name, "default"))
			return json_object_get(one, "template");
	}
	return value;
}

/* Hash of what is not white space. */
static uint64_t hash_ink(const char *text, size_t n)
{
	uint64_t h = HASH_START;
	for (size_t i = 0; i < n; i++)
		if (!strchr(" \t\r\n", text[i]) || !text[i])
			h = hash_bytes(h, text + i, 1);
	return h;
}

/* What can be seen in the text itself, for the warning: the first of the things that the official one has and this one
 * lacks. */
static const char *first_missing(const char *text)
{
	static const char *const marks[] = {"<|im_start|>",     "<|im_end|>",    "system",         TEMPLATE_DEFAULT_SYSTEM,
	                                    "<|vision_start|>", "<|image_pad|>", "<|vision_end|>", "add_generation_prompt",
	                                    "assistant"};
	for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
		if (!strstr(text, marks[i]))
			return marks[i];
	return NULL;
}

/* The text from `at` on for a message: up to 40 bytes of it, control characters as spaces. */
static void excerpt(const char *text, size_t n, size_t at, char out[41])
{
	size_t k = 0;
	for (; k < 40 && at + k < n; k++)
		out[k] = (unsigned char)text[at + k] < ' ' ? ' ' : text[at + k];
	while (k > 0 && at + k < n && (text[at + k] & 0xc0) == 0x80) /* not in the middle of a character */
		k--;
	out[k] = 0;
}

/* NULL if the text is the official one; Jinja drops one line end at the end of a template, so that is allowed. */
static char *compare(const char *path, const char *text, size_t n)
{
	if (n == OFFICIAL_BYTES + 1 && text[n - 1] == '\n')
		n--;
	size_t same = 0;
	for (; same * PIECE < n && same < sizeof official / sizeof *official; same++) {
		size_t rest = n - same * PIECE;
		uint64_t h = hash_bytes(HASH_START, text + same * PIECE, rest < PIECE ? rest : PIECE);
		if ((uint32_t)(h ^ h >> 32) != official[same])
			break;
	}
	if (n == OFFICIAL_BYTES && same == sizeof official / sizeof *official)
		return NULL;
	const uint64_t ink = hash_ink(text, n);
	if (ink == base_ink)
		return NULL;
	if (ink == official_ink)
		return favor_format(
			"%s: the chat template differs from Qwen2-VL's in its white space (first after byte %zu); favor renders "
			"Qwen2-VL's",
			path, same * PIECE < n ? same * PIECE : n);
	const char *missing = first_missing(text);
	char from_there[41];
	excerpt(text, n, same * PIECE, from_there);
	return favor_format("%s: the chat template (%zu bytes) is not Qwen2-VL's (%d bytes): it differs first within "
	                    "\"%s\" at byte %zu%s%s%s; "
	                    "favor renders Qwen2-VL's",
	                    path, n, OFFICIAL_BYTES, from_there, same * PIECE < n ? same * PIECE : n,
	                    missing ? ", and has no \"" : "", missing ? missing : "", missing ? "\"" : "");
}

char *template_difference(const char *folder)
{
	/* in the order in which transformers looks */
	static const char *const names[] = {"chat_template.jinja", "chat_template.json", "tokenizer_config.json"};
	char *difference = NULL;
	for (int i = 0; i < 3; i++) {
		size_t n = 0;
		struct favor_error e = {""};
		char *path = favor_format("%s/%s", folder, names[i]);
		const int there = access(path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR);
		char *data = there ? file_read(path, FILE_MAX, &n, &e) : NULL;
		json_t *root = NULL;
		int found = 0;
		if (!data) {
			if (there)
				difference = favor_format("%s, so the chat template can't be compared", e.message);
			found = there;
		} else if (i == 0) {
			found = 1;
			difference = compare(path, data, n);
		} else {
			json_error_t where;
			root = json_loadb(data, n, JSON_ALLOW_NUL, &where);
			const json_t *text = template_of(root);
			found = !root || json_is_string(text);
			if (!root)
				difference = favor_format("%s: line %d: %s, so the chat template can't be compared", path, where.line,
				                          where.text);
			else if (found)
				difference = compare(path, json_string_value(text), json_string_length(text));
		}
		json_decref(root);
		free(data);
		free(path);
		if (found)
			break;
	}
	return difference;
}
