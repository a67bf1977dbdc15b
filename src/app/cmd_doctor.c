/* favor doctor: is this machine, or this cluster, fit for a run? Alone it looks at this machine; under mpirun or srun all
 * ranks look at theirs, and at one another. What is good, what is broken, and what to change. */
#include "app/commands.h"
#include "app/doctor.h"
#include "app/options.h"
#include "app/setup.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const double DEADLINE = 30; /* seconds, without a configuration */

struct examination {
	struct findings findings; /* rank 0 */
	struct doctor_facts *facts;
	struct doctor_rank *ranks;
	struct doctor_pairs pairs;
};

static void exchange_facts(struct examination *x, struct world *w, int threads_asked)
{
	const int size = world_size(w);
	struct doctor_facts *mine = favor_calloc(1, sizeof *mine);
	struct doctor_rank own = {0};
	doctor_facts(mine, w);
	/* threads of the role with the most */
	for (int role = 1; role <= ROLE_LEARNER; role *= 2) {
		if (!world_plays(w, (enum role)role))
			continue;
		int threads = threads_asked ? threads_asked : world_threads(w, (enum role)role);
		own.role |= role;
		own.threads = threads > own.threads ? threads : own.threads;
	}
	snprintf(own.role_name, sizeof own.role_name, "%s", world_role_of(w, world_rank(w)));
	x->facts = favor_calloc((size_t)size, sizeof *x->facts);
	x->ranks = favor_calloc((size_t)size, sizeof *x->ranks);
	world_gather(w, mine, sizeof *mine, x->facts);
	world_gather(w, &own, sizeof own, x->ranks);
	free(mine);
}

