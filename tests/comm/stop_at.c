/* A small job that does everything that ranks do together once, and a victim that freezes (SIGSTOP) in it:
 * stop_at PLACE VICTIM [deadline]. PLACE is
 *   NAME:N   the victim freezes when it enters that MPI call for the N-th time (the calls are caught by MPI's own
 *            profiling interface), so that the others are left in just that wait;
 *   NAME     of a point below (AT), which the victim does not leave;
 *   none     nobody freezes.
 * FILES: the victim waits for a file that never opens, as on a server that is gone: "open" (a pipe without a writer),
 * "lock" (a file that another process has locked), "child" (a child process that never ends). The files are made in
 * $STOP_AT_FOLDER (/tmp) and stay there if the victim is killed. test_deadline.sh and tests/deadlines.sh look at how
 * the job ends. */
#include "comm/world.h"

#include <fcntl.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *stop_place;
static int stop_count, is_victim;

static void freeze(void)
{
	raise(SIGSTOP);
}

static void enter(const char *call)
{
	size_t n = strlen(call);
	if (is_victim && strncmp(stop_place, call, n) == 0 && stop_place[n] == ':' &&
	    ++stop_count == atoi(stop_place + n + 1))
		freeze();
}

/* w: NULL where it is not open. A heartbeat goes out first, so that others know where the victim was. */
static void at(struct world *w, const char *point)
{
	if (!is_victim || strcmp(stop_place, point) != 0)
		return;
	for (int i = 0; w && i < 6; i++) {
		usleep(200000);
		world_tick(w);
	}
	freeze();
}

int MPI_Init_thread(int *argc, char ***argv, int required, int *provided)
{
	enter("MPI_Init_thread");
	return PMPI_Init_thread(argc, argv, required, provided);
}

int MPI_Comm_dup(MPI_Comm comm, MPI_Comm *copy)
{
	enter("MPI_Comm_dup");
	return PMPI_Comm_dup(comm, copy);
}

int MPI_Comm_split(MPI_Comm comm, int color, int key, MPI_Comm *part)
{
	enter("MPI_Comm_split");
	return PMPI_Comm_split(comm, color, key, part);
}

int MPI_Comm_free(MPI_Comm *comm)
{
	enter("MPI_Comm_free");
	return PMPI_Comm_free(comm);
}

int MPI_Finalize(void)
{
	enter("MPI_Finalize");
	return PMPI_Finalize();
}

int MPI_Iallgather(const void *mine, int n, MPI_Datatype type, void *all, int each, MPI_Datatype all_type,
                   MPI_Comm comm, MPI_Request *request)
{
	enter("MPI_Iallgather");
	return PMPI_Iallgather(mine, n, type, all, each, all_type, comm, request);
}

int MPI_Ibcast(void *data, int n, MPI_Datatype type, int root, MPI_Comm comm, MPI_Request *request)
{
	enter("MPI_Ibcast");
	return PMPI_Ibcast(data, n, type, root, comm, request);
}

/* What a rank waits for although nobody else has to do with it. */
static void wait_for_files(void)
{
	const char *folder = getenv("STOP_AT_FOLDER");
	char path[512], pipe_path[520];
	if (!is_victim)
		return;
	snprintf(path, sizeof path, "%s/favor-stop-at-XXXXXX", folder ? folder : "/tmp");
	int fd = mkstemp(path);
	if (fd < 0)
		return;
	snprintf(pipe_path, sizeof pipe_path, "%s.pipe", path);
	if (strcmp(stop_place, "open") == 0 && mkfifo(pipe_path, 0600) == 0)
		open(pipe_path, O_RDONLY);
	if (strcmp(stop_place, "lock") == 0) {
		flock(open(path, O_RDWR), LOCK_EX); /* another open file: flock's locks belong to it */
		flock(fd, LOCK_EX);
	}
	if (strcmp(stop_place, "child") == 0) {
		pid_t child = fork();
		if (child == 0) {
			sleep(20);
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
	unlink(path);
	unlink(pipe_path);
}

static struct group *a_group(uint64_t index)
{
	struct group *g = group_new(1, 4);
	g->index = index;
	g->start[1] = 4;
	g->text[0] = favor_strdup("response");
	return g;
}

/* Groups 0 .. 7 through the ranks. */
static void step(struct world *w)
{
	enum { GROUPS = 8 };
	uint64_t index;
	world_phase(w, "step", 3, -1);
	if (world_is_leader(w))
		world_offer(w, 3, 0, GROUPS, 1);
	while (world_plays(w, ROLE_ROLLOUT) && world_pull(w, 3, &index) == 0) {
		world_phase(w, "decode", 3, (int64_t)index);
		at(w, "rollout");
		world_push(w, STAGE_SAMPLED, a_group(index));
		struct group *own = world_plays(w, ROLE_REWARD) ? world_take(w, STAGE_SAMPLED) : NULL;
		if (own)
			world_push(w, STAGE_SCORED, own);
	}
	for (int64_t i = world_plays(w, ROLE_ROLLOUT) ? 0 : world_expected(w, STAGE_SAMPLED, 0, GROUPS); i > 0; i--) {
		struct group *g = world_take(w, STAGE_SAMPLED);
		world_phase(w, "reward", 3, (int64_t)g->index);
		at(w, "reward");
		world_push(w, STAGE_SCORED, g);
	}
	for (int64_t i = world_expected(w, STAGE_SCORED, 0, GROUPS); i > 0; i--)
		group_destroy(world_take(w, STAGE_SCORED));
}

static void learn(struct world *w)
{
	enum { N = 3 << 20 };
	float *x = favor_calloc(N, sizeof *x);
	uint64_t version = 1;
	int stop = 0;
	if (world_plays(w, ROLE_LEARNER)) {
		double few[2] = {1, 2};
		world_phase(w, "backward", 3, -1);
		at(w, "gradients");
		world_sum_gradients(w, x, N);
		world_sum_learners(w, few, 2);
		world_max_learners(w, few, 2);
		at(w, "moments");
		if (world_role_count(w, ROLE_LEARNER) > 1)
			world_bring(w, x, N, 1, "wait for the leader to take moments", "wait for a learner's moments");
		at(w, "samples");
		if (world_role_count(w, ROLE_LEARNER) > 1)
			world_bring(w, x, N, 1, "wait for the leader to take samples", "wait for a learner's samples");
	}
	at(w, "publish");
	world_publish(w, x, N, &version, &stop);
	free(x);
}

int main(int argc, char **argv)
{
	const char *rank = getenv("OMPI_COMM_WORLD_RANK") ? getenv("OMPI_COMM_WORLD_RANK") : "0";
	if (argc < 3)
		return 2;
	stop_place = argv[1];
	is_victim = atoi(rank) == atoi(argv[2]);
	double deadline = argc > 3 ? atof(argv[3]) : 2;
	at(NULL, "start");
	struct world *w = world_open(&argc, &argv);
	struct placement_options p = {.mode = PLACEMENT_AUTO};
	struct favor_error e = {0};
	at(w, "opened");
	if (world_assign(w, &p, deadline, &e))
		favor_die("%s", e.message);
	void *data = world_rank(w) == 0 ? favor_strdup("the configuration") : NULL;
	size_t n = data ? strlen(data) + 1 : 0;
	world_broadcast(w, &data, &n);
	free(data);
	wait_for_files();
	at(w, "agree");
	world_agree(w, 1, &e);
	step(w);
	learn(w);
	double few = 1;
	at(w, "sums");
	world_sum_all(w, &few, 1);
	world_max_all(w, &few, 1);
	at(w, "close");
	world_close(w);
	return 0;
}
