/* An HDF5 checkpoint: opened, verified, inspected both ways.
 *
 * The HDF5 library is not instrumented: what libFuzzer learns comes from favor's reader, and what the sanitizers see of
 * the library is its heap. All its metadata has checksums, which would stop nearly every mutation at the door; somebody
 * who forges a file makes them right. So with AddressSanitizer, which is needed to see where a block ends, they are
 * right by definition: the library's two functions for them are replaced (a shared library's calls can be), and answer
 * what the file says. */
#include "fuzz.h"

#include "checkpoint/checkpoint.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef FUZZ_ASAN
#include <sanitizer/asan_interface.h>

uint32_t H5_checksum_metadata(const void *data, size_t n, uint32_t start);
uint32_t H5_checksum_fletcher32(const void *data, size_t n);
extern uint32_t H5_checksum_lookup3(const void *data, size_t n, uint32_t start);

static uint32_t behind(const void *data, size_t n)
{
	const unsigned char *p = (const unsigned char *)data + n;
	return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

uint32_t H5_checksum_metadata(const void *data, size_t n, uint32_t start)
{
	/* blocks of a fractal heap have it inside their data: it must be right in the file */
	if (n < 4 || !memcmp(data, "FHDB", 4) || __asan_region_is_poisoned((void *)(uintptr_t)data, n + 4))
		return H5_checksum_lookup3(data, n, start);
	return behind(data, n);
}

uint32_t H5_checksum_fletcher32(const void *data, size_t n)
{
	FUZZ_WANT(n < (size_t)1 << 40); /* a chunk shorter than its checksum: the library subtracts without looking */
	return behind(data, n);
}
#endif

/* on damaged files HDF5 1.10 leaks some of what it has read; our own leaks are seen all the same */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libhdf5";
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favor_error e = {""};
	struct checkpoint c;
	char digest[17];
	const char *path = fuzz_write("c.h5", (struct fuzz_part){(const char *)data, size});
	if (checkpoint_open(path, &c, &e)) {
		fuzz_want_message(&e, path);
		return 0;
	}
	for (int i = 0; i < c.tensor_count; i++)
		FUZZ_WANT(c.tensors[i].ndim >= 0 && c.tensors[i].ndim <= 5);
	for (int i = 0; i < c.file_count; i++)
		FUZZ_WANT(c.files[i].size <= size && c.files[i].data[c.files[i].size] == 0);
	checkpoint_free(&c);
	if (checkpoint_verify(path, digest, &e))
		fuzz_want_message(&e, path);
	FILE *out = fopen("/dev/null", "w");
	for (int json = 0; json < 2; json++)
		if (checkpoint_inspect(path, json, out, &e))
			fuzz_want_message(&e, path);
	fclose(out);
	return 0;
}
