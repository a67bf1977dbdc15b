/* The two kinds of error, and allocation that can't fail. Called by every room. */
#include "base/error.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static struct favor_process the_process = {
	.ranks = 1, .role = "single", .phase = "start", .step = -1, .sample = -1};

struct favor_process *favor_process(void)
{
	return &the_process;
}

int favor_fail(struct favor_error *e, const char *format, ...)
{
	if (e) {
		va_list args;
		va_start(args, format);
		vsnprintf(e->message, sizeof e->message, format, args);
		va_end(args);
	}
	return -1;
}

int favor_fail_prefix(struct favor_error *e, const char *format, ...)
{
	if (e) {
		char old[FAVOR_ERROR_MAX];
		memcpy(old, e->message, sizeof old);
		va_list args;
		va_start(args, format);
		int n = vsnprintf(e->message, sizeof e->message, format, args);
		va_end(args);
		if (n >= 0 && (size_t)n < sizeof e->message)
			snprintf(e->message + n, sizeof e->message - (size_t)n, ": %s", old);
	}
	return -1;
}

_Noreturn void favor_die(const char *format, ...)
{
	char host[128] = "?", sample[48] = "", message[FAVOR_ERROR_MAX];
	gethostname(host, sizeof host - 1);
	va_list args;
	va_start(args, format);
	vsnprintf(message, sizeof message, format, args);
	va_end(args);
	/* one write, so that the messages of several ranks don't mix */
	if (the_process.sample >= 0)
		snprintf(sample, sizeof sample, ", sample %lld", the_process.sample);
	fprintf(stderr, "favor: rank %d (%s) on %s, phase %s, step %lld%s: %s\n", the_process.rank, the_process.role, host,
	        the_process.phase, the_process.step, sample, message);
	fflush(stderr);
	if (the_process.abort_job)
		the_process.abort_job(1);
	_exit(1);
}

void favor_alive(void)
{
	if (the_process.alive)
		the_process.alive(the_process.alive_arg);
}

static void *check(void *p, size_t bytes)
{
	if (!p)
		favor_die("out of memory: %zu bytes could not be had", bytes);
	return p;
}

void *favor_malloc(size_t bytes)
{
	return check(malloc(bytes ? bytes : 1), bytes);
}

void *favor_calloc(size_t count, size_t size)
{
	return check(calloc(count ? count : 1, size ? size : 1), count * size);
}

void *favor_realloc(void *p, size_t bytes)
{
	return check(realloc(p, bytes ? bytes : 1), bytes);
}

char *favor_strdup(const char *s)
{
	size_t n = strlen(s) + 1;
	return memcpy(favor_malloc(n), s, n);
}

char *favor_format(const char *format, ...)
{
	va_list args, again;
	va_start(args, format);
	va_copy(again, args);
	int n = vsnprintf(NULL, 0, format, args);
	va_end(args);
	if (n < 0)
		favor_die("vsnprintf refused the format \"%s\"", format);
	char *s = favor_malloc((size_t)n + 1);
	vsnprintf(s, (size_t)n + 1, format, again);
	va_end(again);
	return s;
}
