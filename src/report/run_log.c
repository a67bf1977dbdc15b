/* RUN_DIR/metrics.jsonl, samples.jsonl and TensorBoard's event file, and the progress line. The training loop calls it on
 * the leader alone, once a step. Each line (record) goes out with one write, so that a kill leaves at most one half line,
 * at the end, which the next run drops. */
#include "report/metrics.h"

#include "base/file.h"
#include "report/events.h"
#include "report/text.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { PROGRESS_MAX = 256, AMENDED_MAX = 1 << 16 };
/* events.out.tfevents.SECONDS.favor: TensorBoard looks for the second word, and takes a folder's files in the order of
 * their names; the ending says that the file is ours. */
static const char EVENTS_BEGIN[] = "events.out.tfevents.", EVENTS_END[] = ".favor";
static const size_t EVENTS_LIMIT = (size_t)1 << 30;

struct log_file {
	char *path; /* owned */
	int fd;
};

struct run_log {
	struct log_file metrics, samples, events;
	int64_t total_steps;
	int terminal;            /* stderr can rewrite a line */
	double seconds_per_step; /* moving average; 0 before the first step */
	int steps_seen;
	char shown[PROGRESS_MAX]; /* progress line that stands on the terminal; "" if none */
};

/* 1: keep, 0: drop, -1: not one of our lines. */
static int keep_line(const char *line, size_t n, int64_t last_step)
{
	json_t *o = json_loadb(line, n, 0, NULL);
	json_t *step = json_object_get(o, "step");
	int keep = !json_is_integer(step) ? -1 : json_integer_value(step) <= last_step;
	json_decref(o);
	return keep;
}

/* Copies the lines of steps up to last_step; *dropped: whether there were others. */
static int copy_lines(FILE *in, FILE *out, const char *path, int64_t last_step, int *dropped, struct favor_error *e)
{
	char *line = NULL;
	size_t capacity = 0;
	int result = -1;
	ssize_t n;
	for (int64_t number = 1; (n = getline(&line, &capacity, in)) >= 0; number++) {
		if (n == 0 || line[n - 1] != '\n') { /* the half line of a write that was interrupted; always the last */
			*dropped = 1;
			break;
		}
		int keep = keep_line(line, (size_t)n, last_step);
		if (keep < 0) {
			favor_fail(e, "%s:%lld: no line of a run's log (an object with an integer \"step\"); remove the line", path,
			           (long long)number);
			goto done;
		}
		if (!keep)
			*dropped = 1;
		else if (fwrite(line, 1, (size_t)n, out) != (size_t)n)
			goto write_failed;
	}
	if (ferror(in)) {
		favor_fail(e, "%s: can't read it: %s", path, strerror(errno));
		goto done;
	}
	if (fflush(out) != 0 || fsync(fileno(out)) != 0)
		goto write_failed;
	result = 0;
	goto done;
write_failed:
	favor_fail(e, "%s: can't write the shortened copy: %s", path, strerror(errno));
done:
	free(line);
	return result;
}

/* The file as it was after last_step. The new one replaces it in one rename, or it stays untouched. */
static int cut_log(const char *path, int64_t last_step, struct favor_error *e)
{
	int result = -1, dropped = 0;
	FILE *out = NULL, *in = fopen(path, "re");
	char *temporary = favor_format("%s.tmp", path);
	if (!in && errno == ENOENT) { /* the first run was killed before its first line */
		result = 0;
		goto done;
	}
	if (!in) {
		favor_fail(e, "%s: can't open it: %s", path, strerror(errno));
		goto done;
	}
	out = fopen(temporary, "we");
	if (!out) {
		favor_fail(e, "%s: can't make it: %s", temporary, strerror(errno));
		goto done;
	}
	if (copy_lines(in, out, path, last_step, &dropped, e) != 0)
		goto done;
	if (dropped && rename(temporary, path) != 0) {
		favor_fail(e, "%s: can't replace it by its shortened copy: %s", path, strerror(errno));
		goto done;
	}
	result = 0;
done:
	if (in)
		fclose(in);
	if (out) {
		fclose(out);
		if (result != 0 || !dropped)
			unlink(temporary);
	}
	free(temporary);
	return result;
}

