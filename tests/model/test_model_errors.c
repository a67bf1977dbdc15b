/* Folders that can't be run are refused with one message that names the place; others that only look different are
 * opened. The files are made by changing golden ones (tools/golden_model.py). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "../folder.h"
#include "backend/ops.h"
#include "model/model.h"
#include "model/safetensors.h"

#include <jansson.h>

#define UNTIED "a-untied-f32"
#define SHARDED "b-tied-bf16-sharded"

static char *golden(const char *config)
{
	return favor_format("%s/model/%s", getenv("FAVOR_GOLDEN"), config);
}

static char *links(const char *config)
{
	char *model = golden(config), *folder = folder_links(model);
	free(model);
	return folder;
}

/* Opens the folder and removes it. All of the texts must stand in the message. */
static void refused(char *folder, const char *const *says)
{
	struct favor_error e = {""};
	struct backend *b = backend_reference_new();
	struct model *m = model_open(folder, b, NULL, &e);
	if (m)
		fail_msg("opened, though it should be refused: %s, %s", says[0], says[1] ? says[1] : "");
	for (int i = 0; says[i]; i++)
		if (!strstr(e.message, says[i]))
			fail_msg("\"%s\" does not say \"%s\"", e.message, says[i]);
	assert_null(strchr(e.message, '\n'));
	backend_destroy(b);
	folder_remove(folder);
}
#define refused(folder, ...) refused(folder, (const char *const[]){__VA_ARGS__, NULL})

/* Opens the folder and removes it; `check` may look at the model. */
static void opens(char *folder, const char *warns, void (*check)(const struct model *m))
{
	struct favor_error e = {""};
	struct backend *b = backend_reference_new();
	char *warning;
	struct model *m = model_open(folder, b, &warning, &e);
	if (!m)
		fail_msg("%s", e.message);
	if (!warns != !warning || (warns && !strstr(warning, warns)))
		fail_msg("warning \"%s\", not \"%s\"", warning ? warning : "(none)", warns ? warns : "(none)");
	if (check)
		check(m);
	free(warning);
	model_destroy(m);
	backend_destroy(b);
	folder_remove(folder);
}

/* ---- config.json ---- */

/* "a.b" set to a JSON text, or deleted if it is NULL. */
static char *with_config(const char *config, const char *key, const char *value)
{
	char *folder = links(config), *names = favor_strdup(key), *name = names;
	size_t n;
	char *text = folder_read(folder, "config.json", &n);
	json_t *root = json_loads(text, 0, NULL), *o = root;
	free(text);
	for (char *dot; (dot = strchr(name, '.')); name = dot + 1) {
		*dot = 0;
		o = json_object_get(o, name);
	}
	assert_true(json_is_object(o));
	if (value)
		assert_int_equal(json_object_set_new(o, name, json_loads(value, JSON_DECODE_ANY, NULL)), 0);
	else
		assert_int_equal(json_object_del(o, name), 0);
	text = json_dumps(root, 0);
	folder_write(folder, "config.json", text);
	free(text);
	free(names);
	json_decref(root);
	return folder;
}

