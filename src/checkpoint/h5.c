/* HDF5 for this room: errors as text, datasets with checksums, and reading that trusts nothing. See h5.h. */
#include "base/file.h"
#include "checkpoint/h5.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

void h5_quiet(void)
{
	H5dont_atexit();
	H5PLset_loading_state(0); /* no code from outside for filters that a file asks for */
	H5Eset_auto2(H5E_DEFAULT, NULL, NULL);
}

struct reason {
	char *text;
	size_t n;
	int code;
};

static herr_t innermost(unsigned depth, const H5E_error2_t *entry, void *to)
{
	struct reason *r = to;
	if (depth > 0)
		return 0;
	const char *text = entry->desc && *entry->desc ? entry->desc
	                   : entry->func_name          ? entry->func_name
	                                               : "unknown reason";
	/* "file write failed: ..., errno = 28, error message = 'No space left on device', buf = ..." */
	const char *code = strstr(text, "errno = ");
	if (code)
		r->code = atoi(code + 8);
	if (r->code)
		snprintf(r->text, r->n, "%s", strerror(r->code));
	else
		snprintf(r->text, r->n, "%s", text);
	return 0;
}

int h5_reason(char *text, size_t n)
{
	struct reason r = {text, n, 0};
	snprintf(text, n, "unknown reason");
	H5Ewalk2(H5E_DEFAULT, H5E_WALK_UPWARD, innermost, &r);
	return r.code;
}

/* Any call of HDF5 empties the error stack: it is put aside, so that the reason outlives the clean-up. */
void h5_close(hid_t id)
{
	if (id < 0)
		return;
	hid_t stack = H5Eget_current_stack();
	H5Idec_ref(id);
	if (stack >= 0)
		H5Eset_current_stack(stack);
}

hid_t h5_create_file(const char *path)
{
	hid_t access = H5Pcreate(H5P_FILE_ACCESS), creation = H5Pcreate(H5P_FILE_CREATE), file = -1;
	/* the format of 1.10 has checksums on all metadata; locks are of no use for a file that nobody knows yet, and some
	 * network file systems have none */
	if (access >= 0 && creation >= 0 && H5Pset_libver_bounds(access, H5F_LIBVER_V110, H5F_LIBVER_V110) >= 0 &&
	    H5Pset_file_locking(access, 0, 1) >= 0)
		file = H5Fcreate(path, H5F_ACC_TRUNC, creation, access);
	h5_close(access);
	h5_close(creation);
	return file;
}

/* Names in UTF-8; groups between are made. */
static hid_t link_properties(void)
{
	hid_t p = H5Pcreate(H5P_LINK_CREATE);
	if (p >= 0 && (H5Pset_char_encoding(p, H5T_CSET_UTF8) < 0 || H5Pset_create_intermediate_group(p, 1) < 0)) {
		h5_close(p);
		return -1;
	}
	return p;
}

hid_t h5_create_group(hid_t loc, const char *name)
{
	hid_t links = link_properties(), creation = H5Pcreate(H5P_GROUP_CREATE), group = -1;
	if (links >= 0 && creation >= 0 &&
	    H5Pset_link_creation_order(creation, H5P_CRT_ORDER_TRACKED | H5P_CRT_ORDER_INDEXED) >= 0)
		group = H5Gcreate2(loc, name, links, creation, H5P_DEFAULT);
	h5_close(links);
	h5_close(creation);
	return group;
}

int h5_write_attribute(hid_t loc, const char *name, hid_t type, const void *value)
{
	hid_t space = H5Screate(H5S_SCALAR);
	hid_t attribute = space >= 0 ? H5Acreate2(loc, name, type, space, H5P_DEFAULT, H5P_DEFAULT) : -1;
	int rc = attribute >= 0 && H5Awrite(attribute, type, value) >= 0 ? 0 : -1;
	h5_close(attribute);
	h5_close(space);
	return rc;
}

int h5_write_text(hid_t loc, const char *name, const char *text)
{
	hid_t type = H5Tcopy(H5T_C_S1);
	int rc = -1;
	if (type >= 0 && H5Tset_size(type, H5T_VARIABLE) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0)
		rc = h5_write_attribute(loc, name, type, &text);
	h5_close(type);
	return rc;
}

/* Whole rows of the last dimensions, as many as fit; rows are dealt out evenly, as a chunk at the end takes the room of
 * a full one. */
