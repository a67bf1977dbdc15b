/* Everything before the first step. See setup.h. */
#include "app/setup.h"

#include "backend/ops.h"
#include "data/faults.h"
#include "data/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CHECK_ALL_MOST = 4096 };

/* Rank 0 reads file and overrides; the others parse what it printed, so that all have the same options. */
static int read_config(struct setup *s, const char *path, const char *const *overrides, int count,
                       struct favor_error *e)
{
	int ok = 1;
	void *yaml = NULL;
	size_t n = 0;
	if (world_rank(s->world) == 0) {
		ok = !config_load(&s->config, path, overrides, count, e);
		if (ok) {
			yaml = config_to_yaml(&s->config);
			n = strlen(yaml) + 1;
		}
	}
	if (world_agree(s->world, ok, e))
		return -1;
	world_broadcast(s->world, &yaml, &n);
	if (world_rank(s->world) != 0)
		ok = !config_parse(&s->config, yaml, path, NULL, 0, e);
	free(yaml);
	return world_agree(s->world, ok, e);
}

static int require(const char *path, const char *key, const char *value, struct favor_error *e)
{
	if (value && *value)
		return 0;
	return favor_fail(e, "%s: %s is missing; give it in the file or as %s=...", path, key, key);
}

/* One file for both, and nothing in it that tells them apart. */
static void warn_of_overlap(const struct setup *s)
{
	const struct dataset *a = &s->train, *b = &s->eval;
	if (a->count && a->count == b->count && !strcmp(s->config.data.train, s->config.data.eval) &&
	    a->records[0].line == b->records[0].line)
		fprintf(stderr, "favor: warning: data.eval is data.train and has no splits: accuracy is that of images it has trained on\n");
}

static int read_data(struct setup *s, const char *path, int needs, struct favor_error *e)
{
	const struct data_options *o = &s->config.data;
	if (require(path, "model.path", s->config.model.path, e))
		return -1;
	if ((needs & NEED_TRAIN) && require(path, "data.train", o->train, e))
		return -1;
	if ((needs & NEED_EVAL) && require(path, "data.eval", o->eval, e))
		return -1;
	/* both sets are read where named: the class list comes from both */
	if (*o->train && dataset_load(&s->train, o->train, o->root, o->allow_outside, o->train_split, "train", e))
		return -1;
	if (*o->eval && dataset_load(&s->eval, o->eval, o->root, o->allow_outside, o->eval_split, "test", e))
		return -1;
	if (classes_build(&s->classes, o, *o->train ? &s->train : NULL, *o->eval ? &s->eval : NULL, e))
		return -1;
	warn_of_overlap(s);
	if ((needs & NEED_TRAIN) && dataset_take_shots(&s->train, &s->classes, o->shots, o->seed, e))
		return -1;
	return 0;
}

/* Rank 0 reads the data sets and picks the records; the others get the result. */
static int open_data(struct setup *s, const char *path, int needs, struct favor_error *e)
{
	struct dataset *const sets[2] = {&s->train, &s->eval};
	const int reads = world_rank(s->world) == 0;
	size_t n = 0;
	int ok = !reads || !read_data(s, path, needs, e);
	if (world_agree(s->world, ok, e))
		return -1;
	if (world_size(s->world) == 1)
		return 0;
	if (reads)
		dataset_pack((const struct dataset *const *)sets, 2, &s->classes, &s->data, &n);
	world_broadcast(s->world, &s->data, &n);
	if (!reads)
		ok = !dataset_unpack(sets, 2, &s->classes, s->data, n, e);
	else {
		free(s->data);
		s->data = NULL;
	}
	return world_agree(s->world, ok, e);
}

/* The training records that are checked before the first step: all of a small set; of a large one, which would take
 * minutes, those that the run is to use. */
static int32_t records_to_check(const struct setup *s)
{
	const int64_t used = (int64_t)s->config.learner.steps * s->config.learner.groups_per_step;
	return s->train.count <= CHECK_ALL_MOST || used >= s->train.count ? s->train.count : (int32_t)used;
}

/* The i-th of them. */
static const struct record *record_to_check(const struct setup *s, int32_t i)
{
	const struct dataset *d = &s->train;
	return &d->records[s->train_checked < d->count ? (int32_t)dataset_order(d, s->config.run.seed, (uint64_t)i) : i];
}

/* Every one of those records becomes a prompt of known size, or is named. Ranks take every N-th. */
static int check_records(struct setup *s, const struct dataset *d, int32_t count, struct favor_error *e)
{
	struct faults faults = {0};
	for (int32_t i = world_rank(s->world); i < count; i += world_size(s->world)) {
		const struct record *r = d == &s->train ? record_to_check(s, i) : &d->records[i];
		struct favor_error one = {""};
		int32_t tokens;
		int64_t patches;
		favor_alive();
		if (encode_size(&s->encoder, r, &tokens, &patches, &one)) {
			if (r->line)
				faults_add(&faults, "%s:%d: %s", d->path, r->line, one.message);
			else
				faults_add(&faults, "%s", one.message);
			continue;
		}
		if (tokens > s->longest_prompt)
			s->longest_prompt = tokens;
		if (patches > s->most_patches)
			s->most_patches = patches;
	}
	int bad = faults_report(&faults, e, d->path, "bad records");
	faults_free(&faults);
	return world_agree(s->world, !bad, e);
}

