/* The beginning and the end of the job on this rank. */
#include "comm/internal.h"

#include "base/watch.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char START_DEADLINE[] = "FAVOR_START_DEADLINE";
static const double START_DEADLINE_SECONDS = 60;
static const char START_REMEDY[] =
	"see that rank's log and its host's load; if ranks may start or end that late, set FAVOR_START_DEADLINE to more "
	"seconds";
static const char RUN_REMEDY[] = "if that may take so long, raise run.deadline";

/* Until world_assign says another one. */
static double deadline_at_start(void)
{
	const char *text = getenv(START_DEADLINE);
	char *end = NULL;
	double seconds = text ? strtod(text, &end) : START_DEADLINE_SECONDS;
	if (text && (end == text || *end || !(seconds > 0 && seconds < 1e9)))
		favor_die("%s=%s is no number of seconds above 0", START_DEADLINE, text);
	return seconds;
}

/* Started by something that will answer MPI_Init? Open MPI's mpirun sets OMPI_COMM_WORLD_SIZE, what speaks PMIx (srun
 * --mpi=pmix, prterun) PMIX_RANK, older PMI PMI_RANK. Slurm's own variables are no sign: a batch script and
 * everything it starts have SLURM_PROCID=0 although they are no step. A step of several tasks without any of these is
 * srun without an MPI plugin: its tasks would be so many jobs of one rank, which overwrite each other's files. */
static int launched(void)
{
	if (getenv("OMPI_COMM_WORLD_SIZE") || getenv("PMIX_RANK") || getenv("PMI_RANK"))
		return 1;
	const char *tasks = getenv("SLURM_STEP_ID") ? getenv("SLURM_STEP_NUM_TASKS") : NULL;
	if (tasks && atoi(tasks) > 1)
		favor_die("srun has started %s tasks without MPI, they can't find each other; use srun --mpi=pmix (srun "
		          "--mpi=list shows what there is) or mpirun", tasks);
	return 0;
}

/* The launcher of another MPI starts ranks that each believe to be alone. */
static void check_size(const struct world *w)
{
	const char *said = getenv("OMPI_COMM_WORLD_SIZE");
	if (!said)
		said = getenv("PMI_SIZE");
	if (said && atoi(said) != w->size)
		favor_die("the launcher says %s ranks, MPI says %d; favor was built with another MPI than this launcher's",
		          said, w->size);
}

/* Ends all ranks, whatever state they are in. */
static void abort_job(int code)
{
	alarm(10); /* should this itself hang, SIGALRM ends this rank and mpirun the others */
	if (!favor_process()->stuck)
		fflush(NULL);
	world_watch_launcher();
	struct world *w = favor_process()->alive_arg;
	if (w && w->tells_failures)
		world_end_others(w, code);
	else
		MPI_Abort(MPI_COMM_WORLD, code);
}

