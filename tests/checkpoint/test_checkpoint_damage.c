/* Files that are no whole checkpoints: cut anywhere, with changed bytes, of other kinds, made to mislead. Each is refused with a message that
 * names the file; none crashes, hangs or asks for absurd memory. */
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

/* Opens, reads and verifies f->path; the worst of the three results, with its message. */
static int use(struct fixture *f, struct favor_error *e)
{
	struct checkpoint r;
	char digest[17];
	if (checkpoint_open(f->path, &r, e) != 0)
		return -1;
	checkpoint_free(&r);
	struct checkpoint_tensor *room = sample_room(&f->c);
	int rc = checkpoint_read_tensors(f->path, room, f->c.tensor_count, e);
	sample_free_tensors(room, f->c.tensor_count);
	return rc == 0 ? checkpoint_verify(f->path, digest, e) : rc;
}

static void assert_refused(struct fixture *f, const char *part)
{
	struct favor_error e = {""};
	assert_int_equal(use(f, &e), -1);
	if (!strstr(e.message, f->path) || !strstr(e.message, part))
		fail_msg("\"%s\" and the path are not in: %s", part, e.message);
}

static void test_cut(void **state)
{
	struct fixture *f = *state;
	for (size_t n = 0; n < f->n; n += n < 600 || n + 300 > f->n ? 1 : 61) {
		sample_write(f->path, f->data, n);
		assert_refused(f, "damaged");
	}
}

/* A changed byte is either found or lies where nothing is kept: then everything reads as before. */
static void test_flipped(void **state)
{
	struct fixture *f = *state;
	int found = 0, harmless = 0;
	for (size_t i = 0; i < f->n; i += i < 4096 ? 5 : 17) {
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

static void test_attributes(void **state)
{
	struct fixture *f = *state;
	static const char *const names[] = {"favor_version", "step", "seed", "cursor", "policy_version", "config", "ranks", "digest"};
	hid_t scalar = H5Screate(H5S_SCALAR), none = H5Screate(H5S_NULL), three = H5Screate_simple(1, &(hsize_t){3}, NULL);
	hid_t text = H5Tcopy(H5T_C_S1);
	H5Tset_size(text, H5T_VARIABLE);
	for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
		int is_text = i == 0 || i > 4;
		hid_t file = edit(f);
		assert_true(H5Adelete(file, names[i]) >= 0);
		H5Fclose(file);
		assert_refused(f, "is missing");
		/* a number */
		file = edit(f);
		set_attribute(file, names[i], H5T_IEEE_F64LE, scalar, &(double){1.5});
		H5Fclose(file);
		assert_refused(f, "is not of the kind");
		/* the other of text and integer */
		file = edit(f);
		set_attribute(file, names[i], is_text ? H5T_STD_I64LE : text, scalar, is_text ? (void *)&(int64_t){1} : (void *)&(char *){"1"});
		H5Fclose(file);
		assert_refused(f, "is not of the kind");
		/* none, or three */
		file = edit(f);
		H5Adelete(file, names[i]);
		H5Aclose(H5Acreate2(file, names[i], is_text ? text : H5T_STD_I64LE, none, H5P_DEFAULT, H5P_DEFAULT));
		H5Fclose(file);
		assert_refused(f, names[i]);
		file = edit(f);
		H5Adelete(file, names[i]);
		H5Aclose(H5Acreate2(file, names[i], is_text ? text : H5T_STD_I64LE, three, H5P_DEFAULT, H5P_DEFAULT));
		H5Fclose(file);
		assert_refused(f, names[i]);
	}
	hid_t file = edit(f);
	set_attribute(file, "format", H5T_STD_I64LE, scalar, &(int64_t){7});
	H5Fclose(file);
	assert_refused(f, "checkpoint format 7");
	file = edit(f);
	set_attribute(file, "digest", text, scalar, &(char *){"xyz"});
	H5Fclose(file);
	assert_refused(f, "16 hexadecimal digits");
	file = edit(f);
	set_attribute(file, "digest", text, scalar, &(char *){"0123456789abcdef"});
	H5Fclose(file);
	assert_refused(f, "the file says 0123456789abcdef");
	H5Tclose(text);
	H5Sclose(scalar);
	H5Sclose(none);
	H5Sclose(three);
}

/* Puts a dataset of that shape and kind in the place of one that is there. */
static void replace(hid_t file, const char *name, hid_t type, int ndim, const hsize_t *dims, hid_t creation)
{
	H5Ldelete(file, name, H5P_DEFAULT);
	hid_t space = H5Screate_simple(ndim, dims, NULL), dataset = H5Dcreate2(file, name, type, space, H5P_DEFAULT, creation, H5P_DEFAULT);
	assert_true(dataset >= 0);
	H5Dclose(dataset);
	H5Sclose(space);
}

static void test_datasets(void **state)
{
	struct fixture *f = *state;
	static const char name[] = "/model/model.norm.weight";
	hid_t chunked = H5Pcreate(H5P_DATASET_CREATE), external = H5Pcreate(H5P_DATASET_CREATE), packed = H5Pcreate(H5P_DATASET_CREATE);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_cut, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_flipped, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_checksum_names_tensor, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_other_kinds, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_attributes, set_up, tear_down),
		cmocka_unit_test_setup_teardown(test_datasets, set_up, tear_down),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
