/* See workload.h. */
#include "workload.h"

#include "base/rng.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int is_among(const char *word, const char *const *words)
{
	for (; words && *words; words++)
		if (!strcmp(word, *words))
			return 1;
	return !words;
}

/* Into *o; 0 if the value is none of those that it may be. */
static int take(const struct bench_option *o, const char *value)
{
	if (!o->number) {
		*o->text = value;
		return is_among(value, o->words);
	}
	char *end;
	errno = 0;
	const long n = strtol(value, &end, 10);
	*o->number = (int)n;
	return end != value && !*end && !errno && n >= o->least && n <= o->most;
}

int bench_parse(int argc, char **argv, const struct bench_option *options, const char *usage)
{
	for (int i = 1; i < argc; i++) {
		const struct bench_option *o = options;
		while (o->name && (strncmp(argv[i], "--", 2) || strcmp(argv[i] + 2, o->name)))
			o++;
		const int valued = o->name && !o->flag;
		if (!o->name)
			fprintf(stderr, "%s: there is no such option\n", argv[i]);
		else if (valued && i + 1 == argc)
			fprintf(stderr, "%s: its value is missing\n", argv[i]);
		else if (valued && !take(o, argv[i + 1]))
			fprintf(stderr, "%s: it can't be %s\n", argv[i], argv[i + 1]);
		else {
			if (o->flag)
				*o->flag = 1;
			i += valued;
			continue;
		}
		fprintf(stderr, "usage: %s\n", usage);
		return -1;
	}
	return 0;
}

/* Token ids that are neither the image's nor a video's. */
static int32_t text_token(const struct model_config *c, uint32_t i)
{
	int32_t id = (int32_t)(rng_uniform(1, RNG_EVAL, 0, 0, i) * c->vocab_size);
	while (id == c->image_token || id == c->video_token)
		id = (id + 1) % c->vocab_size;
	return id;
}

int bench_prompt_make(struct bench_prompt *p, const struct model_config *c, int text, int image, int response,
                      struct favor_error *e)
{
	const int32_t unit = c->vision.patch_size * c->vision.merge_size, across = image / unit, features = across * across,
	              grid = across * c->vision.merge_size;
	const int64_t values = (int64_t)grid * grid * c->vision.patch_dim;
	*p = (struct bench_prompt){.count = text + features};
	if (image % unit)
		return favor_fail(e, "--image %d is no multiple of %d pixels (patch size x merge size)", image, unit);
	if (p->count + response > c->max_positions)
		return favor_fail(e, "%d prompt tokens and --response %d are more than the model's %d positions", p->count, response,
		                  c->max_positions);
	p->ids = favor_malloc((size_t)p->count * sizeof *p->ids);
	p->plain = favor_malloc((size_t)p->count * sizeof *p->plain);
	p->patches = favor_malloc((size_t)(values + 1) * sizeof *p->patches);
	for (int32_t i = 0; i < p->count; i++) {
		const int inside = i >= text / 2 && i < text / 2 + features;
		p->plain[i] = text_token(c, (uint32_t)i);
		p->ids[i] = inside ? c->image_token : p->plain[i];
	}
	for (int64_t i = 0; i < values; i++)
		p->patches[i] = (float)(4 * rng_uniform(1, RNG_EVAL, 1, 0, (uint32_t)i) - 2);
	p->image = (struct image_input){.grid_t = 1, .grid_h = grid, .grid_w = grid, .values = p->patches};
	return 0;
}

void bench_prompt_free(struct bench_prompt *p)
{
	free(p->ids);
	free(p->plain);
	free(p->patches);
}
