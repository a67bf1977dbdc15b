/* Which records: the few-shot selection and the order of training. Both are functions of seeds and content, so that
 * they are the same on every machine, after a resume and on any number of ranks. */
#include "data/dataset_loader.h"
#include "data/label.h"

#include "base/hash.h"
#include "base/rng.h"

#include <stdlib.h>
#include <string.h>

struct member {
	const struct record *record;
	int32_t index; /* in the data set */
};

static int compare_text(const char *a, const char *b)
{
	return strcmp(a ? a : "", b ? b : "");
}

/* By class, then by content. The folder in front of all paths does not change the order, nor does the order of the
 * file. */
static int by_content(const void *x, const void *y)
{
	const struct record *a = ((const struct member *)x)->record, *b = ((const struct member *)y)->record;
	if (a->label_index != b->label_index)
		return a->label_index < b->label_index ? -1 : 1;
	int32_t n = a->image_count < b->image_count ? a->image_count : b->image_count;
	for (int32_t i = 0; i < n; i++) {
		int c = strcmp(a->images[i], b->images[i]);
		if (c)
			return c;
	}
	if (a->image_count != b->image_count)
		return a->image_count < b->image_count ? -1 : 1;
	int c = compare_text(a->problem, b->problem);
	if (!c)
		c = compare_text(a->target, b->target);
	if (!c)
		c = compare_text(a->think, b->think);
	if (!c)
		c = strcmp(a->label, b->label);
	return c ? c : a->line < b->line ? -1 : a->line > b->line;
}

int dataset_take_shots(struct dataset *d, const struct class_list *c, int32_t shots, uint64_t seed,
                       struct favor_error *e)
{
	if (shots == 0)
		return 0;
	if (shots < 0)
		return favor_fail(e, "data.shots is %d, must be 0 (all) or more", shots);
	if (c->count == 0)
		return favor_fail(e, "%s: data.shots counts records per class, but there is no class list; give data.classes",
		                  d->path);
	struct faults faults = {0};
	struct member *members = favor_malloc((size_t)d->count * sizeof *members);
	uint32_t *order = favor_malloc((size_t)d->count * sizeof *order);
	unsigned char *keep = favor_calloc((size_t)d->count, 1);
	int32_t member = 0, open = 0;
	for (int32_t i = 0; i < d->count; i++) {
		if (d->records[i].label_index < 0 && open++ == 0)
			faults_add(&faults,
			           "%s:%d: data.shots needs a class for every record, and this one has none; give data.classes",
			           d->path, d->records[i].line);
		members[i] = (struct member){&d->records[i], i};
	}
	qsort(members, (size_t)d->count, sizeof *members, by_content);
	while (member < d->count && members[member].record->label_index < 0)
		member++;
	for (int32_t class = 0; class < c->count; class ++) {
		int32_t first = member;
		while (member < d->count && members[member].record->label_index == class)
			member++;
		int32_t have = member - first;
		if (have < shots) {
			char name[UTF8_SHORT];
			faults_add(&faults, "%s: data.shots is %d, but class \"%s\" has %d record%s", d->path, shots,
			           utf8_short(c->names[class], name), have, have == 1 ? "" : "s");
			continue;
		}
		/* by the class's name and not its number: a class more or less changes no other class's shots */
		char *name = label_normalise(c->names[class], strlen(c->names[class]));
		rng_permutation(seed, RNG_SHOTS, hash_bytes(HASH_START, name, strlen(name)), (uint32_t)have, order);
		free(name);
		for (int32_t i = 0; i < shots; i++)
			keep[members[first + (int32_t)order[i]].index] = 1;
	}
	int rc = faults_report(&faults, e, d->path, "faults");
	if (rc == 0) {
		int32_t kept = 0;
		for (int32_t i = 0; i < d->count; i++) {
			if (keep[i])
				d->records[kept++] = d->records[i];
			else
				record_free(&d->records[i]);
		}
		d->count = kept;
	}
	free(members);
	free(order);
	free(keep);
	faults_free(&faults);
	return rc;
}

/* Small sets are shuffled anew for every call, which takes microseconds. Larger ones go through a Feistel network: a
 * permutation of the numbers below 4^half that needs no table. A result that is no record goes through it again; this
 * walk along a cycle that starts below n ends below n, and is a permutation too. 4^half is less than 4 n, so that fewer
 * than four passes are needed on average. */
enum { SHUFFLE_MAX = 512, FEISTEL_ROUNDS = 8 };

static uint32_t feistel(uint64_t seed, uint64_t epoch, int half, uint32_t x)
{
	uint32_t mask = ((uint32_t)1 << half) - 1, left = x >> half, right = x & mask, words[4];
	for (uint32_t round = 0; round < FEISTEL_ROUNDS; round++) {
		rng_words(seed, RNG_ORDER, epoch, round + 1, right, words); /* response 0 is the shuffle's */
		uint32_t t = left ^ (words[0] & mask);
		left = right;
		right = t;
	}
	return left << half | right;
}

uint32_t dataset_order(const struct dataset *d, uint64_t seed, uint64_t index)
{
	if (d->count <= 0)
		return 0;
	uint32_t n = (uint32_t)d->count, x = (uint32_t)(index % n);
	uint64_t epoch = index / n;
	if (n <= SHUFFLE_MAX) {
		uint32_t order[SHUFFLE_MAX];
		rng_permutation(seed, RNG_ORDER, epoch, n, order);
		return order[x];
	}
	int half = 1;
	while (((uint64_t)1 << (2 * half)) < n)
		half++;
	do
		x = feistel(seed, epoch, half, x);
	while (x >= n);
	return x;
}
