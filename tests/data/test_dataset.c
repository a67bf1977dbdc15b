/* The three readers: what they take, what each bad line is told, where images may lie, and random damage. */
#include "data/dataset.h"
#include "data/image.h"

#include "base/rng.h"
#include "files.h"

#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#define OUTSIDE "; data.allow_outside: true allows it"

/* Loads text as NAME in the folder. */
static int load(struct folder *f, struct dataset *d, const char *name, const char *text, const char *split,
                struct favor_error *e)
{
	*e = (struct favor_error){""};
	return dataset_load(d, folder_text(f, name, text), "", 0, split, "train", e);
}

/* The message of a file that is refused, its path cut off in front wherever it stands. */
static void refused(struct folder *f, const char *name, const char *text, const char *split, const char *wanted)
{
	struct dataset d;
	struct favor_error e;
	char cut[FAVOR_ERROR_MAX], *to = cut, prefix[80];
	assert_int_equal(load(f, &d, name, text, split, &e), -1);
	assert_null(d.records);
	size_t n = (size_t)snprintf(prefix, sizeof prefix, "%s/", f->path);
	for (const char *p = e.message; *p;) {
		if (strncmp(p, prefix, n) == 0)
			p += n;
		else
			*to++ = *p++;
	}
	*to = '\0';
	assert_string_equal(cut, wanted);
}

static void is_image(const struct folder *f, const struct record *r, int i, const char *wanted)
{
	char path[256];
	snprintf(path, sizeof path, "%s/%s", f->path, wanted);
	assert_true(i < r->image_count);
	assert_string_equal(r->images[i], path);
}

static void jsonl(void **state)
{
	struct folder *f = *state;
	struct dataset d;
	struct favor_error e;
	assert_int_equal(
		load(
			f, &d, "a.jsonl",
			"\xEF\xBB\xBF{\"image\": \"x/1.jpg\", \"label\": \" riding a bike\\n\", \"id\": 7}\r\n"
			"\n   \t\n"
			"{\"image\": [\"2.jpg\", \"./x//3.jpg\"], \"problem\": \" What? \", \"solution\": \"<answer> Run "
			"</answer>\"}\n"
			"{\"problem\": \"1+1?\", \"solution\": \" two \", \"think\": \"easy\", \"target\": \"T\", \"image\": "
			"null}\n"
			"{\"image\": \"4.jpg\", \"label\": \"run\", \"solution\": \"<answer>Run</answer>\", \"split\": \"train\"}\n"
			"{\"image\": \"5.jpg\", \"label\": \"run\", \"split\": \"test\"}",
			"", &e),
		0);
	assert_string_equal(d.path, f->file);
	assert_int_equal(d.count, 4);
	const struct record *r = d.records;
	is_image(f, &r[0], 0, "x/1.jpg");
	assert_string_equal(r[0].label, "riding a bike");
	assert_int_equal(r[0].line, 1);
	assert_null(r[0].problem);
	assert_int_equal(r[1].image_count, 2);
	is_image(f, &r[1], 1, "x/3.jpg");
	assert_string_equal(r[1].label, "Run");
	assert_string_equal(r[1].problem, " What? ");
	assert_int_equal(r[1].line, 4);
	assert_int_equal(r[1].label_index, -1);
	assert_int_equal(r[2].image_count, 0);
	assert_string_equal(r[2].label, "two");
	assert_string_equal(r[2].think, "easy");
	assert_string_equal(r[2].target, "T");
	assert_string_equal(r[3].label, "run");
	dataset_free(&d);

	assert_int_equal(
		load(f, &d, "a.jsonl",
	         "{\"image\":\"1\",\"label\":\"a\",\"split\":\"x\"}\n{\"image\":\"2\",\"label\":\"b\",\"split\":\"y\"}",
	         "y", &e),
		0);
	assert_int_equal(d.count, 1);
	assert_string_equal(d.records[0].label, "b");
	dataset_free(&d);
}

