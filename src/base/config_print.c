/* The configuration as YAML text and the help text, both in the order of the option table. */
#include "base/config.h"

#include "base/config_table.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yaml.h>

struct text {
	char *data; /* owned; NUL-terminated */
	size_t size;
};

static int append(void *to, unsigned char *data, size_t n)
{
	struct text *t = to;
	t->data = favor_realloc(t->data, t->size + n + 1);
	memcpy(t->data + t->size, data, n);
	t->size += n;
	t->data[t->size] = '\0';
	return 1;
}

static void append_owned(struct text *t, char *s)
{
	append(t, (unsigned char *)s, strlen(s));
	free(s);
}

static void emit(yaml_emitter_t *emitter, yaml_event_t *event, int made)
{
	if (!made || !yaml_emitter_emit(emitter, event))
		favor_die("the configuration can't be printed: %s", emitter->problem ? emitter->problem : "out of memory");
}

/* Texts stand in double quotes always: then no reader takes "none" or "1e5" for anything else. */
static void emit_scalar(yaml_emitter_t *emitter, const char *value, int quoted)
{
	yaml_event_t event;
	yaml_scalar_style_t style = quoted ? YAML_DOUBLE_QUOTED_SCALAR_STYLE : YAML_PLAIN_SCALAR_STYLE;
	emit(emitter, &event,
	     yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)value, (int)strlen(value), 1, 1, style));
}

static void emit_mapping_start(yaml_emitter_t *emitter, int flow)
{
	yaml_event_t event;
	yaml_mapping_style_t style = flow ? YAML_FLOW_MAPPING_STYLE : YAML_BLOCK_MAPPING_STYLE;
	emit(emitter, &event, yaml_mapping_start_event_initialize(&event, NULL, NULL, 1, style));
}

static void emit_mapping_end(yaml_emitter_t *emitter)
{
	yaml_event_t event;
	emit(emitter, &event, yaml_mapping_end_event_initialize(&event));
}

static void emit_list(yaml_emitter_t *emitter, const struct string_list *l)
{
	yaml_event_t event;
	emit(emitter, &event, yaml_sequence_start_event_initialize(&event, NULL, NULL, 1, YAML_FLOW_SEQUENCE_STYLE));
	for (int i = 0; i < l->count; i++)
		emit_scalar(emitter, l->items[i], 1);
	emit(emitter, &event, yaml_sequence_end_event_initialize(&event));
}

static void emit_option(yaml_emitter_t *emitter, const struct option *o, const struct config *c)
{
	if (o->kind == OPTION_LIST) {
		emit_list(emitter, (const struct string_list *)((const char *)c + o->offset));
		return;
	}
	char *text = option_text(o, c);
	emit_scalar(emitter, text, o->kind == OPTION_STRING);
	free(text);
}

/* Rows share sections with the row before them as far as their keys agree: open and close what differs. */
static size_t shared_sections(const char *a, const char *b)
{
	size_t shared = 0;
	for (size_t i = 0; a[i] && a[i] == b[i]; i++)
		if (a[i] == '.')
			shared = i + 1;
	return shared;
}

static int dots(const char *s)
{
	int n = 0;
	for (; *s; s++)
		n += *s == '.';
	return n;
}

char *config_to_yaml(const struct config *c)
{
	yaml_emitter_t emitter;
	yaml_event_t event;
	struct text out = {NULL, 0};
	if (!yaml_emitter_initialize(&emitter))
		favor_die("out of memory while the configuration is printed");
	yaml_emitter_set_output(&emitter, append, &out);
	yaml_emitter_set_unicode(&emitter, 1);
	yaml_emitter_set_width(&emitter, -1);
	emit(&emitter, &event, yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING));
	emit(&emitter, &event, yaml_document_start_event_initialize(&event, NULL, NULL, NULL, 1));
	emit_mapping_start(&emitter, 0);
	const char *before = "";
	for (int i = 0; i < config_option_count; i++) {
		const struct option *o = &config_options[i];
		/* placement is either a mode or the counts */
		int counts = c->placement.mode == PLACEMENT_COUNTS;
		if ((strcmp(o->key, "placement") == 0 && counts) || (strncmp(o->key, "placement.", 10) == 0 && !counts))
			continue;
		size_t shared = shared_sections(before, o->key);
		for (int n = dots(before + shared); n > 0; n--)
			emit_mapping_end(&emitter);
		const char *rest = o->key + shared;
		for (const char *dot; (dot = strchr(rest, '.')); rest = dot + 1) {
			char *section = favor_format("%.*s", (int)(dot - rest), rest);
			emit_scalar(&emitter, section, 0);
			free(section);
			/* short ones in one line: placement, and sections within sections */
			emit_mapping_start(&emitter, rest != o->key || strncmp(o->key, "placement.", 10) == 0);
		}
		emit_scalar(&emitter, rest, 0);
		emit_option(&emitter, o, c);
		before = o->key;
	}
	for (int n = dots(before); n > 0; n--)
		emit_mapping_end(&emitter);
	emit_mapping_end(&emitter);
	emit(&emitter, &event, yaml_document_end_event_initialize(&event, 1));
	emit(&emitter, &event, yaml_stream_end_event_initialize(&event));
	yaml_emitter_delete(&emitter);
	return out.data;
}

char *config_help(void)
{
	struct text out = {NULL, 0};
	append_owned(&out, favor_strdup("Options, as sections of the YAML file or as key.path=value arguments (these win, "
	                                "a later one over an earlier one):\n"));
	for (int i = 0; i < config_option_count; i++) {
		const struct option *o = &config_options[i];
		char *valid = option_valid(o);
		const char *fallback = o->kind == OPTION_LIST ? "[]" : *o->fallback ? o->fallback : "\"\"";
		append_owned(&out, favor_format("\n  %s\n      %s\n      %s; default %s\n", o->key, o->help, valid,
		                                strncmp(o->key, "placement.", 10) == 0 ? "none" : fallback));
		free(valid);
	}
	append_owned(&out, favor_strdup("\nShort forms:\n"
	                                "  placement: {rollout: 2, reward: 1, learner: 1}\n"
	                                "  reward.accuracy: 0.5         the weight, with mode strict\n"
	                                "  reward.accuracy: visual-rft  the mode, with weight 1.0\n"));
	return out.data;
}