static void chunk_shape(int ndim, const hsize_t *dims, size_t element, hsize_t *chunk)
{
	hsize_t room = H5_CHUNK_BYTES / element;
	if (room < 1)
		room = 1;
	for (int i = ndim - 1; i >= 0; i--) {
		hsize_t pieces = dims[i] <= room ? 1 : (dims[i] + room - 1) / room;
		chunk[i] = (dims[i] + pieces - 1) / pieces;
		room = pieces > 1 ? 1 : room / chunk[i];
	}
}

int h5_write_data(hid_t loc, const char *name, hid_t type, int ndim, const hsize_t *dims, const void *data)
{
	int rc = -1, empty = 0;
	for (int i = 0; i < ndim; i++)
		empty |= dims[i] == 0;
	hsize_t chunk[H5_DIMS_MAX];
	hid_t space = ndim ? H5Screate_simple(ndim, dims, NULL) : H5Screate(H5S_SCALAR);
	hid_t creation = H5Pcreate(H5P_DATASET_CREATE), links = link_properties(), dataset = -1;
	if (space < 0 || creation < 0 || links < 0)
		goto done;
	if (ndim && !empty) {
		chunk_shape(ndim, dims, H5Tget_size(type), chunk);
		if (H5Pset_chunk(creation, ndim, chunk) < 0 || H5Pset_fletcher32(creation) < 0 ||
		    H5Pset_fill_time(creation, H5D_FILL_TIME_NEVER) < 0)
			goto done;
	}
	dataset = H5Dcreate2(loc, name, type, space, links, creation, H5P_DEFAULT);
	if (dataset < 0)
		goto done;
	if (!empty && H5Dwrite(dataset, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, data) < 0)
		goto done;
	/* the caller must see the error of a write that waits in HDF5's cache until now */
	rc = H5Dclose(dataset) < 0 ? -1 : 0;
	dataset = -1;
done:
	h5_close(dataset);
	h5_close(links);
	h5_close(creation);
	h5_close(space);
	return rc;
}

int h5_write_strings(hid_t loc, const char *name, int count, const char *const *texts)
{
	size_t longest = 1;
	for (int i = 0; i < count; i++)
		longest = strlen(texts[i]) > longest ? strlen(texts[i]) : longest;
	char *packed = favor_calloc((size_t)count, longest);
	for (int i = 0; i < count; i++)
		memcpy(packed + (size_t)i * longest, texts[i], strlen(texts[i]));
	hid_t type = H5Tcopy(H5T_C_S1);
	int rc = -1;
	if (type >= 0 && H5Tset_size(type, longest) >= 0 && H5Tset_cset(type, H5T_CSET_UTF8) >= 0 &&
	    H5Tset_strpad(type, H5T_STR_NULLPAD) >= 0)
		rc = h5_write_data(loc, name, type, 1, &(hsize_t){(hsize_t)count}, packed);
	h5_close(type);
	free(packed);
	return rc;
}

static int fail_read(const struct h5_source *s, const char *what)
{
	char reason[512];
	h5_reason(reason, sizeof reason);
	if (strstr(reason, "letcher32"))
		return favor_fail(s->e, "%s: %s: the checksum is wrong: the file is damaged; use another checkpoint", s->path,
		                  what);
	return favor_fail(s->e, "%s: %s can't be read: %s", s->path, what, reason);
}

/* The file must begin as those that favor writes: with a superblock whose format has checksums on all metadata. What comes
 * without them, the library would follow wherever a damaged byte leads. */
static int check_superblock(const struct h5_source *s)
{
	static const unsigned char signature[8] = "\x89HDF\r\n\x1a\n";
	unsigned char head[9] = {0};
	FILE *f = file_open(s->path, s->e);
	if (!f)
		return -1;
	size_t n = fread(head, 1, sizeof head, f);
	fclose(f);
	if (n != sizeof head || memcmp(head, signature, sizeof signature))
		return favor_fail(s->e,
		                  "%s: can't be opened as a checkpoint (HDF5): it does not begin as one; the file is cut short, "
		                  "damaged or of another kind",
		                  s->path);
	if (head[8] < 2)
		return favor_fail(s->e,
		                  "%s: is no checkpoint of favor as it was written: an HDF5 file of the old format %d, without "
		                  "checksums of its structure (h5repack --low=2 --high=2 IN.h5 OUT.h5 changes that)",
		                  s->path, head[8]);
	return 0;
}

