/* tokenizer.json, FUZZ_CUT, a text: parsed, encoded and decoded. */
#include "fuzz.h"

#include "data/tokenizer.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favor_error e = {""};
	struct fuzz_part parts[FUZZ_PARTS];
	struct token_ids ids = {0};
	fuzz_parts(data, size, parts);
	struct tokenizer *t = tokenizer_parse(parts[0].data, parts[0].n, "tokenizer.json", &e);
	if (!t) {
		fuzz_want_message(&e, "tokenizer.json");
		return 0;
	}
	for (int added = 0; added < 2; added++) {
		ids.count = 0;
		if (tokenizer_encode(t, parts[1].data, parts[1].n, added, &ids, &e)) {
			fuzz_want_message(&e, "");
			continue;
		}
		for (int32_t i = 0; i < ids.count; i++)
			FUZZ_WANT(ids.ids[i] >= 0 && ids.ids[i] < tokenizer_vocab_size(t));
		size_t n;
		char *text = tokenizer_decode(t, ids.ids, ids.count, added, &n);
		FUZZ_WANT(text[n] == 0);
		free(text);
	}
	/* ids that are none */
	const int32_t odd[] = {-1, INT32_MAX, INT32_MIN, 0, tokenizer_vocab_size(t), tokenizer_vocab_size(t) - 1};
	free(tokenizer_decode(t, odd, sizeof odd / sizeof *odd, 0, NULL));
	char *word = fuzz_text(parts[1]);
	tokenizer_id(t, word);
	free(word);
	token_ids_free(&ids);
	tokenizer_destroy(t);
	return 0;
}
