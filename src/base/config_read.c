/* Applies YAML text to the configuration: libyaml's events, walked along the option table. A mapping must be a section,
 * a scalar or a list must be an option; two sections have short forms (placement: auto, reward.accuracy: 0.5). The
 * depth of the walk is bounded by the table, so hostile nesting is refused at the first key that isn't known. */
#include "base/config_table.h"

#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct reader {
	struct config *config;
	const struct config_source *source;
	struct option_origin *origins;
	struct favor_error *error;
	yaml_parser_t parser;
	struct string_list seen; /* full keys met in this text */
	int seen_lines[2 * CONFIG_OPTIONS_MAX];
};

/* Puts "FILE:LINE: " or "argument "A": " in front of the message. */
static int at_place(struct reader *r, size_t line)
{
	struct option_origin here = {1, r->source->name, r->source->is_argument ? 0 : (int)line};
	char *place = option_origin_text(&here);
	favor_fail_prefix(r->error, "%s", place);
	free(place);
	return -1;
}

static size_t line_of(const yaml_event_t *event)
{
	return event->start_mark.line + 1;
}

static int next_event(struct reader *r, yaml_event_t *event)
{
	if (yaml_parser_parse(&r->parser, event))
		return 0;
	const yaml_parser_t *p = &r->parser;
	if (p->error == YAML_MEMORY_ERROR)
		favor_die("out of memory while reading %s", r->source->name);
	size_t line = p->problem_mark.line + 1;
	if (p->error == YAML_READER_ERROR) {
		/* bytes that are no text: libyaml gives their offset, not their line */
		line = 1;
		for (size_t i = 0; i < p->problem_offset && i < r->source->size; i++)
			line += r->source->text[i] == '\n';
	}
	favor_fail(r->error, "not valid YAML: %s%s%s%s", p->context ? p->context : "", p->context ? ", " : "",
	           p->problem ? p->problem : "unknown problem",
	           r->source->is_argument ? " (a text with special characters must stand in quotes)" : "");
	return at_place(r, line);
}

/* Aliases, anchors and tags give a configuration meanings that printing it would lose. */
static int check_plain(struct reader *r, const yaml_event_t *event)
{
	const yaml_char_t *anchor = NULL, *tag = NULL;
	switch (event->type) {
	case YAML_ALIAS_EVENT:
		anchor = event->data.alias.anchor;
		break;
	case YAML_SCALAR_EVENT:
		anchor = event->data.scalar.anchor;
		tag = event->data.scalar.tag;
		if (strlen((const char *)event->data.scalar.value) != event->data.scalar.length) {
			favor_fail(r->error, "a text with a NUL byte in it is not supported");
			return at_place(r, line_of(event));
		}
		break;
	case YAML_SEQUENCE_START_EVENT:
		anchor = event->data.sequence_start.anchor;
		tag = event->data.sequence_start.tag;
		break;
	case YAML_MAPPING_START_EVENT:
		anchor = event->data.mapping_start.anchor;
		tag = event->data.mapping_start.tag;
		break;
	default:
		break;
	}
	if (anchor)
		favor_fail(
			r->error,
			"YAML anchors and aliases (%s%.40s) are not supported: write the value itself, in quotes if it is a text",
			event->type == YAML_ALIAS_EVENT ? "*" : "&", (const char *)anchor);
	else if (tag)
		favor_fail(r->error, "YAML tags (%.80s) are not supported: write the plain value", (const char *)tag);
	else
		return 0;
	return at_place(r, line_of(event));
}

static int is_null(const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;
	return event->data.scalar.style == YAML_PLAIN_SCALAR_STYLE &&
	       (!*text || strcmp(text, "~") == 0 || strcmp(text, "null") == 0);
}

static void note_origin(struct reader *r, const char *key, size_t line)
{
	r->origins[option_find(key)] =
		(struct option_origin){r->source->serial, r->source->name, r->source->is_argument ? 0 : (int)line};
}

/* Sets an option and notes where it came from; the error names place and key. */
static int set_option(struct reader *r, const char *key, const char *text, int quoted, size_t line)
{
	struct config *c = r->config;
	if (option_set(&config_options[option_find(key)], c, text, quoted, r->error) != 0) {
		favor_fail_prefix(r->error, "%s", key);
		return at_place(r, line);
	}
	note_origin(r, key, line);
	/* any count chooses counts; a mode drops them */
	if (strncmp(key, "placement.", 10) == 0)
		c->placement.mode = PLACEMENT_COUNTS;
	else if (strcmp(key, "placement") == 0)
		c->placement.rollout = c->placement.reward = c->placement.learner = 0;
	return 0;
}

