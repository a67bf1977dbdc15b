/* favor doctor, in parts: what each rank finds out about its machine (facts), what all ranks find out together (pairs,
 * paths), and what rank 0 makes of it (findings). cmd_doctor.c is the order in which it happens. */
#ifndef FAVOR_APP_DOCTOR_H
#define FAVOR_APP_DOCTOR_H

#include "comm/world.h"

#include <stdint.h>
#include <stdio.h>

enum { DOCTOR_CORES_MAX = 1024, DOCTOR_TEXT = 160 };

/* ---- findings: one line each of what is good, and of what isn't with what to change. doctor_findings.c */

enum doctor_level { DOCTOR_GOOD, DOCTOR_NOTE, DOCTOR_WARN, DOCTOR_BROKEN };

struct finding {
	enum doctor_level level;
	const char *check; /* static: "memory" */
	char *text;        /* owned */
	char *change;      /* owned; NULL: nothing to change */
};
struct findings {
	int count;
	struct finding *list; /* owned */
};
/* change may be NULL; it is copied. */
void find(struct findings *f, enum doctor_level level, const char *check, const char *change, const char *format, ...)
	__attribute__((format(printf, 5, 6)));
int findings_count(const struct findings *f, enum doctor_level level);
void findings_print(const struct findings *f, FILE *out);
void findings_free(struct findings *f);

/* ---- facts: what a rank knows about itself and its machine; plain bytes, so that they travel. doctor_facts.c */

struct doctor_facts {
	char host[64];
	/* the program and its libraries */
	char version[32], program[17], compiler[64], march[32]; /* program: hash of the file, hex */
	char mpi[DOCTOR_TEXT], hdf5[32], images[DOCTOR_TEXT];
	/* processor */
	char cpu[96];
	int has_avx2, has_avx512, has_avx512_bf16, has_amx; /* the machine */
	int built_avx2, built_avx512;                       /* the program may use */
	int cores_online, cores_bound;
	unsigned char bound[DOCTOR_CORES_MAX / 8]; /* bit i: this rank may run on core i */
	double cpu_quota;                          /* of the control group, in cores; 0 = none */
	/* memory, bytes; -1: unlimited or unknown */
	int64_t memory, available, memory_quota, locked_limit, address_limit, shm_size, shm_free;
	int64_t files_limit;
	int has_infiniband;
	/* OpenMP and clock */
	char omp_threads[32], omp_wait[32], omp_bind[32], clock_source[32];
	/* GPU */
	char gpu[DOCTOR_TEXT], gpu_backend[2 * DOCTOR_TEXT]; /* what is there, in words */
	int gpus, gpu_trouble;                               /* trouble: a driver is there that can't be used */
	int gpu_backend_opens;
};
void doctor_facts(struct doctor_facts *f, const struct world *w);
/* doctor_gpu.c: the GPU's part of the facts. */
void doctor_gpu(struct doctor_facts *f);

/* ---- what rank 0 makes of the facts of all. doctor_judge.c */
struct doctor_rank {
	int threads; /* that this rank would compute with */
	int role;    /* bits of enum role */
	char role_name[16];
};
/* facts, ranks: [size]. */
void judge_facts(struct findings *f, const struct doctor_facts *facts, const struct doctor_rank *ranks, int size);

/* ---- every pair of ranks. doctor_pairs.c */
struct doctor_pairs {
	int size;
	struct world_pair *pairs; /* [size][size]; upper half: row lower rank. latency 0: not measured, -1: no answer */
};
/* Collective. All pairs, in rounds of disjoint ones, within about `seconds` however many there are. Rank 0 has them all
 * afterwards. Returns whether some pair got no answer: then the world can only be left by world_abort. */
int measure_pairs(struct world *w, double seconds, struct doctor_pairs *p);
void judge_pairs(struct findings *f, const struct doctor_pairs *p, const struct doctor_facts *facts);
void print_pairs(const struct doctor_pairs *p, FILE *out);
void pairs_free(struct doctor_pairs *p);

/* ---- files. doctor_paths.c */
/* Collective: rank 0 writes a file into dir (or the nearest folder above it that is there), all read it. */
void check_folder(struct findings *f, struct world *w, const char *dir);

struct setup;
/* Collective: paths, data, model, run.dir, disk and memory of a configuration (roles are assigned). */
void check_config(struct findings *f, struct setup *s, const char *config_path, const struct doctor_facts *facts);

#endif