static void test_config(void **state)
{
	(void)state;
	/* one change, and what the message says besides the file's name */
	static const struct {
		const char *key, *value, *says;
	} cases[] = {
		{"model_type", "\"qwen2_5_vl\"", "qwen2_5_vl"},
		{"model_type", NULL, "\"model_type\" is \"(none)\""},
		{"vision_config", NULL, "vision_config"},
		{"vision_config", "[]", "vision_config"},
		{"text_config.hidden_size", "-32", "\"hidden_size\" is -32"},
		{"text_config.hidden_size", "0", "hidden_size"},
		{"text_config.hidden_size", "32.5", "hidden_size"},
		{"text_config.hidden_size", "\"32\"", "hidden_size"},
		{"text_config.hidden_size", "4611686018427387904", "hidden_size"},
		{"text_config.hidden_size", NULL, "\"hidden_size\" is missing"},
		{"text_config.vocab_size", "-1", "vocab_size"},
		{"text_config.num_hidden_layers", "-2", "num_hidden_layers"},
		{"text_config.num_hidden_layers", "1000000", "num_hidden_layers"},
		{"text_config.num_attention_heads", "3", "\"hidden_size\" 32 is no multiple of \"num_attention_heads\" 3"},
		{"text_config.num_key_value_heads", "3",
	     "\"num_attention_heads\" 2 is no multiple of \"num_key_value_heads\" 3"},
		{"text_config.num_key_value_heads", "0", "num_key_value_heads"},
		{"text_config.num_attention_heads", "16", "head dimension"},
		{"text_config.rope_parameters.mrope_section", "[2, 3, 4]", "sums to 9, but half of the head dimension is 8"},
		{"text_config.rope_parameters.mrope_section", "[2, 6]", "mrope_section"},
		{"text_config.rope_parameters.mrope_section", "[9, -2, 1]", "mrope_section"},
		{"text_config.rope_parameters.mrope_section", "[4096, 4096, 4096]", "mrope_section"},
		{"text_config.rope_parameters.mrope_section", NULL, "mrope_section"},
		{"text_config.rope_parameters.rope_type", "\"yarn\"", "yarn"},
		{"text_config.rope_parameters.rope_theta", "0", "rope_theta"},
		{"text_config.rope_parameters", NULL, "rope_parameters"},
		{"text_config.use_sliding_window", "true", "use_sliding_window"},
		{"text_config.hidden_act", "\"gelu\"", "hidden_act"},
		{"text_config.rms_norm_eps", "\"small\"", "rms_norm_eps"},
		{"vision_config.embed_dim", "-16", "embed_dim"},
		{"vision_config.num_heads", "3", "num_heads"},
		{"vision_config.hidden_size", "64", "\"hidden_size\" is 64, but the language model's is 32"},
		{"vision_config.in_channels", "1", "in_channels"},
		{"vision_config.mlp_ratio", "2.5", "mlp_ratio"},
		{"vision_config.mlp_ratio", "1e300", "mlp_ratio"},
		{"vision_config.mlp_ratio", "0", "mlp_ratio"},
		{"vision_config.patch_size", "0", "patch_size"},
		{"vision_config.hidden_act", "\"silu\"", "hidden_act"},
		{"image_token_id", "160", "image_token_id"},
		{"image_token_id", "-1", "image_token_id"},
		{"eos_token_id", "[149, 160]", "eos_token_id"},
		{"eos_token_id", "\"<|im_end|>\"", "eos_token_id"},
		{"eos_token_id", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17]", "at most 16"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
		refused(with_config(UNTIED, cases[i].key, cases[i].value), "config.json", cases[i].says);

	char *folder = links(UNTIED);
	folder_write(folder, "config.json", "{\"model_type\": \"qwen2_vl\",\n  oops}");
	refused(folder, "config.json:2");
	folder = links(UNTIED); /* more than an integer holds */
	folder_write(folder, "config.json", "{\"model_type\": \"qwen2_vl\", \"hidden_size\": 99999999999999999999}");
	refused(folder, "config.json:1");
	folder = links(UNTIED);
	folder_write(folder, "config.json", "[]");
	refused(folder, "config.json");
	folder = links(UNTIED);
	folder_write(folder, "config.json", "");
	refused(folder, "config.json");
	folder = folder_new();
	refused(folder, "config.json");
}

/* A config that claims a model of petabytes over the same file is refused by the file, not by the memory. */
static void test_claims(void **state)
{
	(void)state;
	char *folder = with_config(UNTIED, "text_config.vocab_size", "16777216");
	refused(folder, "model.embed_tokens.weight", "[160, 32]", "[16777216, 32]");
	folder = with_config(UNTIED, "text_config.intermediate_size", "1048576");
	refused(folder, "model.layers.0.mlp.gate_proj.weight", "[48, 32]", "[1048576, 32]");
	folder = with_config(UNTIED, "text_config.num_hidden_layers", "1024");
	refused(folder, "model.layers.2.input_layernorm.weight", "missing", "[32]");
	folder = with_config(UNTIED, "vision_config.depth", "3");
	refused(folder, "visual.blocks.2.norm1.weight", "missing");
}

/* ---- eos ---- */

static void eos_is_149(const struct model *m)
{
	assert_int_equal(m->config.eos_count, 1);
	assert_int_equal(m->config.eos[0], 149);
}

static void eos_is_listed(const struct model *m)
{
	assert_int_equal(m->config.eos_count, 3);
	assert_int_equal(m->config.eos[0], 7);
	assert_int_equal(m->config.eos[1], 148);
	assert_int_equal(m->config.eos[2], 0);
}

static void eos_is_absent(const struct model *m)
{
	assert_int_equal(m->config.eos_count, 0);
}

static void test_eos(void **state)
{
	(void)state;
	opens(links(UNTIED), NULL, eos_is_149);                                                /* text_config's */
	opens(with_config(UNTIED, "eos_token_id", "[7, 148, 0]"), NULL, eos_is_listed); /* the top level's word counts */
	opens(with_config(UNTIED, "text_config.eos_token_id", "null"), NULL, eos_is_absent);
	char *folder = links(UNTIED);
	folder_write(folder, "generation_config.json", "{\"eos_token_id\": [7, 148, 0], \"temperature\": 0.01}");
	opens(folder, NULL, eos_is_listed); /* generation_config.json's counts most */
	folder = links(UNTIED);
	folder_write(folder, "generation_config.json", "{\"eos_token_id\": null}");
	opens(folder, NULL, eos_is_149);
	folder = links(UNTIED);
	folder_write(folder, "generation_config.json", "{\"eos_token_id\": 160}");
	refused(folder, "generation_config.json", "eos_token_id");
	folder = links(UNTIED);
	folder_write(folder, "generation_config.json", "{");
	refused(folder, "generation_config.json:1");
}

/* ---- safetensors ---- */

/* model.safetensors taken apart. */
struct parts {
	json_t *header;
	char *data;
	size_t bytes;
};

static struct parts take_apart(const char *folder, const char *name)
{
	struct parts p;
	size_t n, length = 0;
	char *file = folder_read(folder, name, &n);
	for (int i = 0; i < 8; i++)
		length |= (size_t)(unsigned char)file[i] << (8 * i);
	p.header = json_loadb(file + 8, length, 0, NULL);
	assert_true(json_is_object(p.header));
	p.bytes = n - 8 - length;
	p.data = favor_malloc(p.bytes);
	memcpy(p.data, file + 8 + length, p.bytes);
	free(file);
	return p;
}

static void put_together(const char *folder, const char *name, struct parts *p)
{
	char *header = json_dumps(p->header, JSON_COMPACT);
	const size_t length = strlen(header);
	char *file = favor_malloc(8 + length + p->bytes);
	for (int i = 0; i < 8; i++)
		file[i] = (char)(length >> (8 * i));
	memcpy(file + 8, header, length);
	memcpy(file + 8 + length, p->data, p->bytes);
	folder_write_bytes(folder, name, file, 8 + length + p->bytes);
	free(file);
	free(header);
	free(p->data);
	json_decref(p->header);
}

/* One field of one tensor's entry changed (JSON text), or the tensor deleted (field NULL). */
static char *with_tensor(const char *tensor, const char *field, const char *value)
{
	char *folder = links(UNTIED);
	struct parts p = take_apart(folder, "model.safetensors");
	assert_non_null(json_object_get(p.header, tensor));
	if (field)
		json_object_set_new(json_object_get(p.header, tensor), field, json_loads(value, JSON_DECODE_ANY, NULL));
	else
		json_object_del(p.header, tensor);
	put_together(folder, "model.safetensors", &p);
	return folder;
}

static void test_tensors(void **state)
{
	(void)state;
	static const char q[] = "model.layers.1.self_attn.q_proj.weight", norm[] = "model.norm.weight";
	refused(with_tensor(q, NULL, NULL), q, "missing", "[32, 32]");
	refused(with_tensor("lm_head.weight", NULL, NULL), "lm_head.weight", "missing", "[160, 32]"); /* untied */
	refused(with_tensor("visual.patch_embed.proj.weight", NULL, NULL), "visual.patch_embed.proj.weight",
	        "[16, 3, 2, 14, 14]");
	refused(with_tensor(q, "shape", "[16, 64]"), "model.safetensors", q, "[16, 64]", "[32, 32]");
	refused(with_tensor(q, "shape", "[1024]"), q, "[1024]", "[32, 32]");
	refused(with_tensor(q, "shape", "[32, 32, 1]"), q, "[32, 32, 1]", "[32, 32]");
	refused(with_tensor(q, "shape", "[32, -32]"), q, "natural number");
	refused(with_tensor(q, "shape", "[4294967296, 4294967296]"), q, "more elements than can be");
	refused(with_tensor(q, "shape", "[1, 1, 1, 1, 1, 1, 1024]"), q, "malformed");
	refused(with_tensor(q, "shape", "[32, 32.0]"), q, "natural number");
	refused(with_tensor(q, "shape", "\"32\""), q, "malformed");
	refused(with_tensor(q, "dtype", "\"I8\""), q, "1024 elements of I8, but 4096 bytes");
	refused(with_tensor(norm, "dtype", "\"I32\""), norm, "dtype I32", "F32, F16 and BF16"); /* the bytes fit */
	refused(with_tensor(q, "dtype", "\"F8_E4M3\""), q, "F8_E4M3");
	refused(with_tensor(q, "dtype", "\"F16\""), q, "1024 elements of F16, but 4096 bytes");
	refused(with_tensor(q, "dtype", "7"), q, "(none)");
	refused(with_tensor(q, "data_offsets", "[0, 1099511627776]"), q, "cut short");
	refused(with_tensor(q, "data_offsets", "[-4096, 0]"), q, "bytes -4096 to 0");
	refused(with_tensor(q, "data_offsets", "[8192, 4096]"), q);
	refused(with_tensor(q, "data_offsets", "[0]"), q, "malformed");
	refused(with_tensor(q, "data_offsets", "[0, \"4096\"]"), q);
	refused(with_tensor(q, "data_offsets", "[9223372036854775807, 9223372036854775807]"), q);
}

/* I8 values that have as many bytes as they should. */
static void test_i8(void **state)
{
	(void)state;
	static const char q[] = "model.layers.1.self_attn.q_proj.weight";
	char *folder = links(UNTIED);
	struct parts p = take_apart(folder, "model.safetensors");
	json_t *t = json_object_get(p.header, q);
	const json_int_t from = json_integer_value(json_array_get(json_object_get(t, "data_offsets"), 0));
	json_object_set_new(t, "dtype", json_string("I8"));
	json_object_set_new(t, "data_offsets", json_pack("[I, I]", from, from + 1024));
	put_together(folder, "model.safetensors", &p);
	refused(folder, q, "dtype I8", "F32, F16 and BF16");
}

static void test_truncated(void **state)
{
	(void)state;
	char *model = golden(UNTIED);
	size_t n, length = 0;
	char *file = folder_read(model, "model.safetensors", &n);
	for (int i = 0; i < 8; i++)
		length |= (size_t)(unsigned char)file[i] << (8 * i);
	const size_t lengths[] = {0,     1,     7,    8, 9, 100, 8 + length / 2, 8 + length - 1, 8 + length, 8 + length + 1,
	                          n / 2, n - 4, n - 1};
	for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
		char *folder = links(UNTIED);
		folder_write_bytes(folder, "model.safetensors", file, lengths[i]);
		refused(folder, "model.safetensors");
	}
	/* what the header claims for itself */
	static const uint64_t claims[] = {UINT64_C(1) << 60, UINT64_MAX, UINT64_MAX - 7, (uint64_t)INT64_MAX + 1, 0, 1, 2};
	for (size_t i = 0; i < sizeof claims / sizeof *claims; i++) {
		char *folder = links(UNTIED);
		for (int k = 0; k < 8; k++)
			file[k] = (char)(claims[i] >> (8 * k));
		folder_write_bytes(folder, "model.safetensors", file, n);
		refused(folder, "model.safetensors", "header");
	}
	free(file);
	free(model);
}

