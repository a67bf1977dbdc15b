/* The group record: making, freeing, the wire format that ranks exchange, and the digest. Called by rollout (makes),
 * reward (scores), comm (sends) and checkpoint.
 *
 *   wire:  head (struct wire_head, 72 bytes) | start | token_ids | logp | sampling_logp | entropy | finish | text
 *          and if reward_count > 0:  rewards | reward | answered | answer
 *          a string is a 32-bit length and its bytes without the NUL; the length WIRE_NO_STRING stands for NULL */
#include "base/group.h"

#include "base/hash.h"

#include <stdlib.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "the wire format is that of little-endian memory");

#define WIRE_MAGIC 0x31707267u /* "grp1" */
#define WIRE_NO_STRING 0xffffffffu

/* Widest members first, so that there is no padding. */
struct wire_head {
	uint64_t index, policy_version;
	int64_t step;
	double rollout_seconds;
	uint32_t magic, record;
	float temperature;
	int32_t prompt_tokens, responses, tokens, reward_count, rollout_rank;
	uint64_t bytes; /* of the whole buffer */
};
_Static_assert(sizeof(struct wire_head) == 72, "no padding");

struct group *group_new(int32_t responses, int32_t tokens)
{
	if (responses < 1 || responses == INT32_MAX || tokens < 0)
		favor_die("a group of %d responses with %d tokens can't be", responses, tokens);
	size_t g = (size_t)responses, t = (size_t)tokens;
	struct group *group = favor_calloc(1, sizeof *group);
	group->responses = responses;
	group->start = favor_calloc(g + 1, sizeof *group->start);
	group->token_ids = favor_calloc(t, sizeof *group->token_ids);
	group->logp = favor_calloc(t, sizeof *group->logp);
	group->sampling_logp = favor_calloc(t, sizeof *group->sampling_logp);
	group->entropy = favor_calloc(t, sizeof *group->entropy);
	group->finish = favor_calloc(g, sizeof *group->finish);
	group->text = favor_calloc(g, sizeof *group->text);
	return group;
}

static void free_strings(char **s, int32_t n)
{
	if (!s)
		return;
	for (int32_t i = 0; i < n; i++)
		free(s[i]);
	free(s);
}

static void free_rewards(struct group *g)
{
	free(g->rewards);
	free(g->reward);
	free(g->answered);
	free_strings(g->answer, g->responses);
}

void group_destroy(struct group *g)
{
	if (!g)
		return;
	free(g->start);
	free(g->token_ids);
	free(g->logp);
	free(g->sampling_logp);
	free(g->entropy);
	free(g->finish);
	free_strings(g->text, g->responses);
	free_rewards(g);
	free(g);
}

void group_set_rewards(struct group *g, int32_t count)
{
	if (count < 1 || count > GROUP_MAX_REWARDS)
		favor_die("group %llu can't have %d rewards: 1 to %d", (unsigned long long)g->index, count, GROUP_MAX_REWARDS);
	size_t n = (size_t)g->responses;
	free_rewards(g); /* a group may be scored anew */
	g->reward_count = count;
	g->rewards = favor_calloc((size_t)count * n, sizeof *g->rewards);
	g->reward = favor_calloc(n, sizeof *g->reward);
	g->answered = favor_calloc(n, sizeof *g->answered);
	g->answer = favor_calloc(n, sizeof *g->answer);
}

/* Pack: the same walk over the fields counts bytes (at == NULL) or writes them. */
struct writer {
	char *at;
	size_t n;
};

static void put(struct writer *w, const void *data, size_t n)
{
	if (w->at && n)
		memcpy(w->at + w->n, data, n);
	w->n += n;
}

static void put_strings(struct writer *w, char *const *s, int32_t n)
{
	for (int32_t i = 0; i < n; i++) {
		size_t bytes = s[i] ? strlen(s[i]) : 0;
		if (bytes >= WIRE_NO_STRING)
			favor_die("a response's text of %zu bytes is too long to send", bytes);
		uint32_t length = s[i] ? (uint32_t)bytes : WIRE_NO_STRING;
		put(w, &length, sizeof length);
		put(w, s[i], bytes);
	}
}

