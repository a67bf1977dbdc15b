/* Attention. Its launchers want their work planned on the host, so the segments that the model gives (op_segments) are
 * kept here, by the address of their copy in device memory, with the plans that were made of them: once for all layers.
 *
 * Where no segment has more than one query, it is decoding. Then only the numbers of own keys change from token to
 * token, and those are read where the segments lie: the plan is made for some more keys than there are and serves the
 * next tokens too. Its numbers that a launch depends on (items, partial sums) are rounded up, so that a recorded launch
 * serves most later plans. */
#include "backend/cuda/state.h"

#include <stdlib.h>
#include <string.h>

enum { LISTS = 8 }; /* as backend.h says */

_Static_assert(sizeof(struct segment) == sizeof(struct kernel_segment) &&
                   offsetof(struct segment, causal) == offsetof(struct kernel_segment, causal) &&
                   offsetof(struct segment, kv_start) == offsetof(struct kernel_segment, kv_start),
               "segments are passed on as they are");

/* A plan's list in device memory. */
struct list {
	void *there; /* owned */
	size_t bytes;
};

struct segments {
	const void *there; /* the model's copy; NULL: unused */
	struct kernel_segment *host; /* owned */
	int count, room;
	int decodes;   /* no segment has more than one query */
	int32_t grows; /* how many own keys more there may be before the next op_segments */
	uint64_t made; /* counts lists */
	struct kernel_attention_plan plans[2]; /* forward; forward and backward */
	int planned[2];
	struct list lists[2];
};

struct cuda_attention {
	struct segments lists[LISTS];
	uint64_t made;
	/* decoding */
	struct kernel_segment *planned; /* owned: what decode is a plan of */
	int planned_count, planned_room;
	struct kernel_decode_plan decode;
	struct list decode_list;
};

static void *grown(const struct cuda_state *s, void *p, int *room, int count, size_t bytes)
{
	if (count <= *room)
		return p;
	while (*room < count)
		*room = *room ? 2 * *room : 64;
	p = realloc(p, (size_t)*room * bytes);
	if (!p)
		s->host.die("out of memory: no room for %d segments", count);
	return p;
}

struct cuda_attention *cuda_attention_new(struct cuda_state *s)
{
	struct cuda_attention *t = calloc(1, sizeof *t);
	if (!t)
		s->host.die("out of memory: no room for attention's plans");
	return t;
}

void cuda_attention_destroy(struct cuda_state *s, struct cuda_attention *t)
{
	for (int i = 0; i < LISTS; i++) {
		free(t->lists[i].host);
		for (int k = 0; k < 2; k++)
			CUDA(s, cudaFree(t->lists[i].lists[k].there));
	}
	CUDA(s, cudaFree(t->decode_list.there));
	free(t->planned);
	free(t);
}

void cuda_segments(struct backend *b, struct segment *to, const struct segment *from, int count, int32_t grows)
{
	struct cuda_state *s = cuda_of(b);
	struct cuda_attention *t = s->attention;
	struct segments *l = &t->lists[0];
	/* the one at this address, or the oldest */
	for (int i = 0; i < LISTS; i++) {
		if (t->lists[i].there == to) {
			l = &t->lists[i];
			break;
		}
		if (t->lists[i].made < l->made)
			l = &t->lists[i];
	}
	int room = l->room;
	l->host = grown(s, l->host, &room, count, sizeof *l->host);
	l->room = room;
	memcpy(l->host, from, (size_t)count * sizeof *from);
	l->there = to;
	l->count = count;
	l->made = ++t->made;
	l->planned[0] = l->planned[1] = 0;
	l->grows = grows;
	l->decodes = 1;
	for (int i = 0; i < count; i++)
		l->decodes &= from[i].q_len <= 1;
	cuda_upload(b, to, from, (size_t)count * sizeof *from);
}

static struct segments *find(const struct cuda_state *s, const struct segment *segments, int count)
{
	for (int i = 0; i < LISTS; i++)
		if (s->attention->lists[i].there == segments && s->attention->lists[i].count == count)
			return &s->attention->lists[i];
	s->host.die("attention: %d segments at %p, which op_segments did not make", count, (const void *)segments);
}

static void upload_list(struct backend *b, struct list *l, const int32_t *from, int64_t count)
{
	struct cuda_state *s = cuda_of(b);
	cuda_grow(s, &l->there, &l->bytes, (size_t)(count ? count : 1) * sizeof *from);
	cuda_upload(b, l->there, from, (size_t)count * sizeof *from);
}

