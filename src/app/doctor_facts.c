/* What a rank can tell of itself and of its machine without asking anybody. */
#include "app/doctor.h"

#include "backend/backend.h"
#include "base/hash.h"
#include "checkpoint/checkpoint.h"
#include "data/image.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* The file's first line without its end; "" if it can't be read. */
static void first_line(const char *path, char *text, size_t size)
{
	FILE *f = fopen(path, "re");
	text[0] = 0;
	if (f && fgets(text, (int)size, f))
		text[strcspn(text, "\n")] = 0;
	if (f)
		fclose(f);
}

/* What stands behind "KEY :" in a file like /proc/cpuinfo; "" if it isn't there. */
static void value_of(const char *path, const char *key, char *text, size_t size)
{
	FILE *f = fopen(path, "re");
	char *line = NULL;
	size_t capacity = 0, n = strlen(key);
	text[0] = 0;
	while (f && !text[0] && getline(&line, &capacity, f) > 0) {
		const char *at = line + n;
		if (strncmp(line, key, n) || !(at += strspn(at, " \t")) || *at != ':')
			continue;
		at += 1 + strspn(at + 1, " \t");
		snprintf(text, size, "%.*s", (int)strcspn(at, "\n"), at);
	}
	free(line);
	if (f)
		fclose(f);
}

static int has_word(const char *words, const char *word)
{
	size_t n = strlen(word);
	for (const char *at = words; (at = strstr(at, word)); at += n)
		if ((at == words || at[-1] == ' ') && (at[n] == 0 || at[n] == ' '))
			return 1;
	return 0;
}

static int64_t kib_of(const char *key)
{
	char text[64];
	value_of("/proc/meminfo", key, text, sizeof text);
	return *text ? strtoll(text, NULL, 10) * 1024 : -1;
}

/* ---- control groups: the smallest limit on the way from this process's group up to the root */

static double quota_of_file(const char *path)
{
	char text[64], *end;
	first_line(path, text, sizeof text);
	double quota = strtod(text, &end), period = strtod(end, NULL);
	return *text && isdigit((unsigned char)*text) && quota > 0 && period > 0 ? quota / period : 0;
}

static double old_quota(const char *folder)
{
	char path[4200], text[64];
	snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
	first_line(path, text, sizeof text);
	double quota = atof(text);
	snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
	first_line(path, text, sizeof text);
	double period = atof(text);
	return quota > 0 && period > 0 ? quota / period : 0;
}

static int64_t bytes_of_file(const char *path)
{
	char text[64];
	first_line(path, text, sizeof text);
	long long n = isdigit((unsigned char)*text) ? strtoll(text, NULL, 10) : -1;
	return n >= 0 && n < (1ll << 60) ? n : -1; /* version 1 writes "unlimited" as a number near 2^63 */
}

/* group: "/a/b"; looks at base/a/b, base/a and base. */
static void limits_up(struct doctor_facts *f, const char *base, char *group)
{
	for (;;) {
		char path[4096 + 64], folder[4096];
		snprintf(folder, sizeof folder, "%s%s", base, strcmp(group, "/") ? group : "");
		snprintf(path, sizeof path, "%s/cpu.max", folder);
		double quota = quota_of_file(path);
		if (!(quota > 0))
			quota = old_quota(folder);
		if (quota > 0 && (!(f->cpu_quota > 0) || quota < f->cpu_quota))
			f->cpu_quota = quota;
		snprintf(path, sizeof path, "%s/memory.max", folder);
		int64_t bytes = bytes_of_file(path);
		if (bytes < 0) {
			snprintf(path, sizeof path, "%s/memory.limit_in_bytes", folder);
			bytes = bytes_of_file(path);
		}
		if (bytes >= 0 && (f->memory_quota < 0 || bytes < f->memory_quota))
			f->memory_quota = bytes;
		char *slash = strrchr(group, '/');
		if (!slash || !*group)
			return;
		*slash = 0;
	}
}

static void control_groups(struct doctor_facts *f)
{
	FILE *file = fopen("/proc/self/cgroup", "re");
	char *line = NULL;
	size_t capacity = 0;
	while (file && getline(&line, &capacity, file) > 0) {
		/* "0::/a/b" (version 2) or "4:cpu,cpuacct:/a/b" */
		char *controllers = strchr(line, ':'), *group = controllers ? strchr(controllers + 1, ':') : NULL;
		if (!group)
			continue;
		*group++ = 0;
		group[strcspn(group, "\n")] = 0;
		if (!controllers[1]) {
			limits_up(f, "/sys/fs/cgroup", group);
		} else if (strstr(controllers, "cpu,") || strstr(controllers, "memory")) {
			char base[128];
			snprintf(base, sizeof base, "/sys/fs/cgroup/%.60s", controllers + 1);
			limits_up(f, base, group);
		}
	}
	free(line);
	if (file)
		fclose(file);
}

