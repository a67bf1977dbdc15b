/* NFC as the `tokenizers` library does it: by the rules of Unicode, for the characters that its (old) tables know. */
#ifndef FAVOR_DATA_NFC_H
#define FAVOR_DATA_NFC_H

#include <stddef.h>

/* A buffer that grows; zero-initialise, free(text). */
struct nfc_text {
	char *text; /* owned */
	size_t length, capacity;
};

/* Normalises n bytes of valid UTF-8. Returns 0 if they are in NFC already (out is not touched: use the input), else 1
 * with the result in *out. Linear in n, long runs of combining marks included. */
int nfc_normalise(const char *text, size_t n, struct nfc_text *out);

#endif
