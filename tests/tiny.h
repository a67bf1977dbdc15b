/* The tiny golden model (tools/golden_cli.py) with its tokeniser and four prompts of different kinds and lengths. */
#ifndef FAVOR_TESTS_TINY_H
#define FAVOR_TESTS_TINY_H

#include "data/encode.h"
#include "model/model.h"
#include "rollout/rollout.h"

#include <stdlib.h>
#include <string.h>

enum { TINY_PROMPTS = 4 };

struct tiny {
	struct backend *backend;
	struct model *model;
	struct tokenizer *tokenizer;
	struct prompt prompts[TINY_PROMPTS]; /* one image; two images; text; one token */
};

/* Ends the test program where something is wrong with the golden files. */
static inline void tiny_want(int good, const struct favor_error *e)
{
	if (!good)
		favor_die("%s", e->message);
}

static inline void tiny_open(struct tiny *t, struct backend *backend)
{
	static const struct {
		const char *images[2];
		int32_t count;
		const char *text;
		int raw;
	} prompts[TINY_PROMPTS] = {{{"street.jpg", ""}, 1, "Which activity?", 0},
	                           {{"pole.png", "turned.jpg"}, 2, "What differs between these two?", 0},
	                           {{"", ""}, 0, "Say something.", 0},
	                           {{"", ""}, 0, "x", 1}};
	struct favor_error e = {""};
	char *folder = favor_format("%s/cli/model", getenv("FAVOR_GOLDEN"));
	t->backend = backend;
	t->model = model_open(folder, backend, NULL, &e);
	tiny_want(t->model != NULL, &e);
	t->tokenizer = tokenizer_open(folder, &e);
	tiny_want(t->tokenizer != NULL, &e);
	struct encoder en = {.tokenizer = t->tokenizer, .image_token = t->model->config.image_token, .system = "Be brief."};
	tiny_want(!image_settings_load(&en.settings, folder, &e), &e);
	for (int i = 0; i < TINY_PROMPTS; i++) {
		char *path[2];
		for (int k = 0; k < 2; k++)
			path[k] = favor_format("%s/cli/%s", getenv("FAVOR_GOLDEN"), prompts[i].images[k]);
		tiny_want(!encode_prompt(&en, (const char *const *)path, prompts[i].count, prompts[i].text, prompts[i].raw,
		                         &t->prompts[i], &e),
		          &e);
		for (int k = 0; k < 2; k++)
			free(path[k]);
	}
	free(folder);
}

static inline void tiny_close(struct tiny *t)
{
	for (int i = 0; i < TINY_PROMPTS; i++)
		prompt_free(&t->prompts[i]);
	tokenizer_destroy(t->tokenizer);
	model_destroy(t->model);
	backend_destroy(t->backend);
}

/* Groups of the prompts first, first + 1, ...; responses[i] each. Prompt i has index 10 + i. */
static inline void tiny_roll(const struct tiny *t, struct rollout *r, int first, int n, const int32_t *responses,
                             struct group **groups)
{
	struct favor_error e = {""};
	struct rollout_request q[TINY_PROMPTS];
	for (int i = 0; i < n; i++)
		q[i] = (struct rollout_request){.prompt = &t->prompts[first + i],
		                                .index = (uint64_t)(10 + first + i),
		                                .step = 3,
		                                .record = (uint32_t)(first + i),
		                                .responses = responses[i]};
	tiny_want(!rollout_groups(r, q, n, groups, &e), &e);
}

/* Response i of a and k of b (include cmocka.h before this file): tokens, all that is recorded of them, end and text, to the bit. */
static inline void tiny_same_response(const struct group *a, int32_t i, const struct group *b, int32_t k)
{
	const int32_t n = a->start[i + 1] - a->start[i], p = a->start[i], q = b->start[k];
	assert_int_equal(n, b->start[k + 1] - q);
	assert_memory_equal(a->token_ids + p, b->token_ids + q, (size_t)n * sizeof *a->token_ids);
	assert_memory_equal(a->logp + p, b->logp + q, (size_t)n * sizeof *a->logp);
	assert_memory_equal(a->sampling_logp + p, b->sampling_logp + q, (size_t)n * sizeof *a->logp);
	assert_memory_equal(a->entropy + p, b->entropy + q, (size_t)n * sizeof *a->entropy);
	assert_int_equal(a->finish[i], b->finish[k]);
	assert_string_equal(a->text[i], b->text[k]);
}

#endif