int h5_open_file(struct h5_source *s, const char *path, struct favor_error *e)
{
	h5_quiet();
	*s = (struct h5_source){path, -1, 0, e};
	struct stat st;
	if (stat(path, &st) != 0)
		return favor_fail(e, "%s: can't be opened: %s; give the path of a checkpoint", path, strerror(errno));
	if (!S_ISREG(st.st_mode))
		return favor_fail(e, "%s: is no file; give the path of a checkpoint such as RUN_DIR/checkpoints/step-000100.h5",
		                  path);
	s->size = (uint64_t)st.st_size;
	if (check_superblock(s) != 0)
		return -1;
	hid_t access = H5Pcreate(H5P_FILE_ACCESS);
	if (access >= 0 && H5Pset_file_locking(access, 0, 1) >= 0)
		s->file = H5Fopen(path, H5F_ACC_RDONLY, access);
	char reason[512];
	if (s->file < 0)
		h5_reason(reason, sizeof reason);
	h5_close(access);
	if (s->file >= 0)
		return 0;
	return favor_fail(
		e, "%s: can't be opened as a checkpoint (HDF5): %s; the file is cut short, damaged or of another kind", path,
		reason);
}

void h5_close_file(struct h5_source *s)
{
	if (s->file >= 0)
		H5Fclose(s->file);
	s->file = -1;
}

/* Every part of the name must be the thing itself: a link could lead to another place, or to another file. */
static int check_links(const struct h5_source *s, hid_t loc, const char *name, const char *what)
{
	int rc = 0;
	char *part = favor_strdup(name);
	for (char *end = part; rc == 0 && *end;) {
		end += strspn(end, "/");
		end += strcspn(end, "/");
		const char kept = *end;
		H5L_info_t info;
		*end = 0;
		if (H5Lget_info(loc, part, &info, H5P_DEFAULT) < 0)
			rc = fail_read(s, what);
		else if (info.type != H5L_TYPE_HARD)
			rc = favor_fail(s->e, "%s: %s is a link to another place; a checkpoint has none", s->path, what);
		*end = kept;
	}
	free(part);
	return rc;
}

int h5_open_group(const struct h5_source *s, const char *name, hid_t *group)
{
	if (check_links(s, s->file, name, name) != 0)
		return -1;
	*group = H5Gopen2(s->file, name, H5P_DEFAULT);
	return *group < 0 ? fail_read(s, name) : 0;
}

struct name_list {
	int count;
	char **names;
	int links; /* members that are no hard links: they could lead to other files */
};

static herr_t add_name(hid_t group, const char *name, const H5L_info_t *info, void *to)
{
	(void)group;
	struct name_list *l = to;
	l->links += info->type != H5L_TYPE_HARD;
	l->names = favor_realloc(l->names, ((size_t)l->count + 1) * sizeof *l->names);
	l->names[l->count++] = favor_strdup(name);
	return 0;
}

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int h5_names(const struct h5_source *s, hid_t group, const char *group_name, int *count, char ***names)
{
	struct name_list l = {0, NULL, 0};
	unsigned order = 0;
	hid_t creation = H5Gget_create_plist(group);
	if (creation >= 0)
		H5Pget_link_creation_order(creation, &order);
	h5_close(creation);
	int by_creation = (order & H5P_CRT_ORDER_INDEXED) != 0;
	/* native order: asked for another one, HDF5 1.10 builds a table, and frees what it never set if the group is
	 * damaged. For an index by creation it is the order of creation. */
	hsize_t at = 0;
	int rc = 0;
	if (H5Literate(group, by_creation ? H5_INDEX_CRT_ORDER : H5_INDEX_NAME, H5_ITER_NATIVE, &at, add_name, &l) < 0)
		rc = fail_read(s, group_name);
	else if (!by_creation && l.count)
		qsort(l.names, (size_t)l.count, sizeof *l.names, by_bytes);
	if (rc == 0 && l.links)
		rc = favor_fail(s->e, "%s: %s has links to other places; a checkpoint has none", s->path, group_name);
	*count = l.count;
	*names = l.names;
	return rc;
}