static void jsonl_faults(void **state)
{
	struct folder *f = *state;
	static const char *const lines[][2] = {
		{"{\"image\": \"a\", \"lable\": \"b\"}", "key \"label\" is missing (found: image, lable)"},
		{"{}", "key \"image\" is missing (found: no keys); only a record with its own \"problem\" can do without"},
		{"{\"label\": \"b\"}",
	     "key \"image\" is missing (found: label); only a record with its own \"problem\" can do without"},
		{"{\"image\": 3, \"label\": \"b\"}", "key \"image\" must be a path or an array of paths, but holds a number"},
		{"{\"image\": [\"a\", {}], \"label\": \"b\"}",
	     "key \"image\" must be a path or an array of paths, but holds an object"},
		{"{\"image\": \" \", \"label\": \"b\"}", "image \" \" is empty"},
		{"{\"image\": \"a\", \"label\": 3}", "key \"label\" must be a string, but is a number"},
		{"{\"image\": \"a\", \"label\": \" _ \"}", "key \"label\" is empty"},
		{"{\"image\": \"a\", \"label\": null}", "key \"label\" is missing (found: image, label)"},
		{"{\"image\": \"a\", \"solution\": \"<answer>\"}",
	     "solution \"<answer>\" must hold one <answer>...</answer> with the label in it"},
		{"{\"image\": \"a\", \"solution\": \"<answer> </answer>\"}",
	     "solution \"<answer> </answer>\" must hold one <answer>...</answer> with the label in it"},
		{"{\"image\": \"a\", \"solution\": \"<answer>x</answer><answer>y</answer>\"}",
	     "solution \"<answer>x</answer><answer>y</answer>\" must hold one <answer>...</answer> with the label in it"},
		{"{\"image\": \"a\", \"label\": \"x\", \"solution\": \"y\"}", "label \"x\" and solution \"y\" differ"},
		{"{\"image\": \"a\", \"label\": \"x\", \"problem\": \"\"}", "key \"problem\" is empty"},
		{"{\"image\": \"a\", \"label\": \"x\", \"problem\": \"<image>What is it?\"}",
	     "key \"problem\" holds <image>; images are placed before the text by themselves: take it out"},
		{"{\"image\": \"a\", \"label\": \"x\", \"target\": false}",
	     "key \"target\" must be a string, but is a truth value"},
		{"{\"image\": \"a\", \"label\": \"x\", \"think\": \"a</think>\"}",
	     "key \"think\" holds the tag </think>; give the reasoning alone"},
		{"{\"image\": \"../a\", \"label\": \"x\"}", "image \"../a\" leaves its folder by \"..\"" OUTSIDE},
		{"{\"image\": \"b/../../a\", \"label\": \"x\"}", "image \"b/../../a\" leaves its folder by \"..\"" OUTSIDE},
		{"{\"image\": \"b/..\", \"label\": \"x\"}", "image \"b/..\" names a folder"},
		{"{\"image\": \"https://a.b/c.jpg\", \"label\": \"x\"}",
	     "image \"https://a.b/c.jpg\" is a web address; only files can be read"},
		{"[1]", "must be an object like {\"image\": ..., \"label\": ...}, but is an array"},
	};
	for (size_t i = 0; i < sizeof lines / sizeof *lines; i++) {
		char wanted[512], text[512];
		snprintf(text, sizeof text, "{\"image\":\"1\",\"label\":\"a\"}\n%s\n", lines[i][0]);
		snprintf(wanted, sizeof wanted, "bad.jsonl:2: %s", lines[i][1]);
		refused(f, "bad.jsonl", text, "", wanted);
	}
	refused(f, "bad.jsonl", "{\"image\": \"a\",, \"label\": \"b\"}", "",
	        "bad.jsonl:1:15: not JSON: string or '}' expected near ','");
	refused(f, "bad.jsonl", "{\"image\": \"a\", \"image\": \"b\"}", "",
	        "bad.jsonl:1:22: not JSON: duplicate object key near '\"image\"'");
	refused(f, "bad.jsonl", "{\"image\": \"\xFF\"}", "",
	        "bad.jsonl:1:11: not JSON: unable to decode byte 0xff near '\"'");
	refused(f, "bad.jsonl", "", "", "bad.jsonl: no records in it");
	refused(f, "bad.jsonl", "\xFF\xFE{", "", "bad.jsonl: is UTF-16; save it as UTF-8");
	refused(f, "bad.jsonl", "\xFE\xFF", "", "bad.jsonl: is UTF-16; save it as UTF-8");
	refused(f, "bad.jsonl",
	        "{\"image\":\"1\",\"label\":\"a\",\"split\":\"val\"}\n{\"image\":\"1\",\"label\":\"a\",\"split\":\"test\"}",
	        "", "bad.jsonl: no row has split \"train\" (found: val, test); set data.train_split or data.eval_split");
	refused(f, "bad.jsonl", "{\"image\":\"1\",\"label\":\"a\"}", "dev",
	        "bad.jsonl:1: key \"split\" is missing, and split \"dev\" was asked for");
	refused(f, "bad.jsonl", "{\"image\":\"1\"}\n{\"image\":\"2\",\"label\":\"b\"}\nx", "",
	        "bad.jsonl: 2 faults:\n  bad.jsonl:1: key \"label\" is missing (found: image)\n  bad.jsonl:3:1: not JSON: "
	        "invalid token near 'x'");
	refused(f, "a.txt", "x", "",
	        "a.txt: a data set is a .jsonl file, a .csv file or a folder with one folder per class");
}

