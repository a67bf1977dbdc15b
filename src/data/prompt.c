/* The user's text and the SFT target of a record. The built-in texts ask for one activity out of the class list in the
 * manner of Visual-RFT; they are short, since every response pays for the prompt's tokens.
 *
 * A text of one's own (data.prompt: a file) may hold {classes} and {problem}; {{ and }} stand for braces. A record that
 * brings its own problem is asked that, as it is, unless the text places it by {problem}. */
#include "data/dataset.h"
#include "data/label.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char think_text[] = "Which human activity does the image show? Choose exactly one of: {classes}. "
								 "First reason about what you see inside <think> </think>, "
								 "then give only the name of the activity inside <answer> </answer>.";
static const char answer_text[] = "Which human activity does the image show? Choose exactly one of: {classes}. "
								  "Give only the name of the activity inside <answer> </answer>.";

enum { PROMPT_FILE_MAX = 1 << 20 };

/* A text as the model should see it, whatever editor wrote it: no byte order mark, and lines that end with LF. Returns its length. */
static size_t plain_text(char *text, size_t n)
{
	size_t from = utf8_mark(text, n), to = 0;
	for (; from < n; from++)
		if (!(text[from] == '\r' && from + 1 < n && text[from + 1] == '\n'))
			text[to++] = text[from];
	return to;
}

/* The template that the option names: built in, or a file's text without white space at its ends. NULL on error. Owned
 * by the caller. */
static char *read_template(const char *option, struct favor_error *e)
{
	if (strcmp(option, "think") == 0)
		return favor_strdup(think_text);
	if (strcmp(option, "answer") == 0)
		return favor_strdup(answer_text);
	FILE *file = fopen(option, "rb");
	if (!file) {
		favor_fail(e, "data.prompt: \"%s\" is neither think nor answer nor a file that can be read: %m", option);
		return NULL;
	}
	char *text = favor_malloc(PROMPT_FILE_MAX + 1), *trimmed = NULL;
	errno = 0;
	size_t n = fread(text, 1, PROMPT_FILE_MAX + 1, file);
	if (ferror(file))
		favor_fail(e, "data.prompt: %s: reading failed: %m", option);
	else if (n > PROMPT_FILE_MAX)
		favor_fail(e, "data.prompt: %s: larger than %d bytes", option, PROMPT_FILE_MAX);
	else if (!utf8_valid(text, n) || memchr(text, '\0', n))
		favor_fail(e, "data.prompt: %s: not UTF-8 text", option);
	else {
		trimmed = utf8_trim(text, plain_text(text, n));
		if (!trimmed[0]) {
			favor_fail(e, "data.prompt: %s: is empty", option);
			free(trimmed);
			trimmed = NULL;
		}
	}
	free(text);
	fclose(file);
	return trimmed;
}

struct text {
	char *at;
	size_t length, capacity;
};

static void append(struct text *t, const char *s, size_t n)
{
	if (t->length + n + 1 > t->capacity) {
		t->capacity = 2 * (t->length + n + 1);
		t->at = favor_realloc(t->at, t->capacity);
	}
	memcpy(t->at + t->length, s, n);
	t->length += n;
	t->at[t->length] = '\0';
}

/* What a placeholder at `brace` stands for; *length = its bytes in the template. */
enum placeholder { PLAIN_BRACE, CLASSES, PROBLEM, UNKNOWN };

static enum placeholder placeholder(const char *brace, size_t *length)
{
	*length = 2;
	if (strncmp(brace, "{{", 2) == 0 || strncmp(brace, "}}", 2) == 0)
		return PLAIN_BRACE;
	*length = strlen("{classes}");
	if (strncmp(brace, "{classes}", *length) == 0)
		return CLASSES;
	if (strncmp(brace, "{problem}", *length) == 0)
		return PROBLEM;
	return UNKNOWN;
}

static int places_problem(const char *text)
{
	size_t length;
	for (text = strpbrk(text, "{}"); text; text = strpbrk(text + length, "{}")) {
		enum placeholder p = placeholder(text, &length);
		if (p == PROBLEM)
			return 1;
		if (p == UNKNOWN)
			length = 1;
	}
	return 0;
}

static int append_placeholder(struct text *out, const char *brace, size_t *length, const char *option,
                              const struct class_list *c, const struct record *r, struct favor_error *e)
{
	switch (placeholder(brace, length)) {
	case PLAIN_BRACE: append(out, brace, 1); return 0;
	case CLASSES:
		if (!c || c->count == 0)
			return favor_fail(e, "data.prompt: %s asks for {classes}, but there are none; give data.classes", option);
		for (int32_t i = 0; i < c->count; i++) {
			append(out, ", ", i > 0 ? 2 : 0);
			append(out, c->names[i], strlen(c->names[i]));
		}
		return 0;
	case PROBLEM:
		if (!r->problem)
			return favor_fail(e, "data.prompt: %s asks for {problem}, but the record of line %d (%s) has none", option,
			                  r->line, r->image_count > 0 ? r->images[0] : "no image");
		append(out, r->problem, strlen(r->problem));
		return 0;
	default: {
		char shown[UTF8_SHORT],
			*name = favor_format("%.*s", (int)strcspn(brace, " \n") < 40 ? (int)strcspn(brace, " \n") : 40, brace);
		favor_fail(
			e,
			"data.prompt: %s: unknown placeholder at \"%s\"; there are {classes} and {problem}, and {{ }} for braces",
			option, utf8_short(name, shown));
		free(name);
		return -1;
	}
	}
}

/* The template with what its placeholders stand for; NULL on error. */
static char *fill(const char *template, const char *option, const struct class_list *c, const struct record *r,
                  struct favor_error *e)
{
	struct text out = {0};
	const char *p = template;
	for (;;) {
		size_t n = strcspn(p, "{}"), length;
		append(&out, p, n);
		p += n;
		if (!*p)
			return out.at;
		if (append_placeholder(&out, p, &length, option, c, r, e) != 0) {
			free(out.at);
			return NULL;
		}
		p += length;
	}
}

char *prompt_text(const char *prompt_option, const struct class_list *c, const struct record *r, struct favor_error *e)
{
	char *template = read_template(prompt_option, e);
	if (!template)
		return NULL;
	if (r->problem && !places_problem(template)) {
		free(template);
		return favor_strdup(r->problem);
	}
	char *text = fill(template, prompt_option, c, r, e);
	free(template);
	return text;
}

int prompt_check(const char *prompt_option, struct favor_error *e)
{
	char *names[] = {"running"}, *template = read_template(prompt_option, e);
	const struct class_list classes = {.names = names, .count = 1};
	const struct record record = {.problem = "What is it?"};
	char *text = template ? fill(template, prompt_option, &classes, &record, e) : NULL;
	const int bad = !text;
	free(text);
	free(template);
	return bad ? -1 : 0;
}

/* Whether what the record is asked mentions <think>. A file that can't be read was reported by prompt_text. */
static int asks_to_think(const char *prompt_option, const struct record *r)
{
	char *template = read_template(prompt_option, NULL);
	int own = r->problem && (!template || !places_problem(template));
	int asks = r->problem && strstr(r->problem, "<think>");
	if (!own && template && strstr(template, "<think>"))
		asks = 1;
	free(template);
	return asks;
}

char *target_text(const char *prompt_option, const struct record *r)
{
	if (r->target)
		return favor_strdup(r->target);
	if (r->think && asks_to_think(prompt_option, r))
		return favor_format("<think>%s</think>\n<answer>%s</answer>", r->think, r->label);
	return favor_format("<answer>%s</answer>", r->label);
}
