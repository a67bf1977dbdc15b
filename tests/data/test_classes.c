/* Class lists, aliases, few-shot selection, the order of training, prompts and targets. */
#include "data/dataset.h"
#include "data/label.h"

#include "files.h"

#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct folder *the_folder(void **state)
{
	return *state;
}

static struct dataset make(struct folder *f, const char *name, const char *text)
{
	struct dataset d;
	struct favor_error e = {""};
	if (dataset_load(&d, folder_text(f, name, text), "", 0, "", "train", &e) != 0)
		fail_msg("%s", e.message);
	return d;
}

static struct string_list list(char **items, int count)
{
	return (struct string_list){count, items};
}

static void derived(void **state)
{
	struct folder *f = the_folder(state);
	struct dataset train = make(f, "a.csv", "path,label\n1,running\n2,air_hockey\n3,Running\n");
	struct dataset eval = make(
		f, "b.jsonl",
		"{\"image\":\"1\",\"label\":\"air hockey\"}\n{\"image\":\"2\",\"label\":\"boxing\",\"problem\":\"p\"}\n"
		"{\"image\":\"3\",\"problem\":\"How many?\",\"solution\":\"three\"}\n");
	struct data_options o = {0};
	struct class_list c;
	struct favor_error e = {""};
	assert_int_equal(classes_build(&c, &o, &train, &eval, &e), 0);
	assert_int_equal(c.count, 3);
	assert_string_equal(c.names[0], "Running"); /* the smallest spelling by bytes, sorted by bytes */
	assert_string_equal(c.names[1], "air hockey");
	assert_string_equal(c.names[2], "boxing");
	assert_int_equal(c.alias_start[3], 0);
	static const int wanted[] = {0, 1, 0, 1, 2, -1};
	for (int i = 0; i < 6; i++)
		assert_int_equal((i < 3 ? train.records[i] : eval.records[i - 3]).label_index, wanted[i]);
	classes_free(&c);
	assert_int_equal(classes_build(&c, &o, NULL, NULL, &e), 0);
	assert_int_equal(c.count, 0);
	classes_free(&c);
	dataset_free(&train);
	dataset_free(&eval);
}

static void build_fails(const struct data_options *o, struct dataset *train, const char *wanted)
{
	struct class_list c;
	struct favor_error e = {""};
	assert_int_equal(classes_build(&c, o, train, NULL, &e), -1);
	if (!strstr(e.message, wanted))
		fail_msg("\"%s\" is not in \"%s\"", wanted, e.message);
	assert_null(c.names);
}

