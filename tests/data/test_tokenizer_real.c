/* The real Qwen2-VL vocabulary, from ../shared/data/qwen2-tokenizer beside the project; skipped (exit code 77) where it
 * is absent. */
#include "data/tokenizer.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int check(struct tokenizer *t, const char *golden_path)
{
	json_error_t where;
	json_t *lines = json_load_file(golden_path, JSON_ALLOW_NUL, &where), *line;
	struct favor_error e = {""};
	size_t i;
	int bad = 0;
	if (!lines) {
		printf("%s: %s\n", golden_path, where.text);
		return 1;
	}
	json_array_foreach (lines, i, line) {
		const json_t *text = json_array_get(line, 0), *expected = json_array_get(line, 1);
		struct token_ids ids = {0};
		int equal = !tokenizer_encode(t, json_string_value(text), json_string_length(text), 1, &ids, &e) &&
		            json_array_size(expected) == (size_t)ids.count;
		for (int k = 0; equal && k < ids.count; k++)
			equal = json_integer_value(json_array_get(expected, (size_t)k)) == ids.ids[k];
		if (!equal) {
			printf("line %zu \"%s\" differs %s\n", i, json_string_value(text), e.message);
			bad = 1;
		}
		token_ids_free(&ids);
	}
	printf("%zu lines\n", json_array_size(lines));
	bad |= json_array_size(lines) < 200;
	json_decref(lines);
	return bad;
}

int main(void)
{
	const char *source = getenv("FAVOR_SOURCE"), *golden = getenv("FAVOR_GOLDEN");
	struct favor_error e = {""};
	int bad = 1;
	if (!source || !golden)
		return 1;
	char *folder = favor_format("%s/../shared/data/qwen2-tokenizer", source),
		 *path = favor_format("%s/tokenizer.json", folder);
	char *lines = favor_format("%s/data/tokenizer_real.json", golden);
	if (access(path, R_OK)) {
		printf("skipped: there is no %s\n", path);
		bad = 77;
		goto done;
	}
	struct tokenizer *t = tokenizer_open(folder, &e);
	if (!t) {
		printf("%s\n", e.message);
		goto done;
	}
	bad = check(t, lines) || tokenizer_vocab_size(t) != 151665 || tokenizer_id(t, "<|im_start|>") != 151644 ||
	      tokenizer_id(t, "!") != 0;
	tokenizer_destroy(t);
done:
	free(folder);
	free(path);
	free(lines);
	return bad;
}