static void test_headers(void **state)
{
	(void)state;
	static const char *const headers[] = {
		"[]",
		"7",
		"{",
		"{\"a\": 1}",
		"{\"a\": {}}",
		"{\"a\": {\"dtype\": \"F32\"}}",
		"{\"a\": {\"dtype\": \"F32\", \"shape\": [], \"data_offsets\": [0, 4], \"shape\": []}}"};
	for (size_t i = 0; i < sizeof headers / sizeof *headers; i++) {
		char *folder = links(UNTIED), file[256] = {(char)strlen(headers[i])};
		memcpy(file + 8, headers[i], strlen(headers[i]));
		folder_write_bytes(folder, "model.safetensors", file, 8 + strlen(headers[i]) + 16);
		refused(folder, "model.safetensors");
	}
}

/* More than the model asks for is said, not refused; a tied head that is stored all the same is nothing to say. */
static void test_more(void **state)
{
	(void)state;
	static const char norm[] = "model.norm.weight";
	char *folder = links(UNTIED);
	struct parts p = take_apart(folder, "model.safetensors");
	json_object_set(p.header, "model.layers.7.extra", json_object_get(p.header, norm));
	put_together(folder, "model.safetensors", &p);
	opens(folder, "1 tensors are not part of the model", NULL);

	folder = with_config(UNTIED, "tie_word_embeddings", "true");
	opens(folder, NULL, NULL);
}

