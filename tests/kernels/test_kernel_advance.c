/* The end of a step of decoding on the device against the reference backend's: each field of each slot, over several
 * steps. */
#include "kernel_test.h"

#include "base/error.h"
#include "base/rng.h"

_Static_assert(sizeof(struct kernel_segment) == sizeof(struct segment), "a segment must be the backend's");

enum { N = 300, V = 23, STOPS = 2, STEPS = 7 };

struct host_slots {
	int32_t token[N], row[N], position[N], left[N];
	uint32_t drawn[N], response[N];
	uint64_t index[N];
	struct segment segments[N];
	struct sampled sampled[N];
};

static void check(const char *what, const void *got_at, const void *want, size_t bytes)
{
	void *got = favor_malloc(bytes);
	device_download(got, got_at, bytes);
	if (memcmp(got, want, bytes))
		fail_msg("%s differs from the reference's", what);
	free(got);
}

static void test_advance(void **state)
{
	(void)state;
	struct backend *b = backend_reference_new();
	static struct host_slots h;
	const int32_t stop[STOPS] = {3, 17};
	memset(&h, 0, sizeof h);
	for (int32_t i = 0; i < N; i++) {
		h.left[i] = i % 6; /* 0: rests from the start */
		h.token[i] = h.left[i] ? i % V : -1;
		h.row[i] = h.left[i] ? 10 * i : -1;
		h.position[i] = 7 + i;
		h.drawn[i] = (uint32_t)(i % 4);
		h.response[i] = (uint32_t)(i % 8);
		h.index[i] = i % 3 ? (uint64_t)i : 0xfedcba9876543210ull + (uint64_t)i;
		h.segments[i] = (struct segment){
		    .q_start = i, .q_len = 1, .kv_start = 10 * i, .kv_len = 1 + i % 3, .causal = 1};
	}
	struct slots slots = {.count = N,
	                      .token = h.token,
	                      .row = h.row,
	                      .position = h.position,
	                      .left = h.left,
	                      .index = h.index,
	                      .response = h.response,
	                      .drawn = h.drawn,
	                      .segments = h.segments,
	                      .sampled = h.sampled,
	                      .stop = stop,
	                      .stop_count = STOPS,
	                      .seed = 99,
	                      .domain = RNG_SAMPLE};
	struct kernel_slots there = {.token = device_array(h.token, sizeof h.token),
	                             .row = device_array(h.row, sizeof h.row),
	                             .position = device_array(h.position, sizeof h.position),
	                             .left = device_array(h.left, sizeof h.left),
	                             .drawn = device_array(h.drawn, sizeof h.drawn),
	                             .segments = device_array(h.segments, sizeof h.segments),
	                             .sampled = device_alloc(sizeof h.sampled),
	                             .stop = device_array(stop, sizeof stop),
	                             .stop_count = STOPS};
	const struct sampling how = {1, 0.95f, 0, 0};
	static struct sampled sampled[N];
	int stopped = 0;
	for (int step = 0; step < STEPS; step++) {
		static float logits[N * V];
		for (int i = 0; i < N * V; i++)
			logits[i] = (float)rng_normal(step + 1, RNG_INIT, (uint64_t)i, 0, 0);
		b->ops.advance(b, &slots, tensor_of(logits, N, V), &how);
		for (int i = 0; i < N; i++) {
			struct sampled d = h.sampled[i];
			stopped += d.token == 3 || d.token == 17;
			d.token = d.token < 0 ? 5 : d.token; /* of a slot that rests the sampler leaves something */
			sampled[i] = d;
		}
		device_upload(there.sampled, sampled, sizeof sampled);
		launched("advance", kernel_advance(&there, N, NULL));
		check("sampled", there.sampled, h.sampled, sizeof h.sampled);
		check("token", there.token, h.token, sizeof h.token);
		check("row", there.row, h.row, sizeof h.row);
		check("position", there.position, h.position, sizeof h.position);
		check("left", there.left, h.left, sizeof h.left);
		check("drawn", there.drawn, h.drawn, sizeof h.drawn);
		check("segments", there.segments, h.segments, sizeof h.segments);
	}
	assert_true(stopped > 0);
	for (int i = 0; i < N; i++)
		assert_int_equal(h.token[i], -1);
	assert_int_not_equal(kernel_advance(&there, -1, NULL), 0);
	void *const all[] = {there.token, there.row,      there.position, there.left,
	                     there.drawn, there.segments, there.sampled,  (void *)there.stop};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		device_release(all[i]);
	backend_destroy(b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_advance)};
	return run_in_all_orders("advance", tests, sizeof tests / sizeof *tests);
}
