/* Files that are no whole checkpoints: cut anywhere, with changed bytes, of other kinds, made to mislead. Each is
 * refused with a message that names the file; none crashes, hangs or asks for absurd memory. FAVOR_TEST_STRIDE=N in the
 * environment: in every N-th place only (a child that tries a file takes long to make where there are sanitizers). */
#include "checkpoint/checkpoint.h"
#include "sample.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <hdf5.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* For builds with LeakSanitizer: on damaged files HDF5 1.10 leaks some of what it has read. Our own leaks are seen all
 * the same. */
const char *__lsan_default_suppressions(void);
const char *__lsan_default_suppressions(void)
{
	return "leak:libhdf5";
}

struct fixture {
	char *folder, *whole, *path; /* whole: a good checkpoint; path: where damaged ones go */
	struct checkpoint c;
	unsigned char *data;
	size_t n;
};

static int set_up(void **state)
{
	struct favor_error e = {""};
	struct fixture *f = favor_calloc(1, sizeof *f);
	f->folder = sample_folder();
	f->whole = favor_format("%s/whole.h5", f->folder);
	f->path = favor_format("%s/damaged.h5", f->folder);
	sample_make(&f->c, 1);
	if (checkpoint_write(f->whole, &f->c, &e) != 0)
		return -1;
	f->data = sample_read(f->whole, &f->n);
	*state = f;
	return 0;
}

static int tear_down(void **state)
{
	struct fixture *f = *state;
	sample_free(&f->c);
	sample_remove(f->folder);
	free(f->whole);
	free(f->path);
	free(f->data);
	free(f);
	return 0;
}

/* What was opened must be what was written. */
static void assert_same(const struct checkpoint *a, const struct checkpoint *b)
{
	assert_true(a->step == b->step && a->seed == b->seed && a->cursor == b->cursor &&
	            a->policy_version == b->policy_version);
	assert_string_equal(a->config, b->config);
	assert_string_equal(a->ranks, b->ranks);
	assert_string_equal(a->digest, b->digest);
	assert_int_equal(a->tensor_count, b->tensor_count);
	assert_int_equal(a->file_count, b->file_count);
	assert_int_equal(a->history_columns, b->history_columns);
	assert_int_equal(a->sample_count, b->sample_count);
	for (int i = 0; i < a->file_count; i++) {
		assert_int_equal(a->files[i].size, b->files[i].size);
		assert_memory_equal(a->files[i].data, b->files[i].data, a->files[i].size);
	}
	for (int i = 0; i < a->history_columns; i++)
		assert_memory_equal(a->history[i].values, b->history[i].values, (size_t)a->history_rows * sizeof(double));
	for (int i = 0; i < a->sample_count; i++)
		assert_string_equal(a->samples[i], b->samples[i]);
}

/* Opens, reads and verifies f->path: -1 with a message if any of them refuses it; else all must be as written. */
static int use(struct fixture *f, struct favor_error *e)
{
	struct checkpoint r;
	char digest[17];
	if (checkpoint_open(f->path, &r, e) != 0)
		return -1;
	struct checkpoint_tensor *room = sample_room(&f->c);
	int rc = checkpoint_read_tensors(f->path, room, f->c.tensor_count, e);
	if (rc == 0)
		rc = checkpoint_verify(f->path, digest, e);
	if (rc == 0) {
		assert_same(&f->c, &r);
		for (int i = 0; i < f->c.tensor_count; i++)
			assert_true(sample_equal(&f->c.tensors[i], &room[i]));
	}
	sample_free_tensors(room, f->c.tensor_count);
	checkpoint_free(&r);
	return rc;
}

static void assert_refused(struct fixture *f, const char *part)
{
	struct favor_error e = {""};
	assert_int_equal(use(f, &e), -1);
	if (!strstr(e.message, f->path) || !strstr(e.message, part))
		fail_msg("\"%s\" and the path are not in: %s", part, e.message);
}

