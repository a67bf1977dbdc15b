/* The files of a run: is a folder the same for all ranks, does a configuration's data and model hold, is there room. */
#include "app/doctor.h"
#include "app/plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

static const double GIB = 1073741824.0, MIB = 1048576.0;

/* dir, or the nearest folder above it that is there; new string. */
static char *nearest_folder(const char *dir)
{
	char *path = favor_strdup(*dir ? dir : ".");
	struct stat st;
	while (stat(path, &st) || !S_ISDIR(st.st_mode)) {
		char *slash = strrchr(path, '/');
		if (!slash || slash == path)
			strcpy(path, slash ? "/" : ".");
		else
			*slash = 0;
		if (!strcmp(path, "/") || !strcmp(path, "."))
			break;
	}
	return path;
}

struct mark {
	char path[1024], text[40];
	int error; /* of writing it */
};

/* Rank 0's file, which the others look for. */
static void leave_mark(struct mark *m, const char *dir)
{
	struct timespec now;
	char *folder = nearest_folder(dir);
	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(m->text, sizeof m->text, "favor doctor %lld.%09ld\n", (long long)now.tv_sec, now.tv_nsec);
	snprintf(m->path, sizeof m->path, "%s/.favor-doctor-%ld", folder, (long)getpid());
	free(folder);
	FILE *f = fopen(m->path, "wxe");
	if (!f || fputs(m->text, f) < 0)
		m->error = errno;
	if (f && fclose(f) && !m->error)
		m->error = errno;
}

struct sight {
	int error; /* 0: read as it was written */
	double seconds;
	char cwd[256];
};

/* A shared file system may show a new file late. */
static void look_for_mark(struct world *w, const struct mark *m, struct sight *s)
{
	static const double PATIENCE = 5;
	const double begin = clock_seconds();
	if (!getcwd(s->cwd, sizeof s->cwd))
		strcpy(s->cwd, "?");
	for (;;) {
		char text[sizeof m->text] = "";
		FILE *f = fopen(m->path, "re");
		s->error = !f ? errno : fgets(text, sizeof text, f) && !strcmp(text, m->text) ? 0 : EIO;
		if (f)
			fclose(f);
		s->seconds = clock_seconds() - begin;
		if (!s->error || s->seconds > PATIENCE)
			return;
		world_tick(w);
		usleep(50000);
	}
}

void check_folder(struct findings *f, struct world *w, const char *dir)
{
	const int size = world_size(w);
	struct mark *mine = favor_calloc(1, sizeof *mine), *marks = favor_calloc((size_t)size, sizeof *marks);
	struct sight own = {0}, *sights = favor_calloc((size_t)size, sizeof *sights);
	if (world_rank(w) == 0)
		leave_mark(mine, dir);
	world_gather(w, mine, sizeof *mine, marks);
	if (!marks[0].error)
		look_for_mark(w, &marks[0], &own);
	world_gather(w, &own, sizeof own, sights);
	if (world_rank(w) == 0) {
		int blind = 0, example = -1;
		double slowest = 0;
		for (int r = 0; r < size; r++) {
			blind += sights[r].error != 0;
			example = sights[r].error && example < 0 ? r : example;
			slowest = sights[r].seconds > slowest ? sights[r].seconds : slowest;
		}
		if (marks[0].error)
			find(f, DOCTOR_BROKEN, "folder", "choose a folder that rank 0 may write to (run.dir, --dir)",
			     "%s: rank 0 on %s can't write there: %s", dir, world_host(w), strerror(marks[0].error));
		else if (blind)
			find(f, DOCTOR_BROKEN, "folder",
			     "use a file system that all hosts share, by an absolute path, and start in the same folder everywhere",
			     "%s: rank %d on %s (in %s) does not see what rank 0 on %s (in %s) writes there: %s (%d of %d ranks)", dir,
			     example, world_host_of(w, example), sights[example].cwd, world_host(w), sights[0].cwd,
			     strerror(sights[example].error), blind, size);
		else
			find(f, slowest > 1 ? DOCTOR_WARN : DOCTOR_GOOD, "folder",
			     slowest > 1 ? "a file server that shows files late slows starts and resumes down" : NULL,
			     "%s: rank 0 can write%s (after %.2f s)", dir, size > 1 ? ", all ranks see it" : "", slowest);
		if (!marks[0].error)
			unlink(marks[0].path);
	}
	free(mine);
	free(marks);
	free(sights);
}

/* ---- a configuration */