static int open_log(struct log_file *f, const char *run_dir, const char *name, int64_t resume_step,
                    struct favor_error *e)
{
	f->path = favor_format("%s/%s", run_dir, name);
	if (resume_step > 0 && cut_log(f->path, resume_step, e) != 0)
		return -1;
	f->fd = open(f->path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | (resume_step > 0 ? 0 : O_TRUNC), 0666);
	if (f->fd < 0)
		return favor_fail(e, "%s: can't open it for writing: %s", f->path, strerror(errno));
	return 0;
}

static void write_all(const struct log_file *f, const char *data, size_t size)
{
	for (size_t done = 0; done < size;) {
		ssize_t n = write(f->fd, data + done, size - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			favor_die("%s: can't write: %s", f->path, strerror(errno));
		done += (size_t)n;
	}
}

static double now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_REALTIME, &t);
	return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Ten digits, so that names are in the order of their times. */
static int is_events(const struct dirent *entry)
{
	const char *name = entry->d_name;
	const size_t begin = strlen(EVENTS_BEGIN), digits = strspn(name + (strlen(name) < begin ? 0 : begin), "0123456789");
	return strncmp(name, EVENTS_BEGIN, begin) == 0 && digits == 10 && strcmp(name + begin + digits, EVENTS_END) == 0;
}

/* Each start has a file of its own, with what it keeps of the one before: a TensorBoard that follows the folder goes on
 * to files whose names are later, and reads none from its beginning again. The file before is emptied and not removed,
 * since TensorBoard's older reader waits for a file that is gone; the next start removes it. */
static int open_events(struct log_file *f, const char *run_dir, int64_t resume_step, struct favor_error *e)
{
	struct dirent **found = NULL;
	const int count = scandir(run_dir, &found, is_events, alphasort);
	const double time = now();
	char *temporary = favor_format("%s/events.tmp", run_dir), *old = NULL;
	long long seconds = (long long)time;
	size_t n;
	struct text t = {0};
	int result = -1;
	if (count > 0) {
		const long long newest = strtoll(found[count - 1]->d_name + strlen(EVENTS_BEGIN), NULL, 10);
		seconds = newest < seconds ? seconds : newest + 1;
	}
	f->path = favor_format("%s/%s%010lld%s", run_dir, EVENTS_BEGIN, seconds, EVENTS_END);
	events_begin(&t, time);
	if (count > 0 && resume_step > 0) {
		char *before = favor_format("%s/%s", run_dir, found[count - 1]->d_name);
		old = file_read(before, EVENTS_LIMIT, &n, e);
		free(before);
		if (!old)
			goto done;
		events_keep(&t, old, n, resume_step);
	}
	f->fd = open(temporary, O_WRONLY | O_APPEND | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
	if (f->fd < 0) {
		favor_fail(e, "%s: can't make it: %s", temporary, strerror(errno));
		goto done;
	}
	write_all(f, t.data, t.n);
	if (fsync(f->fd) != 0 || rename(temporary, f->path) != 0) {
		favor_fail(e, "%s: can't be written: %s", f->path, strerror(errno));
		goto done;
	}
	result = 0;
done:
	for (int i = 0; i < count; i++) {
		char *path = favor_format("%s/%s", run_dir, found[i]->d_name);
		if (result == 0 && i < count - 1)
			unlink(path);
		else if (result == 0 && truncate(path, 0) != 0)
			result = favor_fail(e, "%s: can't be emptied: %s", path, strerror(errno));
		free(path);
		free(found[i]);
	}
	free(found);
	if (result != 0)
		unlink(temporary);
	free(temporary);
	free(old);
	text_free(&t);
	return result;
}

static void write_events(struct run_log *l, int64_t step, const struct metrics *m)
{
	struct text t = {0};
	events_metrics(&t, now(), step, m);
	if (t.n)
		write_all(&l->events, t.data, t.n);
	text_free(&t);
}

struct run_log *run_log_open(const char *run_dir, int64_t resume_step, int64_t total_steps, struct favor_error *e)
{
	struct run_log *l = favor_calloc(1, sizeof *l);
	l->metrics.fd = l->samples.fd = l->events.fd = -1;
	l->total_steps = total_steps;
	const char *terminal = getenv("TERM");
	l->terminal = isatty(STDERR_FILENO) && !(terminal && strcmp(terminal, "dumb") == 0);
	if (file_make_folders(run_dir, "; give another run.dir", e) != 0 || open_log(&l->metrics, run_dir, "metrics.jsonl", resume_step, e) != 0 ||
	    open_log(&l->samples, run_dir, "samples.jsonl", resume_step, e) != 0 ||
	    open_events(&l->events, run_dir, resume_step, e) != 0) {
		run_log_close(l);
		return NULL;
	}
	return l;
}

/* ", name: value ...}" and the line's end. */
static void add_metrics(struct text *t, const struct metrics *m)
{
	for (int i = 0; i < m->count; i++) {
		text_add(t, ", ");
		text_json_string(t, m->names[i]);
		text_add(t, ": ");
		if (strcmp(m->names[i], m->text_name) == 0)
			text_json_string(t, m->text);
		else
			text_double(t, m->values[i]);
	}
	text_add(t, "}\n");
}

/* Whether the line, which needs no beginning, has all of these metrics. */
static int has_all(const char *line, const struct metrics *m)
{
	int all = 1;
	for (int i = 0; i < m->count && all; i++) {
		char *key = favor_format(", \"%s\": ", m->names[i]);
		all = strstr(line, key) != NULL;
		free(key);
	}
	return all;
}

int run_log_amend(struct run_log *l, int64_t step, const struct metrics *m, struct favor_error *e)
{
	static const char end[] = "}\n";
	const off_t n = (off_t)strlen(end);
	char *last = favor_calloc(1, AMENDED_MAX + 1), *line = last;
	struct text t = {0};
	int result = -1;
	/* another descriptor: the log's own only appends. One write takes the place of the line's end, so that a kill
	 * leaves the old line or the new one. */
	int fd = open(l->metrics.path, O_RDWR | O_CLOEXEC);
	const off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END), read = size < AMENDED_MAX ? size : AMENDED_MAX;
	if (size < n || pread(fd, last, (size_t)read, size - read) != read || strcmp(last + read - n, end) != 0) {
		favor_fail(e, "%s: its last line, which is to be that of step %lld, can't be read", l->metrics.path,
		           (long long)step);
		goto done;
	}
	for (char *p = last; p < last + read - 1; p++)
		line = *p == '\n' ? p + 1 : line;
	if (has_all(line, m)) { /* a start that was killed before its checkpoint has done it */
		result = 0;
		goto done;
	}
	write_events(l, step, m);
	add_metrics(&t, m);
	if (pwrite(fd, t.data, t.n, size - n) != (ssize_t)t.n) {
		favor_fail(e, "%s: can't write: %s", l->metrics.path, strerror(errno));
		goto done;
	}
	result = 0;
done:
	if (fd >= 0)
		close(fd);
	free(last);
	text_free(&t);
	return result;
}

