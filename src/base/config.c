/* Loading a configuration: defaults, then a file or text, then arguments, then the checks. The parts: config_table.c
 * (one row an option), config_read.c (YAML), config_check.c (between options), config_print.c (help and YAML out). */
#include "base/config.h"

#include "base/config_table.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FILE_MAX = 1 << 20 };

void config_free(struct config *c)
{
	for (int i = 0; i < config_option_count; i++) {
		void *field = (char *)c + config_options[i].offset;
		if (config_options[i].kind == OPTION_STRING)
			free(*(char **)field);
		else if (config_options[i].kind == OPTION_LIST)
			string_list_clear(field);
	}
	memset(c, 0, sizeof *c);
}

static int read_override(struct config *c, const char *argument, int serial, struct option_origin *origins,
                         struct favor_error *e)
{
	const char *equals = strchr(argument, '=');
	if (!equals || equals == argument)
		return favor_fail(e, "argument \"%.200s\": an option is given as key.path=value, such as learner.lr=1e-5",
		                  argument);
	char *key = favor_format("%.*s", (int)(equals - argument), argument);
	struct config_source s = {serial, argument, 1, key, equals + 1, strlen(equals + 1)};
	int rc = config_read(c, &s, origins, e);
	free(key);
	return rc;
}

/* text NULL: no file. A file must name the model; a text need not, so that what config_to_yaml gives can always be
 * read. */
static int load(struct config *c, const char *text, size_t size, const char *origin, int is_file,
                const char *const *overrides, int override_count, struct favor_error *e)
{
	struct option_origin origins[CONFIG_OPTIONS_MAX] = {{0}};
	int rc = 0;
	memset(c, 0, sizeof *c);
	for (int i = 0; i < config_option_count; i++)
		option_set_default(&config_options[i], c);
	if (text) {
		struct config_source s = {1, origin, 0, "", text, size};
		rc = config_read(c, &s, origins, e);
	}
	for (int i = 0; i < override_count && rc == 0; i++)
		rc = read_override(c, overrides[i], 2 + i, origins, e);
	if (rc == 0)
		rc = config_check(c, origins, e);
	if (rc == 0 && is_file && !*c->model.path)
		rc = favor_fail(e, "%s: model.path is missing; give the folder of a model: model: {path: FOLDER}", origin);
	if (rc != 0)
		config_free(c);
	return rc;
}

static int read_file(const char *path, char **text, size_t *size, struct favor_error *e)
{
	FILE *f = fopen(path, "rb");
	if (!f)
		return favor_fail(e, "%s: can't be opened: %s; give the path of a YAML configuration", path, strerror(errno));
	int rc = 0;
	*text = favor_malloc(FILE_MAX + 1);
	errno = 0;
	*size = fread(*text, 1, FILE_MAX + 1, f);
	if (ferror(f))
		rc = favor_fail(e, "%s: can't be read: %s; give the path of a YAML configuration", path, strerror(errno));
	else if (*size > FILE_MAX)
		rc = favor_fail(e, "%s: is larger than %d bytes, so it is no configuration", path, FILE_MAX);
	fclose(f);
	if (rc != 0) {
		free(*text);
		*text = NULL;
	}
	return rc;
}

int config_load(struct config *c, const char *path, const char *const *overrides, int override_count,
                struct favor_error *e)
{
	char *text = NULL;
	size_t size = 0;
	if (path && read_file(path, &text, &size, e) != 0)
		return -1;
	int rc = load(c, text, size, path, path != NULL, overrides, override_count, e);
	free(text);
	return rc;
}

int config_parse(struct config *c, const char *yaml, const char *origin, const char *const *overrides,
                 int override_count, struct favor_error *e)
{
	return load(c, yaml, strlen(yaml), origin, 0, overrides, override_count, e);
}
