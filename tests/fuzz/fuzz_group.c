/* A group as it comes over the wire. What is taken packs to the same bytes again, and can be scored and logged. */
#include "fuzz.h"

#include "base/group.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favor_error e = {""};
	struct group *g = group_unpack(data, size, &e);
	if (!g) {
		fuzz_want_message(&e, "group record");
		return 0;
	}
	FUZZ_WANT(g->start[0] == 0 && g->responses > 0);
	for (int32_t i = 0; i < g->responses; i++)
		FUZZ_WANT(g->start[i] <= g->start[i + 1]);
	group_digest(g);
	void *again;
	size_t n;
	group_pack(g, &again, &n);
	FUZZ_WANT(n == size && memcmp(again, data, n) == 0);
	free(again);
	group_destroy(g);
	return 0;
}