static void given(void **state)
{
	struct folder *f = the_folder(state);
	char *names[] = {(char *)"running", (char *)" riding a bike ", (char *)"boxing", (char *)"Riding_A  Bike",
	                 (char *)" "};
	struct dataset train = make(
		f, "t.jsonl",
		"{\"image\":\"1\",\"label\":\"Riding_a_bike\"}\n{\"image\":\"2\",\"problem\":\"p\",\"solution\":\"boxing\"}\n");
	struct data_options o = {.classes = list(names, 3)};
	struct class_list c;
	struct favor_error e = {""};
	assert_int_equal(classes_build(&c, &o, &train, NULL, &e), 0);
	assert_int_equal(c.count, 3);
	assert_string_equal(c.names[1], "riding a bike");
	assert_int_equal(train.records[0].label_index, 1);
	assert_int_equal(train.records[1].label_index, 2); /* a given list closes the set */
	classes_free(&c);

	o.classes = list(names, 4);
	build_fails(&o, &train, "data.classes: class \"Riding_A  Bike\" is there twice (the other is \"riding a bike\")");
	o.classes = list(names + 4, 1);
	build_fails(&o, &train, "data.classes: a class name is empty");
	o.classes = list(names, 1);
	o.classes_file = (char *)"x";
	build_fails(&o, &train, "both given");
	o.classes_file = (char *)"";
	build_fails(&o, &train, "t.jsonl: 2 labels outside of the class list:\n");
	dataset_free(&train);
	train = make(f, "t.jsonl", "{\"image\":\"1\",\"label\":\"boxing\"}\n\n{\"image\":\"2\",\"label\":\"runing\"}\n");
	o.classes = list(names, 3);
	build_fails(&o, &train, "t.jsonl:3: label \"runing\" is not in data.classes (nearest: \"running\")");

	char file[256];
	o.classes = list(NULL, 0);
	strcpy(file, folder_text(f, "classes.txt",
	                         "\xEF\xBB\xBF"
	                         "boxing\r\n\n  runing\n"));
	o.classes_file = file;
	assert_int_equal(classes_build(&c, &o, &train, NULL, &e), 0);
	assert_int_equal(c.count, 2);
	assert_string_equal(c.names[0], "boxing");
	assert_int_equal(train.records[1].label_index, 1);
	classes_free(&c);
	folder_text(f, "classes.txt", "boxing\nrun\nBOXING\n");
	build_fails(&o, &train, "classes.txt:3: class \"BOXING?\" is there twice (the other is \"boxing\")");
	folder_text(f, "classes.txt", "\n");
	build_fails(&o, &train, "classes.txt: no class in it");
	folder_text(f, "classes.txt", "boxing\nrun\xFF\n");
	build_fails(&o, &train, "classes.txt:2: class name \"run??\" is not UTF-8");
	o.classes_file = (char *)"/no/such/file";
	build_fails(&o, &train, "data.classes_file: /no/such/file: can't be opened: No such file");
	dataset_free(&train);
}

static void aliases(void **state)
{
	struct folder *f = the_folder(state);
	struct dataset train = make(f, "a.csv", "path,label\n1,running\n2,boxing\n3,cycling\n");
	char file[256];
	struct data_options o = {.aliases = file};
	struct class_list c;
	struct favor_error e = {""};
	strcpy(file,
	       folder_text(f, "aliases.json",
	                   "{\"Cycling\": [\"riding a bike\", \" biking \"], \"boxing\": [\"box\", \"BOXING\", \"box\"]}"));
	assert_int_equal(classes_build(&c, &o, &train, NULL, &e), 0);
	static const int32_t start[] = {0, 1, 3, 3}; /* boxing, cycling, running */
	assert_memory_equal(c.alias_start, start, sizeof start);
	assert_string_equal(c.aliases[0], "box"); /* what says nothing new is left out */
	assert_string_equal(c.aliases[1], "riding a bike");
	assert_string_equal(c.aliases[2], "biking");
	classes_free(&c);
	folder_text(f, "aliases.json", "\xEF\xBB\xBF{\"boxing\": [\"box\"]}");
	assert_int_equal(classes_build(&c, &o, &train, NULL, &e), 0);
	assert_string_equal(c.aliases[0], "box");
	classes_free(&c);
	static const char *const bad[][2] = {
		{"{\"runing\": [\"jog\"]}", "aliases.json: \"runing\" is no class (nearest: \"running\")"},
		{"{\"boxing\": [\"x\", \"Running\"]}", "aliases.json: alias \"Running\" of \"boxing\" is itself a class"},
		{"{\"boxing\": [\"sport\"], \"running\": [\"Sport\"]}",
	     "alias \"Sport\" is given to both \"boxing\" and \"running\""},
		{"{\"boxing\": [\"\"]}", "an alias of \"boxing\" is empty"},
		{"{\"boxing\": [3]}", "an alias of \"boxing\" is not a string"},
		{"{\"boxing\": \"box\"}", "\"boxing\" must have an array of aliases"},
		{"{\"boxing\": [], \"Boxing\": []}", "\"Boxing\" is there twice"},
		{"[]", "must be an object like"},
		{"{\n\"boxing\": [}", "aliases.json:2:12: not JSON"},
	};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		folder_text(f, "aliases.json", bad[i][0]);
		build_fails(&o, &train, bad[i][1]);
	}
	o.aliases = (char *)"/no/such/aliases.json";
	build_fails(&o, &train, "data.aliases: /no/such/aliases.json: can't be opened: No such file");
	dataset_free(&train);
}

