/* The files of the synthetic data set. A split has each activity equally often (to within one), in a shuffled order.
 * classes.txt is written last: a folder that has it is complete. */
#include "data/synth.h"

#include "base/file.h"
#include "base/rng.h"
#include "data/image.h"

#include <jansson.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { JPEG_QUALITY = 92, FORMAT = 3, MIN_SIZE = 32, MAX_SIZE = 448, MAX_IMAGES = 999999 };

void synth_defaults(struct synth_options *o)
{
	*o = (struct synth_options){.train = 2000, .test = 400, .size = 112, .seed = 0, .context = 0.8};
}

/* DIR/images/train and DIR/images/test, with those above. */
static int make_folders(const char *dir, struct favor_error *e)
{
	char *train = favor_format("%s/images/train", dir), *test = favor_format("%s/images/test", dir);
	const int rc = file_make_folders(train, "", e) || file_make_folders(test, "", e) ? -1 : 0;
	free(train);
	free(test);
	return rc;
}

/* One line that names what the folder was made with. */
static char *describe(const struct synth_options *o)
{
	return favor_format(
		"{\"format\": %d, \"train\": %d, \"test\": %d, \"size\": %d, \"seed\": %llu, \"context\": %.6g}\n", FORMAT,
		o->train, o->test, o->size, (unsigned long long)o->seed, o->context);
}

/* 1 = made with the same options and complete, 0 = nothing there or an interrupted run with the same options, -1 =
 * another data set. */
static int already_there(const char *dir, const char *wanted, struct favor_error *e)
{
	int rc = 0;
	char found[256] = "";
	char *options = favor_format("%s/options.json", dir), *classes = favor_format("%s/classes.txt", dir),
		 *records = favor_format("%s/train.jsonl", dir);
	FILE *f = fopen(options, "r");
	if (f) {
		size_t n = fread(found, 1, sizeof found - 1, f);
		found[n] = 0;
		fclose(f);
		if (strcmp(found, wanted))
			rc = favor_fail(
				e, "%s holds a data set made with other options (%s says %.*s): name another folder or remove it", dir,
				options, (int)strcspn(found, "\n"), found);
		else
			rc = access(classes, R_OK) == 0;
	} else if (access(classes, F_OK) == 0 || access(records, F_OK) == 0) {
		rc = favor_fail(e, "%s holds a data set that favor synth did not make: name another folder", dir);
	}
	free(options);
	free(classes);
	free(records);
	return rc;
}

static int close_file(FILE *f, const char *path, struct favor_error *e)
{
	int bad = ferror(f);
	if (fclose(f) || bad)
		return favor_fail(e, "%s: writing failed: %s", path, strerror(errno));
	return 0;
}

static int write_text(const char *dir, const char *name, const char *text, struct favor_error *e)
{
	char *path = favor_format("%s/%s", dir, name);
	FILE *f = fopen(path, "w");
	int rc = f ? 0 : favor_fail(e, "%s: can't be written: %s", path, strerror(errno));
	if (f) {
		fputs(text, f);
		rc = close_file(f, path, e);
	}
	free(path);
	return rc;
}

/* Images of both splits have different indices, so no test image is a training image. */
static int write_split(const char *dir, const char *split, int32_t count, uint64_t first, const struct synth_options *o,
                       struct favor_error *e)
{
	int rc = -1;
	char *path = favor_format("%s/%s.jsonl", dir, split);
	uint32_t *order = favor_malloc((size_t)count * sizeof *order);
	FILE *f = fopen(path, "w");
	if (!f) {
		favor_fail(e, "%s: can't be written: %s", path, strerror(errno));
		goto done;
	}
	rng_permutation(o->seed, RNG_SYNTH, UINT64_MAX - first, (uint32_t)count, order);
	for (int32_t i = 0; i < count; i++) {
		struct image im = {0};
		char *think = NULL, *name = favor_format("images/%s/%06d.jpg", split, i + 1),
			 *file = favor_format("%s/%s", dir, name);
		int activity = (int)(order[i] % (uint32_t)synth_activity_count());
		synth_draw(o->seed, first + (uint64_t)i, activity, o->size, o->context, &im, &think);
		int bad = image_write_jpeg(&im, file, JPEG_QUALITY, e);
		json_t *record = json_pack("{s:s, s:s, s:s}", "image", name, "label", synth_activity(activity), "think", think);
		if (!record)
			favor_die("out of memory while writing %s", path);
		if (!bad && (json_dumpf(record, f, JSON_PRESERVE_ORDER) || fputc('\n', f) == EOF))
			bad = favor_fail(e, "%s: writing failed: %s", path, strerror(errno));
		json_decref(record);
		image_free(&im);
		free(think);
		free(name);
		free(file);
		if (bad)
			goto done;
	}
	rc = 0;
done:
	if (f && rc == 0)
		rc = close_file(f, path, e);
	else if (f)
		fclose(f);
	free(order);
	free(path);
	return rc;
}

int synth_write(const char *dir, const struct synth_options *o, struct favor_error *e)
{
	if (o->train < 1 || o->train > MAX_IMAGES || o->test < 1 || o->test > MAX_IMAGES)
		return favor_fail(e, "synth: --train %d and --test %d must be 1 to %d", o->train, o->test, MAX_IMAGES);
	if (o->size < MIN_SIZE || o->size > MAX_SIZE)
		return favor_fail(e, "synth: --size %d must be %d to %d", o->size, MIN_SIZE, MAX_SIZE);
	char *wanted = describe(o), *classes = favor_strdup("");
	int rc = already_there(dir, wanted, e);
	if (rc != 0) {
		if (rc > 0)
			fprintf(stderr, "synth: %s is there already, made with the same options\n", dir);
		rc = rc > 0 ? 0 : -1;
		goto done;
	}
	for (int i = 0; i < synth_activity_count(); i++) {
		char *longer = favor_format("%s%s\n", classes, synth_activity(i));
		free(classes);
		classes = longer;
	}
	rc = -1;
	if (make_folders(dir, e) || write_text(dir, "options.json", wanted, e) ||
	    write_split(dir, "train", o->train, 0, o, e) || write_split(dir, "test", o->test, MAX_IMAGES + 1, o, e) ||
	    write_text(dir, "classes.txt", classes, e))
		goto done;
	fprintf(stderr, "synth: %d training and %d test images of %d activities in %s\n", o->train, o->test,
	        synth_activity_count(), dir);
	rc = 0;
done:
	free(wanted);
	free(classes);
	return rc;
}