static void many_faults(void **state)
{
	struct folder *f = *state;
	struct dataset d;
	struct favor_error e;
	char *text = NULL;
	size_t n;
	FILE *out = open_memstream(&text, &n);
	for (int i = 0; i < 5000; i++)
		fprintf(out, "{\"label\": \"%d\"}\n", i);
	fclose(out);
	assert_int_equal(load(f, &d, "many.jsonl", text, "", &e), -1);
	assert_non_null(strstr(e.message, "5000 faults:"));
	assert_non_null(strstr(e.message, "many.jsonl:12: "));
	/* whatever the length of the paths, the count at the end is there and right */
	int shown = 0;
	for (const char *p = e.message; (p = strstr(p, "is missing")); p++)
		shown++;
	char tail[64];
	snprintf(tail, sizeof tail, "\n  and %d more", 5000 - shown);
	assert_true(shown >= 10 && shown <= 20);
	assert_string_equal(e.message + strlen(e.message) - strlen(tail), tail);
	free(text);
}

static void csv(void **state)
{
	struct folder *f = *state;
	struct dataset d;
	struct favor_error e;
	assert_int_equal(load(f, &d, "a.csv",
	                      "\xEF\xBB\xBF\"note\",Filename , label\r\n"
	                      "\"two\nlines, \"\"quoted\"\"\",x/1.jpg,\" riding, a bike \"\r\n"
	                      "\r\n"
	                      ",2.jpg,run",
	                      "", &e),
	                 0);
	assert_int_equal(d.count, 2);
	is_image(f, &d.records[0], 0, "x/1.jpg");
	assert_string_equal(d.records[0].label, "riding, a bike");
	assert_int_equal(d.records[0].line, 2);
	assert_int_equal(d.records[1].line, 5);
	assert_string_equal(d.records[1].label, "run");
	dataset_free(&d);

	static const char split[] = "path,label,split\n1,a,train\n2,b,val\n3,c,train\n";
	assert_int_equal(load(f, &d, "a.csv", split, "", &e), 0);
	assert_int_equal(d.count, 2);
	assert_string_equal(d.records[1].label, "c");
	dataset_free(&d);
	assert_int_equal(load(f, &d, "a.csv", split, "val", &e), 0);
	assert_int_equal(d.count, 1);
	dataset_free(&d);
	assert_int_equal(dataset_load(&d, f->file, "", 0, "", "", &e), 0); /* no split at all: all rows */
	assert_int_equal(d.count, 3);
	dataset_free(&d);
	/* path comes before filename and image */
	assert_int_equal(load(f, &d, "a.csv", "image,filename,path,label\n1,2,3,a\n", "", &e), 0);
	is_image(f, &d.records[0], 0, "3");
	dataset_free(&d);
}

