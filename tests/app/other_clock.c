/* LD_PRELOAD: a host whose clock is 7 seconds ahead. */
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

int clock_gettime(clockid_t clock, struct timespec *t)
{
	int rc = (int)syscall(SYS_clock_gettime, clock, t);
	if (rc == 0 && clock == CLOCK_REALTIME)
		t->tv_sec += 7;
	return rc;
}
