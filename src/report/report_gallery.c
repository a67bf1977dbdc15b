/* The gallery: groups of samples.jsonl with their image, responses, rewards and advantages. Two passes over the file:
 * an index of where groups start, then the chosen ones, evenly spaced over the run, are read. */
#include "base/file.h"
#include "data/image.h"
#include "report/report_parts.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { THUMBNAIL_SIDE = 180, TEXT_SHOWN = 4000, RESPONSES_SHOWN = 64 };

struct group_place {
	int64_t step, group;
	off_t start; /* of its first line */
	int32_t lines;
};

/* ---- thumbnail ---- */

/* A grey box says why there is no picture. */
static void add_missing(struct text *page, const char *path, const char *why)
{
	text_add(page, "<div class=gone title=\"");
	add_escaped(page, why);
	text_add(page, "\">");
	add_escaped(page, path[0] ? path : "no image");
	text_add(page, "</div>");
}

static void add_thumbnail(struct text *page, const char *path)
{
	struct image full = {0}, small = {0};
	struct favor_error e = {{0}};
	struct stat st;
	void *jpeg = NULL;
	size_t n = 0;
	if (!path[0]) {
		add_missing(page, path, "text alone");
		return;
	}
	if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) {
		add_missing(page, path, "there is no such file");
		return;
	}
	if (image_load(&full, path, &e) != 0) {
		add_missing(page, path, e.message);
		goto done;
	}
	/* twice the size it is shown in, for fine screens; never enlarged */
	double scale = fmin(1, 2.0 * THUMBNAIL_SIDE / (full.width > full.height ? full.width : full.height));
	int32_t width = (int32_t)fmax(1, round(full.width * scale)), height = (int32_t)fmax(1, round(full.height * scale));
	image_resize_bicubic(&small, &full, width, height);
	if (image_encode_jpeg(&small, 80, &jpeg, &n, &e) != 0) {
		add_missing(page, path, e.message);
		goto done;
	}
	double shown = fmin(1, (double)THUMBNAIL_SIDE / (width > height ? width : height));
	text_format(page, "<img loading=lazy width=%.0f height=%.0f alt=\"\" title=\"", fmax(1, width * shown),
	            fmax(1, height * shown));
	add_escaped(page, path);
	text_add(page, "\" src=\"data:image/jpeg;base64,");
	text_base64(page, jpeg, n);
	text_add(page, "\">");
done:
	free(jpeg);
	image_free(&small);
	image_free(&full);
}

/* ---- a response ---- */

struct tag {
	const char *text, *part; /* what stands after the tag is of that part, a CSS class; "" none */
};

/* The tag that starts at s, or NULL. */
static const struct tag *tag_at(const char *s)
{
	static const struct tag tags[] = {
	    {"<think>", "think"}, {"</think>", ""}, {"<answer>", "answer"}, {"</answer>", ""}};
	for (size_t k = 0; k < sizeof tags / sizeof *tags; k++)
		if (strncmp(s, tags[k].text, strlen(tags[k].text)) == 0)
			return &tags[k];
	return NULL;
}

/* The text with its think and answer parts marked. Parts are cut at the tags wherever they stand, and each part is
 * closed before the next begins, so that the page's own structure never depends on what a model wrote. */
static void add_response(struct text *page, const char *s)
{
	const char *part = "";
	size_t n = strlen(s), shown = n > TEXT_SHOWN ? TEXT_SHOWN : n;
	while (shown > 0 && shown < n && ((unsigned char)s[shown] & 0xC0) == 0x80) /* not within a character */
		shown--;
	text_add(page, "<div class=said>");
	for (size_t i = 0; i < shown;) {
		const struct tag *tag = NULL;
		size_t end = i;
		while (end < shown && !(tag = tag_at(s + end)))
			end++;
		if (end > i) {
			text_format(page, "<span class=\"%s\">", part);
			text_html(page, s + i, end - i);
			text_add(page, "</span>");
		}
		if (tag) {
			text_add(page, "<span class=tag>");
			add_escaped(page, tag->text);
			text_add(page, "</span>");
			part = tag->part;
			end += strlen(tag->text);
		}
		i = end;
	}
	if (shown < n)
		text_format(page, "<span class=tag> … %zu more bytes</span>", n - shown);
	text_add(page, "</div>");
}

static const char *get_text(const json_t *o, const char *key)
{
	const char *s = json_string_value(json_object_get(o, key));
	return s ? s : "";
}

static void add_row(struct text *page, json_t *o, double best, double worst, double largest)
{
	double reward = get_number(o, "reward"), advantage = get_number(o, "advantage");
	const char *name;
	json_t *value;
	text_format(page, "<div class=\"response%s\"><div class=chips><span>reward <b>",
	            best == worst     ? ""
	            : reward == best  ? " best"
	            : reward == worst ? " worst"
	                              : "");
	add_number(page, reward);
	text_add(page, "</b></span>");
	json_object_foreach (json_object_get(o, "rewards"), name, value) {
		text_add(page, "<span>");
		add_escaped(page, name);
		text_add(page, " <b>");
		add_number(page, json_is_number(value) ? json_number_value(value) : NAN);
		text_add(page, "</b></span>");
	}
	if (isfinite(advantage)) {
		double half = largest > 0 ? fabs(advantage) / largest * 50 : 0;
		text_format(page, "<span>advantage <b>%+.2f</b></span><span class=advantage>", advantage);
		text_format(page, "<i class=%s style=\"%s:50%%;width:%.0f%%\"></i></span>", advantage >= 0 ? "plus" : "minus",
		            advantage >= 0 ? "left" : "right", half);
	}
	text_add(page, "<span>");
	add_number(page, get_number(o, "tokens"));
	text_format(page, " tokens%s</span></div>", strcmp(get_text(o, "finish"), "length") == 0 ? ", cut off" : "");
	add_response(page, get_text(o, "response"));
	text_add(page, "</div>");
}

