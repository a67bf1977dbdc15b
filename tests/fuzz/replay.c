/* Runs a fuzz target over files: fuzz_TARGET FILE|FOLDER... For builds without libFuzzer. Prints how many; a broken
 * promise aborts. */
#include "fuzz.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

static int run_file(const char *path)
{
	FILE *f = fopen(path, "rb");
	struct stat st;
	if (!f || fstat(fileno(f), &st)) {
		perror(path);
		exit(1);
	}
	uint8_t *data = favor_malloc((size_t)st.st_size); /* of exactly this size: reading past it is seen */
	if (fread(data, 1, (size_t)st.st_size, f) != (size_t)st.st_size) {
		perror(path);
		exit(1);
	}
	fclose(f);
	fprintf(stderr, "%s\n", path); /* the last one before an abort is to blame */
	LLVMFuzzerTestOneInput(data, (size_t)st.st_size);
	free(data);
	return 1;
}

static int run_folder(const char *folder)
{
	int count = 0;
	struct dirent **entries = NULL;
	int n = scandir(folder, &entries, NULL, alphasort);
	for (int i = 0; i < n; i++) {
		char *path = favor_format("%s/%s", folder, entries[i]->d_name);
		if (entries[i]->d_name[0] != '.')
			count += run_file(path);
		free(path);
		free(entries[i]);
	}
	free(entries);
	return count;
}

int main(int argc, char **argv)
{
	int count = 0;
	for (int i = 1; i < argc; i++) {
		struct stat st;
		if (stat(argv[i], &st))
			continue; /* nothing was found for this target yet */
		count += S_ISDIR(st.st_mode) ? run_folder(argv[i]) : run_file(argv[i]);
	}
	printf("%d inputs\n", count);
	return count ? 0 : 1;
}
