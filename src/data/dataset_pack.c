/* Data sets on their way to other ranks: one rank reads and picks, the others get the result in one block, which is
 * their memory of it. Reading a million lines takes seconds; with every rank on its own that would be seconds times the
 * ranks of a node.
 *
 * Layout: 64-bit numbers as they are, and texts ('t', the bytes, NUL; or '0' for NULL), unaligned:
 *   classes: count, names, whether there are aliases, starts, aliases
 *   each set: count, path, folder, records
 *   record: label_index, line, images, label, problem, target, think, whether images must lie in the folder */
#include "data/dataset.h"

#include <stdlib.h>
#include <string.h>

struct writer {
	char *data;
	size_t n, capacity;
};

static char *room(struct writer *w, size_t bytes)
{
	if (w->capacity - w->n < bytes) {
		w->capacity = 2 * w->capacity + bytes;
		w->data = favor_realloc(w->data, w->capacity);
	}
	w->n += bytes;
	return w->data + w->n - bytes;
}

static void put_number(struct writer *w, int64_t x)
{
	memcpy(room(w, sizeof x), &x, sizeof x);
}

static void put_text(struct writer *w, const char *text)
{
	size_t n = text ? strlen(text) + 1 : 0;
	char *to = room(w, n + 1);
	*to = text ? 't' : '0';
	if (text)
		memcpy(to + 1, text, n);
}

static void put_record(struct writer *w, const struct record *r)
{
	put_number(w, r->label_index);
	put_number(w, r->line);
	put_number(w, r->image_count);
	for (int32_t i = 0; i < r->image_count; i++)
		put_text(w, r->images[i]);
	put_text(w, r->label);
	put_text(w, r->problem);
	put_text(w, r->target);
	put_text(w, r->think);
	put_number(w, r->folder != NULL);
}

void dataset_pack(const struct dataset *const *sets, int count, const struct class_list *c, void **data, size_t *n)
{
	struct writer w = {0};
	put_number(&w, c->count);
	for (int32_t i = 0; i < c->count; i++)
		put_text(&w, c->names[i]);
	put_number(&w, c->alias_start != NULL);
	for (int32_t i = 0; c->alias_start && i <= c->count; i++)
		put_number(&w, c->alias_start[i]);
	for (int32_t i = 0; c->alias_start && i < c->alias_start[c->count]; i++)
		put_text(&w, c->aliases[i]);
	for (int k = 0; k < count; k++) {
		put_number(&w, sets[k]->count);
		put_text(&w, sets[k]->path);
		put_text(&w, sets[k]->folder);
		for (int32_t i = 0; i < sets[k]->count; i++)
			put_record(&w, &sets[k]->records[i]);
	}
	*data = w.data;
	*n = w.n;
}

struct reader {
	char *at, *end;
	int bad;
};

static int64_t get_number(struct reader *r)
{
	int64_t x = 0;
	if (r->end - r->at < (ptrdiff_t)sizeof x)
		r->bad = 1;
	if (r->bad)
		return 0;
	memcpy(&x, r->at, sizeof x);
	r->at += sizeof x;
	return x;
}

/* A count of things of which each takes at least a byte: it can't be larger than what is left. */
static int32_t get_count(struct reader *r)
{
	int64_t x = get_number(r);
	if (x < 0 || x > r->end - r->at || x > INT32_MAX - 1)
		r->bad = 1;
	return r->bad ? 0 : (int32_t)x;
}

/* Points into the block. */
static char *get_text(struct reader *r)
{
	char *end = r->bad || r->at == r->end ? NULL : *r->at == '0' ? r->at : memchr(r->at, 0, (size_t)(r->end - r->at));
	if (!end || (*r->at != '0' && *r->at != 't')) {
		r->bad = 1;
		return NULL;
	}
	char *text = *r->at == '0' ? NULL : r->at + 1;
	r->at = end + 1;
	return text;
}

static char *get_own(struct reader *r)
{
	const char *text = get_text(r);
	return text ? favor_strdup(text) : NULL;
}

/* A text that must be there. */
static char *get_own_name(struct reader *r)
{
	char *text = get_own(r);
	if (!text)
		r->bad = 1;
	return text ? text : favor_strdup("");
}

static void get_classes(struct reader *r, struct class_list *c)
{
	*c = (struct class_list){.count = get_count(r)};
	c->names = favor_calloc((size_t)c->count, sizeof *c->names);
	for (int32_t i = 0; i < c->count; i++)
		c->names[i] = get_own_name(r);
	if (!get_number(r))
		return;
	c->alias_start = favor_calloc((size_t)c->count + 1, sizeof *c->alias_start);
	for (int32_t i = 0; i <= c->count; i++) {
		int64_t start = get_number(r);
		if (start < (i ? c->alias_start[i - 1] : 0) || start > r->end - r->at || (i == 0 && start))
			r->bad = 1;
		c->alias_start[i] = r->bad ? i ? c->alias_start[i - 1] : 0 : (int32_t)start;
	}
	c->aliases = favor_calloc((size_t)c->alias_start[c->count], sizeof *c->aliases);
	for (int32_t i = 0; i < c->alias_start[c->count]; i++)
		c->aliases[i] = get_own_name(r);
}

static void get_record(struct reader *r, struct dataset *d, struct record *to, int32_t classes)
{
	const int64_t label_index = get_number(r), line = get_number(r);
	to->label_index = (int32_t)label_index;
	to->line = (int32_t)line;
	to->image_count = get_count(r);
	to->images = favor_calloc((size_t)to->image_count, sizeof *to->images);
	for (int32_t i = 0; i < to->image_count; i++)
		if (!(to->images[i] = get_text(r)))
			r->bad = 1;
	to->label = get_text(r);
	to->problem = get_text(r);
	to->target = get_text(r);
	to->think = get_text(r);
	to->folder = get_number(r) ? d->folder : NULL;
	if (label_index < -1 || label_index >= classes || line < 0 || line > INT32_MAX || !to->label)
		r->bad = 1;
}

static void get_set(struct reader *r, struct dataset *d, int32_t classes)
{
	int32_t count = get_count(r);
	d->path = get_own(r);
	d->folder = get_own(r);
	d->packed = 1;
	d->records = favor_calloc((size_t)count, sizeof *d->records);
	for (; d->count < count && !r->bad; d->count++)
		get_record(r, d, &d->records[d->count], classes);
}

int dataset_unpack(struct dataset *const *sets, int count, struct class_list *c, void *data, size_t n,
                   struct favor_error *e)
{
	struct reader r = {data, (char *)data + n, 0};
	get_classes(&r, c);
	for (int k = 0; k < count; k++) {
		*sets[k] = (struct dataset){0};
		get_set(&r, sets[k], c->count);
	}
	if (r.at != r.end)
		r.bad = 1;
	return r.bad ? favor_fail(e, "the data sets that rank 0 sent can't be read; do all ranks run the same favor?") : 0;
}
