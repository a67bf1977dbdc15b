/* JSON lines. */
#include "dataset.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *path = fuzz_write("set.jsonl", (struct fuzz_part){(const char *)data, size});
	fuzz_dataset(path, "");
	fuzz_dataset(path, "test");
	return 0;
}