/* reward.accuracy: 0.5 | visual-rft; the other of weight and mode goes back to its default. */
static int set_accuracy(struct reader *r, const char *text, int quoted, size_t line)
{
	static const char mode[] = "reward.accuracy.mode", weight[] = "reward.accuracy.weight";
	struct favor_error ignored;
	int is_mode = option_set(&config_options[option_find(mode)], r->config, text, quoted, &ignored) == 0;
	if (is_mode) {
		note_origin(r, mode, line);
		option_set_default(&config_options[option_find(weight)], r->config);
		return 0;
	}
	if (option_set(&config_options[option_find(weight)], r->config, text, quoted, r->error) != 0) {
		char *weights = option_valid(&config_options[option_find(weight)]),
			 *modes = option_valid(&config_options[option_find(mode)]);
		favor_fail(r->error, "reward.accuracy: found \"%.80s\"; valid is %s, or %s, or {mode: visual-rft, weight: 1.0}",
		           text, weights, modes);
		free(weights);
		free(modes);
		return at_place(r, line);
	}
	note_origin(r, weight, line);
	option_set_default(&config_options[option_find(mode)], r->config);
	return 0;
}

static int fail_section(struct reader *r, const char *path, const char *found, size_t line)
{
	favor_fail(r->error, "%s: found %.80s where a mapping of options is expected", *path ? path : "the top level",
	           found);
	return at_place(r, line);
}

/* Of "data.system=be #1" YAML would take "be": what somebody gives as one argument is not cut without a word. */
static int check_comment(struct reader *r, const yaml_event_t *event)
{
	const char *value = (const char *)event->data.scalar.value, *text = r->source->text + strspn(r->source->text, " \t\r\n");
	const size_t n = event->data.scalar.length;
	if (!r->source->is_argument || event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE || strncmp(text, value, n) != 0)
		return 0;
	const char *rest = text + n + strspn(text + n, " \t\r\n");
	if (*rest != '#')
		return 0;
	favor_fail(r->error, "the text from %.40s on would be a comment; put the value in quotes: '%s=\"...\"'", rest, r->source->prefix);
	return at_place(r, 1);
}

static int read_scalar(struct reader *r, const char *path, const yaml_event_t *event)
{
	const char *text = (const char *)event->data.scalar.value;
	int quoted = event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE;
	int option = option_find(path);
	if (option >= 0 && config_options[option].kind == OPTION_LIST && is_null(event)) {
		string_list_clear((struct string_list *)((char *)r->config + config_options[option].offset));
		note_origin(r, path, line_of(event));
		return 0;
	}
	if (option >= 0)
		return set_option(r, path, text, quoted, line_of(event));
	if (strcmp(path, "reward.accuracy") == 0)
		return set_accuracy(r, text, quoted, line_of(event));
	if (is_null(event)) /* a section whose options are all commented out */
		return 0;
	return fail_section(r, path, text, line_of(event));
}

static int read_list(struct reader *r, const char *path, const yaml_event_t *start)
{
	int option = option_find(path);
	size_t line = line_of(start);
	if (option < 0)
		return fail_section(r, path, "a list", line);
	const struct option *o = &config_options[option];
	if (o->kind != OPTION_LIST) {
		char *valid = option_valid(o);
		favor_fail(r->error, "%s: found a list; valid is %s", path, valid);
		free(valid);
		return at_place(r, line);
	}
	struct string_list *list = (struct string_list *)((char *)r->config + o->offset);
	string_list_clear(list);
	note_origin(r, path, line);
	for (;;) {
		yaml_event_t event;
		if (next_event(r, &event) != 0)
			return -1;
		int end = event.type == YAML_SEQUENCE_END_EVENT, rc = end ? 0 : check_plain(r, &event);
		if (!end && rc == 0) {
			const char *text = event.type == YAML_SCALAR_EVENT ? (const char *)event.data.scalar.value : "";
			if (*text) {
				string_list_add(list, text);
			} else {
				favor_fail(r->error, "%s: item %d of the list must be a text that is not empty", path, list->count + 1);
				rc = at_place(r, line_of(&event));
			}
		}
		yaml_event_delete(&event);
		if (end || rc != 0)
			return rc;
	}
}

static int fail_unknown(struct reader *r, const char *path, size_t line)
{
	const char *near = option_nearest(path), *dot = strrchr(path, '.');
	if (near) {
		favor_fail(r->error, "unknown key %.120s; the nearest valid key is %s", path, near);
		return at_place(r, line);
	}
	char *section = favor_format("%.*s", dot ? (int)(dot - path) : 0, path);
	if (!option_is_section(section))
		*section = '\0';
	char *names = option_names(section);
	favor_fail(r->error, "unknown key %.120s; valid %s%s are %s", path, *section ? "in " : "at the top", section, names);
	free(names);
	free(section);
	return at_place(r, line);
}

static int note_key(struct reader *r, const char *path, size_t line)
{
	for (int i = 0; i < r->seen.count; i++)
		if (strcmp(r->seen.items[i], path) == 0) {
			if (r->source->is_argument)
				favor_fail(r->error, "%s is given twice", path);
			else
				favor_fail(r->error, "%s is given twice, first in line %d", path, r->seen_lines[i]);
			return at_place(r, line);
		}
	if (r->seen.count < 2 * CONFIG_OPTIONS_MAX) /* always: known keys are fewer */
		r->seen_lines[r->seen.count] = (int)line;
	string_list_add(&r->seen, path);
	return 0;
}