static int check_targets(struct setup *s, struct favor_error *e)
{
	int ok = 1;
	int32_t stop;
	if (setup_stop_token(s, &stop, e))
		return -1;
	for (int32_t i = 0; ok && i < s->train_checked; i++) {
		const struct record *r = record_to_check(s, i);
		struct token_ids ids = {0};
		favor_alive();
		ok = !encode_target(&s->encoder, r, stop, &ids, e);
		if (!ok)
			favor_fail_prefix(e, "%s:%d", s->train.path, r->line);
		if (ids.count > s->longest_target)
			s->longest_target = ids.count;
		token_ids_free(&ids);
	}
	return ok ? 0 : -1;
}

static int open_assets(struct setup *s, int needs, struct favor_error *e)
{
	const struct config *c = &s->config;
	/* ranks that only score need no weights */
	const int computes = world_plays(s->world, ROLE_ROLLOUT) || world_plays(s->world, ROLE_LEARNER);
	const int random = !strcmp(c->model.init, "random");
	const enum weights_from from = !computes                 ? WEIGHTS_NONE
	                               : needs & NEED_NO_WEIGHTS ? (random ? WEIGHTS_SHAPES : WEIGHTS_CHECKED)
	                               : random                  ? WEIGHTS_RANDOM
	                                                         : WEIGHTS_FILE;
	if (assets_open(&s->assets, c->model.path, from, c->run.seed, s->backend, world_rank(s->world) == 0, e))
		return -1;
	s->encoder = assets_encoder(&s->assets);
	if (c->data.min_pixels)
		s->encoder.settings.min_pixels = c->data.min_pixels;
	if (c->data.max_pixels)
		s->encoder.settings.max_pixels = c->data.max_pixels;
	if (s->encoder.settings.min_pixels > s->encoder.settings.max_pixels)
		return favor_fail(e, "data.min_pixels %lld%s is above data.max_pixels %lld%s",
		                  (long long)s->encoder.settings.min_pixels, c->data.min_pixels ? "" : " (the model's)",
		                  (long long)s->encoder.settings.max_pixels, c->data.max_pixels ? "" : " (the model's)");
	s->encoder.system = template_system(c->data.system);
	s->encoder.prompt = c->data.prompt;
	s->encoder.classes = &s->classes;
	if (s->encoder.image_token < 0)
		return favor_fail(e, "%s: tokenizer.json has no <|image_pad|>", s->assets.folder);
	return 0;
}

/* Tells the backend how many ranks are on its device. How many a node has says nothing of that: each may see GPUs of its own alone
 * (CUDA_VISIBLE_DEVICES, as Slurm sets it). Collective. */
static void share_device(struct setup *s)
{
	const int ranks = world_size(s->world);
	unsigned char mine[DEVICE_ID_BYTES], *all = favor_malloc((size_t)ranks * DEVICE_ID_BYTES);
	int here = 0;
	op_device(s->backend, mine);
	world_gather(s->world, mine, sizeof mine, all);
	for (int r = 0; r < ranks; r++)
		here += !memcmp(mine, all + (size_t)r * DEVICE_ID_BYTES, DEVICE_ID_BYTES);
	op_share_device(s->backend, here);
	free(all);
}

int setup_begin(struct setup *s, struct world *w, const char *config_path, const char *const *overrides,
               int override_count, int needs, struct favor_error *e)
{
	*s = (struct setup){.world = w};
	if (read_config(s, config_path, overrides, override_count, e))
		return -1;
	struct placement_options placement = s->config.placement;
	if (s->config.method == METHOD_SFT && (needs & NEED_TRAIN)) {
		/* nothing is rolled out or scored: every rank learns */
		if (placement.mode == PLACEMENT_COUNTS)
			return favor_fail(e, "placement: sft has no rollout and reward ranks; use auto or colocate");
		placement.mode = PLACEMENT_COLOCATE;
	}
	if (world_assign(w, &placement, s->config.run.deadline, e))
		return -1;
	world_phase(w, "open data", -1, -1);
	/* ranks that only score need no GPU */
	int place;
	world_node_computing(w, &place);
	s->backend = device_open(place < 0 ? DEVICE_CPU : s->config.device, s->config.model.dtype, place, &s->device, e);
	if (world_agree(w, s->backend != NULL, e))
		return -1;
	share_device(s);
	const long cores = sysconf(_SC_NPROCESSORS_ONLN);
	if (s->config.run.threads > cores && world_rank(w) == 0)
		fprintf(stderr, "favor: warning: run.threads is %d, but this host has %ld cores\n", s->config.run.threads, cores);
	setup_threads(s, world_plays(w, ROLE_LEARNER)   ? ROLE_LEARNER
	                 : world_plays(w, ROLE_ROLLOUT) ? ROLE_ROLLOUT
	                                                : ROLE_REWARD);
	return 0;
}

