/* make_checkpoint OUT.h5: writes the sample checkpoint, and to stdout what inspect --json says of it. (test_h5py.sh) */
#include "sample.h"

#include <stdio.h>

int main(int argc, char **argv)
{
	struct favor_error e = {""};
	struct checkpoint c;
	if (argc != 2)
		return 2;
	sample_make(&c, 12);
	int rc = checkpoint_write(argv[1], &c, &e);
	if (rc == 0)
		rc = checkpoint_inspect(argv[1], 1, stdout, &e);
	if (rc != 0)
		fprintf(stderr, "%s\n", e.message);
	sample_free(&c);
	return rc ? 1 : 0;
}
