/* favor generate and favor score: one prompt, from the command line. Text by text what training does: same encoder,
 * same session, same pass. */
#include "app/assets.h"
#include "app/commands.h"
#include "app/device.h"
#include "app/options.h"
#include "data/label.h"
#include "data/template.h"
#include "model/pass.h"
#include "rollout/rollout.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What both commands open. */
struct one_prompt {
	const char *model, *prompt, *system, *dtype, *device;
	struct option_list images;
	int raw;
	struct backend *backend;
	struct assets assets;
	struct prompt encoded;
};

/* Here, and not by the tokeniser: it would count bytes of the whole rendered prompt. */
static int check_text(const char *option, const char *text, struct favor_error *e)
{
	return utf8_valid(text, strlen(text)) ? 0 : favor_fail(e, "%s: the text is not UTF-8", option);
}

/* Positions are rotations: beyond those that the model was trained with they would only give bad numbers. */
static int check_length(const struct one_prompt *o, int64_t response, const char *what, struct favor_error *e)
{
	const struct model_config *c = &o->assets.model->config;
	if (o->encoded.ids.count + response <= c->max_positions)
		return 0;
	return favor_fail(e, "the prompt has %d tokens; with %s %lld that is more than the model's %d positions", o->encoded.ids.count, what,
	                  (long long)response, c->max_positions);
}

static int open_prompt(struct one_prompt *o, struct favor_error *e)
{
	if (!o->model || !o->prompt)
		return favor_fail(e, "--model and --prompt are needed");
	if (check_text("--prompt", o->prompt, e) || check_text("--system", o->system, e))
		return -1;
	const int bf16 = !strcmp(o->dtype, "bfloat16");
	if (!bf16 && strcmp(o->dtype, "float32"))
		return favor_fail(e, "--dtype: \"%s\" is neither float32 nor bfloat16", o->dtype);
	enum device device = DEVICE_AUTO;
	struct device_note note;
	if (o->device && device_named("--device", o->device, &device, e))
		return -1;
	o->backend = device_open(device, bf16 ? MODEL_BFLOAT16 : MODEL_FLOAT32, 0, &note, e);
	if (!o->backend)
		return -1;
	if (o->device && device == DEVICE_AUTO)
		fprintf(stderr, "favor: device: %s\n", note.text);
	if (assets_open(&o->assets, o->model, WEIGHTS_FILE, 0, o->backend, 1, e))
		return -1;
	struct encoder en = assets_encoder(&o->assets);
	en.system = template_system(o->system);
	return encode_prompt(&en, o->images.items, o->images.count, o->prompt, o->raw, &o->encoded, e);
}

static void close_prompt(struct one_prompt *o)
{
	prompt_free(&o->encoded);
	assets_close(&o->assets);
	if (o->backend)
		backend_destroy(o->backend);
	free(o->images.items);
}

static json_t *ids_json(const int32_t *ids, int32_t n)
{
	json_t *a = json_array();
	for (int32_t i = 0; i < n; i++)
		json_array_append_new(a, json_integer(ids[i]));
	return a;
}

static json_t *reals_json(const float *x, int32_t n)
{
	json_t *a = json_array();
	for (int32_t i = 0; i < n; i++)
		json_array_append_new(a, isfinite(x[i]) ? json_real((double)x[i]) : json_null());
	return a;
}

static void print_json(json_t *j)
{
	char *text = json_dumps(j, JSON_COMPACT | JSON_REAL_PRECISION(9));
	puts(text);
	free(text);
	json_decref(j);
}

static void print_group(const struct group *g, int json)
{
	for (int32_t k = 0; k < g->responses; k++) {
		const int32_t from = g->start[k], n = g->start[k + 1] - from;
		if (!json) {
			puts(g->text[k]);
			continue;
		}
		json_t *j = json_object();
		json_object_set_new(j, "text", json_string(g->text[k]));
		json_object_set_new(j, "response_ids", ids_json(g->token_ids + from, n));
		json_object_set_new(j, "logprobs", reals_json(g->logp + from, n));
		json_object_set_new(j, "sampling_logprobs", reals_json(g->sampling_logp + from, n));
		json_object_set_new(j, "finish", json_string(g->finish[k] == FINISH_STOP ? "stop" : "length"));
		print_json(j);
	}
}