/* An attribute of the root that is one integer. */
static int read_integer(const struct h5_source *s, const char *name, hid_t memory_type, void *value)
{
	if (H5Aexists(s->file, name) <= 0)
		return favor_fail(s->e, "%s: the attribute %s is missing: this is no complete checkpoint", s->path, name);
	int rc = 0;
	hid_t attribute = H5Aopen(s->file, name, H5P_DEFAULT), type = attribute >= 0 ? H5Aget_type(attribute) : -1,
		  space = attribute >= 0 ? H5Aget_space(attribute) : -1;
	if (type < 0 || space < 0)
		rc = fail_read(s, name);
	else if (H5Tget_class(type) != H5T_INTEGER || H5Sget_simple_extent_npoints(space) != 1)
		rc = favor_fail(s->e, "%s: the attribute %s is not one integer, as a checkpoint has it", s->path, name);
	else if (H5Aread(attribute, memory_type, value) < 0)
		rc = fail_read(s, name);
	h5_close(space);
	h5_close(type);
	h5_close(attribute);
	return rc;
}

int h5_read_int64(const struct h5_source *s, const char *name, int64_t *value)
{
	return read_integer(s, name, H5T_NATIVE_INT64, value);
}

int h5_read_uint64(const struct h5_source *s, const char *name, uint64_t *value)
{
	return read_integer(s, name, H5T_NATIVE_UINT64, value);
}

/* Every chunk must be there in one piece: of the size that its shape and its checksum make, inside the file, with the
 * checksum not left out. The library itself believes what the file says of a chunk. */
static int check_chunks(const struct h5_source *s, const struct h5_data *d, hid_t creation, int filters,
                        const char *what)
{
	hsize_t chunk[H5_DIMS_MAX], at[H5_DIMS_MAX] = {0};
	uint64_t bytes = H5Tget_size(d->type);
	if (H5Pget_chunk(creation, H5_DIMS_MAX, chunk) != d->ndim)
		return fail_read(s, what);
	for (int i = 0; i < d->ndim; i++)
		if (chunk[i] == 0 || __builtin_mul_overflow(bytes, chunk[i], &bytes))
			bytes = UINT64_MAX;
	if (bytes > s->size)
		return favor_fail(s->e, "%s: %s is cut into pieces larger than the file: the file is damaged", s->path, what);
	bytes += filters ? 4 : 0; /* fletcher32 */
	for (uint64_t left = s->size;;) {
		unsigned mask = 0;
		haddr_t place = 0;
		hsize_t stored = 0;
		if (H5Dget_chunk_info_by_coord(d->dataset, at, &mask, &place, &stored) < 0)
			return fail_read(s, what);
		if (stored != bytes || mask != 0 || bytes > left || place > s->size || s->size - place < bytes)
			return favor_fail(s->e, "%s: %s has a piece of %llu bytes at %llu that can't be: the file is damaged", s->path,
			                  what, (unsigned long long)stored, (unsigned long long)place);
		left -= bytes; /* pieces don't share bytes, so there are not more of them than the file has room for */
		int i = d->ndim - 1;
		for (; i >= 0; i--) {
			at[i] += chunk[i];
			if (at[i] < d->dims[i])
				break;
			at[i] = 0;
		}
		if (i < 0)
			return 0;
	}
}

/* Data must lie in this file, as it is (fletcher32 and nothing else), and all of it: then its size is bounded by the
 * file's. */
