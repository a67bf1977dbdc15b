/* What rank 0 makes of the facts of all ranks: what must be equal everywhere, then host by host. Pure functions of the
 * facts. */
#include "app/doctor.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static const double GIB = 1073741824.0, MIB = 1048576.0;

/* ---- hosts */

/* The lowest rank of the same host. */
static int host_leader(const struct doctor_facts *facts, int rank)
{
	int r = 0;
	while (strcmp(facts[r].host, facts[rank].host))
		r++;
	return r;
}

static int host_ranks(const struct doctor_facts *facts, int size, int leader)
{
	int n = 0;
	for (int r = 0; r < size; r++)
		n += host_leader(facts, r) == leader;
	return n;
}

static int host_count(const struct doctor_facts *facts, int size)
{
	int n = 0;
	for (int r = 0; r < size; r++)
		n += host_leader(facts, r) == r;
	return n;
}

/* ---- texts that grow within a fixed room */

struct line {
	char text[1024];
	size_t n;
};

static void put(struct line *l, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void put(struct line *l, const char *format, ...)
{
	va_list args;
	va_start(args, format);
	int n = vsnprintf(l->text + l->n, sizeof l->text - l->n, format, args);
	va_end(args);
	l->n += n > 0 ? (size_t)n : 0;
	if (l->n > sizeof l->text - 1)
		l->n = sizeof l->text - 1;
}


/* "0-3, 8" */
static void put_cores(struct line *l, const unsigned char *cores)
{
	const char *comma = "";
	for (int i = 0; i < DOCTOR_CORES_MAX; i++) {
		int from = i;
		while (i < DOCTOR_CORES_MAX && (cores[i / 8] >> i % 8 & 1))
			i++;
		if (i == from)
			continue;
		if (i - 1 > from)
			put(l, "%s%d-%d", comma, from, i - 1);
		else
			put(l, "%s%d", comma, from);
		comma = ", ";
	}
}

/* ---- equal everywhere */

/* One line about a text that should be the same on all ranks; the first rank that differs is named. */
static void judge_equal(struct findings *f, const struct doctor_facts *facts, int size, size_t offset,
                        enum doctor_level level, const char *check, const char *what, const char *change)
{
	const char *first = (const char *)&facts[0] + offset;
	int different = 0, example = -1;
	for (int r = 1; r < size; r++)
		if (strcmp((const char *)&facts[r] + offset, first)) {
			different++;
			example = example < 0 ? r : example;
		}
	if (different)
		find(f, level, check, change, "%s differs: rank 0 on %s has \"%s\", rank %d on %s has \"%s\" (%d of %d ranks differ)",
		     what, facts[0].host, first, example, facts[example].host, (const char *)&facts[example] + offset, different,
		     size);
}

static void judge_programs(struct findings *f, const struct doctor_facts *facts, int size)
{
	static const char rebuild[] = "start the same build on all hosts, best from one shared folder";
	const struct doctor_facts *a = &facts[0];
	int before = f->count;
	find(f, DOCTOR_GOOD, "build", NULL, "favor %s, %s, -march=%s, program %s", a->version, a->compiler, a->march,
	     a->program);
	find(f, DOCTOR_GOOD, "libraries", NULL, "%s; %s; %s", a->mpi, a->hdf5, a->images);
	judge_equal(f, facts, size, offsetof(struct doctor_facts, version), DOCTOR_BROKEN, "build", "the version of favor", rebuild);
	if (f->count == before + 2)
		judge_equal(f, facts, size, offsetof(struct doctor_facts, program), DOCTOR_WARN, "build",
		            "the program file (same version, another build)", rebuild);
	judge_equal(f, facts, size, offsetof(struct doctor_facts, mpi), DOCTOR_BROKEN, "libraries", "the MPI library",
	            "install the same MPI on all hosts, or set the same LD_LIBRARY_PATH");
	judge_equal(f, facts, size, offsetof(struct doctor_facts, hdf5), DOCTOR_WARN, "libraries", "the HDF5 library",
	            "install the same HDF5 on all hosts: the rank that writes checkpoints and those that read them should agree");
	judge_equal(f, facts, size, offsetof(struct doctor_facts, cpu), DOCTOR_WARN, "processor", "the processor",
	            "results may differ in the last bits between kinds of processors; use hosts of one kind where bits matter");
}

/* ---- host by host */

static void judge_processor(struct findings *f, const struct doctor_facts *h)
{
	find(f, DOCTOR_GOOD, "processor", NULL, "%s: %s, %d cores%s%s%s%s", h->host, *h->cpu ? h->cpu : "unknown",
	     h->cores_online, h->has_avx2 ? ", AVX2" : "", h->has_avx512 ? ", AVX-512" : "",
	     h->has_avx512_bf16 ? ", AVX512-BF16" : "", h->has_amx ? ", AMX" : "");
	if ((h->built_avx2 && !h->has_avx2) || (h->built_avx512 && !h->has_avx512))
		find(f, DOCTOR_BROKEN, "processor", "build with -Dmarch=x86-64-v2, or on this host",
		     "%s: favor was built for a processor with more instructions (-march=%s)", h->host, h->march);
	else if ((h->has_avx2 && !h->built_avx2) || (h->has_avx512 && !h->built_avx512))
		find(f, DOCTOR_NOTE, "processor", "build with -Dmarch=native if all hosts are of this kind",
		     "%s: the processor has %s, favor's kernels were built without (-march=%s)", h->host,
		     h->has_avx512 && !h->built_avx512 ? "AVX-512" : "AVX2", h->march);
}

static void judge_memory(struct findings *f, const struct doctor_facts *h, int ranks)
{
	int64_t usable = h->available;
	if (h->memory_quota >= 0 && h->memory_quota < usable)
		usable = h->memory_quota;
	struct line l = {.n = 0};
	put(&l, "%s: %.1f of %.1f GiB are free", h->host, (double)h->available / GIB, (double)h->memory / GIB);
	if (h->memory_quota >= 0 && h->memory_quota < h->memory)
		put(&l, ", the control group allows %.1f GiB", (double)h->memory_quota / GIB);
	put(&l, ", for %d rank%s", ranks, ranks == 1 ? "" : "s");
	int scarce = h->available >= 0 && (double)usable / ranks < 0.25 * GIB;
	find(f, scarce ? DOCTOR_WARN : DOCTOR_GOOD, "memory",
	     scarce ? "end what else runs there, ask for more memory (sbatch --mem), or start fewer ranks on it" : NULL, "%s",
	     l.text);
	if (h->address_limit >= 0)
		find(f, DOCTOR_WARN, "memory", "ulimit -v unlimited before the start",
		     "%s: the address space is limited to %.1f GiB (ulimit -v); mapped models count", h->host,
		     (double)h->address_limit / GIB);
}

static void judge_shm(struct findings *f, const struct doctor_facts *h, int ranks)
{
	static const double EACH = 16; /* MiB; what Open MPI's shared memory takes for a rank is a few */
	if (h->shm_size < 0) {
		find(f, ranks > 1 ? DOCTOR_WARN : DOCTOR_NOTE, "/dev/shm", "mount a tmpfs there; ranks of one host talk through it",
		     "%s: there is no /dev/shm", h->host);
		return;
	}
	int scarce = ranks > 1 && (double)h->shm_free / MIB < EACH * ranks;
	find(f, scarce ? DOCTOR_WARN : DOCTOR_GOOD, "/dev/shm",
	     scarce ? "remove what lies there, or give the container more (docker run --shm-size=1g)" : NULL,
	     "%s: %.0f of %.0f MiB are free for %d rank%s", h->host, (double)h->shm_free / MIB, (double)h->shm_size / MIB,
	     ranks, ranks == 1 ? "" : "s");
}

static void judge_limits(struct findings *f, const struct doctor_facts *h, int size, int hosts)
{
	char locked[32] = "unlimited", files[32] = "unlimited";
	if (h->locked_limit >= 0)
		snprintf(locked, sizeof locked, "%.0f MiB", (double)h->locked_limit / MIB);
	if (h->files_limit >= 0)
		snprintf(files, sizeof files, "%lld", (long long)h->files_limit);
	const int few = h->files_limit >= 0 && h->files_limit < 64 + 2 * (int64_t)size;
	const int small = h->locked_limit >= 0 && (h->has_infiniband || h->gpus);
	find(f, few ? DOCTOR_BROKEN : DOCTOR_GOOD, "limits",
	     few ? "ulimit -n 4096 before the start (a connection to another rank is a file)" : NULL,
	     "%s: open files %s, locked memory %s", h->host, files, locked);
	if (small)
		find(f, DOCTOR_WARN, "limits", "ulimit -l unlimited on all hosts; with Slurm in slurmd's unit: LimitMEMLOCK=infinity",
		     "%s: locked memory is limited to %s, but %s wants to lock its buffers", h->host, locked,
		     h->has_infiniband ? "InfiniBand" : "the GPU");
	else if (h->locked_limit >= 0 && hosts > 1)
		find(f, DOCTOR_NOTE, "limits", NULL, "%s: locked memory of %s is enough for TCP; InfiniBand would want it unlimited",
		     h->host, locked);
}

static void judge_threads(struct findings *f, const struct doctor_facts *h, int ranks)
{
	static const char *const slow[] = {"hpet", "acpi_pm", "jiffies", "refined-jiffies"};
	int is_slow = 0;
	if (!strcasecmp(h->omp_wait, "active"))
		find(f, DOCTOR_WARN, "openmp", "unset OMP_WAIT_POLICY",
		     "%s: OMP_WAIT_POLICY=%s: threads that wait take the cores from ranks that work", h->host, h->omp_wait);
	if (ranks > 1 && *h->omp_bind && strcasecmp(h->omp_bind, "false"))
		find(f, DOCTOR_WARN, "openmp", "unset OMP_PROC_BIND (bind ranks instead: mpirun --bind-to, srun --cpu-bind)",
		     "%s: OMP_PROC_BIND=%s puts the first threads of all %d ranks on the same cores", h->host, h->omp_bind, ranks);
	for (size_t i = 0; i < sizeof slow / sizeof *slow; i++)
		is_slow |= !strcmp(h->clock_source, slow[i]);
	find(f, is_slow ? DOCTOR_WARN : DOCTOR_GOOD, "clock",
	     is_slow ? "boot with clocksource=tsc, or use the hypervisor's clock" : NULL, "%s: clock source %s%s", h->host,
	     *h->clock_source ? h->clock_source : "unknown", is_slow ? ", which is slow to read" : "");
}

static void judge_gpu(struct findings *f, const struct doctor_facts *h)
{
	enum doctor_level level = h->gpu_trouble ? DOCTOR_WARN : h->gpus && !h->gpu_backend_opens ? DOCTOR_NOTE : DOCTOR_GOOD;
	find(f, level, "gpu",
	     h->gpu_trouble                          ? "see nvidia-smi; driver and device files must fit"
	     : level == DOCTOR_NOTE ? "runs are on the CPU: docs/GPU.md says how to build and install the CUDA backend"
	                                             : NULL,
	     "%s: %s; CUDA backend: %s", h->host, h->gpu, h->gpu_backend);
}

/* ---- who computes where */

static void judge_roles(struct findings *f, const struct doctor_facts *facts, const struct doctor_rank *ranks, int size)
{
	static const struct {
		enum role role;
		const char *name;
	} ROLES[] = {{ROLE_LEARNER, "learner"}, {ROLE_REWARD, "reward"}, {ROLE_ROLLOUT, "rollout"}};
	for (size_t k = 0; k < sizeof ROLES / sizeof *ROLES; k++) {
		struct line l = {.n = 0};
		int count = 0;
		for (int r = 0; r < size; r++) {
			if (!(ranks[r].role & ROLES[k].role))
				continue;
			if (count++ < 16)
				put(&l, "%s%d on %s (%d thread%s)", count > 1 ? ", " : "", r, facts[r].host, ranks[r].threads,
				    ranks[r].threads == 1 ? "" : "s");
		}
		if (count > 16)
			put(&l, " and %d more", count - 16);
		if (count)
			find(f, DOCTOR_GOOD, "roles", NULL, "%s: %d rank%s: %s", ROLES[k].name, count, count == 1 ? "" : "s", l.text);
	}
}

static void judge_host_binding(struct findings *f, const struct doctor_facts *facts, const struct doctor_rank *ranks,
                               int size, int leader)
{
	const struct doctor_facts *h = &facts[leader];
	unsigned char all[DOCTOR_CORES_MAX / 8] = {0};
	int cores = 0, here = 0, worst = 0, worst_role = 0;
	struct line l = {.n = 0};
	for (int r = 0; r < size; r++) {
		if (host_leader(facts, r) != leader)
			continue;
		here++;
		for (int i = 0; i < DOCTOR_CORES_MAX / 8; i++)
			all[i] |= facts[r].bound[i];
	}
	for (int i = 0; i < DOCTOR_CORES_MAX; i++)
		cores += all[i / 8] >> i % 8 & 1;
	/* roles compute in turns: threads of one role are what runs at the same time */
	for (int role = 1; role <= ROLE_LEARNER; role *= 2) {
		unsigned char used[DOCTOR_CORES_MAX / 8] = {0};
		int threads = 0, free_cores = 0;
		for (int r = 0; r < size; r++)
			if (host_leader(facts, r) == leader && (ranks[r].role & role)) {
				threads += ranks[r].threads;
				for (int i = 0; i < DOCTOR_CORES_MAX / 8; i++)
					used[i] |= facts[r].bound[i];
			}
		for (int i = 0; i < DOCTOR_CORES_MAX; i++)
			free_cores += used[i / 8] >> i % 8 & 1;
		if (threads - free_cores > worst) {
			worst = threads - free_cores;
			worst_role = role;
		}
	}
	put(&l, "%s: %d rank%s on core%s ", h->host, here, here == 1 ? "" : "s", cores == 1 ? "" : "s");
	put_cores(&l, all);
	if (worst) {
		static const char rebind[] = "give each rank cores of its own: mpirun --map-by slot:PE=N, srun --cpus-per-task=N; or "
		                             "bind nothing (mpirun --bind-to none) and favor shares the cores";
		int a = -1, b = -1;
		for (int r = 0; r < size && b < 0; r++)
			for (int q = r + 1; q < size && b < 0; q++)
				if (host_leader(facts, r) == leader && host_leader(facts, q) == leader &&
				    (ranks[r].role & ranks[q].role & worst_role) && !memcmp(facts[r].bound, facts[q].bound, sizeof all)) {
					a = r;
					b = q;
				}
		if (b >= 0)
			put(&l, "; ranks %d and %d compute at the same time on the same cores", a, b);
		else
			put(&l, "; ranks that compute at the same time overlap");
		put(&l, ": %d thread%s more than cores", worst, worst == 1 ? "" : "s");
		find(f, DOCTOR_WARN, "binding",
		     here > h->cores_online ? "start fewer ranks on this host: more than its cores help nobody" : rebind, "%s", l.text);
	} else {
		find(f, DOCTOR_GOOD, "binding", NULL, "%s, none overlap where they compute at the same time", l.text);
	}
	if (cores < h->cores_online)
		find(f, DOCTOR_NOTE, "binding",
		     "if they are yours: more ranks, mpirun --bind-to none, or srun --cpus-per-task with more cores",
		     "%s: %d of %d cores are not used by any rank", h->host, h->cores_online - cores, h->cores_online);
	if (h->cpu_quota > 0 && h->cpu_quota < cores)
		find(f, DOCTOR_WARN, "binding",
		     "set run.threads so that all ranks' threads fit, or ask for more (sbatch --cpus-per-task, docker --cpus)",
		     "%s: the control group allows %.1f cores' time, but ranks run on %d cores: they will be stopped and go on, again "
		     "and again", h->host, h->cpu_quota, cores);
}

void judge_facts(struct findings *f, const struct doctor_facts *facts, const struct doctor_rank *ranks, int size)
{
	const int hosts = host_count(facts, size);
	judge_programs(f, facts, size);
	for (int r = 0; r < size; r++) {
		if (host_leader(facts, r) != r)
			continue;
		const struct doctor_facts *h = &facts[r];
		const int here = host_ranks(facts, size, r);
		judge_processor(f, h);
		judge_memory(f, h, here);
		judge_shm(f, h, here);
		judge_limits(f, h, size, hosts);
		judge_threads(f, h, here);
		judge_gpu(f, h);
		judge_host_binding(f, facts, ranks, size, r);
	}
	judge_roles(f, facts, ranks, size);
}
