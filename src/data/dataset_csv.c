/* CSV as RFC 4180 has it: fields in quotes may hold commas, line ends and doubled quotes; lines end with LF or CRLF. A
 * UTF-8 byte order mark is skipped, empty lines too. The first row names the columns (upper or lower case): path,
 * filename or image (the first of them that is there), label, and perhaps split; other columns are left alone. Rows are
 * read one at a time. */
#include "base/file.h"
#include "data/dataset_loader.h"
#include "data/label.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { FIELDS_MAX = 4096 };

/* One row: its fields one after the other in `text`, each ended by NUL. */
struct row {
	char *text;
	size_t used, capacity;
	size_t *start; /* [fields] */
	int fields, start_capacity;
	int32_t line;      /* where it starts */
	const char *fault; /* static text, NULL = good */
	int too_long;      /* more than DATASET_LINE_MAX bytes: nothing after it is read */
};

struct csv {
	FILE *file;
	int32_t line; /* of the next character */
};

static void put(struct row *r, int c)
{
	if (r->used > DATASET_LINE_MAX) { /* seen by read_row */
		r->too_long = 1;
		return;
	}
	if (r->used == r->capacity) {
		r->capacity = r->capacity ? 2 * r->capacity : 256;
		r->text = favor_realloc(r->text, r->capacity);
	}
	r->text[r->used++] = (char)c;
}

static void begin_field(struct row *r)
{
	if (r->fields == r->start_capacity) {
		r->start_capacity = r->start_capacity ? 2 * r->start_capacity : 16;
		r->start = favor_realloc(r->start, (size_t)r->start_capacity * sizeof *r->start);
	}
	r->start[r->fields++] = r->used;
}

/* The next character; a line end (LF or CRLF) comes as one '\n'. */
static int next(struct csv *c)
{
	int ch = getc_unlocked(c->file);
	if (ch == '\r') {
		int after = getc_unlocked(c->file);
		if (after == '\n')
			ch = '\n';
		else if (after != EOF)
			ungetc(after, c->file);
	}
	if (ch == '\n' && c->line < INT32_MAX)
		c->line++;
	return ch;
}

/* One row into r. A fault is remembered and reading goes on to the end of the row, so that the next one is found. 0 at
 * the end of the file. */
static int read_row(struct csv *c, struct row *r)
{
	enum { FIELD_START, PLAIN, QUOTED, QUOTE_IN_QUOTED } state = FIELD_START;
	r->used = 0;
	r->fields = 0;
	r->fault = NULL;
	r->line = c->line;
	int ch = next(c);
	while (ch == '\n') {
		r->line = c->line;
		ch = next(c);
	}
	if (ch == EOF)
		return 0;
	begin_field(r);
	for (;; ch = next(c)) {
		if (r->too_long)
			return 0;
		if (ch == EOF && state == QUOTED)
			r->fault = "a quote is never closed";
		if (ch == EOF || (ch == '\n' && state != QUOTED))
			break;
		if (ch == '\0')
			r->fault = "holds a NUL byte";
		if (state == QUOTED) {
			if (ch == '"')
				state = QUOTE_IN_QUOTED;
			else
				put(r, ch);
		} else if (state == QUOTE_IN_QUOTED && ch == '"') {
			put(r, ch); /* a doubled quote is one */
			state = QUOTED;
		} else if (ch == ',') {
			if (r->fields == FIELDS_MAX)
				r->fault = "has too many fields";
			put(r, '\0');
			if (r->fields < FIELDS_MAX)
				begin_field(r);
			state = FIELD_START;
		} else if (state == QUOTE_IN_QUOTED) {
			r->fault = "has text after a closing quote";
		} else if (ch == '"' && state == FIELD_START) {
			state = QUOTED;
		} else {
			if (ch == '"')
				r->fault = "has a quote inside a field that does not start with one";
			put(r, ch);
			state = PLAIN;
		}
	}
	if (!r->fault && !utf8_valid(r->text, r->used))
		r->fault = "is not UTF-8";
	put(r, '\0');
	return 1;
}

static char *field(const struct row *r, int i)
{
	const char *text = r->text + r->start[i];
	return utf8_trim(text, strlen(text));
}

/* Column of that name, -1 if there is none, -2 if there are two. */
static int column(const struct row *header, const char *name)
{
	int found = -1;
	for (int i = 0; i < header->fields; i++) {
		char *text = field(header, i);
		if (strcasecmp(text, name) == 0)
			found = found == -1 ? i : -2;
		free(text);
	}
	return found;
}

struct columns {
	int count, image, label, split; /* split: -1 = none */
};