static void add_group(struct text *page, json_t *const *o, int n, const struct group_place *g)
{
	double best = -INFINITY, worst = INFINITY, largest = 0;
	for (int i = 0; i < n; i++) {
		best = fmax(best, get_number(o[i], "reward"));
		worst = fmin(worst, get_number(o[i], "reward"));
		double advantage = fabs(get_number(o[i], "advantage"));
		largest = isfinite(advantage) ? fmax(largest, advantage) : largest;
	}
	text_format(page, "<article class=\"group card\" data-kind=%s><aside>", best > worst ? "mixed" : "equal");
	add_thumbnail(page, get_text(o[0], "image"));
	text_format(page, "<p>step <b>%lld</b>, group %lld</p><p>label: <b>", (long long)g->step, (long long)g->group);
	add_escaped(page, get_text(o[0], "label"));
	text_add(page, "</b></p></aside><div><details><summary>Prompt</summary><pre>");
	add_escaped(page, get_text(o[0], "prompt"));
	text_add(page, "</pre></details>");
	for (int i = 0; i < n; i++)
		add_row(page, o[i], best, worst, largest);
	if (g->lines > n)
		text_format(page, "<p class=dim>%d more responses</p>", g->lines - n);
	text_add(page, "</div></article>");
}

/* ---- the file ---- */

static int by_step(const void *a, const void *b)
{
	const struct group_place *x = a, *y = b;
	if (x->step != y->step)
		return x->step < y->step ? -1 : 1;
	return x->start < y->start ? -1 : x->start > y->start;
}

/* Where the groups start. Lines of a group stand together. *broken counts lines that are none. */
static struct group_place *index_groups(FILE *f, int32_t *count, int64_t *broken)
{
	struct group_place *places = NULL;
	int32_t n = 0, capacity = 0;
	struct lines lines = {.file = f, .limit = LINE_MAX_BYTES};
	int found;
	while ((found = lines_next(&lines)) == LINES_ONE) {
		json_t *o = json_loadb(lines.text, lines.n, 0, NULL);
		json_t *step = json_object_get(o, "step"), *group = json_object_get(o, "group");
		if (!json_is_integer(step) || !json_is_integer(group)) {
			*broken += lines.text[lines.n - 1] == '\n';
		} else if (n > 0 && places[n - 1].step == json_integer_value(step) &&
		           places[n - 1].group == json_integer_value(group)) {
			places[n - 1].lines++;
		} else {
			if (n == capacity) {
				capacity = capacity ? 2 * capacity : 256;
				places = favor_realloc(places, sizeof *places * (size_t)capacity);
			}
			places[n++] = (struct group_place){json_integer_value(step), json_integer_value(group), (off_t)lines.start, 1};
		}
		json_decref(o);
	}
	*broken += found < 0; /* and what follows it */
	lines_free(&lines);
	*count = n;
	return places;
}

static void add_group_at(struct text *page, FILE *f, const struct group_place *g)
{
	json_t *o[RESPONSES_SHOWN];
	int n = 0;
	struct lines lines = {.file = f, .limit = LINE_MAX_BYTES};
	if (fseeko(f, g->start, SEEK_SET) != 0)
		return;
	while (lines.number < g->lines && n < RESPONSES_SHOWN && lines_next(&lines) == LINES_ONE) {
		json_t *one = json_loadb(lines.text, lines.n, 0, NULL);
		if (json_is_object(one))
			o[n++] = one;
		else
			json_decref(one);
	}
	if (n > 0)
		add_group(page, o, n, g);
	for (int i = 0; i < n; i++)
		json_decref(o[i]);
	lines_free(&lines);
}

void add_gallery(struct text *page, struct run_data *d)
{
	char *path = favor_format("%s/samples.jsonl", d->dir);
	struct group_place *places = NULL;
	int32_t count = 0, last = -1;
	int64_t broken = 0;
	struct favor_error e = {""};
	FILE *f = file_open(path, &e);
	if (!f) {
		run_data_note(d, "samples.jsonl: %s; there is no gallery.", e.message);
		goto done;
	}
	places = index_groups(f, &count, &broken);
	if (broken > 0)
		run_data_note(d, "samples.jsonl: %lld lines are no samples and were left out.", (long long)broken);
	if (count == 0)
		goto done;
	qsort(places, (size_t)count, sizeof *places, by_step);
	int32_t shown = count < GALLERY_MAX_GROUPS ? count : GALLERY_MAX_GROUPS;
	text_format(page,
	            "<section><h2>Groups</h2><p class=dim>%d of %d groups, by step. Responses with the highest reward "
	            "of their group are marked green, those with the lowest red.</p>",
	            shown, count);
	text_add(page, "<div class=filter><button value=all aria-pressed=true>All</button>"
	               "<button value=mixed aria-pressed=false>Rewards differ</button>"
	               "<button value=equal aria-pressed=false>All alike: no signal</button></div>");
	for (int32_t i = 0; i < shown; i++) { /* the first, the last, and evenly between */
		int32_t k = shown == 1 ? 0 : (int32_t)((int64_t)i * (count - 1) / (shown - 1));
		if (k != last)
			add_group_at(page, f, &places[k]);
		last = k;
	}
	text_add(page, "</section>");
done:
	if (f)
		fclose(f);
	free(places);
	free(path);
}
