/* What favor doctor finds in facts and measurements that are made up: each thing that may be wrong is found, and in a
 * sound job nothing is. */
#include "app/doctor.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { RANKS = 4 };

/* Two hosts of 8 cores with two ranks each; every rank has 4 cores of its own. */
struct job {
	struct doctor_facts facts[RANKS];
	struct doctor_rank ranks[RANKS];
};

static struct job *sound_job(void)
{
	struct job *j = favor_calloc(1, sizeof *j);
	for (int r = 0; r < RANKS; r++) {
		struct doctor_facts *f = &j->facts[r];
		snprintf(f->host, sizeof f->host, "node%d", r / 2);
		strcpy(f->version, "1.0");
		strcpy(f->program, "00aa");
		strcpy(f->mpi, "Some MPI 4");
		strcpy(f->hdf5, "HDF5 1.10.8");
		strcpy(f->cpu, "A processor");
		strcpy(f->clock_source, "tsc");
		strcpy(f->gpu, "no CUDA driver");
		strcpy(f->gpu_backend, "there is none");
		f->has_avx2 = f->built_avx2 = 1;
		f->cores_online = 8;
		f->cores_bound = 4;
		f->bound[0] = r % 2 ? 0xf0 : 0x0f;
		f->memory = 64ll << 30;
		f->available = 60ll << 30;
		f->memory_quota = f->locked_limit = f->address_limit = -1;
		f->files_limit = 1024;
		f->shm_size = f->shm_free = 32ll << 30;
		j->ranks[r] = (struct doctor_rank){4, ROLE_ROLLOUT | ROLE_REWARD | ROLE_LEARNER, "all roles"};
	}
	return j;
}

/* The finding of that level and check that has `part` in its text; NULL if there is none. */
static const struct finding *found(const struct findings *f, enum doctor_level level, const char *check, const char *part)
{
	for (int i = 0; i < f->count; i++)
		if (f->list[i].level == level && !strcmp(f->list[i].check, check) && strstr(f->list[i].text, part))
			return &f->list[i];
	return NULL;
}

/* One thing is found wrong, of that kind, with a remedy. */
static void expect(struct job *j, enum doctor_level level, const char *check, const char *part)
{
	struct findings f = {0};
	judge_facts(&f, j->facts, j->ranks, RANKS);
	const struct finding *one = found(&f, level, check, part);
	if (!one)
		findings_print(&f, stdout);
	assert_non_null(one);
	assert_non_null(one->change);
	assert_int_equal(findings_count(&f, DOCTOR_BROKEN) + findings_count(&f, DOCTOR_WARN), 1);
	findings_free(&f);
	free(j);
}

static void sound(void **state)
{
	(void)state;
	struct job *j = sound_job();
	struct findings f = {0};
	judge_facts(&f, j->facts, j->ranks, RANKS);
	assert_int_equal(findings_count(&f, DOCTOR_BROKEN) + findings_count(&f, DOCTOR_WARN), 0);
	assert_non_null(found(&f, DOCTOR_GOOD, "binding", "node0: 2 ranks on cores 0-7"));
	assert_non_null(found(&f, DOCTOR_GOOD, "binding", "node1: 2 ranks on cores 0-7"));
	assert_non_null(found(&f, DOCTOR_GOOD, "roles", "learner: 4 ranks: 0 on node0 (4 threads), 1 on node0"));
	findings_free(&f);
	free(j);
}

static void programs_differ(void **state)
{
	(void)state;
	struct job *j = sound_job();
	strcpy(j->facts[3].version, "0.9");
	strcpy(j->facts[3].program, "00bb");
	expect(j, DOCTOR_BROKEN, "build", "rank 3 on node1 has \"0.9\" (1 of 4 ranks differ)");
	j = sound_job();
	strcpy(j->facts[2].program, "00bb");
	expect(j, DOCTOR_WARN, "build", "rank 2 on node1 has \"00bb\"");
	j = sound_job();
	strcpy(j->facts[1].mpi, "Some MPI 5");
	expect(j, DOCTOR_BROKEN, "libraries", "the MPI library differs: rank 0 on node0 has \"Some MPI 4\", rank 1");
	j = sound_job();
	strcpy(j->facts[1].hdf5, "HDF5 1.14");
	expect(j, DOCTOR_WARN, "libraries", "the HDF5 library differs");
	j = sound_job();
	strcpy(j->facts[2].cpu, "Another");
	expect(j, DOCTOR_WARN, "processor", "the processor differs");
	j = sound_job();
	j->facts[2].has_avx2 = 0;
	expect(j, DOCTOR_BROKEN, "processor", "node1: favor was built for a processor with more instructions");
}