static void judge_disk(struct findings *f, const struct setup *s)
{
	const struct config *c = &s->config;
	const struct model *m = s->assets.model;
	struct statvfs disk;
	char *folder = nearest_folder(c->run.dir), *latest = checkpoint_latest(c->run.dir);
	/* weights and two moments; one file more than are kept, while the newest is written */
	const double each = m ? (double)m->params.total * sizeof(float) * 3 : 0;
	const int every = c->checkpoint.every ? c->checkpoint.every : c->learner.steps;
	const int files = c->checkpoint.keep ? c->checkpoint.keep + 1 : c->learner.steps / (every ? every : 1) + 1;
	if (statvfs(folder, &disk)) {
		find(f, DOCTOR_WARN, "disk", NULL, "%s: its free space can't be read: %s", folder, strerror(errno));
	} else {
		const double free_bytes = (double)disk.f_bavail * (double)disk.f_frsize;
		enum doctor_level level = free_bytes < each ? DOCTOR_BROKEN : free_bytes < each * files ? DOCTOR_WARN : DOCTOR_GOOD;
		find(f, level, "disk",
		     level == DOCTOR_GOOD ? NULL : "make room, keep fewer (checkpoint.keep, checkpoint.every), or choose another run.dir",
		     "%s: %.1f GiB free; %d checkpoint%s of %.1f MiB %s", c->run.dir, free_bytes / GIB, files, files == 1 ? "" : "s",
		     each / MIB, level == DOCTOR_GOOD ? "fit" : "may not fit");
	}
	if (latest)
		find(f, DOCTOR_NOTE, "config", "go on with --resume auto, or give another run.dir", "%s already holds a run (%s)",
		     c->run.dir, latest);
	free(latest);
	free(folder);
}

static void advise(const struct memory_plan *p, char *text, size_t size)
{
	plan_advice(p, text, size);
	const size_t n = strlen(text);
	snprintf(text + n, size - n, ", or put fewer ranks on a host");
}

/* Host by host: what its ranks want together against what is free there. */
static void judge_plans(struct findings *f, const struct world *w, const struct memory_plan *plans,
                        const struct doctor_facts *facts)
{
	char change[PLAN_ADVICE_MAX + 48];
	const int size = world_size(w);
	for (int first = 0; first < size; first++) {
		double want = 0;
		int ranks = 0, seen = 0;
		struct memory_plan all = {0}; /* what would help any of the host's ranks */
		for (int r = 0; r < size; r++) {
			if (strcmp(facts[r].host, facts[first].host))
				continue;
			seen |= r < first;
			ranks++;
			want += (double)(plans[r].on_device ? plans[r].host : plans[r].total);
			if (plans[r].on_device)
				continue;
			all.activations |= plans[r].activations;
			all.rollout |= plans[r].rollout;
			all.features |= plans[r].features;
			all.shard = plans[r].shard ? plans[r].shard : all.shard;
		}
		if (seen)
			continue;
		const struct doctor_facts *h = &facts[first];
		double most = (double)h->memory, now = (double)h->available;
		if (h->memory_quota >= 0 && (double)h->memory_quota < most)
			most = (double)h->memory_quota;
		now = now < most ? now : most;
		enum doctor_level level = want > most ? DOCTOR_BROKEN : want > now ? DOCTOR_WARN : DOCTOR_GOOD;
		advise(&all, change, sizeof change);
		find(f, level, "plan", level == DOCTOR_GOOD ? NULL : change,
		     "%s: %d rank%s plan %.1f MiB together; %.1f MiB are free, %.1f MiB at most", h->host, ranks,
		     ranks == 1 ? "" : "s", want / MIB, now / MIB, most / MIB);
	}
	for (int r = 0; r < size; r++)
		if (plans[r].total > plans[r].limit) {
			advise(&plans[r], change, sizeof change);
			find(f, DOCTOR_BROKEN, "plan", change, "rank %d (%s) plans %.1f MiB, above its limit of %.1f MiB", r,
			     world_role_of(w, r), (double)plans[r].total / MIB, (double)plans[r].limit / MIB);
			break;
		}
}

void check_config(struct findings *f, struct setup *s, const char *config_path, const struct doctor_facts *facts)
{
	struct world *w = s->world;
	struct favor_error e = {""};
	const int needs = NEED_TRAIN | NEED_NO_WEIGHTS;
	struct memory_plan plan = {0}, *plans = favor_calloc((size_t)world_size(w), sizeof *plans);
	int bad = setup_load(s, config_path, needs, &e);
	if (!bad)
		bad = world_agree(w, !plan_memory(s, &plan, &e), &e);
	world_gather(w, &plan, sizeof plan, plans);
	if (world_rank(w) == 0 && bad)
		find(f, DOCTOR_BROKEN, "config", NULL, "%s: %s", config_path, e.message);
	if (world_rank(w) == 0 && !bad) {
		find(f, DOCTOR_GOOD, "config", NULL,
		     "%s: %d training records, %d evaluation records, %d classes; longest prompt %d tokens; model %.1f M parameters",
		     config_path, s->train.count, s->eval.count, s->classes.count, s->longest_prompt,
		     s->assets.model ? (double)s->assets.model->params.total / 1e6 : 0.0);
		judge_plans(f, w, plans, facts);
		judge_disk(f, s);
	}
	free(plans);
}