static int same_shape(int64_t heads, int64_t kv_heads, int64_t q_rows, int64_t k_rows, const struct kernel_attention *a)
{
	return heads == a->heads && kv_heads == a->kv_heads && q_rows == a->q_rows && k_rows == a->k_rows;
}

static void bad_plan(const struct cuda_state *s, const struct kernel_attention *a)
{
	s->host.die("attention: no plan can be made: a segment reaches out of %lld query and %lld key rows, or %lld heads of %lld "
	            "can't be done", (long long)a->q_rows, (long long)a->k_rows, (long long)a->heads, (long long)a->kv_heads);
}

/* The plan of l for what `a` says of shapes. */
static const struct kernel_attention_plan *plan_of(struct backend *b, struct segments *l, const struct kernel_attention *a,
                                                   int backward)
{
	struct cuda_state *s = cuda_of(b);
	struct kernel_attention_plan *plan = &l->plans[backward];
	if (l->planned[backward] && same_shape(plan->heads, plan->kv_heads, plan->q_rows, plan->k_rows, a))
		return plan;
	const int64_t n = kernel_attention_plan(plan, NULL, l->host, l->count, a, backward);
	int32_t *list = n < 0 ? NULL : malloc((size_t)(n + 1) * sizeof *list);
	if (!list || kernel_attention_plan(plan, list, l->host, l->count, a, backward) != n)
		bad_plan(s, a);
	upload_list(b, &l->lists[backward], list, n);
	free(list);
	plan->list = l->lists[backward].there;
	l->planned[backward] = 1;
	return plan;
}

/* How many own keys a plan is made for, so that it serves some more tokens: up to the end of a chunk. */
static int32_t planned_keys(const struct segments *l, int i, const struct kernel_attention *a)
{
	const struct kernel_segment *g = &l->host[i];
	const int64_t least = (int64_t)g->kv_len + l->grows;
	int64_t keys = (least + KERNEL_ATTENTION_CHUNK - 1) / KERNEL_ATTENTION_CHUNK * KERNEL_ATTENTION_CHUNK;
	if (keys > a->k_rows - g->kv_start)
		keys = a->k_rows - g->kv_start;
	return (int32_t)(keys > g->kv_len ? keys : g->kv_len);
}

/* Whether the present decode plan serves these segments. */
static int plan_serves(const struct cuda_attention *t, const struct segments *l, const struct kernel_attention *a)
{
	if (t->planned_count != l->count || !same_shape(t->decode.heads, t->decode.kv_heads, t->decode.q_rows, t->decode.k_rows, a))
		return 0;
	for (int i = 0; i < l->count; i++) {
		const struct kernel_segment *p = &t->planned[i], *g = &l->host[i];
		if (p->q_start != g->q_start || p->q_len != g->q_len || p->prefix_start != g->prefix_start ||
		    p->prefix_len != g->prefix_len || p->kv_start != g->kv_start || p->kv_len != planned_keys(l, i, a))
			return 0;
	}
	return 1;
}

/* n or up to a quarter more: few different numbers. */
static int64_t rounded_up(int64_t n)
{
	int64_t step = 4;
	while (step * 8 < n)
		step *= 2;
	return (n + step - 1) / step * step;
}

static void plan_decode(struct backend *b, const struct segments *l, const struct kernel_attention *a)
{
	struct cuda_state *s = cuda_of(b);
	struct cuda_attention *t = s->attention;
	cuda_not_recording(s, "a plan of attention is made");
	t->planned = grown(s, t->planned, &t->planned_room, l->count, sizeof *t->planned);
	t->planned_count = l->count;
	for (int i = 0; i < l->count; i++) {
		t->planned[i] = l->host[i];
		t->planned[i].kv_len = planned_keys(l, i, a);
	}
	int64_t n = kernel_decode_plan(&t->decode, NULL, t->planned, l->count, a, 0);
	const int64_t items = n < 0 ? 0 : rounded_up(t->decode.items);
	n = n < 0 ? n : kernel_decode_plan(&t->decode, NULL, t->planned, l->count, a, items);
	int32_t *list = n < 0 ? NULL : malloc((size_t)(n + 1) * sizeof *list);
	if (!list || kernel_decode_plan(&t->decode, list, t->planned, l->count, a, items) != n)
		bad_plan(s, a);
	upload_list(b, &t->decode_list, list, n);
	free(list);
	t->decode.list = t->decode_list.there;
	t->decode.partials = (int32_t)rounded_up(t->decode.partials);
}