/* The images kept, as one text. */
static void shots_of(struct folder *f, const char *name, const char *text, int32_t shots, uint64_t seed, char kept[512])
{
	struct dataset d = make(f, name, text);
	struct data_options o = {0};
	struct class_list c;
	struct favor_error e = {""};
	assert_int_equal(classes_build(&c, &o, &d, NULL, &e), 0);
	if (dataset_take_shots(&d, &c, shots, seed, &e) != 0)
		fail_msg("%s", e.message);
	kept[0] = '\0';
	for (int32_t i = 0; i < d.count; i++)
		sprintf(kept + strlen(kept), "%s ", strrchr(d.records[i].images[0], '/') + 1);
	classes_free(&c);
	dataset_free(&d);
}

static void shots(void **state)
{
	struct folder *f = the_folder(state);
	char a[512], b[512], only_a[512] = "", only_b[512] = "";
	static const char text[] = "path,label\na1,a\na2,a\nb1,b\na3,a\nb2,b\na4,a\nb3,b\na5,a\nb4,b\nb5,b\na6,a\n";
	shots_of(f, "s.csv", text, 2, 1, a);
	assert_int_equal(strlen(a), 4 * 3);
	int of_a = 0, different = 0;
	for (const char *p = a; *p; p += 3)
		of_a += *p == 'a';
	assert_int_equal(of_a, 2);
	shots_of(f, "s.csv", text, 2, 1, b);
	assert_string_equal(a, b);
	/* the same in another folder */
	shots_of(f, "deep/er/s.csv", text, 2, 1, b);
	assert_string_equal(a, b);
	for (uint64_t seed = 2; seed < 12; seed++) {
		shots_of(f, "s.csv", text, 2, seed, b);
		different += strcmp(a, b) != 0;
	}
	assert_true(different >= 7);
	/* another class in front, and another order: what is kept of a and b stays */
	shots_of(f, "s.csv",
	         "path,label\nb5,b\nb4,b\nb3,b\nb2,b\nb1,b\nx1,A first\nx2,A first\na6,a\na5,a\na4,a\na3,a\na2,a\na1,a\n",
	         2, 1, b);
	assert_int_equal(strlen(b), 6 * 3);
	for (const char *p = a; *p; p += 3) {
		char one[4];
		snprintf(one, sizeof one, "%.3s", p);
		assert_non_null(strstr(b, one));
	}
	shots_of(f, "s.csv", text, 5, 1, only_a);
	shots_of(f, "s.csv", text, 0, 1, only_b);
	assert_int_equal(strlen(only_a), 10 * 3);
	assert_int_equal(strlen(only_b), 11 * 3);

	struct dataset d = make(f, "s.csv", text);
	struct data_options o = {0};
	struct class_list c;
	struct favor_error e = {""};
	assert_int_equal(classes_build(&c, &o, &d, NULL, &e), 0);
	assert_int_equal(dataset_take_shots(&d, &c, 6, 1, &e), -1);
	assert_non_null(strstr(e.message, "s.csv: data.shots is 6, but class \"b\" has 5 records"));
	assert_int_equal(d.count, 11);
	assert_int_equal(dataset_take_shots(&d, &c, -1, 1, &e), -1);
	classes_free(&c);
	dataset_free(&d);
	d = make(f, "s.jsonl",
	         "{\"image\":\"1\",\"label\":\"a\"}\n{\"image\":\"2\",\"problem\":\"p\",\"solution\":\"x\"}\n");
	assert_int_equal(classes_build(&c, &o, &d, NULL, &e), 0);
	assert_int_equal(dataset_take_shots(&d, &c, 1, 1, &e), -1);
	assert_non_null(strstr(e.message, "s.jsonl:2: data.shots needs a class for every record"));
	classes_free(&c);
	dataset_free(&d);
}