void run_log_metrics(struct run_log *l, int64_t step, const struct metrics *m)
{
	struct text t = {0};
	text_format(&t, "{\"step\": %lld", (long long)step);
	add_metrics(&t, m);
	write_all(&l->metrics, t.data, t.n);
	text_free(&t);
	write_events(l, step, m);
}

static void add_string(struct text *t, const char *key, const char *value)
{
	text_format(t, ", \"%s\": ", key);
	text_json_string(t, value);
}

/* One response as a JSON object, without a line end. */
static void add_sample(struct text *t, int64_t step, const struct group *g, int i, const char *image, const char *label,
                       const char *prompt, const char *const *reward_names, float advantage)
{
	text_format(t, "{\"step\": %lld, \"group\": %llu, \"sample\": %d, \"record\": %u", (long long)step,
	            (unsigned long long)g->index, i, g->record);
	add_string(t, "image", image);
	add_string(t, "label", label);
	add_string(t, "prompt", prompt);
	add_string(t, "response", g->text[i]);
	add_string(t, "answer", g->reward_count > 0 ? g->answer[i] : "");
	text_add(t, ", \"rewards\": {");
	for (int r = 0; r < g->reward_count; r++) {
		text_add(t, r ? ", " : "");
		text_json_string(t, reward_names[r]);
		text_add(t, ": ");
		text_float(t, g->rewards[(size_t)r * (size_t)g->responses + (size_t)i]);
	}
	text_add(t, "}, \"reward\": ");
	text_float(t, g->reward_count > 0 ? g->reward[i] : NAN);
	text_add(t, ", \"advantage\": ");
	text_float(t, advantage);
	text_format(t, ", \"tokens\": %d, \"finish\": \"%s\"}", g->start[i + 1] - g->start[i],
	            g->finish[i] == FINISH_LENGTH ? "length" : "stop");
}

