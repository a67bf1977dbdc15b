/* The group record: what the digest covers, the round trip over the wire, and buffers that were cut or changed. */
#include "base/group.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { SCORED = 1, PLAIN = 0 };

/* 3 responses of 2, 0 and 5 tokens; with texts that are empty, absent and not ASCII. */
static struct group *make(int scored)
{
	struct group *g = group_new(3, 7);
	g->index = 0x123456789abcdefull;
	g->step = 41;
	g->record = 17;
	g->policy_version = 40;
	g->temperature = 0.75f;
	g->prompt_tokens = 12;
	g->rollout_seconds = 1.5;
	g->rollout_rank = 2;
	const int32_t start[] = {0, 2, 2, 7};
	memcpy(g->start, start, sizeof start);
	for (int i = 0; i < 7; i++) {
		g->token_ids[i] = 100 + i;
		g->logp[i] = -0.125f * (float)i;
		g->sampling_logp[i] = -0.25f * (float)i;
		g->entropy[i] = 0.5f * (float)i;
	}
	g->finish[2] = FINISH_LENGTH;
	g->text[0] = favor_strdup("<answer>laufen \xc3\xbc</answer>");
	g->text[1] = favor_strdup("");
	if (scored) {
		group_set_rewards(g, 2);
		for (int i = 0; i < 6; i++)
			g->rewards[i] = (float)i;
		for (int i = 0; i < 3; i++)
			g->reward[i] = 10.0f + (float)i;
		g->answered[0] = 1;
		for (int i = 0; i < 3; i++)
			g->answer[i] = favor_strdup(i ? "" : "laufen");
	}
	return g;
}

static void assert_same_string(const char *a, const char *b)
{
	if (a && b)
		assert_string_equal(a, b);
	else
		assert_ptr_equal(a, b);
}

static void assert_same(const struct group *a, const struct group *b)
{
	size_t n = (size_t)a->responses, t = (size_t)a->start[n];
	assert_true(a->index == b->index && a->step == b->step && a->record == b->record);
	assert_true(a->policy_version == b->policy_version && a->temperature == b->temperature);
	assert_int_equal(a->prompt_tokens, b->prompt_tokens);
	assert_int_equal(a->responses, b->responses);
	assert_int_equal(a->reward_count, b->reward_count);
	assert_true(a->rollout_seconds == b->rollout_seconds && a->rollout_rank == b->rollout_rank);
	assert_memory_equal(a->start, b->start, 4 * (n + 1));
	assert_memory_equal(a->token_ids, b->token_ids, 4 * t);
	assert_memory_equal(a->logp, b->logp, 4 * t);
	assert_memory_equal(a->sampling_logp, b->sampling_logp, 4 * t);
	assert_memory_equal(a->entropy, b->entropy, 4 * t);
	assert_memory_equal(a->finish, b->finish, n);
	for (size_t i = 0; i < n; i++)
		assert_same_string(a->text[i], b->text[i]);
	if (a->reward_count == 0) {
		assert_null(b->rewards);
		assert_null(b->answer);
		return;
	}
	assert_memory_equal(a->rewards, b->rewards, 4 * n * (size_t)a->reward_count);
	assert_memory_equal(a->reward, b->reward, 4 * n);
	assert_memory_equal(a->answered, b->answered, n);
	for (size_t i = 0; i < n; i++)
		assert_same_string(a->answer[i], b->answer[i]);
}

static void round_trip(void **state)
{
	(void)state;
	for (int scored = PLAIN; scored <= SCORED; scored++) {
		struct group *g = make(scored);
		void *data, *again;
		size_t n, m;
		struct favor_error e = {0};
		group_pack(g, &data, &n);
		struct group *h = group_unpack(data, n, &e);
		assert_string_equal(e.message, "");
		assert_non_null(h);
		assert_same(g, h);
		assert_true(group_digest(g) == group_digest(h));
		group_pack(h, &again, &m);
		assert_int_equal(n, m);
		assert_memory_equal(data, again, n);
		free(data);
		free(again);
		group_destroy(g);
		group_destroy(h);
	}
}

static void no_tokens(void **state)
{
	(void)state;
	struct group *g = group_new(1, 0);
	void *data;
	size_t n;
	group_pack(g, &data, &n);
	struct group *h = group_unpack(data, n, NULL);
	assert_non_null(h);
	assert_same(g, h);
	free(data);
	group_destroy(g);
	group_destroy(h);
	group_destroy(NULL);
}

static void scored_anew(void **state)
{
	(void)state;
	struct group *g = make(SCORED);
	group_set_rewards(g, 1);
	assert_int_equal(g->reward_count, 1);
	assert_null(g->answer[0]);
	assert_true(g->rewards[2] == 0 && g->reward[0] == 0 && g->answered[0] == 0);
	group_destroy(g);
}