static size_t stride(size_t places)
{
	const char *n = getenv("FAVOR_TEST_STRIDE");
	return n && atol(n) > 0 ? places * (size_t)atol(n) : places;
}

static void test_cut(void **state)
{
	struct fixture *f = *state;
	for (size_t n = 0; n < f->n; n += stride(n < 100 || n + 40 > f->n ? 1 : 331)) {
		sample_write(f->path, f->data, n);
		assert_refused(f, "damaged");
	}
}

/* A changed byte is either found or lies where nothing is kept: then everything reads as before. */
static void test_flipped(void **state)
{
	struct fixture *f = *state;
	int found = 0, harmless = 0;
	for (size_t i = 0; i < f->n; i += stride(i < 4096 ? 29 : 83)) {
		f->data[i] ^= (unsigned char)(i % 3 == 0 ? 0xff : 1 << i % 8);
		sample_write(f->path, f->data, f->n);
		struct favor_error e = {""};
		if (use(f, &e) == 0)
			harmless++;
		else if (strstr(e.message, f->path))
			found++;
		else
			fail_msg("no path in: %s", e.message);
		f->data[i] ^= (unsigned char)(i % 3 == 0 ? 0xff : 1 << i % 8);
	}
	print_message("%d changed bytes found, %d in places not used\n", found, harmless);
	assert_true(found > harmless);
}

/* The first bytes of a tensor's data, where they lie in the file. */
static size_t place_of(const struct fixture *f, const float *values)
{
	unsigned char *at = memmem(f->data, f->n, values, 32);
	assert_non_null(at);
	return (size_t)(at - f->data);
}

static void test_checksum_names_tensor(void **state)
{
	struct fixture *f = *state;
	const struct checkpoint_tensor *t = &f->c.tensors[1];
	const float *parts[] = {t->values, t->exp_avg, t->exp_avg_sq};
	static const char *const names[] = {": tensor model.layers.0.mlp.weight: the checksum is wrong",
	                                    ": exp_avg of model.layers.0.mlp.weight: the checksum is wrong",
	                                    ": exp_avg_sq of model.layers.0.mlp.weight: the checksum is wrong"};
	for (int i = 0; i < 3; i++) {
		size_t at = place_of(f, parts[i]) + 1001;
		f->data[at] ^= 4;
		sample_write(f->path, f->data, f->n);
		f->data[at] ^= 4;
		assert_refused(f, names[i]);
	}
	/* files and history have checksums too */
	unsigned char *file = memmem(f->data, f->n, f->c.files[1].data, 256);
	assert_non_null(file);
	file[100] ^= 1;
	sample_write(f->path, f->data, f->n);
	file[100] ^= 1;
	assert_refused(f, ": file config.json: the checksum is wrong");
}

static void test_other_kinds(void **state)
{
	struct fixture *f = *state;
	struct favor_error e = {""};
	struct checkpoint r;
	sample_write(f->path, "this is some text\n", 18);
	assert_refused(f, "can't be opened as a checkpoint");
	assert_int_equal(checkpoint_open(f->folder, &r, &e), -1);
	assert_non_null(strstr(e.message, "is no file"));
	assert_int_equal(checkpoint_open("/nonexistent.h5", &r, &e), -1);
	assert_non_null(strstr(e.message, "/nonexistent.h5: can't be opened: No such file"));
	H5Fclose(H5Fcreate(f->path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT));
	assert_refused(f, "no checkpoint of favor");
}

/* A copy of the good file, opened to be changed with HDF5 itself. */
static hid_t edit(struct fixture *f)
{
	sample_write(f->path, f->data, f->n);
	hid_t file = H5Fopen(f->path, H5F_ACC_RDWR, H5P_DEFAULT);
	assert_true(file >= 0);
	return file;
}

static void set_attribute(hid_t file, const char *name, hid_t type, hid_t space, const void *value)
{
	H5Adelete(file, name);
	hid_t attribute = H5Acreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT);
	assert_true(attribute >= 0 && H5Awrite(attribute, type, value) >= 0);
	H5Aclose(attribute);
}