/* ---- shards ---- */

static char *with_index(const char *tensor, const char *file)
{
	char *folder = links(SHARDED);
	size_t n;
	char *text = folder_read(folder, "model.safetensors.index.json", &n);
	json_t *index = json_loads(text, 0, NULL);
	free(text);
	json_object_set_new(json_object_get(index, "weight_map"), tensor, json_loads(file, JSON_DECODE_ANY, NULL));
	text = json_dumps(index, 0);
	folder_write(folder, "model.safetensors.index.json", text);
	free(text);
	json_decref(index);
	return folder;
}

static void test_shards(void **state)
{
	(void)state;
	static const char norm[] = "model.norm.weight";
	opens(links(SHARDED), NULL, NULL);
	static const char *const outside[] = {
		"\"../x.safetensors\"", "\"/etc/passwd\"", "\"a/b.safetensors\"", "\"..\"", "7", "null"};
	for (size_t i = 0; i < sizeof outside / sizeof *outside; i++)
		refused(with_index(norm, outside[i]), "model.safetensors.index.json", norm, "same folder");
	refused(with_index(norm, "\"model-00003-of-00003.safetensors\""), "model-00003-of-00003.safetensors");

	char *folder = links(SHARDED);
	folder_write(folder, "model.safetensors.index.json", "{\"metadata\": {}}");
	refused(folder, "model.safetensors.index.json", "weight_map");
	folder = links(SHARDED);
	folder_write(folder, "model.safetensors.index.json", "{\"weight_map\": {}}");
	refused(folder, "missing");
	folder = links(SHARDED); /* the second shard holds what the first holds */
	struct parts p = take_apart(folder, "model-00001-of-00002.safetensors");
	put_together(folder, "model-00002-of-00002.safetensors", &p);
	refused(folder, "is in two shards");
	folder = links(SHARDED);
	folder_write(folder, "model-00002-of-00002.safetensors", "short");
	refused(folder, "model-00002-of-00002.safetensors", "5 bytes");
	folder = links(UNTIED);
	char *path = favor_format("%s/model.safetensors", folder);
	unlink(path);
	free(path);
	refused(folder, "neither model.safetensors nor model.safetensors.index.json");
}

