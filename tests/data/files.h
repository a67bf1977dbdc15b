/* A temporary folder of small files for the data tests. */
#ifndef FAVOR_TESTS_DATA_FILES_H
#define FAVOR_TESTS_DATA_FILES_H

#include "base/error.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct folder {
	char path[64];
	char file[256]; /* the last one written */
};

static inline void folder_open(struct folder *f)
{
	strcpy(f->path, "/tmp/favor-data-XXXXXX");
	if (!mkdtemp(f->path))
		favor_die("%s: %m", f->path);
}

/* Writes n bytes to a file of that name; folders on the way are made. */
static inline const char *folder_bytes(struct folder *f, const char *name, const void *data, size_t n)
{
	snprintf(f->file, sizeof f->file, "%s/%s", f->path, name);
	for (char *p = f->file + strlen(f->path) + 1; (p = strchr(p, '/')); p++) {
		*p = '\0';
		mkdir(f->file, 0755);
		*p = '/';
	}
	FILE *out = fopen(f->file, "wb");
	if (!out || fwrite(data, 1, n, out) != n || fclose(out) != 0)
		favor_die("%s: %m", f->file);
	return f->file;
}

static inline const char *folder_text(struct folder *f, const char *name, const char *text)
{
	return folder_bytes(f, name, text, strlen(text));
}

static inline int folder_remove_one(const char *path, const struct stat *info, int type, struct FTW *walk)
{
	(void)info;
	(void)type;
	(void)walk;
	return remove(path);
}

static inline void folder_close(struct folder *f)
{
	nftw(f->path, folder_remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

#endif