static void orders(void **state)
{
	(void)state;
	static const int32_t sizes[] = {1, 2, 3, 5, 60, 511, 512, 513, 1000, 1024, 1025, 4096, 5000};
	unsigned char *seen = favor_malloc(5000);
	for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
		struct dataset d = {.count = sizes[s]};
		uint64_t n = (uint64_t)sizes[s], same_place = 0, epochs = n > 600 ? 4 : 2;
		for (uint64_t epoch = 0; epoch < epochs; epoch++) {
			memset(seen, 0, 5000);
			for (uint64_t i = 0; i < n; i++) {
				uint32_t r = dataset_order(&d, 7, epoch * n + i);
				assert_true(r < n && !seen[r]); /* a permutation */
				seen[r] = 1;
				same_place += r == i;
			}
		}
		assert_true(n < 20 || same_place < 5 * epochs); /* one an epoch is expected */
		if (n >= 60) {
			int equal = 0;
			for (uint64_t i = 0; i < 20; i++)
				equal += dataset_order(&d, 7, i) == dataset_order(&d, 7, n + i) ||
				         dataset_order(&d, 7, i) == dataset_order(&d, 8, i);
			assert_true(equal <= 5); /* epochs and seeds differ */
		}
	}
	/* every record is equally likely at the first place: chi-square of 5 and of 600 records over many seeds, far below
	 * a chance of 1e-6 */
	static const struct {
		int32_t n, tries;
		double limit;
	} fair[] = {{5, 20000, 35}, {600, 60000, 780}};
	for (int k = 0; k < 2; k++) {
		struct dataset d = {.count = fair[k].n};
		int *hits = favor_calloc((size_t)fair[k].n, sizeof *hits);
		double expected = (double)fair[k].tries / fair[k].n, sum = 0;
		for (int i = 0; i < fair[k].tries; i++)
			hits[dataset_order(&d, (uint64_t)i, 3)]++;
		for (int i = 0; i < fair[k].n; i++)
			sum += (hits[i] - expected) * (hits[i] - expected) / expected;
		assert_true(sum < fair[k].limit);
		free(hits);
	}
	free(seen);
	struct dataset none = {0};
	assert_int_equal(dataset_order(&none, 1, 5), 0);
}

static int words(const char *s)
{
	int n = 0;
	for (; *s; s += strcspn(s, " "), s += strspn(s, " "))
		n++;
	return n;
}