char *run_log_group_json(int64_t step, const struct group *g, const char *image, const char *label, const char *prompt,
                         const char *const *reward_names, const float *advantage)
{
	struct text t = {0};
	for (int i = 0; i < g->responses; i++) {
		add_sample(&t, step, g, i, image, label, prompt, reward_names, advantage ? advantage[i] : NAN);
		text_add(&t, "\n");
	}
	char *lines = favor_strdup(t.data);
	text_free(&t);
	return lines;
}

void run_log_samples(struct run_log *l, const char *lines)
{
	/* a group is whole or cut: the resumed run writes its step again */
	write_all(&l->samples, lines, strlen(lines));
}

int run_log_sync(struct run_log *l, struct favor_error *e)
{
	const struct log_file *files[] = {&l->metrics, &l->samples, &l->events};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		if (fsync(files[i]->fd) != 0)
			return favor_fail(e, "%s: can't be brought to the disk: %s", files[i]->path, strerror(errno));
	return 0;
}

/* Prints over what stands on the terminal's last line. */
static void show(const char *line)
{
	struct winsize size;
	int columns = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 1 ? size.ws_col - 1 : 79;
	fprintf(stderr, "\r%.*s\x1b[K", columns, line); /* the line is ASCII: one column a byte */
	fflush(stderr);
}

static int has(const struct metrics *m, const char *name, double *x)
{
	*x = metrics_get(m, name, NAN);
	return isfinite(*x);
}

static void add_eta(struct text *t, const struct run_log *l, int64_t step)
{
	double left = (double)(l->total_steps - step) * l->seconds_per_step;
	if (l->steps_seen == 0 || l->total_steps < step || left > 1e9)
		return;
	long s = lround(left);
	if (s >= 3600)
		text_format(t, "  eta %ld:%02ld:%02ld", s / 3600, s / 60 % 60, s % 60);
	else
		text_format(t, "  eta %ld:%02ld", s / 60, s % 60);
}

void run_log_progress(struct run_log *l, int64_t step, const struct metrics *m)
{
	double x;
	if (has(m, "step_time", &x)) {
		/* a plain mean over the first ten steps, then the newest has weight 1/10 */
		l->steps_seen++;
		l->seconds_per_step += (x - l->seconds_per_step) / (l->steps_seen < 10 ? l->steps_seen : 10);
	}
	struct text t = {0};
	text_format(&t, "step %lld/%lld", (long long)step, (long long)l->total_steps);
	if (has(m, "reward", &x)) {
		text_format(&t, "  reward %.2f", x);
		if (has(m, "rewards/accuracy/mean", &x))
			text_format(&t, "  acc %.2f", x);
		if (has(m, "kl", &x))
			text_format(&t, "  kl %.2g", x);
		if (has(m, "completions/mean_length", &x))
			text_format(&t, "  len %.0f", x);
	} else if (has(m, "loss", &x)) {
		text_format(&t, "  loss %.4g", x);
	}
	if (has(m, "tokens_per_second", &x))
		text_format(&t, "  %.0f tok/s", x);
	add_eta(&t, l, step);
	if (l->terminal) {
		snprintf(l->shown, sizeof l->shown, "%s", t.data);
		show(l->shown);
	} else {
		fprintf(stderr, "%s\n", t.data);
		fflush(stderr);
	}
	text_free(&t);
}

void run_log_note(struct run_log *l, const char *format, ...)
{
	/* a line is written at once: under mpirun those of other ranks come in between */
	struct text t = {0};
	va_list args;
	va_start(args, format);
	text_add(&t, l->shown[0] ? "\r\x1b[K" : "");
	text_vformat(&t, format, args);
	text_add(&t, "\n");
	va_end(args);
	fputs(t.data, stderr);
	fflush(stderr);
	text_free(&t);
	if (l->shown[0])
		show(l->shown);
}

void run_log_close(struct run_log *l)
{
	if (!l)
		return;
	if (l->shown[0])
		fputc('\n', stderr); /* the last progress line stays */
	struct log_file *files[] = {&l->metrics, &l->samples, &l->events};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		if (files[i]->fd >= 0)
			close(files[i]->fd);
		free(files[i]->path);
	}
	free(l);
}
