/* favor inspect: what is in a checkpoint. */
#include "app/commands.h"
#include "checkpoint/checkpoint.h"

#include <stdio.h>
#include <string.h>

static const char usage[] =
	"usage: favor inspect CHECKPOINT.h5 [--json] [--verify]\n"
	"\n"
	"Shows step, ranks, digest, tensors, configuration, metrics and files of a checkpoint.\n"
	"  --json    as JSON, with the statistics of each tensor's values\n"
	"  --verify  first read everything, check the checksums and make the digest again\n";

int cmd_inspect(int argc, char **argv, struct favor_error *e)
{
	const char *path = NULL;
	int json = 0, verify = 0;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0) {
			fputs(usage, stdout);
			return 0;
		}
		if (strcmp(argv[i], "--json") == 0) {
			json = 1;
		} else if (strcmp(argv[i], "--verify") == 0) {
			verify = 1;
		} else if (argv[i][0] == '-') {
			favor_fail(e, "inspect: unknown option %.80s\n%s", argv[i], usage);
			return 2;
		} else if (path) {
			favor_fail(e, "inspect: one checkpoint at a time, found %.200s and %.200s\n%s", path, argv[i], usage);
			return 2;
		} else {
			path = argv[i];
		}
	}
	if (!path) {
		favor_fail(e, "inspect: which checkpoint?\n%s", usage);
		return 2;
	}
	if (verify) {
		char digest[17];
		if (checkpoint_verify(path, digest, e) != 0)
			return 2;
		fprintf(stderr, "%s: verified, digest %s\n", path, digest);
	}
	return checkpoint_inspect(path, json, stdout, e) == 0 ? 0 : 2;
}
