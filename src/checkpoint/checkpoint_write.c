/* Writing a checkpoint: everything into path.tmp-PID, then fsync, rename and fsync of the folder, so that path is
 * either the old file or the whole new one at any moment. Also the digest, as it is made when written and made again
 * when verified. */
#include "base/fault.h"
#include "base/hash.h"
#include "checkpoint/h5.h"
#include "checkpoint/internal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SYNC_BYTES = 256 << 20 };

int64_t checkpoint_elements(const struct checkpoint_tensor *t)
{
	int64_t n = 1;
	for (int i = 0; i < t->ndim; i++)
		n *= t->shape[i];
	return n;
}

/* A frozen tensor, which has no moments, must differ from one whose moments are empty or zero. */
static uint64_t hash_moment(uint64_t h, const float *moment, size_t bytes)
{
	unsigned char there = moment != NULL;
	h = hash_bytes(h, &there, 1);
	return there ? hash_block(h, moment, bytes) : h;
}

uint64_t checkpoint_hash(const struct checkpoint_tensor *t)
{
	size_t bytes = (size_t)checkpoint_elements(t) * sizeof(float);
	uint64_t h = hash_bytes(HASH_START, t->name, strlen(t->name) + 1);
	h = hash_block(h, &(int64_t){t->ndim}, sizeof(int64_t));
	h = hash_block(h, t->shape, (size_t)t->ndim * sizeof *t->shape);
	if (bytes)
		h = hash_block(h, t->values, bytes);
	h = hash_moment(h, t->exp_avg, bytes);
	return hash_moment(h, t->exp_avg_sq, bytes);
}

uint64_t checkpoint_digest_add(uint64_t digest, uint64_t hash)
{
	return hash_mix(digest ^ hash_mix(hash)) + hash;
}

static int by_name(const void *a, const void *b)
{
	const struct checkpoint_tensor *const *x = a, *const *y = b;
	return strcmp((*x)->name, (*y)->name);
}

const struct checkpoint_tensor **checkpoint_sorted(const struct checkpoint_tensor *tensors, int count)
{
	const struct checkpoint_tensor **sorted = favor_calloc((size_t)count, sizeof *sorted);
	for (int i = 0; i < count; i++)
		sorted[i] = &tensors[i];
	qsort(sorted, (size_t)count, sizeof *sorted, by_name);
	return sorted;
}

uint64_t checkpoint_digest(const struct checkpoint_tensor *tensors, int count)
{
	const struct checkpoint_tensor **sorted = checkpoint_sorted(tensors, count);
	uint64_t digest = HASH_START;
	for (int i = 0; i < count; i++) {
		favor_alive();
		digest = checkpoint_digest_add(digest, checkpoint_hash(sorted[i]));
	}
	free(sorted);
	return digest;
}

/* HDF5 takes "/" and "." as places. */
static int name_fits(const char *name)
{
	return *name && !strchr(name, '/') && strcmp(name, ".") != 0;
}

static int check(const char *path, const struct checkpoint *c, struct favor_error *e)
{
	for (int i = 0; i < c->tensor_count; i++) {
		const struct checkpoint_tensor *t = &c->tensors[i];
		int64_t elements = 1;
		if (!name_fits(t->name))
			return favor_fail(e, "%s: a tensor can't be stored under the name \"%s\"", path, t->name);
		if (t->ndim < 0 || t->ndim > H5_DIMS_MAX)
			return favor_fail(e, "%s: tensor %s has %d dimensions, a checkpoint takes up to %d", path, t->name, t->ndim,
			                  H5_DIMS_MAX);
		for (int k = 0; k < t->ndim; k++)
			if (t->shape[k] < 0 || __builtin_mul_overflow(elements, t->shape[k], &elements) || elements > INT64_MAX / 4)
				return favor_fail(e, "%s: tensor %s has an impossible size", path, t->name);
		if (elements && !t->values)
			return favor_fail(e, "%s: tensor %s has no values", path, t->name);
		if (!t->exp_avg != !t->exp_avg_sq)
			return favor_fail(e, "%s: tensor %s has one of its two moments only", path, t->name);
	}
	for (int i = 0; i < c->file_count; i++)
		if (!name_fits(c->files[i].name))
			return favor_fail(e, "%s: a file can't be stored under the name \"%s\"", path, c->files[i].name);
	const struct checkpoint_tensor **sorted = checkpoint_sorted(c->tensors, c->tensor_count);
	int rc = 0;
	for (int i = 1; i < c->tensor_count && rc == 0; i++)
		if (strcmp(sorted[i - 1]->name, sorted[i]->name) == 0)
			rc = favor_fail(e, "%s: there are two tensors of the name %s", path, sorted[i]->name);
	free(sorted);
	return rc;
}

