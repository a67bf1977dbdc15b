/* safetensors. The first byte says what follows: 'r' a file as it is; 'h' a header whose length is put in front here
 * (libFuzzer does not guess it), FUZZ_CUT, the data; 'i' an index, FUZZ_CUT, a shard's header, FUZZ_CUT, its data,
 * FUZZ_CUT, a second shard as it is. */
#include "fuzz.h"

#include "model/safetensors.h"

#include <stdlib.h>
#include <string.h>

/* header and data as a file */
static void write_shard(const char *name, struct fuzz_part header, struct fuzz_part values)
{
	size_t n = 8 + header.n + values.n;
	char *file = favor_malloc(n);
	for (int i = 0; i < 8; i++)
		file[i] = (char)((uint64_t)header.n >> (8 * i));
	if (header.n)
		memcpy(file + 8, header.data, header.n);
	if (values.n)
		memcpy(file + 8 + header.n, values.data, values.n);
	fuzz_write(name, (struct fuzz_part){file, n});
	free(file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favor_error e = {""};
	struct fuzz_part parts[FUZZ_PARTS];
	if (size == 0)
		return 0;
	fuzz_parts(data + 1, size - 1, parts);
	fuzz_remove("model.safetensors");
	fuzz_remove("model.safetensors.index.json");
	if (data[0] == 'h') {
		write_shard("model.safetensors", parts[0], parts[1]);
	} else if (data[0] == 'i') {
		fuzz_write("model.safetensors.index.json", parts[0]);
		write_shard("a.safetensors", parts[1], parts[2]);
		fuzz_write("b.safetensors", parts[3]);
	} else {
		fuzz_write("model.safetensors", (struct fuzz_part){(const char *)data + 1, size - 1});
	}
	struct safetensors *s = safetensors_open(fuzz_folder(), &e);
	if (!s) {
		fuzz_want_message(&e, fuzz_folder());
		return 0;
	}
	for (int i = 0; i < safetensors_count(s); i++) {
		const struct st_tensor *t = safetensors_at(s, i);
		FUZZ_WANT(t->ndim >= 0 && t->ndim <= 6 && t->count >= 0);
		FUZZ_WANT((uint64_t)t->count <= size); /* all bytes of a tensor are in the file */
		FUZZ_WANT(safetensors_find(s, t->name) == t);
		float *values = favor_malloc((size_t)t->count * sizeof *values);
		if (safetensors_copy(t, values, &e))
			fuzz_want_message(&e, t->name[0] ? fuzz_folder() : "");
		free(values);
	}
	safetensors_close(s);
	return 0;
}
