/* A session: timelines over read-only weights. Holds the keys and values of prompts and of the responses that share
 * them, each in a place of a fixed size, so that places are taken and given back in any order:
 *
 *   cache rows of each layer:  [ prompt place 0 | 1 | ... | P-1 | response place 0 | 1 | ... | R-1 ]
 *
 * Who calls knows which places are free. Prefill runs vision and prompt once per group; decode advances any set of
 * responses, of any groups, by one token in one batch. A response's logits do not depend on what else is in the batch
 * (backend.h), nor on its place. */
#ifndef FAVOR_MODEL_SESSION_H
#define FAVOR_MODEL_SESSION_H

#include "model/batch.h"
#include "model/model.h"

/* How many places, and the rows of each. */
struct session_room {
	int32_t prompts, prompt_rows;
	int32_t responses, response_rows;
};

struct session {
	const struct model *model; /* borrowed */
	struct session_room room;
	int32_t capacity;    /* cache rows */
	struct tensor cache; /* [layers * capacity, 2 * kv_heads * head_dim]: keys, values; backend memory, owned */
	struct batch batch;  /* scratch of prefill */
};

/* A prompt in the cache. */
struct session_prompt {
	int32_t place;
	int32_t first, rows; /* its cache rows */
	int32_t next_position;
};
/* One response that decodes, in the same place from its start to its end. */
struct timeline {
	int32_t place;
	struct session_prompt prompt;
	int32_t first;  /* its own cache rows start here */
	int32_t length; /* tokens fed so far */
};

void session_init(struct session *s, const struct model *m);
void session_free(struct session *s);
/* Cache rows of so many places. */
int64_t session_rows(const struct session_room *room);
/* Forgets all timelines and makes that room (memory grows only). At most INT32_MAX rows. */
void session_reset(struct session *s, const struct session_room *room);

/* Runs the prompt, whose keys and values come to that place; logits[vocab] of its last row into backend memory. -1 with
 * a message, or 1: the run's tick says to give up. */
int session_prefill(struct session *s, const struct run *run, int32_t place, const int32_t *ids, int32_t n,
                    const struct image_input *images, int32_t image_count, struct session_prompt *prompt,
                    struct tensor logits, struct favor_error *e);
/* A timeline behind a prompt, in that response place. */
void session_timeline(const struct session *s, int32_t place, const struct session_prompt *prompt, struct timeline *t);
/* Feeds token[i] to timeline i, for n of them; logits [n, vocab] in backend memory. 1: given up, else 0. Token by token by the
 * host, and so without what steps.c takes to need no host: what tests compare steps with; the program decodes by steps. */
int session_decode(struct session *s, const struct run *run, struct timeline *const *timelines, const int32_t *token,
                   int32_t n, struct tensor logits);
/* Bytes that a session of that many cache rows takes: for the memory plan. */
int64_t session_bytes(const struct backend *b, const struct model_config *c, int64_t rows);

/* Inside the room (steps.c). Layers over rows that stand at cache rows kv_row, from x to x; 1: given up. And the final
 * norm and head of the rows in x. */
struct text_rows;
int session_layers(const struct session *s, const struct run *run, const struct text_rows *t, const int32_t *kv_row,
                   struct tensor x);
void session_head(const struct session *s, const struct run *run, struct tensor x, struct tensor logits);

#endif