/* 0, or errno. */
static int sync_path(const char *path, int flags)
{
	int fd = open(path, flags | O_CLOEXEC);
	if (fd < 0)
		return errno;
	int code = fsync(fd) == 0 ? 0 : errno;
	close(fd);
	return code;
}

/* What has been written goes to the disk in portions: one fsync of all at the end could take longer than other ranks
 * wait without a sign of life. */
static int sync_portion(hid_t file, const char *path, uint64_t *bytes)
{
	if (*bytes < SYNC_BYTES)
		return 0;
	*bytes = 0;
	if (H5Fflush(file, H5F_SCOPE_LOCAL) < 0)
		return -1;
	sync_path(path, O_RDONLY); /* an error comes again at the end */
	favor_alive();
	return 0;
}

/* Each tensor is looked at once: its hash is made meanwhile. */
static int write_tensors(hid_t file, const char *path, struct checkpoint *c)
{
	const struct checkpoint_tensor **sorted = checkpoint_sorted(c->tensors, c->tensor_count);
	uint64_t bytes = 0, digest = HASH_START, *hashes = favor_calloc((size_t)c->tensor_count, sizeof *hashes);
	int rc = -1;
	hid_t model = h5_create_group(file, "model"), exp_avg = h5_create_group(file, "optimizer/exp_avg"),
		  exp_avg_sq = h5_create_group(file, "optimizer/exp_avg_sq");
	if (model < 0 || exp_avg < 0 || exp_avg_sq < 0)
		goto done;
	for (int i = 0; i < c->tensor_count; i++) {
		const struct checkpoint_tensor *t = &c->tensors[i];
		hsize_t dims[H5_DIMS_MAX];
		if (i == c->tensor_count / 2)
			fault_point("checkpoint half", c->step);
		for (int k = 0; k < t->ndim; k++)
			dims[k] = (hsize_t)t->shape[k];
		favor_alive();
		if (c->bring)
			c->bring(c->bring_arg, i);
		hashes[i] = checkpoint_hash(t);
		if (h5_write_data(model, t->name, H5T_IEEE_F32LE, t->ndim, dims, t->values) != 0)
			goto done;
		if (t->exp_avg && (h5_write_data(exp_avg, t->name, H5T_IEEE_F32LE, t->ndim, dims, t->exp_avg) != 0 ||
		                   h5_write_data(exp_avg_sq, t->name, H5T_IEEE_F32LE, t->ndim, dims, t->exp_avg_sq) != 0))
			goto done;
		bytes += (uint64_t)checkpoint_elements(t) * sizeof(float) * (t->exp_avg ? 3 : 1);
		if (sync_portion(file, path, &bytes) != 0)
			goto done;
	}
	for (int i = 0; i < c->tensor_count; i++)
		digest = checkpoint_digest_add(digest, hashes[sorted[i] - c->tensors]);
	snprintf(c->digest, sizeof c->digest, "%016llx", (unsigned long long)digest);
	rc = 0;
done:
	h5_close(exp_avg_sq);
	h5_close(exp_avg);
	h5_close(model);
	free(hashes);
	free(sorted);
	return rc;
}

static int write_files(hid_t file, const struct checkpoint *c)
{
	hid_t group = h5_create_group(file, "files");
	int rc = group < 0 ? -1 : 0;
	for (int i = 0; i < c->file_count && rc == 0; i++)
		rc = h5_write_data(group, c->files[i].name, H5T_STD_U8LE, 1, &(hsize_t){c->files[i].size}, c->files[i].data);
	h5_close(group);
	return rc;
}

/* Names of metrics have slashes: /history/rewards/accuracy/mean. Their order, and which they are, stands in
 * /text/columns. */
static int write_history(hid_t file, const struct checkpoint *c)
{
	hid_t group = h5_create_group(file, "history");
	const char **names = favor_calloc((size_t)c->history_columns, sizeof *names);
	int rc = group < 0 ? -1 : 0;
	for (int i = 0; i < c->history_columns && rc == 0; i++) {
		names[i] = c->history[i].name;
		rc = h5_write_data(group, names[i], H5T_IEEE_F64LE, 1, &(hsize_t){(hsize_t)c->history_rows},
		                   c->history[i].values);
	}
	if (rc == 0)
		rc = h5_write_strings(file, "text/columns", c->history_columns, names);
	free(names);
	h5_close(group);
	return rc;
}

/* As an attribute, for h5py and h5dump; and in /text, where favor itself reads it: HDF5 keeps the text of such an
 * attribute in a heap that has no checksum, and follows whatever a damaged one says. */
