/* Runs the built program as a user does, and reads what it prints. */
#ifndef FAVOR_TESTS_APP_RUN_H
#define FAVOR_TESTS_APP_RUN_H

#include "../folder.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

struct ran {
	int code;           /* exit code; 128 + signal if it was killed */
	char *out, *errors; /* what it wrote, owned */
};

static inline char *run_read(FILE *f)
{
	rewind(f);
	size_t used = 0, got;
	char *text = favor_malloc(1);
	do {
		text = favor_realloc(text, used + 65536 + 1);
		got = fread(text + used, 1, 65536, f);
		used += got;
	} while (got);
	text[used] = 0;
	fclose(f);
	return text;
}

/* arguments: after the program's name, ending in NULL. input may be NULL. */
static inline struct ran run_favor_input(const char *const *arguments, const char *input)
{
	char *program = favor_format("%s/favor", getenv("FAVOR_BUILD"));
	const char *argv[128] = {program};
	struct ran r;
	int status;
	for (int i = 0; arguments[i] && i < 126; i++)
		argv[i + 1] = arguments[i];
	FILE *in = tmpfile(), *out = tmpfile(), *errors = tmpfile();
	if (!in || !out || !errors)
		abort();
	fputs(input ? input : "", in);
	fflush(in);
	rewind(in);
	fflush(NULL); /* the child must not write out what this process still holds */
	pid_t child = fork();
	if (child < 0)
		abort();
	if (!child) {
		dup2(fileno(in), 0);
		dup2(fileno(out), 1);
		dup2(fileno(errors), 2);
		execv(program, (char *const *)(uintptr_t)argv);
		_exit(127);
	}
	if (waitpid(child, &status, 0) != child)
		abort();
	r.code = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	fclose(in);
	r.out = run_read(out);
	r.errors = run_read(errors);
	free(program);
	return r;
}

#define run_favor(...) run_favor_input((const char *const[]){__VA_ARGS__, NULL}, NULL)

static inline void ran_free(struct ran *r)
{
	free(r->out);
	free(r->errors);
	*r = (struct ran){0};
}

/* A list of arguments that grows; the strings are borrowed. */
struct arguments {
	const char *list[128];
	int count;
};

static inline void argue(struct arguments *a, const char *one)
{
	if (a->count == 126)
		abort();
	a->list[a->count++] = one;
	a->list[a->count] = NULL;
}

/* The JSON lines of a text. The caller json_decrefs the array. */
static inline json_t *run_lines(const char *text)
{
	json_t *lines = json_array();
	for (const char *at = text; *at;) {
		size_t n = strcspn(at, "\n");
		json_array_append_new(lines, json_loadb(at, n, JSON_DECODE_ANY, NULL));
		at += n + (at[n] == '\n');
	}
	return lines;
}

#endif