static void machines(void **state)
{
	(void)state;
	struct job *j = sound_job();
	j->facts[2].memory_quota = 100 << 20;
	expect(j, DOCTOR_WARN, "memory", "node1: 60.0 of 64.0 GiB are free, the control group allows 0.1 GiB");
	j = sound_job();
	j->facts[0].address_limit = 1ll << 30;
	expect(j, DOCTOR_WARN, "memory", "node0: the address space is limited to 1.0 GiB");
	j = sound_job();
	j->facts[2].shm_size = j->facts[2].shm_free = 16 << 20;
	expect(j, DOCTOR_WARN, "/dev/shm", "node1: 16 of 16 MiB are free");
	j = sound_job();
	j->facts[0].files_limit = 64;
	expect(j, DOCTOR_BROKEN, "limits", "node0: open files 64");
	j = sound_job();
	j->facts[0].locked_limit = 8 << 20;
	j->facts[0].has_infiniband = 1;
	expect(j, DOCTOR_WARN, "limits", "InfiniBand");
	j = sound_job();
	strcpy(j->facts[0].omp_wait, "ACTIVE");
	expect(j, DOCTOR_WARN, "openmp", "OMP_WAIT_POLICY");
	j = sound_job();
	strcpy(j->facts[0].omp_bind, "spread");
	expect(j, DOCTOR_WARN, "openmp", "OMP_PROC_BIND");
	j = sound_job();
	strcpy(j->facts[2].clock_source, "hpet");
	expect(j, DOCTOR_WARN, "clock", "node1");
	j = sound_job();
	j->facts[2].gpu_trouble = 1;
	expect(j, DOCTOR_WARN, "gpu", "node1");
	for (int opens = 0; opens < 2; opens++) { /* a GPU, and nothing that uses it: a note */
		struct findings f = {0};
		j = sound_job();
		j->facts[2].gpus = 1;
		j->facts[2].gpu_backend_opens = opens;
		judge_facts(&f, j->facts, j->ranks, RANKS);
		assert_non_null(found(&f, opens ? DOCTOR_GOOD : DOCTOR_NOTE, "gpu", "node1"));
		findings_free(&f);
		free(j);
	}
}

static void binding(void **state)
{
	(void)state;
	struct job *j = sound_job();
	j->facts[1].bound[0] = 0x0f; /* as rank 0 */
	expect(j, DOCTOR_WARN, "binding", "node0: 2 ranks on cores 0-3; ranks 0 and 1 compute at the same time on the same cores");
	/* the same cores in turns are fine */
	j = sound_job();
	j->facts[1].bound[0] = 0x0f;
	j->ranks[0].role = ROLE_LEARNER;
	j->ranks[1].role = ROLE_ROLLOUT;
	struct findings f = {0};
	judge_facts(&f, j->facts, j->ranks, RANKS);
	assert_null(found(&f, DOCTOR_WARN, "binding", ""));
	assert_non_null(found(&f, DOCTOR_NOTE, "binding", "node0: 4 of 8 cores are not used by any rank"));
	findings_free(&f);
	free(j);
	j = sound_job();
	j->facts[2].cpu_quota = 1.5;
	expect(j, DOCTOR_WARN, "binding", "node1: the control group allows 1.5 cores' time");
}

/* ---- pairs */

static struct doctor_pairs even_pairs(void)
{
	struct doctor_pairs p = {.size = RANKS, .pairs = favor_calloc(RANKS * RANKS, sizeof *p.pairs)};
	for (int a = 0; a < RANKS; a++)
		for (int b = a + 1; b < RANKS; b++)
			p.pairs[a * RANKS + b] =
				a / 2 == b / 2 ? (struct world_pair){1e-6, 5e9, 1e-6} : (struct world_pair){20e-6, 1e9, 1e-5};
	return p;
}

static void expect_pairs(struct doctor_pairs *p, enum doctor_level level, const char *check, const char *part)
{
	struct job *j = sound_job();
	struct findings f = {0};
	judge_pairs(&f, p, j->facts);
	int wrong = findings_count(&f, DOCTOR_BROKEN) + findings_count(&f, DOCTOR_WARN);
	if (!found(&f, level, check, part))
		findings_print(&f, stdout);
	assert_non_null(found(&f, level, check, part));
	assert_int_equal(wrong, level == DOCTOR_GOOD ? 0 : 1);
	findings_free(&f);
	free(j);
	pairs_free(p);
}

static void pairs(void **state)
{
	(void)state;
	struct doctor_pairs p = even_pairs();
	expect_pairs(&p, DOCTOR_GOOD, "pairs", "4 pairs between hosts: latency 20.0 us, bandwidth 1000 MB/s");
	p = even_pairs();
	expect_pairs(&p, DOCTOR_GOOD, "pairs", "2 pairs inside a host: latency 1.0 us, bandwidth 5000 MB/s");
	p = even_pairs();
	p.pairs[1 * RANKS + 3].bandwidth = 2e7;
	expect_pairs(&p, DOCTOR_WARN, "pairs", "1 pair between hosts is far slower than the others; worst: ranks 1 on node0 and 3 on node1 with 20.0 MB/s");
	p = even_pairs();
	p.pairs[0 * RANKS + 2].latency = -1;
	expect_pairs(&p, DOCTOR_BROKEN, "pairs", "ranks 0 on node0 and 2 on node1 do not reach one another");
	p = even_pairs();
	for (int a = 0; a < 2; a++)
		for (int b = 2; b < RANKS; b++)
			p.pairs[a * RANKS + b].bandwidth = 1e6;
	expect_pairs(&p, DOCTOR_WARN, "pairs", "hosts are connected with 1.0 MB/s only");
	p = even_pairs();
	p.pairs[3].clock = -2.5;
	expect_pairs(&p, DOCTOR_WARN, "clocks", "largest difference to rank 0's clock: -2.500000 s (rank 3 on node1)");
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(sound), cmocka_unit_test(programs_differ),
	                                   cmocka_unit_test(machines), cmocka_unit_test(binding), cmocka_unit_test(pairs)};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
