/* Every pair of ranks talks. Rounds of a tournament: in each round every rank has one partner, and after size - 1 rounds
 * (size, if it is odd: one rests) each pair has met once. The time is shared by the rounds, so that 1,000 ranks take as
 * long as 10, with shorter measurements. */
#include "app/doctor.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const double PATIENCE = 5; /* seconds until a rank that does not answer counts as unreachable */
enum { MATRIX_MOST = 16, WORST_SHOWN = 8 };

/* The partner of `rank` in that round (the circle method: the last place stays, the others turn); -1: it rests. */
static int partner(int rank, int round, int size)
{
	int places = size + size % 2, turning = places - 1, other;
	if (rank == places - 1)
		other = round % turning;
	else if (rank == round % turning)
		other = places - 1;
	else
		other = ((2 * round - rank) % turning + turning) % turning;
	/* places of an odd number of ranks: the last is nobody */
	return other < size ? other : -1;
}

int measure_pairs(struct world *w, double seconds, struct doctor_pairs *p)
{
	const int size = world_size(w), rank = world_rank(w), rounds = size - 1 + size % 2;
	struct world_pair *mine = favor_calloc((size_t)size, sizeof *mine);
	*p = (struct doctor_pairs){.size = size};
	p->pairs = favor_calloc((size_t)size * (size_t)size, sizeof *p->pairs);
	for (int round = 0; round < rounds && size > 1; round++) {
		int other = partner(rank, round, size);
		double together = 0;
		world_max_all(w, &together, 1); /* so that nobody loses patience with one that is still in the last round */
		if (other >= 0 && world_ping(w, other, seconds / rounds, PATIENCE, &mine[other]))
			mine[other] = (struct world_pair){.latency = -1};
	}
	world_gather(w, mine, (size_t)size * sizeof *mine, p->pairs);
	free(mine);
	int broken = 0;
	for (int a = 0; a < size; a++)
		for (int b = a + 1; b < size; b++) {
			struct world_pair *upper = &p->pairs[(size_t)a * (size_t)size + (size_t)b];
			const struct world_pair *lower = &p->pairs[(size_t)b * (size_t)size + (size_t)a];
			if (lower->latency < 0)
				upper->latency = -1;
			broken |= upper->latency < 0;
		}
	return broken;
}

void pairs_free(struct doctor_pairs *p)
{
	free(p->pairs);
	*p = (struct doctor_pairs){0};
}

static const struct world_pair *pair_of(const struct doctor_pairs *p, int a, int b)
{
	int low = a < b ? a : b, high = a < b ? b : a;
	return &p->pairs[(size_t)low * (size_t)p->size + (size_t)high];
}

/* ---- judging: pairs inside of a host and pairs between hosts are compared among themselves */

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

struct kind {
	int inside, count; /* inside: of one host */
	double latency, bandwidth; /* medians */
};

static int is_of(const struct kind *k, const struct doctor_facts *facts, int a, int b)
{
	return (strcmp(facts[a].host, facts[b].host) == 0) == k->inside;
}

static void medians(struct kind *k, const struct doctor_pairs *p, const struct doctor_facts *facts)
{
	size_t most = (size_t)p->size * (size_t)p->size / 2 + 1;
	double *latency = favor_malloc(most * sizeof *latency), *bandwidth = favor_malloc(most * sizeof *bandwidth);
	k->count = 0;
	for (int a = 0; a < p->size; a++)
		for (int b = a + 1; b < p->size; b++) {
			const struct world_pair *x = pair_of(p, a, b);
			if (x->latency <= 0 || !is_of(k, facts, a, b))
				continue;
			latency[k->count] = x->latency;
			bandwidth[k->count++] = x->bandwidth;
		}
	qsort(latency, (size_t)k->count, sizeof *latency, ascending);
	qsort(bandwidth, (size_t)k->count, sizeof *bandwidth, ascending);
	k->latency = k->count ? latency[k->count / 2] : 0;
	k->bandwidth = k->count ? bandwidth[k->count / 2] : 0;
	free(latency);
	free(bandwidth);
}

static void judge_kind(struct findings *f, const struct doctor_pairs *p, const struct doctor_facts *facts, int inside)
{
	static const double FACTOR = 4; /* slower than the median by that much is worth a look */
	static const double SLOW = 100e6 / 8;
	struct kind k = {.inside = inside};
	int worst_a = 0, worst_b = 0, slow = 0;
	double worst = 0;
	medians(&k, p, facts);
	if (!k.count)
		return;
	for (int a = 0; a < p->size; a++)
		for (int b = a + 1; b < p->size; b++) {
			const struct world_pair *x = pair_of(p, a, b);
			if (x->latency <= 0 || !is_of(&k, facts, a, b))
				continue;
			double times = k.bandwidth / x->bandwidth;
			slow += times > FACTOR;
			if (times > worst) {
				worst = times;
				worst_a = a;
				worst_b = b;
			}
		}
	const char *where = inside ? "inside a host" : "between hosts";
	find(f, DOCTOR_GOOD, "pairs", NULL, "%d pair%s %s: latency %.1f us, bandwidth %.*f MB/s (medians)", k.count,
	     k.count == 1 ? "" : "s", where, k.latency * 1e6, k.bandwidth < 100e6 ? 1 : 0, k.bandwidth / 1e6);
	const struct world_pair *x = pair_of(p, worst_a, worst_b);
	if (slow)
		find(f, DOCTOR_WARN, "pairs",
		     inside ? "see what else runs on those cores, and that both ranks use shared memory (OMPI_MCA_btl)"
		            : "see that link: cable, speed (ethtool), what else uses it; or leave that host out",
		     "%d pair%s %s %s far slower than the others; worst: ranks %d on %s and %d on %s with %.1f MB/s, %.1f us", slow,
		     slow == 1 ? "" : "s", where, slow == 1 ? "is" : "are", worst_a, facts[worst_a].host, worst_b,
		     facts[worst_b].host, x->bandwidth / 1e6, x->latency * 1e6);
	if (!inside && k.bandwidth < SLOW)
		find(f, DOCTOR_WARN, "pairs",
		     "weights travel every step: choose a faster network (OMPI_MCA_btl_tcp_if_include=INTERFACE)",
		     "hosts are connected with %.1f MB/s only", k.bandwidth / 1e6);
}