static void duplicate(struct world *w, MPI_Comm *comm)
{
	watch_enter("MPI_Comm_dup", 1);
	world_check(w, MPI_Comm_dup(MPI_COMM_WORLD, comm), "MPI_Comm_dup");
	watch_leave();
	world_check(w, MPI_Comm_set_errhandler(*comm, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
}

static void open_mpi(struct world *w, int *argc, char ***argv)
{
	int provided = MPI_THREAD_SINGLE;
	favor_process()->leaves = world_watch_launcher;
	watch_enter("MPI_Init_thread", 0);
	world_check(w, MPI_Init_thread(argc, argv, MPI_THREAD_FUNNELED, &provided), "MPI_Init_thread");
	watch_leave();
	favor_process()->abort_job = abort_job;
	if (provided < MPI_THREAD_FUNNELED)
		favor_die("this MPI can't be used beside threads (MPI_THREAD_FUNNELED is refused)");
	w->tells_failures = world_tells_failures();
	duplicate(w, &w->mail);
	duplicate(w, &w->team);
	world_check(w, MPI_Comm_rank(w->mail, &w->rank), "MPI_Comm_rank");
	world_check(w, MPI_Comm_size(w->mail, &w->size), "MPI_Comm_size");
	favor_process()->rank = w->rank;
	favor_process()->ranks = w->size;
	check_size(w);
	world_hear_wishes(w);
}

struct identity {
	char host[HOST_MAX];
	int number;           /* that the launcher gave it */
	cpu_set_t node_cores; /* that this rank knows of */
};

static void cores_of(pid_t process, cpu_set_t *cores)
{
	CPU_ZERO(cores);
	if (sched_getaffinity(process, sizeof *cores, cores) == 0)
		return;
	/* more CPUs than cpu_set_t has bits */
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	for (long i = 0; i < (n < 1 ? 1 : n) && i < CPU_SETSIZE; i++)
		CPU_SET((size_t)i, cores);
}

/* Open MPI's mpirun binds each of one or two ranks to a single core unless told otherwise; that is a default for
 * programs without threads, not the user's wish, and world_assign undoes it (roles.c). The launcher itself, our
 * parent, may use what the job may use of this node. */
static int bound_by_default(void)
{
	return getenv("OMPI_COMM_WORLD_SIZE") && !getenv("OMPI_MCA_hwloc_base_binding_policy") &&
	       !getenv("OMPI_MCA_rmaps_base_mapping_policy");
}

static struct identity own_identity(const struct world *w)
{
	const char *number = getenv("PMIX_RANK");
	struct identity own = {.number = number ? atoi(number) : w->rank, .node_cores = w->own_cores};
	if (gethostname(own.host, sizeof own.host - 1))
		strcpy(own.host, "?");
	if (w->may_widen) {
		cpu_set_t launcher;
		cores_of(getppid(), &launcher);
		CPU_OR(&own.node_cores, &own.node_cores, &launcher);
	}
	return own;
}

/* Hosts of all ranks; the cores of this node's. */
static void meet(struct world *w)
{
	struct identity own = own_identity(w), *all = favor_calloc((size_t)w->size, sizeof *all);
	all[w->rank] = own;
	if (!w->alone) {
		MPI_Request request = MPI_REQUEST_NULL;
		world_iallgather(w, &own, all, (int)sizeof own, MPI_BYTE, w->team, &request);
		world_wait_request(w, &request, MPI_STATUS_IGNORE, "wait for all ranks to start", -1);
	}
	for (int r = 0; r < w->size; r++) {
		memcpy(w->peers[r].host, all[r].host, sizeof w->peers[r].host);
		w->peers[r].number = all[r].number;
		if (strcmp(all[r].host, own.host) == 0)
			CPU_OR(&w->node_cores, &w->node_cores, &all[r].node_cores);
	}
	free(all);
}

static void alive(void *w)
{
	world_tick(w);
}

void world_watch(struct world *w, const char *remedy)
{
	/* Others wait for what this rank is stuck in, from its last sign of life on. */
	double margin = 2 * world_beat_seconds(w) + 1, quiet = w->deadline;
	if (!w->alone)
		quiet = w->deadline - margin > w->deadline / 2 ? w->deadline - margin : w->deadline / 2;
	watch_deadline(w->deadline, quiet, remedy ? remedy : RUN_REMEDY);
}

/* What the launcher says of this process, for messages before MPI says it. */
static void name_process(void)
{
	const char *rank = getenv("OMPI_COMM_WORLD_RANK") ? getenv("OMPI_COMM_WORLD_RANK") : getenv("PMIX_RANK"),
			   *size = getenv("OMPI_COMM_WORLD_SIZE");
	if (!rank)
		rank = getenv("PMI_RANK");
	favor_process()->rank = rank ? atoi(rank) : 0;
	favor_process()->ranks = size ? atoi(size) : 1;
	favor_process()->role = "no role yet";
}

struct world *world_open(int *argc, char ***argv)
{
	struct world *w = favor_calloc(1, sizeof *w);
	w->size = 1;
	w->mail = w->team = w->learners = w->publish = MPI_COMM_NULL;
	w->alone = !launched();
	w->deadline = deadline_at_start();
	w->phase = "start";
	w->step = w->sample = -1;
	if (!w->alone)
		name_process();
	watch_start(w->deadline, START_REMEDY, w->alone ? NULL : world_missing);
	if (!w->alone)
		open_mpi(w, argc, argv);
	world_watch(w, START_REMEDY);
	w->peers = favor_calloc((size_t)w->size, sizeof *w->peers);
	for (int r = 0; r < w->size; r++) {
		w->peers[r].seen = clock_seconds();
		w->peers[r].beat_request = MPI_REQUEST_NULL;
		strcpy(w->peers[r].host, "unknown host");
	}
	cores_of(0, &w->own_cores);
	w->may_widen = bound_by_default();
	meet(w);
	favor_process()->alive = alive;
	favor_process()->alive_arg = w;
	return w;
}

/* The leader: all have said goodbye. Others: the leader has. */
static int all_bye(struct world *w, void *unused)
{
	(void)unused;
	if (w->rank != LEADER)
		return w->peers[LEADER].bye;
	for (int r = 1; r < w->size; r++)
		if (!world_has_left(w, r) && !w->peers[r].lost)
			return 0;
	return 1;
}

static int no_beats(struct world *w, void *unused)
{
	(void)unused;
	for (int r = 0; r < w->size; r++)
		if (!w->peers[r].lost && !world_test(w, &w->peers[r].beat_request, r))
			return 0;
	return 1;
}

static void say_bye(struct world *w, int peer)
{
	world_send(w, peer, TAG_BYE, NULL, NULL, 0);
}

/* Every rank tells the leader when all its letters have gone, and sends nothing after that; when all have, the leader
 * tells them. Messages between two ranks don't overtake each other, so that nothing is under way when MPI_Finalize
 * comes. Where ranks may be lost there is no MPI_Finalize that would wait for one that freezes now: each says goodbye
 * once more when it leaves, and the leader leaves last. */
static void part(struct world *w)
{
	static const char what[] = "wait for all ranks to finish";
	w->parting = 1;
	w->note = NULL; /* what it writes to may be gone */
	world_wait(w, world_all_sent, NULL, "wait for messages to be taken", -1);
	if (w->rank != LEADER) {
		w->bye_said = 1;
		say_bye(w, LEADER);
	}
	world_wait(w, all_bye, NULL, what, LEADER);
	w->bye_said = 1;
	for (int r = 1; r < w->size && w->rank == LEADER; r++)
		if (!w->peers[r].lost)
			say_bye(w, r);
	world_wait(w, world_all_sent, NULL, what, -1);
	world_wait(w, no_beats, NULL, what, -1);
	if (!w->survives)
		return;
	if (w->rank != LEADER)
		say_bye(w, LEADER);
	else
		world_wait(w, all_bye, NULL, what, LEADER);
	world_wait(w, world_all_sent, NULL, what, -1);
}

static void free_comm(struct world *w, MPI_Comm *comm)
{
	if (*comm != MPI_COMM_NULL)
		world_check(w, MPI_Comm_free(comm), "MPI_Comm_free");
}

void world_close(struct world *w)
{
	if (!w)
		return;
	if (!w->alone)
		part(w);
	if (!w->alone && !w->survives) {
		watch_enter("MPI_Comm_free", 1);
		free_comm(w, &w->publish);
		free_comm(w, &w->learners);
		free_comm(w, &w->team);
		free_comm(w, &w->mail);
		watch_leave();
		watch_enter("MPI_Finalize", 0);
		world_check(w, MPI_Finalize(), "MPI_Finalize");
		watch_leave();
	}
	favor_process()->abort_job = NULL;
	favor_process()->leaves = NULL;
	watch_stop();
	favor_process()->alive = NULL;
	favor_process()->alive_arg = NULL;
	world_free_inbox(w);
	world_free_ledger(w);
	world_free_star(w);
	world_free_mail(w);
	free(w->peers);
	free(w);
}

_Noreturn void world_abort(struct world *w, int code)
{
	if (w && !w->alone)
		abort_job(code);
	exit(code);
}

int world_rank(const struct world *w)
{
	return w->rank;
}

int world_size(const struct world *w)
{
	return w->size;
}

void world_mpi_version(char *text, size_t size)
{
	char version[MPI_MAX_LIBRARY_VERSION_STRING] = "unknown";
	int n = 0;
	MPI_Get_library_version(version, &n); /* may be called before MPI_Init and without it */
	snprintf(text, size, "%s", version);
}

const char *world_host_of(const struct world *w, int rank)
{
	return w->peers[rank].host;
}

const char *world_host(const struct world *w)
{
	return w->peers[w->rank].host;
}
