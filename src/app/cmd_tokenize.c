/* favor tokenize --model M [--decode]: text lines to JSON arrays of ids, and back. */
#include "app/assets.h"
#include "app/commands.h"
#include "base/file.h"
#include "data/tokenizer.h"

#include <errno.h>
#include <getopt.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char help[] =
	"Usage: favor tokenize --model M [--decode]\n"
	"\n"
	"Reads lines from standard input, each without its line end (a carriage return\n"
	"before it is text), and prints a JSON array of token ids for each. Added tokens\n"
	"such as <|im_start|> are recognised.\n"
	"\n"
	"  --model M   Hugging Face folder with a tokenizer.json, or a checkpoint\n"
	"  --decode    the other way round: each line is a JSON array of ids, and its text is\n"
	"              printed, followed by a line end. Special tokens are printed too, ids of\n"
	"              no token (padding of the embedding table) give nothing. A text that\n"
	"              holds line ends is printed as it is, so it takes several lines.\n"
	"  --help      print this\n";

enum { LINE_MAX_BYTES = 256 << 20 };

/* The one place that knows what --model may be. */
static struct tokenizer *open_model(const char *model, struct favor_error *e)
{
	return assets_tokenizer(model, e);
}

static int encode_line(struct tokenizer *t, const char *line, size_t n, struct token_ids *ids, struct favor_error *e)
{
	ids->count = 0;
	if (tokenizer_encode(t, line, n, 1, ids, e))
		return -1;
	putchar('[');
	for (int32_t i = 0; i < ids->count; i++)
		printf(i ? ",%d" : "%d", ids->ids[i]);
	puts("]");
	return 0;
}

static int decode_line(const struct tokenizer *t, const char *line, size_t n, struct token_ids *ids,
                       struct favor_error *e)
{
	json_error_t where;
	int result = -1;
	json_t *list = json_loadb(line, n, 0, &where);
	if (!json_is_array(list)) {
		favor_fail(e, "not a JSON array of ids%s%s", list ? "" : ": ", list ? "" : where.text);
		goto done;
	}
	ids->count = 0;
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *id = json_array_get(list, i);
		if (!json_is_integer(id) || json_integer_value(id) < 0 || json_integer_value(id) > INT32_MAX) {
			favor_fail(e, "entry %zu is no token id", i);
			goto done;
		}
		token_ids_push(ids, (int32_t)json_integer_value(id));
	}
	char *text = tokenizer_decode(t, ids->ids, ids->count, 0, &n);
	fwrite(text, 1, n, stdout);
	putchar('\n');
	free(text);
	result = 0;
done:
	json_decref(list);
	return result;
}

int cmd_tokenize(int argc, char **argv, struct favor_error *e)
{
	static const struct option options[] = {{"model", required_argument, NULL, 'm'},
	                                        {"decode", no_argument, NULL, 'd'},
	                                        {"help", no_argument, NULL, 'h'},
	                                        {0}};
	const char *model = NULL;
	int decode = 0, code = 2, option;
	struct tokenizer *t = NULL;
	struct token_ids ids = {0};
	struct lines lines = {.file = stdin, .limit = LINE_MAX_BYTES};
	int found;

	optind = 0; /* start anew, whoever used getopt before */
	opterr = 0;
	while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
		switch (option) {
		case 'm':
			model = optarg;
			break;
		case 'd':
			decode = 1;
			break;
		case 'h':
			fputs(help, stdout);
			return 0;
		case ':':
			favor_fail(e, "tokenize: %s needs a value; see favor tokenize --help", argv[optind - 1]);
			return 2;
		default:
			favor_fail(e, "tokenize: unknown option %s; see favor tokenize --help", argv[optind - 1]);
			return 2;
		}
	}
	if (optind < argc) {
		favor_fail(e, "tokenize: unexpected argument %s; text is read from standard input", argv[optind]);
		return 2;
	}
	if (!model) {
		favor_fail(e, "tokenize: --model is missing; see favor tokenize --help");
		return 2;
	}
	t = open_model(model, e);
	if (!t)
		goto done;
	while ((found = lines_next(&lines)) == LINES_ONE) {
		const size_t n = lines.n - (lines.text[lines.n - 1] == '\n');
		if (decode ? decode_line(t, lines.text, n, &ids, e) : encode_line(t, lines.text, n, &ids, e)) {
			favor_fail_prefix(e, "standard input, line %lld", (long long)lines.number);
			goto done;
		}
	}
	if (found < 0) {
		lines_fail(&lines, found, "standard input", e);
		code = found == LINES_LONG ? 2 : 1;
		goto done;
	}
	if (fflush(stdout)) {
		favor_fail(e, "tokenize: writing: %s", strerror(errno));
		code = 1;
		goto done;
	}
	code = 0;
done:
	lines_free(&lines);
	token_ids_free(&ids);
	tokenizer_destroy(t);
	return code;
}
