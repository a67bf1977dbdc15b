/* `favor tokenize` alone, taken with the same arguments, so that the tests of the tokeniser need no other part of the
 * program. */
#include "app/commands.h"

#include <stdio.h>
#include <string.h>

int main(int argc, char **argv)
{
	struct favor_error e = {""};
	if (argc < 2 || strcmp(argv[1], "tokenize")) {
		fprintf(stderr, "the only subcommand is tokenize\n");
		return 2;
	}
	int code = cmd_tokenize(argc - 1, argv + 1, &e);
	if (code)
		fprintf(stderr, "favor: %s\n", e.message);
	return code;
}
