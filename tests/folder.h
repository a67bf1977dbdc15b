/* Private folders for tests, and model folders made by changing a file or two of a golden one. */
#ifndef FAVOR_TESTS_FOLDER_H
#define FAVOR_TESTS_FOLDER_H

#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A new private folder; folder_remove frees the name too. */
static inline char *folder_new(void)
{
	const char *base = getenv("TMPDIR");
	char *folder = favor_format("%s/favor-test-XXXXXX", base && *base ? base : "/tmp");
	if (!mkdtemp(folder))
		abort();
	return folder;
}

static inline void folder_remove(char *folder)
{
	char *command = favor_format("rm -rf '%s'", folder);
	if (system(command))
		abort();
	free(command);
	free(folder);
}

static inline void folder_write_bytes(const char *folder, const char *name, const void *data, size_t n)
{
	char *path = favor_format("%s/%s", folder, name);
	unlink(path); /* it may be a link to a golden file */
	FILE *f = fopen(path, "wb");
	if (!f || fwrite(data, 1, n, f) != n || fclose(f))
		abort();
	free(path);
}

static inline void folder_write(const char *folder, const char *name, const char *text)
{
	folder_write_bytes(folder, name, text, strlen(text));
}

/* A file's bytes and a NUL, owned by the caller. */
static inline char *folder_read(const char *folder, const char *name, size_t *n)
{
	char *path = favor_format("%s/%s", folder, name), *data = favor_malloc(1);
	FILE *f = fopen(path, "rb");
	size_t got;
	if (!f)
		abort();
	*n = 0;
	do {
		data = favor_realloc(data, *n + 65536 + 1);
		got = fread(data + *n, 1, 65536, f);
		*n += got;
	} while (got);
	data[*n] = 0;
	fclose(f);
	free(path);
	return data;
}

/* A new folder of links to the small and large files of a model folder, whose path is absolute. */
static inline char *folder_links(const char *model)
{
	static const char *const names[] = {"config.json",
	                                    "generation_config.json",
	                                    "model.safetensors",
	                                    "preprocessor_config.json",
	                                    "tokenizer.json",
	                                    "tokenizer_config.json",
	                                    "model.safetensors.index.json",
	                                    "model-00001-of-00002.safetensors",
	                                    "model-00002-of-00002.safetensors"};
	char *folder = folder_new();
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		char *from = favor_format("%s/%s", model, names[i]), *to = favor_format("%s/%s", folder, names[i]);
		if (access(from, F_OK) == 0 && symlink(from, to))
			abort();
		free(from);
		free(to);
	}
	return folder;
}

#endif
