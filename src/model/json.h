/* Typed reads from a jansson object with messages that name the file and the key. Borrowed everywhere. */
#ifndef FAVOR_MODEL_JSON_H
#define FAVOR_MODEL_JSON_H

#include "base/error.h"

#include <jansson.h>
#include <stdint.h>

/* A whole JSON file; NULL on error (missing file, syntax: line and column). The caller json_decrefs. */
json_t *json_file(const char *path, struct favor_error *e);
/* Integer in [low, high]; `fallback` where the key is absent or null, unless required. */
int json_get_int(const json_t *object, const char *key, int required, int64_t fallback, int64_t low, int64_t high,
             int64_t *value, const char *origin, struct favor_error *e);
int json_get_real(const json_t *object, const char *key, double fallback, double *value, const char *origin,
              struct favor_error *e);
int json_get_bool(const json_t *object, const char *key, int fallback, int *value, const char *origin,
              struct favor_error *e);
const char *json_type_name(const json_t *v);

#endif