/* Every prefix in a buffer of exactly that size, so that ASan and valgrind see a read behind it. */
static void cut_anywhere(void **state)
{
	(void)state;
	struct group *g = make(SCORED);
	void *data;
	size_t n;
	group_pack(g, &data, &n);
	for (size_t cut = 0; cut < n; cut++) {
		struct favor_error e = {0};
		char *part = malloc(cut ? cut : 1);
		memcpy(part, data, cut);
		assert_null(group_unpack(part, cut, &e));
		assert_true(strncmp(e.message, "group record of ", 16) == 0);
		/* and with a head that claims the cut size */
		if (cut >= 72) {
			uint64_t claimed = cut;
			memcpy(part + 64, &claimed, 8);
			assert_null(group_unpack(part, cut, &e));
		}
		free(part);
	}
	char *longer = calloc(1, n + 3);
	memcpy(longer, data, n);
	assert_null(group_unpack(longer, n + 3, NULL));
	uint64_t claimed = n + 3;
	memcpy(longer + 64, &claimed, 8);
	struct favor_error e = {0};
	assert_null(group_unpack(longer, n + 3, &e));
	assert_non_null(strstr(e.message, "left over"));
	free(longer);
	free(data);
	group_destroy(g);
}

/* A changed byte either gives a refusal or a group that is whole: it can be walked, packed and freed. */
static void byte_changed(void **state)
{
	(void)state;
	const unsigned char flips[] = {0x01, 0x80, 0xff, 0x7f};
	struct group *g = make(SCORED);
	void *data;
	size_t n;
	int refused = 0;
	group_pack(g, &data, &n);
	for (size_t at = 0; at < n; at++) {
		for (size_t f = 0; f < sizeof flips; f++) {
			unsigned char *changed = malloc(n);
			struct favor_error e = {0};
			memcpy(changed, data, n);
			changed[at] ^= flips[f];
			struct group *h = group_unpack(changed, n, &e);
			if (h) {
				void *again;
				size_t m;
				group_pack(h, &again, &m);
				assert_int_equal(m, n);
				assert_memory_equal(again, changed, n);
				free(again);
				group_digest(h);
			} else {
				assert_true(e.message[0] != 0);
				refused++;
			}
			group_destroy(h);
			free(changed);
		}
	}
	assert_true(refused > 100);
	free(data);
	group_destroy(g);
}

/* Each 32-bit word replaced by values that overflow when they are multiplied or added. */
static void word_changed(void **state)
{
	(void)state;
	const uint32_t bad[] = {0x7fffffff, 0x80000000, 0xffffffff, 0xfffffffe, 0x40000000, 0x20000001};
	struct group *g = make(SCORED);
	void *data;
	size_t n;
	group_pack(g, &data, &n);
	for (size_t at = 0; at + 4 <= n; at++) {
		for (size_t f = 0; f < sizeof bad / sizeof *bad; f++) {
			char *changed = malloc(n);
			memcpy(changed, data, n);
			memcpy(changed + at, &bad[f], 4);
			struct group *h = group_unpack(changed, n, NULL);
			if (at == 48 || at == 52) /* responses, tokens */
				assert_null(h);
			group_destroy(h);
			free(changed);
		}
	}
	free(data);
	group_destroy(g);
}

/* The digest changes with what it covers and with nothing else. */
static void digest_covers(void **state)
{
	(void)state;
	struct group *g = make(SCORED);
	uint64_t d = group_digest(g);
	unsigned char *covered[] = {(void *)&g->index,     (void *)&g->record,         (void *)&g->policy_version,
	                            (void *)&g->start[1],  (void *)&g->token_ids[6],   (void *)&g->logp[6],
	                            (void *)&g->rewards[5], (void *)&g->sampling_logp[0], (void *)&g->reward[2]};
	unsigned char *free_of[] = {(void *)&g->rollout_seconds, (void *)&g->rollout_rank, (void *)&g->step,
	                            (void *)&g->entropy[3], g->finish, g->answered};
	for (size_t i = 0; i < sizeof covered / sizeof *covered; i++) {
		*covered[i] ^= 1;
		assert_true(group_digest(g) != d);
		*covered[i] ^= 1;
	}
	for (size_t i = 0; i < sizeof free_of / sizeof *free_of; i++) {
		*free_of[i] ^= 1;
		assert_true(group_digest(g) == d);
		*free_of[i] ^= 1;
	}
	struct group *plain = make(PLAIN);
	assert_true(group_digest(plain) != d);
	group_destroy(plain);
	group_destroy(g);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(round_trip),   cmocka_unit_test(no_tokens),    cmocka_unit_test(scored_anew),
		cmocka_unit_test(cut_anywhere), cmocka_unit_test(byte_changed), cmocka_unit_test(word_changed),
		cmocka_unit_test(digest_covers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