static void decode(struct backend *b, struct tensor o, float *lse, const struct kernel_attention *a, const struct segments *l)
{
	struct cuda_state *s = cuda_of(b);
	struct cuda_attention *t = s->attention;
	if (!plan_serves(t, l, a))
		plan_decode(b, l, a);
	cuda_step_attends(s, &(struct cuda_attends){l->there, l->count, *a, t->decode.items, t->decode.partials});
	float *scratch = cuda_scratch(s, (size_t)kernel_attention_decode_scratch(a, &t->decode) * sizeof *scratch);
	KERNEL(s, kernel_attention_decode(o.data, o.stride, lse, a, &t->decode,
	                                  &((const struct kernel_segment *)l->there)->kv_len,
	                                  sizeof(struct kernel_segment) / sizeof(int32_t), scratch, s->stream));
}

int cuda_attention_serves(struct backend *b, const struct cuda_attends *as)
{
	struct cuda_attention *t = cuda_of(b)->attention;
	const struct segments *l = find(cuda_of(b), as->segments, as->count);
	if (!l->decodes)
		return 0;
	if (!plan_serves(t, l, &as->a))
		plan_decode(b, l, &as->a);
	return t->decode.items == as->items && t->decode.partials == as->partials;
}

static struct kernel_attention describe(struct tensor q, struct tensor k, struct tensor v, int heads, int kv_heads,
                                        float scale)
{
	return (struct kernel_attention){.type = kernel_type_of(q),
	                                 .q = q.data,
	                                 .k = k.data,
	                                 .v = v.data,
	                                 .q_stride = q.stride,
	                                 .k_stride = k.stride,
	                                 .v_stride = v.stride,
	                                 .q_rows = q.rows,
	                                 .k_rows = k.rows,
	                                 .heads = heads,
	                                 .kv_heads = kv_heads,
	                                 .head_dim = q.cols / heads,
	                                 .scale = scale};
}

void cuda_attention(struct backend *b, struct tensor o, float *lse, struct tensor q, struct tensor k, struct tensor v,
                    int heads, int kv_heads, float scale, const struct segment *segments, int segment_count)
{
	struct cuda_state *s = cuda_of(b);
	const struct kernel_attention a = describe(q, k, v, heads, kv_heads, scale);
	struct segments *l = find(s, segments, segment_count);
	if (l->decodes) {
		decode(b, o, lse, &a, l);
		return;
	}
	cuda_not_recording(s, "attention has segments of several queries");
	KERNEL(s, kernel_attention(o.data, o.stride, lse, &a, plan_of(b, l, &a, 0), s->stream));
}

void cuda_attention_backward(struct backend *b, struct tensor dq, struct tensor dk, struct tensor dv, struct tensor do_,
                             struct tensor o, const float *lse, struct tensor q, struct tensor k, struct tensor v,
                             int heads, int kv_heads, float scale, const struct segment *segments, int segment_count)
{
	struct cuda_state *s = cuda_of(b);
	const struct kernel_attention a = describe(q, k, v, heads, kv_heads, scale);
	const struct kernel_attention_plan *plan = plan_of(b, find(s, segments, segment_count), &a, 1);
	float *scratch = cuda_scratch(s, (size_t)kernel_attention_backward_scratch(&a, plan) * sizeof *scratch);
	KERNEL(s, kernel_attention_backward(dq.data, dq.stride, dk.data, dk.stride, dv.data, dv.stride, 1, do_.data, do_.stride,
	                                    o.data, o.stride, lse, &a, plan, scratch, s->stream));
}

int64_t cuda_attention_bytes(struct backend *b, const struct segment *segments, int count, int64_t rows, int heads,
                             int kv_heads, int64_t head_dim)
{
	const struct kernel_attention a = {
	    .q_rows = rows, .k_rows = rows, .heads = heads, .kv_heads = kv_heads, .head_dim = head_dim, .scale = 1};
	struct kernel_attention_plan plan;
	const int64_t list = kernel_attention_plan(&plan, NULL, (const struct kernel_segment *)(const void *)segments, count, &a, 1);
	if (list < 0)
		bad_plan(cuda_of(b), &a);
	return kernel_attention_backward_scratch(&a, &plan) * (int64_t)sizeof(float) + list * (int64_t)sizeof(int32_t);
}