static json_t *json_findings(const struct findings *f)
{
	static const char *const LEVELS[] = {"good", "note", "warning", "broken"};
	json_t *list = json_array();
	for (int i = 0; i < f->count; i++) {
		const struct finding *one = &f->list[i];
		json_t *o = json_pack("{s:s, s:s, s:s}", "level", LEVELS[one->level], "check", one->check, "text", one->text);
		if (one->change)
			json_object_set_new(o, "change", json_string(one->change));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *json_ranks(const struct examination *x, int size)
{
	json_t *list = json_array();
	for (int r = 0; r < size; r++) {
		const struct doctor_facts *f = &x->facts[r];
		json_t *cores = json_array();
		for (int i = 0; i < DOCTOR_CORES_MAX; i++)
			if (f->bound[i / 8] >> i % 8 & 1)
				json_array_append_new(cores, json_integer(i));
		json_t *o = json_pack("{s:i, s:s, s:s, s:i, s:o}", "rank", r, "host", f->host, "role", x->ranks[r].role_name,
		                      "threads", x->ranks[r].threads, "cores", cores);
		json_object_set_new(o, "version", json_string(f->version));
		json_object_set_new(o, "program", json_string(f->program));
		json_object_set_new(o, "compiler", json_string(f->compiler));
		json_object_set_new(o, "march", json_string(f->march));
		json_object_set_new(o, "mpi", json_string(f->mpi));
		json_object_set_new(o, "hdf5", json_string(f->hdf5));
		json_object_set_new(o, "images", json_string(f->images));
		json_object_set_new(o, "cpu", json_string(f->cpu));
		json_object_set_new(o, "avx2", json_boolean(f->has_avx2));
		json_object_set_new(o, "avx512", json_boolean(f->has_avx512));
		json_object_set_new(o, "avx512_bf16", json_boolean(f->has_avx512_bf16));
		json_object_set_new(o, "amx", json_boolean(f->has_amx));
		json_object_set_new(o, "cores_online", json_integer(f->cores_online));
		json_object_set_new(o, "cpu_quota", json_real(f->cpu_quota));
		json_object_set_new(o, "memory", json_integer(f->memory));
		json_object_set_new(o, "memory_available", json_integer(f->available));
		json_object_set_new(o, "memory_quota", json_integer(f->memory_quota));
		json_object_set_new(o, "shm_size", json_integer(f->shm_size));
		json_object_set_new(o, "shm_free", json_integer(f->shm_free));
		json_object_set_new(o, "locked_limit", json_integer(f->locked_limit));
		json_object_set_new(o, "files_limit", json_integer(f->files_limit));
		json_object_set_new(o, "clock_source", json_string(f->clock_source));
		json_object_set_new(o, "gpus", json_integer(f->gpus));
		json_object_set_new(o, "gpu", json_string(f->gpu));
		json_object_set_new(o, "gpu_backend", json_string(f->gpu_backend));
		json_array_append_new(list, o);
	}
	return list;
}

static json_t *json_pairs(const struct doctor_pairs *p)
{
	json_t *list = json_array();
	for (int a = 0; a < p->size; a++)
		for (int b = a + 1; b < p->size; b++) {
			const struct world_pair *x = &p->pairs[(size_t)a * (size_t)p->size + (size_t)b];
			json_t *o = json_pack("{s:[i, i], s:b}", "ranks", a, b, "reached", x->latency > 0);
			if (x->latency > 0) {
				json_object_set_new(o, "latency_us", json_real(x->latency * 1e6));
				json_object_set_new(o, "bandwidth_mb_s", json_real(x->bandwidth / 1e6));
				json_object_set_new(o, "clock_s", json_real(x->clock));
			}
			json_array_append_new(list, o);
		}
	return list;
}

static void print_json(const struct examination *x, int size)
{
	json_t *o = json_pack("{s:i, s:i, s:i, s:o, s:o, s:o}", "ranks", size, "broken",
	                      findings_count(&x->findings, DOCTOR_BROKEN), "warnings", findings_count(&x->findings, DOCTOR_WARN),
	                      "findings", json_findings(&x->findings), "machines", json_ranks(x, size), "pairs",
	                      json_pairs(&x->pairs));
	json_dumpf(o, stdout, JSON_COMPACT | JSON_REAL_PRECISION(6));
	putchar('\n');
	json_decref(o);
}

static void print_text(const struct examination *x, int size)
{
	const int broken = findings_count(&x->findings, DOCTOR_BROKEN), warnings = findings_count(&x->findings, DOCTOR_WARN);
	findings_print(&x->findings, stdout);
	print_pairs(&x->pairs, stdout);
	printf("\n%d rank%s examined: ", size, size == 1 ? "" : "s");
	if (broken)
		printf("%d thing%s broken, ", broken, broken == 1 ? " is" : "s are");
	else
		printf("nothing is broken, ");
	printf("%d warning%s\n", warnings, warnings == 1 ? "" : "s");
}

/* Roles: the configuration's, or those of placement: auto. */
static int assign(struct setup *s, struct world *w, const char *config, const char *const *overrides, int count,
                  struct favor_error *e)
{
	static const struct placement_options automatic = {.mode = PLACEMENT_AUTO};
	if (config)
		return setup_begin(s, w, config, overrides, count, NEED_TRAIN, e);
	s->world = w;
	return world_assign(w, &automatic, DEADLINE, e);
}

int cmd_doctor(int argc, char **argv, struct favor_error *e)
{
	static const char usage[] = "doctor [CONFIG.yaml [key.path=value ...]] [--dir DIR] [--seconds X] [--json]";
	const char *dir = NULL, *words[256];
	double seconds = 10;
	int json = 0, count, code;
	const struct option options[] = {
		{"--dir", OPTION_TEXT, &dir, 0, 0, "a folder that all ranks should see (default: the configuration's run.dir)"},
		{"--seconds", OPTION_REAL, &seconds, 0.01, 3600, "for measuring all pairs of ranks (default: 10)"},
		{"--json", OPTION_FLAG, &json, 0, 0, "one JSON object instead of text"}};
	struct world *w = world_open(&argc, &argv);
	code = options_parse(argc, argv, options, 3, words, 256, &count, usage, e);
	if (code)
		return setup_end(w, code < 0 ? 2 : 0, e);
	const char *config = count ? words[0] : NULL;
	struct setup s = {0};
	struct examination x = {0};
	if (assign(&s, w, config, words + 1, count - 1, e)) {
		setup_close(&s);
		return setup_end(w, 2, e);
	}
	exchange_facts(&x, w, config ? s.config.run.threads : 0);
	const int size = world_size(w), leads = world_rank(w) == 0;
	const int unreachable = measure_pairs(w, seconds, &x.pairs);
	if (leads) {
		judge_facts(&x.findings, x.facts, x.ranks, size);
		judge_pairs(&x.findings, &x.pairs, x.facts);
	}
	if (dir || config)
		check_folder(&x.findings, w, dir ? dir : s.config.run.dir);
	else if (leads && size > 1)
		find(&x.findings, DOCTOR_NOTE, "folder", "name one: --dir DIR, or a configuration",
		     "whether all ranks see the same files was not looked at");
	if (config)
		check_config(&x.findings, &s, config, x.facts);
	double broken = findings_count(&x.findings, DOCTOR_BROKEN) > 0;
	if (leads && json)
		print_json(&x, size);
	else if (leads)
		print_text(&x, size);
	fflush(stdout);
	world_max_all(w, &broken, 1);
	findings_free(&x.findings);
	pairs_free(&x.pairs);
	free(x.facts);
	free(x.ranks);
	setup_close(&s);
	if (unreachable)
		world_abort(w, 1); /* what was sent to those that don't answer is still under way */
	return setup_end(w, broken > 0, e);
}
