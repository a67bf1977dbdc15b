/* MPI calls with their return code checked: the one place that says which call failed. Who starts something here
 * completes it with world_wait_request, or keeps it in a letter or a peer and tests it (every world_progress, before
 * the next heartbeat). */
#include "comm/internal.h"

void world_check(int rc, const char *call)
{
	if (rc == MPI_SUCCESS)
		return;
	char text[MPI_MAX_ERROR_STRING] = "unknown error";
	int n = 0;
	if (MPI_Error_string(rc, text, &n) != MPI_SUCCESS)
		favor_die("%s failed with code %d", call, rc);
	favor_die("%s failed: %s", call, text);
}

void world_isend(const void *data, int n, MPI_Datatype type, int peer, enum tag tag, MPI_Comm comm,
                 MPI_Request *request)
{
	world_check(MPI_Isend(data, n, type, peer, tag, comm, request), "MPI_Isend");
}

void world_irecv(void *data, int n, MPI_Datatype type, int peer, enum tag tag, MPI_Comm comm, MPI_Request *request)
{
	world_check(MPI_Irecv(data, n, type, peer, tag, comm, request), "MPI_Irecv");
}

void world_imrecv(void *data, int bytes, MPI_Message *message, MPI_Request *request)
{
	world_check(MPI_Imrecv(data, bytes, MPI_BYTE, message, request), "MPI_Imrecv");
}

void world_ibcast(void *data, int bytes, int root, MPI_Comm comm, MPI_Request *request)
{
	world_check(MPI_Ibcast(data, bytes, MPI_BYTE, root, comm, request), "MPI_Ibcast");
}

void world_iallgather(const void *mine, void *all, int n, MPI_Datatype type, MPI_Comm comm, MPI_Request *request)
{
	world_check(MPI_Iallgather(mine, n, type, all, n, type, comm, request), "MPI_Iallgather");
}

int world_test(MPI_Request *request)
{
	int flag = 0;
	world_check(MPI_Test(request, &flag, MPI_STATUS_IGNORE), "MPI_Test");
	return flag;
}