/* ---- names and layouts ---- */

static float *weights_of(char *folder, int64_t *n)
{
	struct favor_error e = {""};
	struct backend *b = backend_reference_new();
	struct model *m = model_open(folder, b, NULL, &e);
	if (!m)
		fail_msg("%s", e.message);
	*n = m->params.total;
	float *values = favor_malloc((size_t)*n * sizeof *values);
	op_download(b, values, m->block, (size_t)*n * sizeof *values);
	model_destroy(m);
	backend_destroy(b);
	folder_remove(folder);
	return values;
}

/* Tensors under the names that newer writers give them are the same model. */
static void test_new_names(void **state)
{
	(void)state;
	int64_t n, m;
	float *want = weights_of(links(UNTIED), &n);
	char *folder = links(UNTIED);
	struct parts p = take_apart(folder, "model.safetensors");
	json_t *renamed = json_object(), *v;
	const char *name;
	json_object_foreach(p.header, name, v) {
		char *other = !strncmp(name, "visual.", 7)  ? favor_format("model.%s", name)
		              : !strncmp(name, "model.", 6) ? favor_format("model.language_model.%s", name + 6)
		                                            : favor_strdup(name);
		json_object_set(renamed, other, v);
		free(other);
	}
	json_decref(p.header);
	p.header = renamed;
	put_together(folder, "model.safetensors", &p);
	float *have = weights_of(folder, &m);
	assert_int_equal(n, m);
	assert_memory_equal(want, have, (size_t)n * sizeof *want);
	free(have);

	/* and so is a file that favor writes, in float32; in bfloat16 it is the rounded one */
	struct favor_error e = {""};
	for (int bf16 = 0; bf16 < 2; bf16++) {
		struct backend *b = backend_reference_new();
		folder = links(UNTIED);
		struct model *model = model_open(folder, b, NULL, &e);
		assert_non_null(model);
		char *path = favor_format("%s/model.safetensors", folder);
		unlink(path);
		assert_int_equal(model_write(model, folder, bf16, &e), 0);
		free(path);
		model_destroy(model);
		backend_destroy(b);
		have = weights_of(folder, &m);
		for (int64_t i = 0; i < n; i++) {
			float w = want[i];
			if (bf16) { /* to the nearest of 8 bits, ties to even */
				uint32_t u;
				memcpy(&u, &w, 4);
				u = (u + 0x7fff + (u >> 16 & 1)) & 0xffff0000u;
				memcpy(&w, &u, 4);
			}
			assert_true(w == have[i]);
		}
		free(have);
	}
	free(want);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_config), cmocka_unit_test(test_claims),    cmocka_unit_test(test_eos),
		cmocka_unit_test(test_tensors), cmocka_unit_test(test_i8),       cmocka_unit_test(test_truncated),
		cmocka_unit_test(test_headers), cmocka_unit_test(test_more),     cmocka_unit_test(test_shards),
		cmocka_unit_test(test_new_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