static void put_group(struct writer *w, const struct group *g, const struct wire_head *head)
{
	size_t n = (size_t)g->responses, t = (size_t)head->tokens;
	put(w, head, sizeof *head);
	put(w, g->start, (n + 1) * sizeof *g->start);
	put(w, g->token_ids, t * sizeof *g->token_ids);
	put(w, g->logp, t * sizeof *g->logp);
	put(w, g->sampling_logp, t * sizeof *g->sampling_logp);
	put(w, g->entropy, t * sizeof *g->entropy);
	put(w, g->finish, n * sizeof *g->finish);
	put_strings(w, g->text, g->responses);
	if (g->reward_count == 0)
		return;
	put(w, g->rewards, (size_t)g->reward_count * n * sizeof *g->rewards);
	put(w, g->reward, n * sizeof *g->reward);
	put(w, g->answered, n * sizeof *g->answered);
	put_strings(w, g->answer, g->responses);
}

void group_pack(const struct group *g, void **data, size_t *n)
{
	struct wire_head head = {
		.index = g->index, .policy_version = g->policy_version, .step = g->step,
		.rollout_seconds = g->rollout_seconds, .magic = WIRE_MAGIC, .record = g->record,
		.temperature = g->temperature, .prompt_tokens = g->prompt_tokens, .responses = g->responses,
		.tokens = g->start[g->responses], .reward_count = g->reward_count, .rollout_rank = g->rollout_rank,
	};
	struct writer w = {0};
	put_group(&w, g, &head);
	head.bytes = w.n;
	w = (struct writer){.at = favor_malloc(w.n)};
	put_group(&w, g, &head);
	*data = w.at;
	*n = w.n;
}

struct reader {
	const char *at;
	size_t n, used;
	struct favor_error *e;
};

static int get(struct reader *r, const char *what, void *to, size_t n)
{
	if (n > r->n - r->used)
		return favor_fail(r->e, "group record of %zu bytes: %s needs %zu bytes at %zu; it is cut off or damaged", r->n,
		                  what, n, r->used);
	if (n)
		memcpy(to, r->at + r->used, n);
	r->used += n;
	return 0;
}

static int get_strings(struct reader *r, const char *what, char **s, int32_t n)
{
	for (int32_t i = 0; i < n; i++) {
		uint32_t length = 0;
		if (get(r, what, &length, sizeof length))
			return -1;
		if (length == WIRE_NO_STRING)
			continue;
		if (length > r->n - r->used)
			return favor_fail(r->e, "group record of %zu bytes: %s %d has %u bytes at %zu; it is cut off or damaged",
			                  r->n, what, i, length, r->used);
		if (memchr(r->at + r->used, 0, length))
			return favor_fail(r->e, "group record of %zu bytes: %s %d has a NUL inside; it is damaged", r->n, what, i);
		s[i] = favor_malloc((size_t)length + 1);
		s[i][length] = 0;
		if (get(r, what, s[i], length))
			return -1;
	}
	return 0;
}

static int check_head(const struct wire_head *h, size_t n, struct favor_error *e)
{
	if (h->magic != WIRE_MAGIC)
		return favor_fail(e, "group record of %zu bytes: it doesn't begin as one; do all ranks run the same favor?", n);
	if (h->bytes != n)
		return favor_fail(e, "group record of %zu bytes: it says that it has %llu; it is cut off or damaged", n,
		                  (unsigned long long)h->bytes);
	if (h->responses < 1 || h->responses == INT32_MAX || h->tokens < 0 || h->prompt_tokens < 0 || h->reward_count < 0 ||
	    h->reward_count > GROUP_MAX_REWARDS)
		return favor_fail(e, "group record of %zu bytes: %d responses, %d tokens, %d prompt tokens, %d rewards: "
		                     "that can't be", n, h->responses, h->tokens, h->prompt_tokens, h->reward_count);
	/* the smallest body with these counts, before anything is allocated; 64 bits hold it: each count is below 2^31 */
	uint64_t g = (uint64_t)h->responses;
	uint64_t least = sizeof *h + 4 * (g + 1) + 16 * (uint64_t)h->tokens + g + 4 * g;
	if (h->reward_count)
		least += 4 * (uint64_t)h->reward_count * g + 4 * g + g + 4 * g;
	if (least > n)
		return favor_fail(e, "group record of %zu bytes: %d responses, %d tokens and %d rewards need %llu; it is cut "
		                     "off or damaged", n, h->responses, h->tokens, h->reward_count, (unsigned long long)least);
	return 0;
}

