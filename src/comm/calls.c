/* MPI calls with their return code checked: the one place that says which call failed. Who starts something here
 * completes it with world_wait_request, or keeps it in a letter or a peer and tests it (every world_progress, before
 * the next heartbeat).
 *
 * A call that failed since another rank is no more ends the job with that rank's name (survive.c); where the job can do
 * without that rank the call counts as done. */
#include "comm/internal.h"

void world_check(struct world *w, int rc, const char *call)
{
	if (rc == MPI_SUCCESS)
		return;
	if (world_is_failure(rc))
		world_end_of_loss(w);
	char text[MPI_MAX_ERROR_STRING] = "unknown error";
	int n = 0;
	if (MPI_Error_string(rc, text, &n) != MPI_SUCCESS)
		favor_die("%s failed with code %d", call, rc);
	favor_die("%s failed: %s", call, text);
}

/* Whether the call failed since that rank is no more, and the job can do without it. */
static int is_lost_with(struct world *w, int rc, int peer)
{
	return rc != MPI_SUCCESS && world_is_failure(rc) && world_can_lose(w, peer);
}

void world_isend(struct world *w, const void *data, int n, MPI_Datatype type, int peer, enum tag tag, MPI_Comm comm,
                 MPI_Request *request)
{
	int rc = MPI_Isend(data, n, type, peer, tag, comm, request);
	if (is_lost_with(w, rc, peer))
		*request = MPI_REQUEST_NULL;
	else
		world_check(w, rc, "MPI_Isend");
}

void world_irecv(struct world *w, void *data, int n, MPI_Datatype type, int peer, enum tag tag, MPI_Comm comm,
                 MPI_Request *request)
{
	world_check(w, MPI_Irecv(data, n, type, peer, tag, comm, request), "MPI_Irecv");
}

int world_imrecv(struct world *w, void *data, int bytes, int peer, MPI_Message *message, MPI_Request *request)
{
	int rc = MPI_Imrecv(data, bytes, MPI_BYTE, message, request);
	if (is_lost_with(w, rc, peer))
		return -1;
	world_check(w, rc, "MPI_Imrecv");
	return 0;
}

void world_ibcast(struct world *w, void *data, int bytes, int root, MPI_Comm comm, MPI_Request *request)
{
	world_check(w, MPI_Ibcast(data, bytes, MPI_BYTE, root, comm, request), "MPI_Ibcast");
}

void world_iallgather(struct world *w, const void *mine, void *all, int n, MPI_Datatype type, MPI_Comm comm,
                      MPI_Request *request)
{
	world_check(w, MPI_Iallgather(mine, n, type, all, n, type, comm, request), "MPI_Iallgather");
}

int world_test(struct world *w, MPI_Request *request, int peer)
{
	int flag = 0, rc = MPI_Test(request, &flag, MPI_STATUS_IGNORE);
	if (is_lost_with(w, rc, peer)) {
		*request = MPI_REQUEST_NULL;
		return -1;
	}
	world_check(w, rc, "MPI_Test");
	return flag;
}

int world_improbe(struct world *w, MPI_Message *message, MPI_Status *status)
{
	int flag = 0, rc = MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, w->mail, &flag, message, status);
	if (rc != MPI_SUCCESS && world_is_failure(rc)) {
		world_look_for_failures(w); /* acknowledged there: then the mail of the others comes in again */
		return 0;
	}
	world_check(w, rc, "MPI_Improbe");
	return flag;
}