static void csv_faults(void **state)
{
	struct folder *f = *state;
	static const char *const cases[][2] = {
		{"", "bad.csv: is empty; the first row must name the columns (path,label)"},
		{"\n\n", "bad.csv: is empty; the first row must name the columns (path,label)"},
		{"file,label\n",
	     "bad.csv:1: the header needs a column \"path\" or \"filename\" or \"image\" (found: file, label)"},
		{"path,class\n", "bad.csv:1: the header needs a column \"label\" (found: path, class)"},
		{"path;label\n",
	     "bad.csv:1: the header needs a column \"path\" or \"filename\" or \"image\" (found: path;label); the fields are separated by "
	     "semicolons, a CSV's by commas"},
		{"path\tlabel\n",
	     "bad.csv:1: the header needs a column \"path\" or \"filename\" or \"image\" (found: path?label); the fields are separated by "
	     "tabs, a CSV's by commas"},
		{"\xFF\xFEp", "bad.csv: is UTF-16; save it as UTF-8"},
		{"path,label,label\n", "bad.csv:1: the header names a column twice"},
		{"path,label\n", "bad.csv: no records in it"},
		{"path,label\n1,a\n2\n", "bad.csv:3: the row has 1 fields, the header 2"},
		{"path,label\n1,a,b\n", "bad.csv:2: the row has 3 fields, the header 2"},
		{"path,label\n1,\n", "bad.csv:2: label is empty"},
		{"path,label\n,a\n", "bad.csv:2: image \"\" is empty"},
		{"path,label\n1,a\n\"2,b\n3,c\n", "bad.csv:3: the row a quote is never closed"},
		{"path,label\n1,a\"b\n", "bad.csv:2: the row has a quote inside a field that does not start with one"},
		{"path,label\n\"1\"x,a\n", "bad.csv:2: the row has text after a closing quote"},
		{"path,label\n1,\xFF\n", "bad.csv:2: the row is not UTF-8"},
		{"path,label\n../1,a\n", "bad.csv:2: image \"../1\" leaves its folder by \"..\"" OUTSIDE},
		{"path,label,split\n1,a,test\n2,b,\n", "bad.csv:3: split is empty"},
		{"path,label,split\n1,a,test\n",
	     "bad.csv: no row has split \"train\" (found: test); set data.train_split or data.eval_split"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refused(f, "bad.csv", cases[i][0], "", cases[i][1]);
	refused(f, "bad.csv", "path,label\n1,a\n", "val",
	        "bad.csv:1: split \"val\" was asked for, but the header has no column \"split\"");
	struct dataset d;
	struct favor_error e;
	assert_int_equal(dataset_load(&d, folder_bytes(f, "bad.csv", "path,label\n1,a\0b\n", 17), "", 0, "", "", &e), -1);
	assert_non_null(strstr(e.message, "bad.csv:2: the row holds a NUL byte"));
}

static void folders(void **state)
{
	struct folder *f = *state;
	struct dataset d;
	struct favor_error e = {""};
	char path[128];
	static const char *const files[] = {"set/run/b.JPG",  "set/run/a.jpeg",      "set/run/notes.txt",
	                                    "set/run/.c.jpg", "set/bike_ride/1.png", "set/bike_ride/2.webp",
	                                    "set/.git/x.jpg", "set/labels.csv",      "set/run/deep.jpg/x.jpg"};
	for (size_t i = 0; i < sizeof files / sizeof *files; i++)
		folder_text(f, files[i], "image");
	snprintf(path, sizeof path, "%s/set/", f->path);
	assert_int_equal(dataset_load(&d, path, "", 0, "", "train", &e), 0);
	assert_int_equal(d.count, 4);
	is_image(f, &d.records[0], 0, "set/bike_ride/1.png");
	is_image(f, &d.records[1], 0, "set/bike_ride/2.webp");
	is_image(f, &d.records[2], 0, "set/run/a.jpeg");
	is_image(f, &d.records[3], 0, "set/run/b.JPG");
	assert_string_equal(d.records[0].label, "bike_ride");
	assert_int_equal(d.records[0].line, 0);
	dataset_free(&d);

	assert_int_equal(dataset_load(&d, path, "", 0, "test", "train", &e), -1);
	assert_non_null(strstr(e.message, "a folder has no splits"));
	folder_text(f, "set/empty/readme.txt", "");
	assert_int_equal(dataset_load(&d, path, "", 0, "", "", &e), -1);
	assert_non_null(strstr(e.message, "set/empty: the class has no image (.jpg, .jpeg, .png, .webp)"));
	snprintf(path, sizeof path, "%s/set/run/deep.jpg", f->path);
	assert_int_equal(dataset_load(&d, path, "", 0, "", "", &e), -1);
	assert_non_null(strstr(e.message, "no folders in it"));
	assert_int_equal(dataset_load(&d, "/no/such/thing", "", 0, "", "", &e), -1);
	assert_string_equal(e.message, "/no/such/thing: can't be opened: No such file or directory; data.train and data.eval are paths as seen from where favor is started");
}

/* One image path under a root: what is opened, or NULL if it is refused. */
static void rooted_or(struct folder *f, const char *root, int allow, const char *image, const char *wanted)
{
	struct dataset d;
	struct favor_error e = {""};
	char text[512];
	snprintf(text, sizeof text, "{\"image\": \"%s\", \"label\": \"a\"}", image);
	int rc = dataset_load(&d, folder_text(f, "r.jsonl", text), root, allow, "", "", &e);
	assert_int_equal(rc, wanted ? 0 : -1);
	if (wanted)
		assert_string_equal(d.records[0].images[0], wanted);
	else
		assert_true(strstr(e.message, "leaves its folder") || strstr(e.message, "outside of"));
	if (!wanted)
		assert_non_null(strstr(e.message, "data.allow_outside: true"));
	dataset_free(&d);
}

static void rooted(struct folder *f, const char *root, const char *image, const char *wanted)
{
	rooted_or(f, root, 0, image, wanted);
	if (!wanted) { /* the user may allow it */
		char *whole = image[0] == '/' ? NULL : favor_format("%s/%s", root, image);
		if (whole)
			rooted_or(f, root, 1, image, whole);
		free(whole);
	}
}

static void roots(void **state)
{
	struct folder *f = *state;
	char inside[256], here[PATH_MAX];
	rooted(f, "img", "a.jpg", "img/a.jpg");
	rooted(f, "img//", "x/../a.jpg", "img/a.jpg");
	rooted(f, "/", "a.jpg", "/a.jpg");
	rooted(f, "/", "/etc/a.jpg", "/etc/a.jpg");
	rooted(f, "/data", "/data/x/./a.jpg", "/data/x/a.jpg");
	rooted(f, "/data/../data/", "/data//x/a.jpg", "/data/x/a.jpg");
	rooted(f, "/data", "/data/../etc/passwd", NULL);
	rooted(f, "/data", "/database/a.jpg", NULL);
	rooted(f, "/data", "/etc/passwd", NULL);
	rooted(f, "/data", "x/../../a.jpg", NULL);
	rooted(f, "img", "..", NULL);
	rooted(f, "", "/etc/passwd", NULL); /* no root given: the data file's folder */
	rooted_or(f, "", 1, "/../etc/./passwd", "/etc/passwd");
	rooted_or(f, "/data", 1, "/etc/passwd", "/etc/passwd");
	snprintf(inside, sizeof inside, "%s/..a/...b.jpg", f->path);
	rooted(f, "", "..a/...b.jpg", inside);
	assert_non_null(getcwd(here, sizeof here));
	char *absolute = favor_format("%s/img/a.jpg", here);
	rooted(f, "img", absolute, absolute);
	rooted(f, "./x/../img", absolute, absolute);
	free(absolute);
	char *outside = favor_format("%s/img2/a.jpg", here);
	rooted(f, "img", outside, NULL);
	free(outside);
	/* a root that is a link: absolute paths may be written either way */
	char *real = favor_format("%s/real", f->path), *link = favor_format("%s/link", f->path);
	assert_int_equal(mkdir(real, 0777), 0);
	assert_int_equal(symlink("real", link), 0);
	char *by_real = favor_format("%s/a.jpg", real), *by_link = favor_format("%s/a.jpg", link);
	rooted(f, link, by_real, by_real);
	rooted(f, link, by_link, by_link);
	unlink(link);
	rmdir(real);
	free(real);
	free(link);
	free(by_real);
	free(by_link);
}

/* A link in the data set's folder leads outside of it: seen when the image is opened. */
static void links(void **state)
{
	struct folder *f = *state;
	struct favor_error e = {""};
	struct dataset d;
	struct image im = {.width = 2, .height = 2, .pixels = (uint8_t[12]){0}};
	char *inside = favor_format("%s/linked", f->path), *outside = favor_format("%s/elsewhere", f->path);
	char *image = favor_format("%s/a.png", outside), *good = favor_format("%s/b.png", inside),
		 *set = favor_format("%s/s.csv", inside),
		 *link = favor_format("%s/link", inside), *file = favor_format("%s/c.png", inside);
	assert_int_equal(mkdir(inside, 0777) | mkdir(outside, 0777), 0);
	assert_int_equal(symlink(outside, link) | symlink("b.png", file), 0);
	assert_int_equal(image_write_png(&im, image, &e) | image_write_png(&im, good, &e), 0);
	FILE *out = fopen(set, "w");
	assert_non_null(out);
	fputs("path,label\nlink/a.png,x\nb.png,x\nc.png,x\n", out);
	fclose(out);
	for (int allow = 0; allow < 2; allow++) {
		assert_int_equal(dataset_load(&d, set, "", allow, "", "", &e), 0);
		for (int i = 0; i < 3; i++) {
			struct image read;
			int rc = image_load_below(&read, d.records[i].images[0], d.records[i].folder, &e);
			assert_int_equal(rc, i == 0 && !allow ? -1 : 0);
			image_free(&read);
		}
		if (!allow)
			assert_true(strstr(e.message, "is a link to a place outside of") && strstr(e.message, "data.allow_outside: true"));
		dataset_free(&d);
	}
	/* with a root above both it is inside */
	assert_int_equal(dataset_load(&d, set, inside, 0, "", "", &e), 0);
	assert_string_not_equal(d.folder, f->path);
	dataset_free(&d);
	char *const all[] = {link, file, image, good, set, inside, outside};
	for (int i = 0; i < 7; i++) {
		remove(all[i]);
		free(all[i]);
	}
}

static void damage(void **state)
{
	struct folder *f = *state;
	static const char good[][300] = {
		"{\"image\": \"a/1.jpg\", \"label\": \"run\"}\n{\"image\": [\"2.jpg\"], \"problem\": \"p\", \"solution\": "
		"\"<answer>x</answer>\", \"split\": \"train\"}\n",
		"path,label,split\r\n\"a,b.jpg\",\"ru\"\"n\",train\r\n2.jpg,bike,train\n"};
	static const char *const names[] = {"d.jsonl", "d.csv"};
	static const char special[] = "\"\\{}[],:\n\r\0\xFF\xEF<>/._ ";
	int loaded = 0, failed = 0;
	for (uint64_t k = 0; k < 3000; k++) {
		char text[300];
		struct dataset d;
		struct favor_error e = {""};
		const char *name = names[k % 2];
		size_t n = strlen(good[k % 2]);
		memcpy(text, good[k % 2], n);
		uint32_t w[4];
		for (uint32_t i = 0; i < 1 + k % 3; i++) {
			rng_words(5, RNG_SYNTH, k, 0, i, w);
			if (w[0] % 8 == 0)
				n = w[1] % (n + 1);
			if (n > 0)
				text[w[1] % n] = special[w[2] % (sizeof special - 1)];
		}
		if (dataset_load(&d, folder_bytes(f, name, text, n), "", 0, "", "train", &e) == 0) {
			loaded++;
			for (int32_t i = 0; i < d.count; i++)
				assert_true(d.records[i].label[0] != '\0' &&
				            !strstr(d.records[i].image_count ? d.records[i].images[0] : "", "/../"));
			dataset_free(&d);
		} else {
			failed++;
			assert_non_null(strstr(e.message, name));
		}
	}
	assert_true(loaded > 100 && failed > 100);
}

static void same_text(const char *a, const char *b)
{
	assert_int_equal(!a, !b);
	if (a)
		assert_string_equal(a, b);
}

/* What is packed comes out again; every shortened or altered block is refused or gives something that can be freed. */
static void packed(void **state)
{
	struct folder *f = *state;
	struct dataset train, eval = {0}, got[2];
	struct dataset *const sets[2] = {&got[0], &got[1]};
	struct class_list classes, got_classes;
	struct favor_error e;
	const struct data_options o = {.classes_file = "", .prompt = "answer"};
	assert_int_equal(load(f, &train, "packed.jsonl",
	                      "{\"image\": [\"a.png\", \"b.png\"], \"label\": \"run\", \"think\": \"fast\"}\n"
	                      "{\"problem\": \"Why?\", \"solution\": \"so\", \"target\": \"<answer>so</answer>\"}\n"
	                      "{\"image\": \"c.png\", \"label\": \"walk\"}\n",
	                      "", &e), 0);
	assert_int_equal(classes_build(&classes, &o, &train, NULL, &e), 0);
	void *data;
	size_t n;
	dataset_pack((const struct dataset *const[]){&train, &eval}, 2, &classes, &data, &n);
	assert_int_equal(dataset_unpack(sets, 2, &got_classes, data, n, &e), 0);
	assert_int_equal(got[0].count, 3);
	assert_int_equal(got[1].count, 0);
	assert_string_equal(got[0].path, train.path);
	assert_int_equal(got_classes.count, classes.count);
	for (int i = 0; i < classes.count; i++)
		assert_string_equal(got_classes.names[i], classes.names[i]);
	for (int i = 0; i < 3; i++) {
		const struct record *a = &train.records[i], *b = &got[0].records[i];
		assert_int_equal(a->image_count, b->image_count);
		for (int k = 0; k < a->image_count; k++)
			assert_string_equal(a->images[k], b->images[k]);
		assert_int_equal(a->label_index, b->label_index);
		assert_int_equal(a->line, b->line);
		same_text(a->label, b->label);
		same_text(a->problem, b->problem);
		same_text(a->target, b->target);
		same_text(a->think, b->think);
		same_text(a->folder, b->folder);
	}
	dataset_free(&got[0]);
	dataset_free(&got[1]);
	classes_free(&got_classes);
	for (size_t at = 0; at < 2 * n; at++) {
		size_t length = at < n ? at : n;
		char *block = favor_malloc(length);
		memcpy(block, data, length);
		if (at >= n)
			block[at - n] = (char)(block[at - n] ^ (1 << at % 8));
		int rc = dataset_unpack(sets, 2, &got_classes, block, length, &e);
		if (at < n)
			assert_int_equal(rc, -1);
		dataset_free(&got[0]);
		dataset_free(&got[1]);
		classes_free(&got_classes);
		free(block);
	}
	free(data);
	classes_free(&classes);
	dataset_free(&train);
}

/* Time grows with the file and not faster: 50,000 lines of each kind take a tenth of a second. */
static void large(void **state)
{
	struct folder *f = *state;
	enum { LINES = 50000 };
	for (int kind = 0; kind < 2; kind++) {
		char *text = NULL;
		size_t n;
		struct dataset d;
		struct favor_error e = {""};
		FILE *out = open_memstream(&text, &n);
		if (kind == 1)
			fprintf(out, "path,label\n");
		for (int i = 0; i < LINES; i++)
			fprintf(out,
			        kind ? "photos/%07d.jpg,class %d\n" : "{\"image\": \"photos/%07d.jpg\", \"label\": \"class %d\"}\n",
			        i, i % 100);
		fclose(out);
		const char *path = folder_bytes(f, kind ? "large.csv" : "large.jsonl", text, n);
		clock_t start = clock();
		assert_int_equal(dataset_load(&d, path, "", 0, "", "", &e), 0);
		double seconds = (double)(clock() - start) / CLOCKS_PER_SEC;
		print_message("%d lines of %s: %.2f s\n", LINES, kind ? "CSV" : "JSON", seconds);
		assert_int_equal(d.count, LINES);
		assert_true(seconds < 20); /* sanitizers and valgrind included; quadratic time would take minutes */
		dataset_free(&d);
		free(text);
	}
}

static int setup(void **state)
{
	struct folder *f = favor_calloc(1, sizeof *f);
	folder_open(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	folder_close(*state);
	free(*state);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(jsonl),       cmocka_unit_test(jsonl_faults),
	                                   cmocka_unit_test(many_faults), cmocka_unit_test(csv),
	                                   cmocka_unit_test(csv_faults),  cmocka_unit_test(folders),
	                                   cmocka_unit_test(roots), cmocka_unit_test(links),
	                                   cmocka_unit_test(damage),      cmocka_unit_test(large),
	                                   cmocka_unit_test(packed)};
	return cmocka_run_group_tests(tests, setup, teardown);
}