/* Puts a text in the place of one in /text. */
static void set_text(hid_t file, const char *name, const char *text, int count)
{
	H5Ldelete(file, name, H5P_DEFAULT);
	hid_t type = H5Tcopy(H5T_C_S1), space = H5Screate_simple(1, &(hsize_t){(hsize_t)count}, NULL);
	H5Tset_size(type, 16);
	hid_t dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT);
	char *all = favor_calloc((size_t)count, 16);
	memcpy(all, text, strlen(text));
	assert_true(dataset >= 0 && H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, all) >= 0);
	free(all);
	H5Dclose(dataset);
	H5Sclose(space);
	H5Tclose(type);
}

static void test_attributes(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"format", "step", "seed", "cursor", "policy_version"};
	hid_t scalar = H5Screate(H5S_SCALAR), none = H5Screate(H5S_NULL), three = H5Screate_simple(1, &(hsize_t){3}, NULL);
	hid_t text = H5Tcopy(H5T_C_S1), file;
	H5Tset_size(text, H5T_VARIABLE);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		file = edit(f);
		assert_true(H5Adelete(file, names[i]) >= 0);
		H5Fclose(file);
		assert_refused(f, "is missing");
		file = edit(f);
		set_attribute(file, names[i], H5T_IEEE_F64LE, scalar, &(double){1.5});
		H5Fclose(file);
		assert_refused(f, "is not one integer");
		file = edit(f);
		set_attribute(file, names[i], text, scalar, &(char *){"1"});
		H5Fclose(file);
		assert_refused(f, "is not one integer");
		for (int k = 0; k < 2; k++) {
			file = edit(f);
			H5Adelete(file, names[i]);
			H5Aclose(H5Acreate2(file, names[i], H5T_STD_I64LE, k ? three : none, H5P_DEFAULT, H5P_DEFAULT));
			H5Fclose(file);
			assert_refused(f, "is not one integer");
		}
	}
	file = edit(f);
	set_attribute(file, "format", H5T_STD_I64LE, scalar, &(int64_t){7});
	H5Fclose(file);
	assert_refused(f, "checkpoint format 7");
	H5Tclose(text);
	H5Sclose(scalar);
	H5Sclose(none);
	H5Sclose(three);
}

static void test_texts(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"text/favor_version", "text/config", "text/ranks", "text/digest",
	                                    "text/columns"};
	hid_t file;
	for (int i = 0; i < 5; i++) {
		file = edit(f);
		assert_true(H5Ldelete(file, names[i], H5P_DEFAULT) >= 0);
		H5Fclose(file);
		assert_refused(f, names[i]);
	}
	for (int i = 0; i < 4; i++) {
		file = edit(f);
		set_text(file, names[i], "x", 2);
		H5Fclose(file);
		assert_refused(f, "is not one text");
	}
	file = edit(f);
	set_text(file, "text/digest", "xyz", 1);
	H5Fclose(file);
	assert_refused(f, "16 hexadecimal digits");
	file = edit(f);
	set_text(file, "text/digest", "0123456789abcdef", 1);
	H5Fclose(file);
	assert_refused(f, "the file says 0123456789abcdef");
	file = edit(f);
	set_text(file, "text/columns", "no such metric", 1);
	H5Fclose(file);
	assert_refused(f, "history no such metric can't be read");
}

/* Puts a dataset of that shape and kind in the place of one that is there. */
static void replace(hid_t file, const char *name, hid_t type, int ndim, const hsize_t *dims, hid_t creation)
{
	H5Ldelete(file, name, H5P_DEFAULT);
	hid_t space = H5Screate_simple(ndim, dims, NULL),
		  dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
	assert_true(dataset >= 0);
	H5Dclose(dataset);
	H5Sclose(space);
}

