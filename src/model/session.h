/* A session: timelines over read-only weights. Holds the keys and values of prompts and of the responses that share
 * them:
 *
 *   cache rows of each layer:  [ prompt | response 0 | response 1 | ... | response G-1 ]
 *   per group; several groups fit side by side
 *
 * Prefill runs vision and prompt once per group; decode advances any set of responses, of any groups, by one token in
 * one batch. A response's logits do not depend on what else is in the batch (backend.h). */
#ifndef FAVOR_MODEL_SESSION_H
#define FAVOR_MODEL_SESSION_H

#include "model/batch.h"
#include "model/model.h"

struct session {
	const struct model *model; /* borrowed */
	int32_t capacity, used;    /* cache rows */
	struct tensor cache;       /* [layers * capacity, 2 * kv_heads * head_dim]: keys, values; backend memory, owned */
	struct batch batch;        /* scratch of prefill */
};

/* A prompt in the cache. */
struct session_prompt {
	int32_t first, rows;
	int32_t next_position;
};
/* One response that decodes. */
struct timeline {
	struct session_prompt prompt;
	int32_t first;  /* its own cache rows start here */
	int32_t length; /* tokens fed so far */
};

void session_init(struct session *s, const struct model *m);
void session_free(struct session *s);
/* Forgets all timelines and makes room for `rows` cache rows (grows only). */
void session_reset(struct session *s, int32_t rows);

/* Runs the prompt; logits[vocab] of its last row into backend memory. Takes ids' rows of the cache. -1 with a message,
 * or 1: the run's tick says to give up. */
int session_prefill(struct session *s, const struct run *run, const int32_t *ids, int32_t n,
                    const struct image_input *images, int32_t image_count, struct session_prompt *prompt,
                    struct tensor logits, struct favor_error *e);
/* A timeline behind a prompt with room for `tokens` fed tokens. */
void session_timeline(struct session *s, const struct session_prompt *prompt, int32_t tokens, struct timeline *t);
/* Feeds token[i] to timeline i, for n of them; logits [n, vocab] in backend memory. 1: given up, else 0. */
int session_decode(struct session *s, const struct run *run, struct timeline *const *timelines, const int32_t *token,
                   int32_t n, struct tensor logits);
/* Bytes that a session of that many cache rows takes: for the memory plan. */
int64_t session_bytes(const struct backend *b, const struct model_config *c, int64_t rows);

#endif
