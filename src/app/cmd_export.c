/* favor export: a checkpoint as a Hugging Face folder that transformers opens. */
#include "app/assets.h"
#include "app/commands.h"
#include "app/options.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

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
	struct stat st;
	char *there = favor_format("%s/model.safetensors", words[1]);
	int exists = stat(there, &st) == 0;
	free(there);
	if (exists)
		return favor_fail(e, "%s: already holds a model; give another folder", words[1]), 2;

	struct backend *b = backend_cpu_new(1);
	struct assets a;
	struct checkpoint c;
	code = 2;
	if (!assets_open(&a, words[0], WEIGHTS_FILE, 0, b, 0, e) && !checkpoint_open(words[0], &c, e)) {
		code = 1;
		if (mkdir(words[1], 0777) && errno != EEXIST)
			favor_fail(e, "%s: can't be made: %s", words[1], strerror(errno));
		else if (!assets_write_files(&c, words[1], e) && !model_write(a.model, words[1], bf16, e))
			code = 0;
		checkpoint_free(&c);
	}
	assets_close(&a);
	backend_destroy(b);
	if (!code)
		fprintf(stderr, "favor: wrote %s\n", words[1]);
	return code;
}
