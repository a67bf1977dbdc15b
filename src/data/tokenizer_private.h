/* What tokenizer_json.c fills and tokenizer.c uses. */
#ifndef FAVOR_DATA_TOKENIZER_PRIVATE_H
#define FAVOR_DATA_TOKENIZER_PRIVATE_H

#include "data/added_tokens.h"
#include "data/bpe.h"
#include "data/nfc.h"
#include "data/pretokenize.h"
#include "data/tokenizer.h"

struct tokenizer {
	char *json; /* owned, the file's text; NUL-terminated */
	size_t json_size;
	int nfc; /* the text is normalised */
	struct pretokenizer *pretokenizer;
	struct bpe *bpe;
	char *vocabulary_text;     /* owned: the tokens' texts that bpe borrows */
	struct added_token *added; /* [added_count] in the file's order */
	int added_count;
	struct added_set raw, normalised; /* searched before and after normalisation */
	int32_t *added_by_id;             /* [vocab_size - added_first]: index into added, -1 = none */
	int32_t added_first;              /* lowest id of an added token */
	int32_t vocab_size;               /* largest id + 1 */
	struct nfc_text scratch;          /* the normalised piece at hand */
};

/* Fills *t (zeroed but for json and json_size) from t->json. -1 with a message that names the origin and the component;
 * what was filled is freed by tokenizer_destroy. */
int tokenizer_read_json(struct tokenizer *t, const char *origin, struct favor_error *e);

#endif
