/* Prefill and decode over a key-value cache. Called by rollout, eval and generate. */
#include "model/session.h"

#include "backend/ops.h"
#include "model/towers.h"

#include <stdlib.h>

void session_init(struct session *s, const struct model *m)
{
	*s = (struct session){.model = m};
	batch_init(&s->batch, &m->config);
}

void session_free(struct session *s)
{
	op_release(s->model->backend, s->cache.data);
	batch_free(&s->batch);
	*s = (struct session){0};
}

int64_t session_bytes(const struct backend *b, const struct model_config *c, int64_t rows)
{
	return 2 * rows * c->layers * c->kv_heads * c->head_dim * (int64_t)element_size(b->operand);
}

int64_t session_rows(const struct session_room *room)
{
	return (int64_t)room->prompts * room->prompt_rows + (int64_t)room->responses * room->response_rows;
}

void session_reset(struct session *s, const struct session_room *room)
{
	const struct model_config *c = &s->model->config;
	const int64_t columns = 2 * (int64_t)c->kv_heads * c->head_dim, rows = session_rows(room);
	if (rows > INT32_MAX)
		favor_die("session_reset: %lld cache rows are more than can be indexed", (long long)rows);
	s->room = *room;
	if (rows <= s->capacity)
		return;
	struct backend *b = s->model->backend;
	op_release(b, s->cache.data);
	s->capacity = (int32_t)rows;
	const size_t bytes = (size_t)(c->layers * rows * columns) * element_size(b->operand);
	s->cache = tensor_of_type(op_alloc(b, bytes), c->layers * rows, columns, b->operand);
}

int session_layers(const struct session *s, const struct run *run, const struct text_rows *t, const int32_t *kv_row,
                   struct tensor x)
{
	for (int i = 0; i < s->model->config.layers; i++) {
		if (run_tick(run))
			return 1;
		struct arena_mark mark = arena_mark(run->arena);
		struct kv_cache cache = {.kv = tensor_rows(s->cache, (int64_t)i * s->capacity, s->capacity), .rows = kv_row};
		struct text_saved saved;
		text_layer_forward(run, s->model, i, t, &cache, x, x, &saved);
		arena_reset(run->arena, mark);
	}
	return 0;
}

void session_head(const struct session *s, const struct run *run, struct tensor x, struct tensor logits)
{
	const struct model *m = s->model;
	struct tensor normed = run_operand(run, x.rows, x.cols);
	float *rstd = run_floats(run, x.rows);
	op_rmsnorm(run->backend, normed, rstd, x, m->w.norm_w, m->config.rms_eps);
	op_linear(run->backend, logits, normed, tensor_of(m->w.lm_head, m->config.vocab_size, m->config.hidden_size), NULL,
	          0);
}

int session_prefill(struct session *s, const struct run *run, int32_t place, const int32_t *ids, int32_t n,
                    const struct image_input *images, int32_t image_count, struct session_prompt *prompt,
                    struct tensor logits, struct favor_error *e)
{
	const struct model *m = s->model;
	struct batch *b = &s->batch;
	struct prefix prefix;
	batch_clear(b);
	if (batch_add_prompt(b, ids, n, images, image_count, &prefix, e))
		return -1;
	if (place < 0 || place >= s->room.prompts || n > s->room.prompt_rows)
		favor_die("session_prefill: %d rows at place %d; there are %d places of %d rows", n, place, s->room.prompts,
		          s->room.prompt_rows);
	*prompt = (struct session_prompt){
	    .place = place, .first = place * s->room.prompt_rows, .rows = n, .next_position = prefix.next_position};

	struct arena_mark mark = arena_mark(run->arena);
	struct tensor features = TENSOR_NONE;
	if (b->images)
		features = vision_features(run, m, b->image, b->images, b->patches);
	struct text_rows t;
	struct segment seg = b->segment[0]; /* the prompt's own keys stand at its cache rows */
	seg.kv_start = prompt->first;
	text_rows_make(&t, run, &m->config, n, b->position, &seg, 1);
	int32_t *row = favor_malloc((size_t)n * sizeof *row);
	for (int32_t i = 0; i < n; i++)
		row[i] = prompt->first + i;
	struct tensor x = run_tensor(run, n, m->config.hidden_size);
	embed_rows(run, m, x, embed_index(run, b), run_upload(run, b->feature, (size_t)n * sizeof *b->feature), features);
	int stopped = session_layers(s, run, &t, run_upload(run, row, (size_t)n * sizeof *row), x);
	free(row);
	if (!stopped)
		session_head(s, run, tensor_rows(x, n - 1, 1), logits);
	arena_reset(run->arena, mark);
	return stopped;
}

void session_timeline(const struct session *s, int32_t place, const struct session_prompt *prompt, struct timeline *t)
{
	const struct session_room *room = &s->room;
	if (place < 0 || place >= room->responses)
		favor_die("session_timeline: place %d of %d", place, room->responses);
	*t = (struct timeline){
	    .place = place, .prompt = *prompt, .first = room->prompts * room->prompt_rows + place * room->response_rows};
}

int session_decode(struct session *s, const struct run *run, struct timeline *const *timelines, const int32_t *token,
                   int32_t n, struct tensor logits)
{
	const struct model *m = s->model;
	struct arena_mark mark = arena_mark(run->arena);
	/* one upload: ids, cache rows; positions and segments go with the rows */
	int32_t *ids = arena_alloc(run->arena, (size_t)n * sizeof *ids),
	        *rows = arena_alloc(run->arena, (size_t)n * sizeof *rows);
	int32_t *host = favor_malloc((size_t)n * 4 * sizeof *host), *position = host + n;
	struct segment *segments = favor_malloc((size_t)n * sizeof *segments);
	for (int32_t i = 0; i < n; i++) {
		struct timeline *t = timelines[i];
		if (t->length >= s->room.response_rows)
			favor_die("session_decode: place %d has %d rows, all of them taken", t->place, s->room.response_rows);
		host[i] = t->first + t->length;
		position[3 * i] = position[3 * i + 1] = position[3 * i + 2] = t->prompt.next_position + t->length;
		t->length++;
		segments[i] = (struct segment){.q_start = i,
		                               .q_len = 1,
		                               .prefix_start = t->prompt.first,
		                               .prefix_len = t->prompt.rows,
		                               .kv_start = t->first,
		                               .kv_len = t->length,
		                               .causal = 1};
	}
	op_upload(run->backend, ids, token, (size_t)n * sizeof *ids);
	op_upload(run->backend, rows, host, (size_t)n * sizeof *rows);
	struct text_rows t;
	text_rows_make(&t, run, &m->config, n, position, segments, n);
	free(host);
	free(segments);
	struct tensor x = run_tensor(run, n, m->config.hidden_size);
	embed_rows(run, m, x, ids, NULL, TENSOR_NONE);
	int stopped = session_layers(s, run, &t, rows, x);
	if (!stopped)
		session_head(s, run, x, logits);
	arena_reset(run->arena, mark);
	return stopped;
}