int cmd_generate(int argc, char **argv, struct favor_error *e)
{
	static const char usage[] =
	    "generate --model M --prompt T [--image F ...] [--samples N] [--temperature X] [--top-p X] [--top-k N] "
	    "[--min-p X] [--max-tokens N] [--seed N] [--system T] [--raw] [--dtype D] [--device D] [--json]";
	struct one_prompt o = {.system = "default", .dtype = "float32"};
	int64_t samples = 1, top_k = 0, max_tokens = 256, seed = 0;
	double temperature = 1, top_p = 1, min_p = 0;
	int json = 0, count;
	const struct option options[] = {
	    {"--model", OPTION_TEXT, &o.model, 0, 0, "a Hugging Face folder or a checkpoint"},
	    {"--prompt", OPTION_TEXT, &o.prompt, 0, 0, "the user's text"},
	    {"--image", OPTION_LIST, &o.images, 0, 0, "an image; may be given several times, or left out"},
	    {"--samples", OPTION_INT, &samples, 1, 4096, "responses (default 1)"},
	    {"--temperature", OPTION_REAL, &temperature, 0, 100, "default 1; 0 is greedy"},
	    {"--top-p", OPTION_REAL, &top_p, 1e-6, 1, "default 1 (off)"},
	    {"--top-k", OPTION_INT, &top_k, 0, 1 << 24, "default 0 (off)"},
	    {"--min-p", OPTION_REAL, &min_p, 0, 1, "default 0 (off)"},
	    {"--max-tokens", OPTION_INT, &max_tokens, 1, 1 << 20, "default 256"},
	    {"--seed", OPTION_INT, &seed, 0, 9e18, "default 0"},
	    {"--system", OPTION_TEXT, &o.system, 0, 0, "default | none | the system text"},
	    {"--raw", OPTION_FLAG, &o.raw, 0, 0, "the prompt as it is, without the chat template"},
	    {"--dtype", OPTION_TEXT, &o.dtype, 0, 0, "of matrix products: float32 (default) or bfloat16"},
	    {"--device", OPTION_TEXT, &o.device, 0, 0, "cuda, cpu, or auto (default): a GPU where there is one"},
	    {"--json", OPTION_FLAG, &json, 0, 0,
	     "one JSON object a line: text, response_ids, logprobs, sampling_logprobs, finish"},
	};
	int code = options_parse(argc, argv, options, sizeof options / sizeof *options, NULL, 0, &count, usage, e);
	if (code) {
		free(o.images.items);
		return code < 0 ? 2 : 0;
	}
	struct rollout r = {0};
	struct group *g = NULL;
	code = 2;
	if (open_prompt(&o, e))
		goto done;
	if (check_length(&o, max_tokens, "--max-tokens", e))
		goto done;
	rollout_init(&r, o.assets.model, o.assets.tokenizer);
	r.sampling = (struct sampling){(float)temperature, (float)top_p, (float)min_p, (int32_t)top_k};
	r.max_tokens = (int32_t)max_tokens;
	r.seed = (uint64_t)seed;
	r.domain = RNG_EVAL;
	const struct rollout_request q = {.prompt = &o.encoded, .responses = (int32_t)samples};
	if (rollout_groups(&r, &q, 1, &g, e))
		goto done;
	print_group(g, json);
	code = 0;
done:
	group_destroy(g);
	if (r.model)
		rollout_free(&r);
	close_prompt(&o);
	return code;
}

