/* Decoding step by step. Called by rollout and bench. */
#include "model/steps.h"

#include "backend/ops.h"
#include "model/pass.h"
#include "model/towers.h"

#include <stdlib.h>
#include <string.h>

enum {
	TELL = 64,
	ROTATIONS = 256
}; /* attention is told of the segments every so many steps; rotations are made so many at a time */

void steps_init(struct steps *s, struct session *session)
{
	*s = (struct steps){.session = session, .cos = TENSOR_NONE, .sin = TENSOR_NONE, .logits = TENSOR_NONE};
	run_arena_init(&s->arena, session->model->backend);
}

void steps_free(struct steps *s)
{
	struct backend *b = s->session->model->backend;
	op_release(b, s->cos.data);
	op_release(b, s->sin.data);
	arena_free(&s->arena);
	free(s->timelines);
	free(s->segments);
	free(s->most);
	free(s->sampled);
	*s = (struct steps){0};
}

/* Few different numbers of slots where steps are recorded: a recording is of one. */
static int64_t slots_for(const struct backend *b, int64_t n)
{
	int64_t step = b->steps_ahead ? 4 : 1;
	while (b->steps_ahead && step * 8 < n)
		step *= 2;
	return (n + step - 1) / step * step;
}

/* Bytes of the slots' state in the arena, stop tokens included, and of what one step takes beside it. */
static size_t state_bytes(int64_t slots, int64_t stops)
{
	return (size_t)slots * (sizeof(uint64_t) + 2 * sizeof(uint32_t) + 5 * sizeof(int32_t)) +
	       (size_t)stops * sizeof(int32_t);
}
static int64_t arena_bytes(const struct backend *b, const struct model_config *c, int64_t slots, int64_t stops)
{
	enum { GAPS = 16 << 10 }; /* between some 100 allocations */
	return (int64_t)state_bytes(slots, stops) + slots * (int64_t)(sizeof(struct segment) + sizeof(struct sampled)) +
	       slots * (c->vocab_size + c->head_dim) * (int64_t)sizeof(float) + pass_bytes(b, c, slots, 0, slots, 1, 0) +
	       GAPS;
}

int64_t steps_bytes(const struct backend *b, const struct model_config *c, int64_t n, int64_t positions)
{
	enum { STOPS = 64 };
	const int64_t rotations = (positions + ROTATIONS - 1) / ROTATIONS * ROTATIONS;
	return arena_bytes(b, c, slots_for(b, n), STOPS) * 9 / 8 + rotations * c->head_dim * (int64_t)sizeof(float);
}

/* Rotations of all positions below `positions`. */
static void make_rotations(struct steps *s, const struct run *run, int32_t positions)
{
	if (positions <= s->cos.rows)
		return;
	const struct model_config *c = &s->session->model->config;
	const int32_t rows = (positions + ROTATIONS - 1) / ROTATIONS * ROTATIONS, half = c->head_dim / 2;
	op_release(run->backend, s->cos.data);
	op_release(run->backend, s->sin.data);
	s->cos = tensor_of(op_alloc(run->backend, (size_t)rows * (size_t)half * sizeof(float)), rows, half);
	s->sin = tensor_of(op_alloc(run->backend, (size_t)rows * (size_t)half * sizeof(float)), rows, half);
	int32_t *position = favor_malloc((size_t)rows * 3 * sizeof *position);
	for (int32_t i = 0; i < 3 * rows; i++)
		position[i] = i / 3;
	text_rotations(run, c, rows, position, s->cos, s->sin);
	free(position);
}

static void make_room(struct steps *s, int32_t slots)
{
	if (slots <= s->room)
		return;
	free(s->timelines);
	free(s->segments);
	free(s->most);
	free(s->sampled);
	s->timelines = favor_malloc((size_t)slots * sizeof *s->timelines);
	s->segments = favor_malloc((size_t)slots * sizeof *s->segments);
	s->most = favor_malloc((size_t)slots * sizeof *s->most);
	s->sampled = favor_malloc((size_t)slots * (POSTS + 1) * sizeof *s->sampled);
	s->room = slots;
}

/* All of the slots' memory, from an arena that has one piece for it and for a step. Returns where the rows of `first` come
 * to that first tokens are sampled of. */
static int32_t *allocate(struct steps *s, const struct run *run, int32_t count, int32_t stops)
{
	const struct model_config *c = &s->session->model->config;
	const struct arena_mark empty = {NULL, 0, 0};
	arena_reset(&s->arena, empty);
	arena_alloc(&s->arena, (size_t)arena_bytes(run->backend, c, count, stops));
	arena_reset(&s->arena, empty); /* two pieces become one */
	char *state = arena_alloc(&s->arena, state_bytes(count, stops));
	const size_t n = (size_t)count;
	struct slots *to = &s->slots;
	*to = (struct slots){.count = count, .stop_count = stops};
	to->index = (uint64_t *)(void *)state;
	to->response = (uint32_t *)(to->index + n);
	to->drawn = to->response + n;
	to->token = (int32_t *)(to->drawn + n);
	to->row = to->token + n;
	to->position = to->row + n;
	to->left = to->position + n;
	int32_t *prompt = to->left + n;
	to->stop = prompt + n;
	to->segments = arena_alloc(&s->arena, n * sizeof *to->segments);
	to->sampled = arena_alloc(&s->arena, n * sizeof *to->sampled);
	s->logits = run_tensor(run, count, c->vocab_size);
	return prompt;
}