static void judge_clocks(struct findings *f, const struct doctor_pairs *p, const struct doctor_facts *facts)
{
	static const double MOST = 0.5; /* seconds */
	int worst = 0;
	for (int r = 1; r < p->size; r++)
		if (pair_of(p, 0, r)->latency > 0 && fabs(pair_of(p, 0, r)->clock) > fabs(pair_of(p, 0, worst ? worst : r)->clock) - 1e-12)
			worst = r;
	if (!worst)
		return;
	double ahead = pair_of(p, 0, worst)->clock;
	int bad = fabs(ahead) > MOST;
	find(f, bad ? DOCTOR_WARN : DOCTOR_GOOD, "clocks",
	     bad ? "set the clocks by NTP (chronyc tracking); times in logs and of files will not fit" : NULL,
	     "largest difference to rank 0's clock: %.6f s (rank %d on %s)", ahead, worst, facts[worst].host);
}

void judge_pairs(struct findings *f, const struct doctor_pairs *p, const struct doctor_facts *facts)
{
	int dead = 0;
	if (p->size < 2)
		return;
	for (int a = 0; a < p->size; a++)
		for (int b = a + 1; b < p->size; b++)
			if (pair_of(p, a, b)->latency < 0 && dead++ < WORST_SHOWN)
				find(f, DOCTOR_BROKEN, "pairs", "see firewall, routes and OMPI_MCA_btl_tcp_if_include between the two",
				     "ranks %d on %s and %d on %s do not reach one another", a, facts[a].host, b, facts[b].host);
	if (dead > WORST_SHOWN)
		find(f, DOCTOR_BROKEN, "pairs", NULL, "and %d more pairs", dead - WORST_SHOWN);
	judge_kind(f, p, facts, 1);
	judge_kind(f, p, facts, 0);
	judge_clocks(f, p, facts);
}

/* ---- showing */

/* Eight columns wide, the first one blank. */
static void print_cell(FILE *out, double x)
{
	fprintf(out, x < 1e5 ? " %7.1f" : " %7.0f", x);
}

static void print_matrix(const struct doctor_pairs *p, FILE *out)
{
	fprintf(out, "\npairs: latency in us above the diagonal, bandwidth in MB/s below (-: no answer)\n%6s", "");
	for (int b = 0; b < p->size; b++)
		fprintf(out, "%8d", b);
	for (int a = 0; a < p->size; a++) {
		fprintf(out, "\n%6d", a);
		for (int b = 0; b < p->size; b++) {
			const struct world_pair *x = pair_of(p, a, b);
			if (a == b)
				fprintf(out, "%8s", "");
			else if (x->latency < 0)
				fprintf(out, "%8s", "-");
			else
				print_cell(out, b > a ? x->latency * 1e6 : x->bandwidth / 1e6);
		}
	}
	fputc('\n', out);
}

static void print_worst(const struct doctor_pairs *p, FILE *out)
{
	int shown_a[WORST_SHOWN], shown_b[WORST_SHOWN], n = 0;
	for (int a = 0; a < p->size; a++)
		for (int b = a + 1; b < p->size; b++) {
			const struct world_pair *x = pair_of(p, a, b);
			int at = n;
			while (at > 0 && x->bandwidth < pair_of(p, shown_a[at - 1], shown_b[at - 1])->bandwidth)
				at--;
			if (at == WORST_SHOWN)
				continue;
			n += n < WORST_SHOWN;
			for (int i = n - 1; i > at; i--) {
				shown_a[i] = shown_a[i - 1];
				shown_b[i] = shown_b[i - 1];
			}
			shown_a[at] = a;
			shown_b[at] = b;
		}
	fprintf(out, "\nthe slowest pairs:\n");
	for (int i = 0; i < n; i++) {
		const struct world_pair *x = pair_of(p, shown_a[i], shown_b[i]);
		fprintf(out, "  ranks %d and %d: %.1f MB/s, %.1f us\n", shown_a[i], shown_b[i], x->bandwidth / 1e6, x->latency * 1e6);
	}
}

void print_pairs(const struct doctor_pairs *p, FILE *out)
{
	if (p->size < 2)
		return;
	if (p->size <= MATRIX_MOST)
		print_matrix(p, out);
	else
		print_worst(p, out);
}