static void test_datasets(void **state)
{
	struct fixture *f = *state;
	static const char name[] = "/model/model.norm.weight";
	hid_t chunked = H5Pcreate(H5P_DATASET_CREATE), external = H5Pcreate(H5P_DATASET_CREATE),
		  packed = H5Pcreate(H5P_DATASET_CREATE);
	H5Pset_chunk(chunked, 1, &(hsize_t){37});
	H5Pset_chunk(packed, 1, &(hsize_t){37});
	H5Pset_deflate(packed, 1);
	H5Pset_external(external, "/etc/passwd", 0, 148);
	hid_t text = H5Tcopy(H5T_C_S1);
	H5Tset_size(text, H5T_VARIABLE);

	/* sizes that nothing stands behind */
	hsize_t huge[] = {1ull << 60, 1ull << 40, 1ull << 40};
	hid_t file = edit(f);
	replace(file, name, H5T_IEEE_F32LE, 1, huge, chunked);
	H5Fclose(file);
	assert_refused(f, "tensor model.norm.weight should have 4611686018427387904 bytes");
	file = edit(f);
	H5Pset_chunk(chunked, 3, (hsize_t[]){1, 1, 1});
	replace(file, name, H5T_IEEE_F32LE, 3, huge, chunked);
	H5Fclose(file);
	assert_refused(f, "tensor model.norm.weight has an impossible size");
	file = edit(f);
	replace(file, name, H5T_IEEE_F32LE, 1, &(hsize_t){1ull << 31}, H5P_DEFAULT);
	H5Fclose(file);
	assert_refused(f, "tensor model.norm.weight should have");
	file = edit(f);
	replace(file, "/samples/json", text, 1, &(hsize_t){3}, H5P_DEFAULT);
	H5Fclose(file);
	assert_refused(f, "samples is not of the type");
	/* other places, filters, types, ranks */
	file = edit(f);
	replace(file, name, H5T_IEEE_F32LE, 1, &(hsize_t){37}, external);
	H5Fclose(file);
	assert_refused(f, "other files");
	file = edit(f);
	replace(file, name, H5T_IEEE_F32LE, 1, &(hsize_t){37}, packed);
	H5Fclose(file);
	assert_refused(f, "compressed");
	file = edit(f);
	replace(file, name, H5T_IEEE_F64LE, 1, &(hsize_t){37}, H5P_DEFAULT);
	H5Fclose(file);
	assert_refused(f, "tensor model.norm.weight is not of the type");
	file = edit(f);
	replace(file, name, H5T_IEEE_F32LE, 6, (hsize_t[]){1, 1, 1, 1, 1, 37}, H5P_DEFAULT);
	H5Fclose(file);
	assert_refused(f, "no shape of up to 5 dimensions");
	/* groups and links where data should be, missing groups */
	file = edit(f);
	H5Ldelete(file, name, H5P_DEFAULT);
	H5Gclose(H5Gcreate2(file, name, H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
	H5Fclose(file);
	assert_refused(f, "tensor model.norm.weight can't be read");
	file = edit(f);
	H5Ldelete(file, name, H5P_DEFAULT);
	H5Lcreate_external("/tmp/other.h5", "/x", file, name, H5P_DEFAULT, H5P_DEFAULT);
	H5Fclose(file);
	assert_refused(f, "/model has links");
	/* the groups themselves as links: to another file, to another place */
	static const char *const places[] = {"/model", "/optimizer/exp_avg", "/text/config", "/samples", "/history/rewards"};
	for (int i = 0; i < 10; i++) {
		file = edit(f);
		H5Ldelete(file, places[i / 2], H5P_DEFAULT);
		if (i % 2)
			H5Lcreate_soft("/files", file, places[i / 2], H5P_DEFAULT, H5P_DEFAULT);
		else
			H5Lcreate_external(f->whole, places[i / 2], file, places[i / 2], H5P_DEFAULT, H5P_DEFAULT);
		H5Fclose(file);
		assert_refused(f, "is a link to another place");
	}
	static const char *const groups[] = {"/model", "/optimizer", "/files", "/history", "/samples"};
	for (int i = 0; i < 5; i++) {
		file = edit(f);
		H5Ldelete(file, groups[i], H5P_DEFAULT);
		H5Fclose(file);
		assert_refused(f, "can't be read");
	}
	/* moments that don't fit the model */
	file = edit(f);
	H5Ldelete(file, name, H5P_DEFAULT);
	H5Fclose(file);
	assert_refused(f, "/optimizer/exp_avg has other tensors than /model");
	file = edit(f);
	H5Ldelete(file, "/optimizer/exp_avg_sq/model.norm.weight", H5P_DEFAULT);
	H5Fclose(file);
	assert_refused(f, "exp_avg_sq of model.norm.weight can't be read");
	file = edit(f);
	replace(file, "/optimizer/exp_avg/model.norm.weight", H5T_IEEE_F32LE, 1, &(hsize_t){36}, H5P_DEFAULT);
	H5Fclose(file);
	assert_refused(f, "model.norm.weight");
	file = edit(f);
	replace(file, "/history/kl", H5T_IEEE_F64LE, 1, &(hsize_t){0}, H5P_DEFAULT);
	H5Fclose(file);
	assert_refused(f, "history kl has another number of steps");
	/* a tensor changed by hand: checksums are right, the digest is not */
	file = edit(f);
	hid_t dataset = H5Dopen2(file, name, H5P_DEFAULT);
	float changed[37] = {1};
	assert_true(H5Dwrite(dataset, H5T_IEEE_F32LE, H5S_ALL, H5S_ALL, H5P_DEFAULT, changed) >= 0);
	H5Dclose(dataset);
	H5Fclose(file);
	assert_refused(f, "it was changed after it was written");
	H5Tclose(text);
	H5Pclose(chunked);
	H5Pclose(packed);
	H5Pclose(external);
}

/* A chunk that skips its checksum, or is shorter than one: the library's reading of it would not notice, or crash. */
static void test_chunks(void **state)
{
	struct fixture *f = *state;
	static const char name[] = "/model/model.norm.weight";
	static const char *const says[] = {"a piece of 152 bytes", "a piece of 2 bytes", "larger than the file"};
	const float values[38] = {1};
	for (int i = 0; i < 3; i++) {
		hid_t file = edit(f), creation = H5Pcreate(H5P_DATASET_CREATE);
		H5Pset_chunk(creation, 1, &(hsize_t){i == 2 ? 1u << 28 : 37});
		H5Pset_fletcher32(creation);
		H5Ldelete(file, name, H5P_DEFAULT);
		hid_t space = H5Screate_simple(1, &(hsize_t){37}, &(hsize_t){i == 2 ? H5S_UNLIMITED : 37});
		hid_t dataset = H5Dcreate2(file, name, H5T_IEEE_F32LE, space, H5P_DEFAULT, creation, H5P_DEFAULT);
		H5Sclose(space);
		assert_true(H5Dwrite_chunk(dataset, H5P_DEFAULT, i == 0, &(hsize_t){0}, i == 1 ? 2 : 152, values) >= 0);
		H5Dclose(dataset);
		H5Pclose(creation);
		H5Fclose(file);
		struct favor_error e = {""};
		assert_int_equal(use(f, &e), -1);
		if (!strstr(e.message, says[i]) && !strstr(e.message, "should have"))
			fail_msg("\"%s\" is not in: %s", says[i], e.message);
	}
}

/* A file in the format of HDF5 1.6, which h5py writes unless told otherwise. */
static void test_old_format(void **state)
{
	struct fixture *f = *state;
	hid_t access = H5Pcreate(H5P_FILE_ACCESS);
	H5Pset_libver_bounds(access, H5F_LIBVER_EARLIEST, H5F_LIBVER_LATEST);
	H5Fclose(H5Fcreate(f->path, H5F_ACC_TRUNC, H5P_DEFAULT, access));
	H5Pclose(access);
	assert_refused(f, "of the old format 0");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cut, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_flipped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_checksum_names_tensor, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_other_kinds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_attributes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_texts, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_datasets, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_chunks, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_old_format, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