/* The slots' state, as it lies there. */
static void upload(const struct steps *s, const struct run *run, const struct step_rules *rules,
                   const struct step_response *responses, int32_t n)
{
	const size_t count = (size_t)s->slots.count, bytes = state_bytes(s->slots.count, rules->stop_count);
	char *state = favor_calloc(1, bytes);
	uint64_t *index = (uint64_t *)(void *)state;
	uint32_t *response = (uint32_t *)(index + count), *drawn = response + count;
	int32_t *token = (int32_t *)(drawn + count), *row = token + count, *position = row + count,
	        *left = position + count, *prompt = left + count, *stop = prompt + count;
	for (int32_t i = 0; i < s->slots.count; i++) {
		if (i >= n) {
			token[i] = row[i] = -1;
			continue;
		}
		const struct step_response *r = &responses[i];
		const struct timeline *t = r->timeline;
		const int32_t next = t->length - (r->token < 0); /* the first token moves it on */
		index[i] = r->index;
		response[i] = r->response;
		drawn[i] = r->drawn;
		token[i] = r->token;
		row[i] = t->first + next;
		position[i] = t->prompt.next_position + next;
		left[i] = r->left;
		prompt[i] = r->prompt;
	}
	if (rules->stop_count)
		memcpy(stop, rules->stop, (size_t)rules->stop_count * sizeof *stop);
	op_upload(run->backend, s->slots.index, state, bytes);
	free(state);
}

/* The first tokens of the last `firsts` responses, as the end of a step samples all others: a step for their slots alone. */
static void sample_first(struct steps *s, struct backend *b, struct tensor first, const int32_t *prompt)
{
	const int32_t at = s->count - s->firsts;
	const struct tensor logits = tensor_rows(s->logits, at, s->firsts);
	struct slots own = s->slots;
	own.count = s->firsts;
	own.index += at;
	own.response += at;
	own.drawn += at;
	own.token += at;
	own.row += at;
	own.position += at;
	own.left += at;
	own.segments += at;
	own.sampled += at;
	op_zero(b, own.segments, (size_t)own.count * sizeof *own.segments); /* advance counts in them; told before a step */
	op_gather_rows(b, logits, first, prompt + at);
	op_advance(b, &own, logits, &s->how);
	s->first_post = op_post(b, s->sampled + (size_t)POSTS * (size_t)s->room, own.sampled,
	                        (size_t)own.count * sizeof *own.sampled);
}

void steps_begin(struct steps *s, const struct step_rules *rules, const struct step_response *responses, int32_t n,
                 struct tensor first)
{
	struct backend *b = s->session->model->backend;
	const struct run run = {.backend = b, .arena = &s->arena};
	const int32_t count = (int32_t)slots_for(b, n);
	int32_t positions = 0;
	make_room(s, count);
	const int32_t *prompt = allocate(s, &run, count, rules->stop_count);
	const int64_t most = slots_for(b, s->session->room.responses);
	s->count = n;
	s->rows = most > count ? most : count;
	s->how = rules->how;
	s->slots.seed = rules->seed;
	s->slots.domain = (uint32_t)rules->domain;
	s->queued = s->collected = s->told = 0;
	s->firsts = 0;
	for (int32_t i = 0; i < count; i++) {
		s->segments[i] = (struct segment){.q_start = i, .causal = 1};
		s->most[i] = 0;
		if (i >= n)
			continue;
		struct timeline *t = responses[i].timeline;
		const int begins = responses[i].token < 0;
		const int32_t last = t->length + responses[i].left - begins; /* own keys with the last step's */
		if (responses[i].left < 1 || t->first + last > s->session->capacity)
			favor_die("steps_begin: response %d has %d tokens left behind cache row %d of %d", i, responses[i].left,
			          t->first + t->length, s->session->capacity);
		if (begins ? t->length || responses[i].prompt < 0 || responses[i].prompt >= first.rows : s->firsts)
			favor_die("steps_begin: response %d of %d: those without a token come last, and from a prompt's row", i, n);
		s->firsts += begins;
		s->timelines[i] = t;
		s->segments[i].q_len = 1;
		s->segments[i].prefix_start = t->prompt.first;
		s->segments[i].prefix_len = t->prompt.rows;
		s->segments[i].kv_start = t->first;
		s->segments[i].kv_len = t->length + 1;
		s->most[i] = last;
		if (t->prompt.next_position + last > positions)
			positions = t->prompt.next_position + last;
	}
	make_rotations(s, &run, positions);
	upload(s, &run, rules, responses, n);
	if (s->firsts)
		sample_first(s, b, first, prompt);
}