static void prompts(void **state)
{
	struct folder *f = the_folder(state);
	char *names[] = {(char *)"running", (char *)"riding {a} bike"};
	struct class_list c = {.count = 2, .names = names}, none = {0};
	struct record r = {.label = (char *)"running", .line = 7},
				  own = {.label = (char *)"two", .problem = (char *)"1 + {1}?"};
	struct favor_error e = {""};
	char file[256];
	char *think = prompt_text("think", &c, &r, &e), *answer = prompt_text("answer", &c, &r, &e);
	assert_non_null(strstr(think, "running, riding {a} bike"));
	assert_non_null(strstr(think, "<think>"));
	assert_non_null(strstr(answer, "running, riding {a} bike"));
	assert_null(strstr(answer, "<think>"));
	assert_non_null(strstr(answer, "<answer>"));
	assert_true(words(think) <= 44 && words(answer) < words(think));
	free(think);
	free(answer);
	assert_null(prompt_text("think", &none, &r, &e));
	assert_non_null(strstr(e.message, "there are none; give data.classes"));
	char *text = prompt_text("think", &none, &own, &e);
	assert_string_equal(text, "1 + {1}?");
	free(text);

	strcpy(file, folder_text(f, "p.txt", "\n Which of {classes}? {{\"a\": 1}}\n"));
	text = prompt_text(file, &c, &r, &e);
	assert_string_equal(text, "Which of running, riding {a} bike? {\"a\": 1}");
	free(text);
	assert_int_equal(prompt_check(file, &e), 0);
	text = prompt_text(file, &c, &own, &e); /* no place for it: the record's own problem as it is */
	assert_string_equal(text, own.problem);
	free(text);
	folder_text(f, "p.txt", "\xEF\xBB\xBFWhich\r\nof {classes}?\r\n"); /* as Windows editors write it */
	text = prompt_text(file, &c, &r, &e);
	assert_string_equal(text, "Which\nof running, riding {a} bike?");
	free(text);
	folder_text(f, "p.txt", "Q: {problem} ({classes})");
	text = prompt_text(file, &c, &own, &e);
	assert_string_equal(text, "Q: 1 + {1}? (running, riding {a} bike)"); /* what is put in is not read again */
	free(text);
	assert_null(prompt_text(file, &c, &r, &e));
	assert_non_null(strstr(e.message, "asks for {problem}, but the record of line 7 (no image) has none"));
	static const char *const bad[][2] = {{"a {clases} b", "unknown placeholder at \"{clases}\""},
	                                     {"a { b", "unknown placeholder at \"{\""},
	                                     {"a } b", "unknown placeholder at \"}\""},
	                                     {"a {classes", "unknown placeholder at \"{classes\""},
	                                     {" \n", "p.txt: is empty"},
	                                     {"\xFF", "p.txt: not UTF-8 text"}};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		folder_text(f, "p.txt", bad[i][0]);
		assert_null(prompt_text(file, &c, &r, &e));
		if (!strstr(e.message, bad[i][1]))
			fail_msg("\"%s\" is not in \"%s\"", bad[i][1], e.message);
		struct favor_error same = {""};
		assert_int_equal(prompt_check(file, &same), -1);
		assert_string_equal(e.message, same.message);
	}
	assert_null(prompt_text("thnik", &c, &r, &e));
	assert_string_equal(
		e.message,
		"data.prompt: \"thnik\" is neither think nor answer nor a file that can be read: No such file or directory");
}

static void check_target(const char *option, const struct record *r, const char *wanted)
{
	char *text = target_text(option, r);
	assert_string_equal(text, wanted);
	free(text);
}

static void targets(void **state)
{
	struct folder *f = the_folder(state);
	struct record plain = {.label = (char *)"running"}, traced = {.label = (char *)"running", .think = (char *)"Legs."};
	struct record whole = {.label = (char *)"running", .think = (char *)"Legs.", .target = (char *)"It runs."};
	struct record asked = {
		.label = (char *)"running", .think = (char *)"Legs.", .problem = (char *)"What? Use <think> tags."};
	struct record blunt = {.label = (char *)"running", .think = (char *)"Legs.", .problem = (char *)"What?"};
	static const char with[] = "<think>Legs.</think>\n<answer>running</answer>", without[] = "<answer>running</answer>";
	check_target("think", &plain, without);
	check_target("think", &traced, with);
	check_target("answer", &traced, without);
	check_target("think", &whole, "It runs.");
	check_target("answer", &asked, with);
	check_target("think", &blunt, without);
	char file[256];
	strcpy(file, folder_text(f, "t.txt", "{problem} Reason in <think> first."));
	check_target(file, &traced, with);
	check_target(file, &blunt, with);
	folder_text(f, "t.txt", "{problem} Answer.");
	check_target(file, &traced, without);
	check_target(file, &asked, with);
}

static void nearest(void **state)
{
	(void)state;
	char *names[] = {(char *)"boxing", (char *)"Riding a Bike", (char *)"running"};
	assert_int_equal(label_nearest("runing", names, 3), 2);
	assert_int_equal(label_nearest("RIDING_BIKE", names, 3), 1);
	assert_int_equal(label_nearest("", names, 3), 0);
	assert_int_equal(label_nearest("x", names, 0), -1);
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
	const struct CMUnitTest tests[] = {cmocka_unit_test(derived), cmocka_unit_test(given),  cmocka_unit_test(aliases),
	                                   cmocka_unit_test(shots),   cmocka_unit_test(orders), cmocka_unit_test(prompts),
	                                   cmocka_unit_test(targets), cmocka_unit_test(nearest)};
	return cmocka_run_group_tests(tests, setup, teardown);
}