static int check_storage(const struct h5_source *s, const struct h5_data *d, const char *what)
{
	int rc = 0;
	hid_t creation = H5Dget_create_plist(d->dataset);
	H5D_layout_t layout = creation >= 0 ? H5Pget_layout(creation) : H5D_LAYOUT_ERROR;
	if (layout == H5D_LAYOUT_ERROR) {
		rc = fail_read(s, what);
	} else if ((layout != H5D_CHUNKED && layout != H5D_CONTIGUOUS && layout != H5D_COMPACT) ||
	           H5Pget_external_count(creation) != 0) {
		rc = favor_fail(s->e, "%s: the data of %s lies in other files; a checkpoint holds all of it", s->path, what);
	} else {
		int filters = H5Pget_nfilters(creation);
		for (int i = 0; i < filters && rc == 0; i++) {
			unsigned flags;
			size_t none = 0;
			H5Z_filter_t filter = H5Pget_filter2(creation, (unsigned)i, &flags, &none, NULL, 0, NULL, NULL);
			if (filter != H5Z_FILTER_FLETCHER32)
				rc = favor_fail(
					s->e, "%s: %s is compressed (filter %d); write it again without: h5repack -f FLET --low=2 --high=2 IN.h5 OUT.h5",
					s->path, what, (int)filter);
		}
		hsize_t stored = H5Dget_storage_size(d->dataset);
		if (rc == 0 && (stored < d->bytes || stored > s->size))
			rc = favor_fail(s->e, "%s: %s should have %zu bytes, the file has %llu of it: the file is damaged", s->path,
			                what, d->bytes, stored > s->size ? 0ull : (unsigned long long)stored);
		if (rc == 0 && layout == H5D_CHUNKED)
			rc = check_chunks(s, d, creation, filters, what);
		haddr_t place = layout == H5D_CONTIGUOUS ? H5Dget_offset(d->dataset) : 0;
		if (rc == 0 && (place > s->size || s->size - place < (layout == H5D_CONTIGUOUS ? d->bytes : 0)))
			rc = favor_fail(s->e, "%s: %s lies outside of the file: the file is damaged", s->path, what);
	}
	h5_close(creation);
	return rc;
}

int h5_open_data(const struct h5_source *s, hid_t loc, const char *name, const char *what, hid_t type,
                 struct h5_data *d)
{
	*d = (struct h5_data){.dataset = -1, .type = -1};
	if (check_links(s, loc, name, what) != 0)
		return -1;
	d->dataset = H5Dopen2(loc, name, H5P_DEFAULT);
	if (d->dataset < 0)
		return fail_read(s, what);
	d->type = H5Dget_type(d->dataset);
	hid_t space = H5Dget_space(d->dataset);
	d->ndim = space >= 0 ? H5Sget_simple_extent_ndims(space) : -1;
	int known = d->type >= 0 && d->ndim >= 0 && d->ndim <= H5_DIMS_MAX &&
	            H5Sget_simple_extent_type(space) != H5S_NULL && H5Sget_simple_extent_dims(space, d->dims, NULL) >= 0;
	h5_close(space);
	if (!known)
		return favor_fail(s->e, "%s: %s has no shape of up to %d dimensions", s->path, what, H5_DIMS_MAX);
	int fits =
		type ? H5Tequal(d->type, type) > 0 : H5Tget_class(d->type) == H5T_STRING && H5Tis_variable_str(d->type) == 0;
	if (!fits)
		return favor_fail(s->e, "%s: %s is not of the type that a checkpoint has there", s->path, what);
	d->elements = 1;
	d->bytes = H5Tget_size(d->type);
	for (int i = 0; i < d->ndim; i++)
		if (__builtin_mul_overflow(d->bytes, d->dims[i], &d->bytes) ||
		    __builtin_mul_overflow(d->elements, d->dims[i], &d->elements))
			return favor_fail(s->e, "%s: %s has an impossible size", s->path, what);
	return d->bytes ? check_storage(s, d, what) : 0;
}

int h5_read_data(const struct h5_source *s, const struct h5_data *d, const char *what, void *to)
{
	if (d->elements && H5Dread(d->dataset, d->type, H5S_ALL, H5S_ALL, H5P_DEFAULT, to) < 0)
		return fail_read(s, what);
	return 0;
}

void h5_close_data(struct h5_data *d)
{
	h5_close(d->type);
	h5_close(d->dataset);
	d->type = d->dataset = -1;
}

int h5_read_strings(const struct h5_source *s, hid_t loc, const char *name, const char *what, int *count, char ***texts)
{
	struct h5_data d;
	char *packed = NULL;
	*count = 0;
	*texts = NULL;
	int rc = h5_open_data(s, loc, name, what, 0, &d);
	if (rc == 0 && (d.ndim != 1 || d.elements > INT32_MAX))
		rc = favor_fail(s->e, "%s: %s is no list of texts", s->path, what);
	if (rc == 0) {
		packed = favor_malloc(d.bytes);
		rc = h5_read_data(s, &d, what, packed);
	}
	if (rc == 0) {
		size_t size = H5Tget_size(d.type);
		*texts = favor_calloc(d.elements, sizeof **texts);
		for (; (size_t)*count < d.elements; ++*count)
			(*texts)[*count] = favor_format("%.*s", (int)size, packed + (size_t)*count * size);
	}
	free(packed);
	h5_close_data(&d);
	return rc;
}
