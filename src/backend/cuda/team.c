/* Teams of GPUs by NCCL (backend/team.h).
 *
 * A communicator is nonblocking: its calls return at once, with ncclInProgress while they still talk to others, and the
 * next call may come when ncclCommGetAsyncError no longer says so (settled). What they queue runs on a stream of the team's
 * own, behind an event that marks what the backend's stream has been given so far, and beside what follows there:
 *
 *   backend's stream   layer 9 | event | layer 8 | event | layer 7 ...
 *   team's stream                \ sum of 9's         \ sum of 8's   ...  event that `finished` asks for
 *
 * A communicator that has failed or hangs is left as it is: its process ends the job, and with the process the driver takes
 * everything back. ncclCommAbort might wait for the very GPU that hangs, and the others would never hear why. */
#include "backend/cuda/nccl.h"
#include "backend/cuda/state.h"
#include "backend/team.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct cuda_team {
	struct backend_team team; /* first */
	struct nccl nccl;
	ncclComm_t comm;
	cudaStream_t stream;
	cudaEvent_t ready, done; /* the backend's stream has come so far | the team's has */
	int marked;              /* done is recorded behind all that was started */
};

_Static_assert(TEAM_ID_BYTES >= sizeof(ncclUniqueId), "an id has room");

static struct cuda_team *team_of(struct backend_team *t)
{
	return (struct cuda_team *)t;
}

static int look(struct backend *b, char *text, size_t size)
{
	struct nccl n;
	(void)b;
	return cuda_nccl_open(&n, text, size);
}

/* 0, or -1 with the call and what NCCL says of it. */
static int check(struct cuda_team *t, ncclResult_t code, const char *call)
{
	if (code == ncclSuccess || code == ncclInProgress)
		return 0;
	const char *more = t->nccl.last_error(t->comm);
	snprintf(t->team.error, sizeof t->team.error, "%s on GPU %d (%s): %s (%d)%s%.300s", call,
	         cuda_of(t->team.backend)->device, cuda_of(t->team.backend)->name, t->nccl.error_string(code), (int)code,
	         more && *more ? ": " : "", more && *more ? more : "");
	return -1;
}

static int new_id(struct backend *b, unsigned char id[TEAM_ID_BYTES], char *why, size_t size)
{
	struct nccl n;
	ncclUniqueId unique;
	(void)b;
	if (cuda_nccl_open(&n, why, size))
		return -1;
	const ncclResult_t code = n.get_unique_id(&unique);
	if (code) {
		snprintf(why, size, "ncclGetUniqueId: %s (%d)", n.error_string(code), (int)code);
		return -1;
	}
	memset(id, 0, TEAM_ID_BYTES);
	memcpy(id, &unique, sizeof unique);
	return 0;
}

static void destroy(struct cuda_team *t)
{
	const struct cuda_state *s = cuda_of(t->team.backend);
	CUDA(s, cudaEventDestroy(t->ready));
	CUDA(s, cudaEventDestroy(t->done));
	CUDA(s, cudaStreamDestroy(t->stream));
	free(t);
}

static struct backend_team *join(struct backend *b, const unsigned char id[TEAM_ID_BYTES], int rank, int members,
                                 char *why, size_t size)
{
	struct cuda_state *s = cuda_of(b);
	struct cuda_team *t = calloc(1, sizeof *t);
	if (!t)
		s->host.die("out of memory: no room for a team of GPUs");
	t->team.backend = b;
	if (cuda_nccl_open(&t->nccl, why, size)) {
		free(t);
		return NULL;
	}
	CUDA(s, cudaStreamCreateWithFlags(&t->stream, cudaStreamNonBlocking));
	CUDA(s, cudaEventCreateWithFlags(&t->ready, cudaEventDisableTiming));
	CUDA(s, cudaEventCreateWithFlags(&t->done, cudaEventDisableTiming));
	ncclUniqueId unique;
	memcpy(&unique, id, sizeof unique);
	ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
	config.blocking = 0;
	if (check(t, t->nccl.init_rank(&t->comm, members, unique, rank, &config), "ncclCommInitRankConfig")) {
		snprintf(why, size, "%s", t->team.error);
		destroy(t);
		return NULL;
	}
	return &t->team;
}

static int settled(struct backend_team *team)
{
	struct cuda_team *t = team_of(team);
	ncclResult_t state = ncclSuccess;
	if (check(t, t->nccl.async_error(t->comm, &state), "ncclCommGetAsyncError") || check(t, state, "NCCL"))
		return -1;
	return state != ncclInProgress;
}

/* What the team's stream is given next comes after what the backend's has now. */
static void follow_backend(struct cuda_team *t)
{
	struct cuda_state *s = cuda_of(t->team.backend);
	CUDA(s, cudaEventRecord(t->ready, s->stream));
	CUDA(s, cudaStreamWaitEvent(t->stream, t->ready, 0));
	t->marked = 0;
}

static int start_sum(struct backend_team *team, float *x, int64_t n)
{
	struct cuda_team *t = team_of(team);
	follow_backend(t);
	return check(t, t->nccl.all_reduce(x, x, (size_t)n, ncclFloat32, ncclSum, t->comm, t->stream), "ncclAllReduce");
}

static int start_sum_to(struct backend_team *team, float *x, int64_t n, int root)
{
	struct cuda_team *t = team_of(team);
	follow_backend(t);
	return check(t, t->nccl.reduce(x, x, (size_t)n, ncclFloat32, ncclSum, root, t->comm, t->stream), "ncclReduce");
}

static int start_spread(struct backend_team *team, float *x, int64_t n, int root)
{
	struct cuda_team *t = team_of(team);
	follow_backend(t);
	cuda_written(cuda_of(team->backend), x);
	return check(t, t->nccl.broadcast(x, x, (size_t)n, ncclFloat32, root, t->comm, t->stream), "ncclBroadcast");
}

static int finished(struct backend_team *team)
{
	struct cuda_team *t = team_of(team);
	struct cuda_state *s = cuda_of(team->backend);
	const int now = settled(team); /* a failure of others shows here, and not on the stream */
	if (now <= 0)
		return now;
	if (!t->marked)
		CUDA(s, cudaEventRecord(t->done, t->stream));
	t->marked = 1;
	const cudaError_t code = cudaEventQuery(t->done);
	if (code == cudaErrorNotReady) {
		cudaGetLastError(); /* an answer, which the runtime keeps as an error: the next kernel's launch would find it */
		return 0;
	}
	cuda_check(s, code, "cudaEventQuery(t->done)", __FILE__, __LINE__);
	return 1;
}

static int start_leave(struct backend_team *team)
{
	struct cuda_team *t = team_of(team);
	return check(t, t->nccl.finalize(t->comm), "ncclCommFinalize");
}

static void leave(struct backend_team *team)
{
	struct cuda_team *t = team_of(team);
	if (check(t, t->nccl.destroy(t->comm), "ncclCommDestroy"))
		cuda_of(team->backend)->host.die("%s", team->error);
	destroy(t);
}

static const struct backend_team_ops OPS = {
    .look = look,
    .new_id = new_id,
    .join = join,
    .settled = settled,
    .start_sum = start_sum,
    .start_sum_to = start_sum_to,
    .start_spread = start_spread,
    .finished = finished,
    .start_leave = start_leave,
    .leave = leave,
};

const struct backend_team_ops *cuda_team_ops(void)
{
	return &OPS;
}