static int read_value(struct reader *r, const char *path, const yaml_event_t *event);

static int read_mapping(struct reader *r, const char *path, const yaml_event_t *start)
{
	if (!option_is_section(path)) {
		char *valid = option_valid(&config_options[option_find(path)]);
		favor_fail(r->error, "%s: found a mapping; valid is %s (a text with \": \" in it must stand in quotes)", path,
		           valid);
		free(valid);
		return at_place(r, line_of(start));
	}
	/* a whole placement or accuracy is given, nothing of an earlier one stays */
	if (strcmp(path, "placement") == 0) {
		struct placement_options *p = &r->config->placement;
		*p = (struct placement_options){.mode = PLACEMENT_COUNTS};
		note_origin(r, "placement", line_of(start));
	} else if (strcmp(path, "reward.accuracy") == 0) {
		option_set_default(&config_options[option_find("reward.accuracy.mode")], r->config);
		option_set_default(&config_options[option_find("reward.accuracy.weight")], r->config);
	}
	int rc = 0;
	for (int end = 0; !end && rc == 0;) {
		yaml_event_t key, value;
		if (next_event(r, &key) != 0)
			return -1;
		end = key.type == YAML_MAPPING_END_EVENT;
		if (!end)
			rc = check_plain(r, &key);
		if (!end && rc == 0 && key.type != YAML_SCALAR_EVENT) {
			favor_fail(r->error, "%s: a key must be a plain word", *path ? path : "the top level");
			rc = at_place(r, line_of(&key));
		}
		if (!end && rc == 0) {
			char *full = favor_format("%s%s%s", path, *path ? "." : "", (const char *)key.data.scalar.value);
			if (option_find(full) < 0 && !(key.data.scalar.length && option_is_section(full)))
				rc = fail_unknown(r, full, line_of(&key));
			else
				rc = note_key(r, full, line_of(&key));
			if (rc == 0 && (rc = next_event(r, &value)) == 0) {
				rc = read_value(r, full, &value);
				yaml_event_delete(&value);
			}
			free(full);
		}
		yaml_event_delete(&key);
	}
	return rc;
}

static int read_value(struct reader *r, const char *path, const yaml_event_t *event)
{
	if (check_plain(r, event) != 0)
		return -1;
	if (event->type == YAML_SCALAR_EVENT)
		return read_scalar(r, path, event);
	if (event->type == YAML_SEQUENCE_START_EVENT)
		return read_list(r, path, event);
	return read_mapping(r, path, event);
}

/* One document, or none; what follows it is an error. */
static int read_stream(struct reader *r)
{
	int rc = 0, documents = 0;
	yaml_event_t empty = {.type = YAML_SCALAR_EVENT};
	for (int end = 0; !end && rc == 0;) {
		yaml_event_t event;
		if (next_event(r, &event) != 0)
			return -1;
		switch (event.type) {
		case YAML_STREAM_START_EVENT:
		case YAML_DOCUMENT_END_EVENT:
			break;
		case YAML_DOCUMENT_START_EVENT:
			if (documents++) {
				favor_fail(r->error, "a second YAML document starts here; a configuration is one");
				rc = at_place(r, line_of(&event));
			}
			break;
		case YAML_STREAM_END_EVENT:
			end = 1;
			break;
		default:
			rc = event.type == YAML_SCALAR_EVENT ? check_comment(r, &event) : 0;
			if (rc == 0)
				rc = read_value(r, r->source->prefix, &event);
		}
		yaml_event_delete(&event);
	}
	if (rc == 0 && documents == 0 && *r->source->prefix) {
		/* "data.eval=" */
		empty.data.scalar.value = (yaml_char_t *)"";
		empty.data.scalar.style = YAML_PLAIN_SCALAR_STYLE;
		rc = check_comment(r, &empty);
		if (rc == 0)
			rc = read_value(r, r->source->prefix, &empty);
	}
	return rc;
}

int config_read(struct config *c, const struct config_source *s, struct option_origin *origins, struct favor_error *e)
{
	struct favor_error local = {""};
	struct reader r = {.config = c, .source = s, .origins = origins, .error = e ? e : &local};
	if (*s->prefix && option_find(s->prefix) < 0 && !option_is_section(s->prefix))
		return fail_unknown(&r, s->prefix, 1);
	if (!yaml_parser_initialize(&r.parser))
		favor_die("out of memory while reading %s", s->name);
	yaml_parser_set_input_string(&r.parser, (const unsigned char *)s->text, s->size);
	int rc = read_stream(&r);
	yaml_parser_delete(&r.parser);
	string_list_clear(&r.seen);
	return rc;
}