/* Later code walks start[] and switches on finish without looking again. */
static int check_body(const struct group *g, const struct wire_head *h, struct favor_error *e)
{
	int good = g->start[0] == 0 && g->start[g->responses] == h->tokens;
	for (int32_t i = 0; i < g->responses && good; i++)
		good = g->start[i] <= g->start[i + 1] && g->finish[i] <= FINISH_LENGTH && (!g->answered || g->answered[i] <= 1);
	if (!good)
		return favor_fail(e, "group record of group %llu: its responses don't fit its %d tokens; it is damaged",
		                  (unsigned long long)g->index, h->tokens);
	return 0;
}

static int get_rewards(struct reader *r, struct group *g, int32_t count)
{
	size_t n = (size_t)g->responses;
	group_set_rewards(g, count);
	if (get(r, "rewards", g->rewards, (size_t)count * n * sizeof *g->rewards) ||
	    get(r, "reward", g->reward, n * sizeof *g->reward) ||
	    get(r, "answered", g->answered, n * sizeof *g->answered) ||
	    get_strings(r, "answer", g->answer, g->responses))
		return -1;
	return 0;
}

struct group *group_unpack(const void *data, size_t n, struct favor_error *e)
{
	struct reader r = {data, n, 0, e};
	struct wire_head h = {0};
	if (get(&r, "head", &h, sizeof h) || check_head(&h, n, e))
		return NULL;
	struct group *g = group_new(h.responses, h.tokens);
	size_t responses = (size_t)h.responses, tokens = (size_t)h.tokens;
	int failed = 1;
	g->index = h.index;
	g->step = h.step;
	g->record = h.record;
	g->policy_version = h.policy_version;
	g->temperature = h.temperature;
	g->prompt_tokens = h.prompt_tokens;
	g->rollout_seconds = h.rollout_seconds;
	g->rollout_rank = h.rollout_rank;
	if (get(&r, "start", g->start, (responses + 1) * sizeof *g->start) ||
	    get(&r, "token_ids", g->token_ids, tokens * sizeof *g->token_ids) ||
	    get(&r, "logp", g->logp, tokens * sizeof *g->logp) ||
	    get(&r, "sampling_logp", g->sampling_logp, tokens * sizeof *g->sampling_logp) ||
	    get(&r, "entropy", g->entropy, tokens * sizeof *g->entropy) ||
	    get(&r, "finish", g->finish, responses * sizeof *g->finish) || get_strings(&r, "text", g->text, g->responses))
		goto done;
	if (h.reward_count && get_rewards(&r, g, h.reward_count))
		goto done;
	if (check_body(g, &h, e))
		goto done;
	if (r.used != n) {
		favor_fail(e, "group record of %zu bytes: %zu of them are left over; it is damaged", n, n - r.used);
		goto done;
	}
	failed = 0;
done:
	if (failed) {
		group_destroy(g);
		g = NULL;
	}
	return g;
}

uint64_t group_digest(const struct group *g)
{
	size_t n = (size_t)g->responses, t = (size_t)g->start[g->responses];
	uint64_t head[5] = {g->index, g->record, g->policy_version, n, (uint64_t)g->reward_count};
	uint64_t h = hash_block(HASH_START, head, sizeof head);
	h = hash_block(h, g->start, (n + 1) * sizeof *g->start); /* the same tokens cut otherwise are other responses */
	h = hash_block(h, g->token_ids, t * sizeof *g->token_ids);
	h = hash_block(h, g->logp, t * sizeof *g->logp);
	h = hash_block(h, g->sampling_logp, t * sizeof *g->sampling_logp);
	if (g->reward_count) {
		h = hash_block(h, g->rewards, (size_t)g->reward_count * n * sizeof *g->rewards);
		h = hash_block(h, g->reward, n * sizeof *g->reward);
	}
	return hash_mix(h); /* mixed, since digests of groups are added */
}
