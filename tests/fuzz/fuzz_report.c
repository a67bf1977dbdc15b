/* The report on a run's folder: metrics.jsonl, FUZZ_CUT, samples.jsonl, FUZZ_CUT, config.yaml, FUZZ_CUT,
 * eval-step-1.json. Whatever they hold, the page has the one script and the elements that favor wrote, and is UTF-8. */
#include "fuzz.h"

#include "report/report.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

static int count_of(const char *page, const char *what)
{
	int count = 0;
	for (const char *p = page; (p = strstr(p, what)); p++)
		count++;
	return count;
}

static void check_page(const char *path)
{
	FILE *f = fopen(path, "rb");
	FUZZ_WANT(f && fseek(f, 0, SEEK_END) == 0);
	size_t n = (size_t)ftell(f);
	rewind(f);
	char *page = favor_malloc(n + 1);
	FUZZ_WANT(fread(page, 1, n, f) == n);
	page[n] = 0;
	fclose(f);
	FUZZ_WANT(strlen(page) == n); /* no NUL */
	FUZZ_WANT(count_of(page, "<script") == 1 && count_of(page, "</script") == 1 && count_of(page, "<style") == 1);
	FUZZ_WANT(count_of(page, "<iframe") == 0 && count_of(page, "<!--") == 0 && count_of(page, "<!") == 1);
	for (size_t i = 0; i < n;) {
		utf8proc_int32_t point;
		utf8proc_ssize_t used = utf8proc_iterate((const utf8proc_uint8_t *)page + i, (utf8proc_ssize_t)(n - i), &point);
		FUZZ_WANT(used > 0);
		i += (size_t)used;
	}
	free(page);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const char *const names[] = {"metrics.jsonl", "samples.jsonl", "config.yaml", "eval-step-1.json"};
	struct favor_error e = {""};
	struct fuzz_part parts[FUZZ_PARTS];
	fuzz_parts(data, size, parts);
	for (int i = 0; i < 4; i++)
		fuzz_write(names[i], parts[i]);
	if (report_write(fuzz_folder(), &e))
		fuzz_want_message(&e, fuzz_folder());
	else
		check_page(fuzz_path("report.html"));
	return 0;
}
