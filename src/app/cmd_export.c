/* favor export: a checkpoint as a Hugging Face folder that transformers opens. */
#include "app/assets.h"
#include "app/commands.h"
#include "app/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* In one file or in several; of a download that is not finished there may be the configuration alone. */
static int holds_model(const char *folder)
{
	static const char *const names[] = {"model.safetensors", "model.safetensors.index.json", "config.json"};
	int found = 0;
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		struct stat st;
		char *path = favor_format("%s/%s", folder, names[i]);
		found |= lstat(path, &st) == 0;
		free(path);
	}
	return found;
}

int cmd_export(int argc, char **argv, struct favor_error *e)
{
	static const char usage[] = "export CKPT.h5 DIR [--dtype float32|bfloat16]";
	const char *dtype = "float32", *words[2];
	int count;
	const struct option options[] = {
	    {"--dtype", OPTION_TEXT, &dtype, 0, 0, "of the written weights: float32 (default) or bfloat16"}};
	int code = options_parse(argc, argv, options, 1, words, 2, &count, usage, e);
	if (code)
		return code < 0 ? 2 : 0;
	if (count != 2)
		return favor_fail(e, "usage: favor %s", usage), 2;
	int bf16 = !strcmp(dtype, "bfloat16");
	if (!bf16 && strcmp(dtype, "float32"))
		return favor_fail(e, "--dtype: \"%s\" is neither float32 nor bfloat16", dtype), 2;
	if (!is_checkpoint(words[0]))
		return favor_fail(e, "%s: is no checkpoint (.h5)", words[0]), 2;
	if (holds_model(words[1]))
		return favor_fail(e, "%s: already holds a model; give another folder", words[1]), 2;

	struct backend *b = backend_cpu_new(1);
	struct assets a;
	struct checkpoint c;
	code = 2;
	if (!assets_open(&a, words[0], WEIGHTS_FILE, 0, b, 0, e) && !checkpoint_open(words[0], &c, e)) {
		if (mkdir(words[1], 0777) && errno != EEXIST)
			favor_fail(e, "%s: can't be made: %s", words[1], strerror(errno));
		else
			code = assets_write_files(&c, words[1], e) || model_write(a.model, words[1], bf16, e);
		checkpoint_free(&c);
	}
	assets_close(&a);
	backend_destroy(b);
	if (!code)
		fprintf(stderr, "favor: wrote %s\n", words[1]);
	return code;
}
