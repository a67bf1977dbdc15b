#include "model/json.h"

#include "base/file.h"

#include <stdlib.h>

/* A configuration has kilobytes, the index of a model of many shards some megabytes. */
#define JSON_FILE_MAX ((size_t)64 << 20)

json_t *json_file(const char *path, struct favor_error *e)
{
	json_error_t je;
	size_t n = 0;
	char *text = file_read(path, JSON_FILE_MAX, &n, e);
	json_t *j = text ? json_loadb(text, n, JSON_REJECT_DUPLICATES, &je) : NULL;
	if (text && !j)
		favor_fail(e, "%s:%d:%d: not valid JSON: %s", path, je.line, je.column, je.text);
	free(text);
	return j;
}

const char *json_type_name(const json_t *v)
{
	switch (v ? (int)json_typeof(v) : -1) {
	case JSON_OBJECT: return "an object";
	case JSON_ARRAY: return "an array";
	case JSON_STRING: return "a string";
	case JSON_INTEGER: return "an integer";
	case JSON_REAL: return "a number with a fraction";
	case JSON_TRUE:
	case JSON_FALSE: return "a boolean";
	case JSON_NULL: return "null";
	default: return "nothing";
	}
}

int json_get_int(const json_t *object, const char *key, int required, int64_t fallback, int64_t low, int64_t high,
             int64_t *value, const char *origin, struct favor_error *e)
{
	const json_t *v = json_object_get(object, key);
	if (!v || json_is_null(v)) {
		if (required)
			return favor_fail(e, "%s: key \"%s\" is missing", origin, key);
		*value = fallback;
		return 0;
	}
	if (!json_is_integer(v))
		return favor_fail(e, "%s: \"%s\" must be an integer, found %s", origin, key, json_type_name(v));
	int64_t x = json_integer_value(v);
	if (x < low || x > high)
		return favor_fail(e, "%s: \"%s\" is %lld, which is outside [%lld, %lld]", origin, key, (long long)x,
		                  (long long)low, (long long)high);
	*value = x;
	return 0;
}

int json_get_real(const json_t *object, const char *key, double fallback, double *value, const char *origin,
              struct favor_error *e)
{
	const json_t *v = json_object_get(object, key);
	if (!v || json_is_null(v)) {
		*value = fallback;
		return 0;
	}
	if (!json_is_number(v))
		return favor_fail(e, "%s: \"%s\" must be a number, found %s", origin, key, json_type_name(v));
	*value = json_number_value(v);
	return 0;
}

int json_get_bool(const json_t *object, const char *key, int fallback, int *value, const char *origin,
              struct favor_error *e)
{
	const json_t *v = json_object_get(object, key);
	if (!v || json_is_null(v)) {
		*value = fallback;
		return 0;
	}
	if (!json_is_boolean(v))
		return favor_fail(e, "%s: \"%s\" must be true or false, found %s", origin, key, json_type_name(v));
	*value = json_is_true(v);
	return 0;
}