int setup_load(struct setup *s, const char *config_path, int needs, struct favor_error *e)
{
	struct world *w = s->world;
	if (open_data(s, config_path, needs, e))
		return -1;
	world_phase(w, "open model", -1, -1);
	if (world_agree(w, !open_assets(s, needs, e), e))
		return -1;
	world_phase(w, "check records", -1, -1);
	/* once, and not of each record */
	if (world_agree(w, !prompt_check(s->config.data.prompt, e), e))
		return -1;
	s->train_checked = needs & NEED_TRAIN ? records_to_check(s) : 0;
	if (check_records(s, &s->train, s->train_checked, e))
		return -1;
	if (((needs & NEED_EVAL) || s->config.learner.eval_every) && check_records(s, &s->eval, setup_eval_count(s), e))
		return -1;
	int sft = s->config.method == METHOD_SFT && (needs & NEED_TRAIN);
	if (world_agree(w, !sft || !check_targets(s, e), e))
		return -1;
	double most[2] = {s->longest_prompt, (double)s->most_patches};
	world_max_all(w, most, 2);
	s->longest_prompt = (int32_t)most[0];
	s->most_patches = (int64_t)most[1];
	return 0;
}

int setup_open(struct setup *s, struct world *w, const char *config_path, const char *const *overrides,
               int override_count, int needs, struct favor_error *e)
{
	return setup_begin(s, w, config_path, overrides, override_count, needs, e) || setup_load(s, config_path, needs, e)
	           ? -1
	           : 0;
}

void setup_close(struct setup *s)
{
	assets_close(&s->assets);
	backend_destroy(s->backend); /* NULL is fine */
	classes_free(&s->classes);
	dataset_free(&s->train);
	dataset_free(&s->eval);
	free(s->data);
	config_free(&s->config);
	*s = (struct setup){0};
}

void setup_say_device(const struct setup *s)
{
	int place;
	world_node_computing(s->world, &place);
	double ranks[2] = {s->device.cuda, place >= 0};
	world_sum_all(s->world, ranks, 2);
	if (world_rank(s->world) != 0)
		return;
	if (ranks[0] == ranks[1] || ranks[0] == 0)
		fprintf(stderr, "favor: device: %s\n", s->device.text);
	else
		fprintf(stderr, "favor: device: cuda on %.0f of %.0f ranks that compute; here: %s\n", ranks[0], ranks[1],
		        s->device.text);
}

int setup_end(struct world *w, int code, struct favor_error *e)
{
	/* before the ranks part: mpirun kills the others as soon as the first has left with a code that isn't 0 */
	if (code && world_rank(w) == 0 && e->message[0])
		fprintf(stderr, "favor: %s\n", e->message);
	fflush(stdout);
	e->message[0] = 0;
	world_close(w);
	return code;
}

int32_t setup_eval_count(const struct setup *s)
{
	const int32_t limit = s->config.data.eval_limit;
	return limit > 0 && limit < s->eval.count ? limit : s->eval.count;
}

void setup_threads(struct setup *s, enum role r)
{
	int threads = s->config.run.threads ? s->config.run.threads : world_threads(s->world, r);
	backend_set_threads(s->backend, threads);
}

int setup_stop_token(const struct setup *s, int32_t *id, struct favor_error *e)
{
	const struct model *m = s->assets.model;
	if (m && m->config.eos_count) {
		*id = m->config.eos[0];
		return 0;
	}
	*id = tokenizer_id(s->assets.tokenizer, "<|im_end|>");
	if (*id < 0)
		return favor_fail(e,
		                  "%s: neither config.json nor generation_config.json gives eos_token_id, and the tokeniser "
		                  "has no <|im_end|>",
		                  s->assets.folder);
	return 0;
}

int setup_rollout(struct setup *s, struct rollout *r, struct favor_error *e)
{
	const struct rollout_options *o = &s->config.rollout;
	rollout_init(r, s->assets.model, s->assets.tokenizer);
	r->sampling = (struct sampling){o->temperature, o->top_p, o->min_p, o->top_k};
	r->max_tokens = o->max_tokens;
	r->seed = s->config.run.seed;
	r->tick = (int (*)(void *))world_tick;
	r->tick_arg = s->world;
	if (!r->stop_count) {
		if (setup_stop_token(s, &r->stop[0], e))
			return -1;
		r->stop_count = 1;
	}
	for (int i = 0; i < o->stop.count; i++) {
		struct token_ids ids = {0};
		int bad = tokenizer_encode(s->assets.tokenizer, o->stop.items[i], strlen(o->stop.items[i]), 1, &ids, e);
		if (!bad && ids.count != 1)
			bad = favor_fail(e, "rollout.stop: \"%s\" is %d tokens; a stop token must be one", o->stop.items[i],
			                 ids.count);
		if (!bad && r->stop_count == (int)(sizeof r->stop / sizeof *r->stop))
			bad = favor_fail(e, "rollout.stop: too many stop tokens");
		if (!bad)
			r->stop[r->stop_count++] = ids.ids[0];
		token_ids_free(&ids);
		if (bad)
			return -1;
	}
	return 0;
}