/* ---- */

static void environment(const char *name, char *text, size_t size)
{
	const char *value = getenv(name);
	snprintf(text, size, "%s", value ? value : "");
}

static int64_t limit_of(int resource)
{
	struct rlimit r;
	if (getrlimit((__rlimit_resource_t)resource, &r) || r.rlim_cur == RLIM_INFINITY)
		return -1;
	return (int64_t)r.rlim_cur;
}

/* The file that this process runs, hashed: two builds of one version differ. */
static void program_hash(char *text, size_t size)
{
	enum { PIECE = 1 << 20 };
	FILE *f = fopen("/proc/self/exe", "re");
	unsigned char *piece = favor_malloc(PIECE);
	uint64_t h = HASH_START;
	for (size_t n; f && (n = fread(piece, 1, PIECE, f)) > 0;)
		h = hash_block(h, piece, n);
	free(piece);
	if (f)
		fclose(f);
	snprintf(text, size, "%016llx", (unsigned long long)h);
}

static void program_facts(struct doctor_facts *f)
{
	snprintf(f->version, sizeof f->version, "%s", FAVOR_VERSION);
	snprintf(f->march, sizeof f->march, "%s", *FAVOR_MARCH ? FAVOR_MARCH : "default");
#ifdef __clang__
	snprintf(f->compiler, sizeof f->compiler, "clang %d.%d.%d", __clang_major__, __clang_minor__, __clang_patchlevel__);
#else
	snprintf(f->compiler, sizeof f->compiler, "gcc %d.%d.%d", __GNUC__, __GNUC_MINOR__, __GNUC_PATCHLEVEL__);
#endif
#ifdef __AVX2__
	f->built_avx2 = 1;
#endif
#ifdef __AVX512F__
	f->built_avx512 = 1;
#endif
	program_hash(f->program, sizeof f->program);
	world_mpi_version(f->mpi, sizeof f->mpi);
	f->mpi[strcspn(f->mpi, ",\n")] = 0; /* "Open MPI v4.1.4, package: ..." */
	checkpoint_library(f->hdf5, sizeof f->hdf5);
	image_libraries(f->images, sizeof f->images);
}

static void processor_facts(struct doctor_facts *f, const struct world *w)
{
	char flags[8192];
	int *cores = favor_malloc(DOCTOR_CORES_MAX * sizeof *cores);
	value_of("/proc/cpuinfo", "model name", f->cpu, sizeof f->cpu);
	value_of("/proc/cpuinfo", "flags", flags, sizeof flags);
	f->has_avx2 = has_word(flags, "avx2");
	f->has_avx512 = has_word(flags, "avx512f");
	f->has_avx512_bf16 = has_word(flags, "avx512_bf16");
	f->has_amx = has_word(flags, "amx_tile");
	f->cores_online = (int)sysconf(_SC_NPROCESSORS_ONLN);
	f->cores_bound = world_cores(w, cores, DOCTOR_CORES_MAX);
	for (int i = 0; i < f->cores_bound && i < DOCTOR_CORES_MAX; i++)
		if (cores[i] < DOCTOR_CORES_MAX)
			f->bound[cores[i] / 8] |= (unsigned char)(1 << cores[i] % 8);
	free(cores);
}

static void memory_facts(struct doctor_facts *f)
{
	struct statvfs shm;
	f->memory = kib_of("MemTotal");
	f->available = kib_of("MemAvailable");
	f->locked_limit = limit_of(RLIMIT_MEMLOCK);
	f->address_limit = limit_of(RLIMIT_AS);
	f->files_limit = limit_of(RLIMIT_NOFILE);
	f->has_infiniband = access("/dev/infiniband", F_OK) == 0;
	f->shm_size = f->shm_free = -1;
	if (statvfs("/dev/shm", &shm) == 0) {
		f->shm_size = (int64_t)shm.f_blocks * (int64_t)shm.f_frsize;
		f->shm_free = (int64_t)shm.f_bavail * (int64_t)shm.f_frsize;
	}
}

void doctor_facts(struct doctor_facts *f, const struct world *w)
{
	memset(f, 0, sizeof *f); /* padding too: it travels */
	snprintf(f->host, sizeof f->host, "%s", world_host(w));
	f->memory_quota = -1;
	program_facts(f);
	processor_facts(f, w);
	memory_facts(f);
	control_groups(f);
	environment("OMP_NUM_THREADS", f->omp_threads, sizeof f->omp_threads);
	environment("OMP_WAIT_POLICY", f->omp_wait, sizeof f->omp_wait);
	environment("OMP_PROC_BIND", f->omp_bind, sizeof f->omp_bind);
	first_line("/sys/devices/system/clocksource/clocksource0/current_clocksource", f->clock_source,
	           sizeof f->clock_source);
	doctor_gpu(f);
}