/* The segments as they are in the next step, for TELL steps. Of a response that has ended meanwhile they may be longer
 * than they are: nobody else sees its keys. */
static void tell_segments(struct steps *s, struct backend *b)
{
	if (s->queued && s->queued - s->told < TELL)
		return;
	struct segment *now = favor_malloc((size_t)s->slots.count * sizeof *now);
	for (int32_t i = 0; i < s->slots.count; i++) {
		now[i] = s->segments[i];
		const int64_t keys = now[i].kv_len + (int64_t)s->queued;
		now[i].kv_len = (int32_t)(keys < s->most[i] ? keys : s->most[i]);
	}
	op_segments(b, s->slots.segments, now, s->slots.count, TELL);
	free(now);
	s->told = s->queued;
}

/* All that a step's ops are given, so that equal keys are equal steps. */
struct step_key {
	const void *weights, *cache, *cos, *sin, *state, *logits;
	int64_t capacity, positions, slots, rows, stops;
	uint64_t seed, domain;
	struct sampling how;
};
_Static_assert(sizeof(struct step_key) <= REPLAY_KEY_MOST, "a key must fit");

static struct step_key key_of(const struct steps *s)
{
	struct step_key k;
	memset(&k, 0, sizeof k); /* it is compared byte by byte */
	k.weights = s->session->model->block;
	k.cache = s->session->cache.data;
	k.cos = s->cos.data;
	k.sin = s->sin.data;
	k.state = s->slots.index;
	k.logits = s->logits.data;
	k.capacity = s->session->capacity;
	k.positions = s->cos.rows;
	k.slots = s->slots.count;
	k.rows = s->rows;
	k.stops = s->slots.stop_count;
	k.seed = s->slots.seed;
	k.domain = s->slots.domain;
	k.how = s->how;
	return k;
}

/* The step's ops. 1: given up. */
static int run_step(struct steps *s, const struct run *run)
{
	const struct model *m = s->session->model;
	const int32_t n = s->slots.count;
	const struct arena_mark mark = arena_mark(run->arena);
	struct text_rows t = {.rows = n,
	                      .cos = run_tensor(run, n, m->config.head_dim / 2),
	                      .sin = run_tensor(run, n, m->config.head_dim / 2),
	                      .segments = s->slots.segments,
	                      .segment_count = n};
	struct tensor x = run_tensor(run, n, m->config.hidden_size);
	op_gather_rows(run->backend, t.cos, s->cos, s->slots.position);
	op_gather_rows(run->backend, t.sin, s->sin, s->slots.position);
	embed_rows(run, m, x, s->slots.token, NULL, TENSOR_NONE);
	const int stopped = session_layers(s->session, run, &t, s->slots.row, x);
	if (!stopped) {
		session_head(s->session, run, x, s->logits);
		op_advance(run->backend, &s->slots, s->logits, &s->how);
	}
	arena_reset(run->arena, mark);
	return stopped;
}

int steps_queue(struct steps *s, const struct run *run)
{
	struct backend *b = run->backend;
	struct run mine = {.backend = b, .arena = &s->arena, .tick = run->tick, .tick_arg = run->tick_arg};
	if (run_tick(run))
		return 1;
	if (steps_waiting(s) >= POSTS)
		favor_die("steps_queue: %d steps wait to be collected", steps_waiting(s));
	tell_segments(s, b);
	const struct step_key key = key_of(s);
	const enum replay how = op_replay(b, &key, sizeof key);
	if (how == REPLAY_RECORD)
		mine.tick = NULL; /* it might do anything */
	if (how != REPLAY_DONE) {
		b->step_rows = s->rows;
		const int stopped = run_step(s, &mine);
		b->step_rows = 0;
		if (stopped)
			return 1;
		op_recorded(b);
	}
	const uint64_t at = s->queued++ % POSTS;
	s->post[at] = op_post(b, s->sampled + at * (uint64_t)s->room, s->slots.sampled,
	                      (size_t)s->slots.count * sizeof *s->sampled);
	return 0;
}

void steps_collect(struct steps *s, struct sampled *out)
{
	if (!steps_waiting(s))
		favor_die("steps_collect: no step is queued");
	if (s->firsts) {
		const int32_t at = s->count - s->firsts;
		op_collect(s->session->model->backend, s->first_post);
		for (int32_t i = 0; i < at; i++)
			out[i] = (struct sampled){.token = -1};
		memcpy(out + at, s->sampled + (size_t)POSTS * (size_t)s->room, (size_t)s->firsts * sizeof *out);
		s->firsts = 0;
		return;
	}
	const uint64_t at = s->collected++ % POSTS;
	op_collect(s->session->model->backend, s->post[at]);
	memcpy(out, s->sampled + at * (uint64_t)s->room, (size_t)s->count * sizeof *out);
	for (int32_t i = 0; i < s->count; i++)
		s->timelines[i]->length += out[i].token >= 0;
}
