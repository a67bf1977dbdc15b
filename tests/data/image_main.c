/* The image commands as a small program of their own, for the checks in tools/: image_main preprocess|synth ARGUMENTS. */
#include "app/commands.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	struct favor_error e = {""};
	int rc = 2;
	if (argc > 1 && !strcmp(argv[1], "synth"))
		rc = cmd_synth(argc - 1, argv + 1, &e);
	else if (argc > 1 && !strcmp(argv[1], "preprocess"))
		rc = cmd_preprocess(argc - 1, argv + 1, &e);
	else
		favor_fail(&e, "usage: image_main preprocess|synth ARGUMENTS");
	if (rc)
		fprintf(stderr, "favor: %s\n", e.message);
	return rc;
}