static int read_header(const struct loader *l, const struct row *header, struct columns *c, struct favor_error *e)
{
	static const char *const names[] = {"path", "filename", "image"};
	if (header->fault)
		return favor_fail(e, "%s:%d: the header %s", l->path, header->line, header->fault);
	*c = (struct columns){header->fields, -1, column(header, "label"), column(header, "split")};
	for (int i = 0; i < 3 && c->image == -1; i++)
		c->image = column(header, names[i]);
	if (c->image == -2 || c->label == -2 || c->split == -2)
		return favor_fail(e, "%s:%d: the header names a column twice", l->path, header->line);
	if (c->image < 0 || c->label < 0) {
		char found[256] = "", name[UTF8_SHORT];
		size_t used = 0;
		for (int i = 0; i < header->fields && used + UTF8_SHORT + 2 < sizeof found; i++)
			used += (size_t)snprintf(found + used, sizeof found - used, "%s%s", i ? ", " : "",
			                         utf8_short(header->text + header->start[i], name));
		/* spreadsheets of many languages write semicolons */
		const char *other = header->fields > 1             ? NULL
		                    : strchr(header->text, ';')    ? "semicolons"
		                    : strchr(header->text, '\t')   ? "tabs"
		                                                   : NULL;
		return favor_fail(e, "%s:%d: the header needs a column \"%s\" (found: %s)%s%s%s", l->path, header->line,
		                  c->image < 0 ? "path\" or \"filename\" or \"image" : "label", found, other ? "; the fields are separated by " : "",
		                  other ? other : "", other ? ", a CSV's by commas" : "");
	}
	if (c->split < 0 && l->split[0])
		return favor_fail(e, "%s:%d: split \"%s\" was asked for, but the header has no column \"split\"", l->path,
		                  header->line, l->split);
	return 0;
}

static void take_row(struct loader *l, const struct row *row, const struct columns *c)
{
	if (row->fault) {
		faults_add(&l->faults, "%s:%d: the row %s", l->path, row->line, row->fault);
		return;
	}
	if (row->fields != c->count) {
		faults_add(&l->faults, "%s:%d: the row has %d fields, the header %d", l->path, row->line, row->fields,
		           c->count);
		return;
	}
	if (c->split >= 0) {
		char *split = field(row, c->split);
		int taken = loader_takes(l, split), blank = !split[0];
		free(split);
		if (blank)
			faults_add(&l->faults, "%s:%d: split is empty", l->path, row->line);
		if (blank || !taken)
			return;
	}
	char *image = field(row, c->image), *label = field(row, c->label), name[UTF8_SHORT];
	const char *why = NULL;
	char *file = loader_image(l, image, &why);
	if (!file) {
		faults_add(&l->faults, "%s:%d: image \"%s\" %s", l->path, row->line, utf8_short(image, name), why);
	} else if (label_is_blank(label)) {
		faults_add(&l->faults, "%s:%d: label is empty", l->path, row->line);
		free(file);
	} else {
		struct record *r = loader_record(l, row->line);
		r->images = favor_malloc(sizeof *r->images);
		r->images[r->image_count++] = file;
		r->label = label;
		r->label_index = LABEL_CLASS;
		label = NULL;
	}
	free(image);
	free(label);
}

int dataset_read_csv(struct loader *l, struct favor_error *e)
{
	struct csv c = {file_open(l->path, e), 1};
	if (!c.file)
		return -1;
	struct row row = {0};
	struct columns columns = {0};
	int rc = -1;
	char mark[3];
	const size_t marked = fread(mark, 1, 3, c.file);
	if (loader_is_text(l, mark, marked, e) != 0)
		goto done;
	if (!utf8_mark(mark, marked))
		rewind(c.file);
	if (!read_row(&c, &row) && !row.too_long) {
		favor_fail(e, "%s: is empty; the first row must name the columns (path,label)", l->path);
		goto done;
	}
	if (!row.too_long && read_header(l, &row, &columns, e) != 0)
		goto done;
	while (!row.too_long && read_row(&c, &row))
		take_row(l, &row, &columns);
	if (row.too_long) {
		favor_fail(e, "%s:%d: the row is longer than %d bytes; is a quote not closed, or is this the wrong file?",
		           l->path, row.line, DATASET_LINE_MAX);
		goto done;
	}
	if (ferror(c.file)) {
		favor_fail(e, "%s:%d: reading failed: %m", l->path, c.line);
		goto done;
	}
	rc = 0;
done:
	fclose(c.file);
	free(row.text);
	free(row.start);
	return rc;
}