static int write_text(hid_t file, const char *name, const char *text)
{
	if (!text)
		text = "";
	char *place = favor_format("text/%s", name);
	int rc = h5_write_text(file, name, text) != 0 || h5_write_strings(file, place, 1, &text) != 0 ? -1 : 0;
	free(place);
	return rc;
}

/* The digest comes last: a file without it is not complete. */
static int write_all(hid_t file, const char *path, struct checkpoint *c)
{
	if (write_tensors(file, path, c) != 0 || write_files(file, c) != 0 || write_history(file, c) != 0 ||
	    h5_write_strings(file, "samples/json", c->sample_count, (const char *const *)c->samples) != 0)
		return -1;
	if (h5_write_attribute(file, "format", H5T_STD_I64LE, &(int64_t){CHECKPOINT_FORMAT}) != 0 ||
	    h5_write_attribute(file, "step", H5T_STD_I64LE, &c->step) != 0 ||
	    h5_write_attribute(file, "seed", H5T_STD_U64LE, &c->seed) != 0 ||
	    h5_write_attribute(file, "cursor", H5T_STD_U64LE, &c->cursor) != 0 ||
	    h5_write_attribute(file, "policy_version", H5T_STD_U64LE, &c->policy_version) != 0)
		return -1;
	fault_point("checkpoint digest", c->step);
	if (write_text(file, "favor_version", FAVOR_VERSION) != 0 || write_text(file, "config", c->config) != 0 ||
	    write_text(file, "ranks", c->ranks) != 0 || write_text(file, "digest", c->digest) != 0)
		return -1;
	return H5Fflush(file, H5F_SCOPE_GLOBAL) < 0 ? -1 : 0;
}

/* What the data alone takes, in MiB: for the message of a full disk. */
static double size_mib(const struct checkpoint *c)
{
	double bytes = 0;
	for (int i = 0; i < c->tensor_count; i++)
		bytes += (double)checkpoint_elements(&c->tensors[i]) * 4 * (c->tensors[i].exp_avg ? 3 : 1);
	for (int i = 0; i < c->file_count; i++)
		bytes += (double)c->files[i].size;
	return (bytes + (double)c->history_rows * c->history_columns * 8) / (1 << 20);
}

static int fail_write(const char *path, const struct checkpoint *c, const char *reason, int code, struct favor_error *e)
{
	if (code == ENOSPC || code == EDQUOT || code == EFBIG)
		return favor_fail(e,
		                  "%s: the checkpoint can't be written: %s; it needs %.1f MiB: make room, or keep fewer "
		                  "(checkpoint.keep), or write to another disk (run.dir)",
		                  path, reason, size_mib(c));
	return favor_fail(e, "%s: the checkpoint can't be written: %s; the folder must exist and be writable", path,
	                  reason);
}

/* The folder that path lies in; new string. */
static char *folder_of(const char *path)
{
	const char *slash = strrchr(path, '/');
	if (!slash)
		return favor_strdup(".");
	return slash == path ? favor_strdup("/") : favor_format("%.*s", (int)(slash - path), path);
}

int checkpoint_write(const char *path, struct checkpoint *c, struct favor_error *e)
{
	if (check(path, c, e) != 0)
		return -1;
	char *temporary = favor_format("%s.tmp-%ld", path, (long)getpid()), *folder = folder_of(path);
	char reason[512] = "";
	int code = 0, rc = -1;
	hid_t file = -1;
	h5_quiet();
	if (mkdir(folder, 0777) != 0 && errno != EEXIST) {
		favor_fail(e, "%s: the folder %s can't be made: %s; choose another run.dir", path, folder, strerror(errno));
		goto done;
	}
	file = h5_create_file(temporary);
	if (file < 0 || write_all(file, temporary, c) != 0) {
		code = h5_reason(reason, sizeof reason);
		if (file >= 0)
			H5Fclose(file);
		goto fail;
	}
	fault_point("checkpoint close", c->step);
	if (H5Fclose(file) < 0) {
		code = h5_reason(reason, sizeof reason);
		goto fail;
	}
	fault_point("checkpoint fsync", c->step);
	code = sync_path(temporary, O_RDONLY);
	fault_point("checkpoint rename", c->step);
	if (code == 0 && rename(temporary, path) != 0)
		code = errno;
	fault_point("checkpoint folder fsync", c->step);
	if (code == 0)
		code = sync_path(folder, O_RDONLY | O_DIRECTORY);
	if (code == 0) {
		rc = 0;
		goto done;
	}
	snprintf(reason, sizeof reason, "%s", strerror(code));
fail:
	fail_write(path, c, reason, code, e);
	/* cut first: HDF5 may still hold a file open that it couldn't flush, and its space with it */
	if (truncate(temporary, 0) == 0 || errno != ENOENT)
		unlink(temporary);
done:
	free(folder);
	free(temporary);
	return rc;
}