int cmd_score(int argc, char **argv, struct favor_error *e)
{
	static const char usage[] = "score --model M --prompt T --response T [--image F ...] [--temperature X] [--system "
	                            "T] [--raw] [--dtype D] [--device D] [--json]";
	struct one_prompt o = {.system = "default", .dtype = "float32"};
	const char *response = NULL;
	double temperature = 1;
	int json = 0, count;
	const struct option options[] = {
	    {"--model", OPTION_TEXT, &o.model, 0, 0, "a Hugging Face folder or a checkpoint"},
	    {"--prompt", OPTION_TEXT, &o.prompt, 0, 0, "the user's text"},
	    {"--response", OPTION_TEXT, &response, 0, 0, "the text to score (no stop token is added)"},
	    {"--image", OPTION_LIST, &o.images, 0, 0, "an image; may be given several times, or left out"},
	    {"--temperature", OPTION_REAL, &temperature, 1e-3, 100, "default 1"},
	    {"--system", OPTION_TEXT, &o.system, 0, 0, "default | none | the system text"},
	    {"--raw", OPTION_FLAG, &o.raw, 0, 0, "the prompt as it is, without the chat template"},
	    {"--dtype", OPTION_TEXT, &o.dtype, 0, 0, "of matrix products: float32 (default) or bfloat16"},
	    {"--device", OPTION_TEXT, &o.device, 0, 0, "cuda, cpu, or auto (default): a GPU where there is one"},
	    {"--json", OPTION_FLAG, &json, 0, 0, "prompt_ids, response_ids, logprobs as one JSON object"},
	};
	int code = options_parse(argc, argv, options, sizeof options / sizeof *options, NULL, 0, &count, usage, e);
	if (code) {
		free(o.images.items);
		return code < 0 ? 2 : 0;
	}
	struct token_ids ids = {0};
	struct arena arena = {0};
	struct batch b = {0};
	float *logp = NULL;
	code = 2;
	if (!response) {
		favor_fail(e, "--response is needed");
		goto done;
	}
	if (check_text("--response", response, e) || open_prompt(&o, e) || tokenizer_encode(o.assets.tokenizer, response, strlen(response), 1, &ids, e))
		goto done;
	if (!ids.count) {
		favor_fail(e, "--response is empty: there is nothing to score");
		goto done;
	}
	if (check_length(&o, ids.count, "a response of", e))
		goto done;
	struct prefix prefix;
	batch_init(&b, &o.assets.model->config);
	int bad = batch_add_prompt(&b, o.encoded.ids.ids, o.encoded.ids.count, o.encoded.inputs, o.encoded.image_count,
	                           &prefix, e) ||
	          batch_add_response(&b, &prefix, ids.ids, ids.count, e);
	if (bad)
		goto done;
	logp = favor_malloc((size_t)ids.count * sizeof *logp);
	run_arena_init(&arena, o.backend);
	const struct run run = {o.backend, &arena, NULL, NULL};
	struct pass pass;
	pass_forward(&pass, &run, o.assets.model, &b, (float)temperature, 0, 0, 0, logp, NULL);
	pass_end(&pass);
	if (json) {
		json_t *j = json_object();
		json_object_set_new(j, "prompt_ids", ids_json(o.encoded.ids.ids, o.encoded.ids.count));
		json_object_set_new(j, "response_ids", ids_json(ids.ids, ids.count));
		json_object_set_new(j, "logprobs", reals_json(logp, ids.count));
		print_json(j);
	} else {
		double sum = 0;
		for (int32_t i = 0; i < ids.count; i++) {
			char *text = tokenizer_decode(o.assets.tokenizer, &ids.ids[i], 1, 0, NULL);
			printf("%10.5f  %s\n", (double)logp[i], text);
			sum += (double)logp[i];
			free(text);
		}
		printf("%10.5f  sum of %d tokens\n", sum, ids.count);
	}
	code = 0;
done:
	free(logp);
	batch_free(&b);
	if (arena.chunk_alloc)
		arena_free(&arena);
	token_ids_free(&ids);
	close_prompt(&o);
	return code;
}
