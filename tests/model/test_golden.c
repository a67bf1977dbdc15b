/* The model against transformers on random weights: log-probabilities, gradients of every tensor, greedy continuations;
 * packed rows against naive ones (invariant 4); decode against the pass, to the bit (invariant 5). Golden values:
 * tools/golden_model.py. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "backend/cuda/open.h"
#include "backend/ops.h"
#include "golden.h"
#include "model/pass.h"
#include "model/session.h"

#include <math.h>

static const char *const CONFIGS[] = {"a-untied-f32", "b-tied-bf16-sharded", "c-tied-f16"};
enum { CONFIG_COUNT = 3, CASE_COUNT = 3 };

struct fixture {
	struct backend *backend;
	struct model *model;
	struct safetensors *expected;
	struct arena arena;
	struct run run;
};

/* The CUDA backend, where FAVOR_CUDA_LIBRARY names one (tests/cuda): then it takes the CPU's place. Its products are
 * bfloat16 with FAVOR_TEST_DTYPE=bfloat16. */
static int on_cuda(void)
{
	return getenv("FAVOR_CUDA_LIBRARY") != NULL;
}
/* Whether decode and training must agree to the bit: on a GPU, cuBLASLt may use other algorithms for few rows. */
static int bits(void)
{
	return !on_cuda() || strstr(getenv("FAVOR_CUDA_LIBRARY"), "emulated");
}
static int narrow(void)
{
	const char *dtype = getenv("FAVOR_TEST_DTYPE");
	return dtype && !strcmp(dtype, "bfloat16");
}
static struct backend *backend_to_test(int threads)
{
	struct favor_error e = {""};
	char device[320];
	if (!on_cuda())
		return backend_cpu_new(threads);
	struct backend *b = backend_cuda_open(0, device, sizeof device, &e);
	if (!b)
		fail_msg("%s", e.message);
	backend_set_products(b, narrow() ? PRODUCTS_BFLOAT16 : PRODUCTS_FLOAT32);
	return b;
}

/* n floats of the backend's memory; owned. */
static float *downloaded(struct backend *b, const float *from, int64_t n)
{
	float *to = favor_malloc((size_t)n * sizeof *to);
	op_download(b, to, from, (size_t)n * sizeof *to);
	return to;
}

static void fixture_open(struct fixture *f, const char *config, struct backend *backend)
{
	struct favor_error e = {""};
	char *folder = favor_format("%s/model/%s", getenv("FAVOR_GOLDEN"), config), *warning;
	char *path = favor_format("%s/expected.safetensors", folder);
	f->backend = backend;
	f->model = model_open(folder, f->backend, &warning, &e);
	if (!f->model)
		fail_msg("%s", e.message);
	assert_null(warning);
	f->expected = safetensors_open_file(path, &e);
	if (!f->expected)
		fail_msg("%s", e.message);
	run_arena_init(&f->arena, f->backend);
	f->run = (struct run){f->backend, &f->arena, NULL, NULL};
	free(folder);
	free(path);
}

static void fixture_close(struct fixture *f)
{
	arena_free(&f->arena);
	safetensors_close(f->expected);
	model_destroy(f->model);
	backend_destroy(f->backend);
}

/* All responses behind their one prompt. */
static void pack(struct batch *b, const struct fixture *f, const struct golden_case *c)
{
	struct favor_error e = {""};
	struct prefix prefix;
	batch_init(b, &f->model->config);
	if (batch_add_prompt(b, c->ids, c->count, c->images, c->image_count, &prefix, &e))
		fail_msg("%s", e.message);
	for (int g = 0; g < c->groups; g++)
		assert_int_equal(0,
		                 batch_add_response(b, &prefix, c->responses + c->start[g], c->start[g + 1] - c->start[g], &e));
	assert_int_equal(b->targets, c->tokens);
}

static void check_logp(const char *config, int n, const float *logp, const struct golden_case *c)
{
	double worst = 0;
	for (int i = 0; i < c->tokens; i++)
		worst = fmax(worst, fabs((double)logp[i] - (double)c->logp[i]));
	print_message("%s case %d: largest difference of log-probabilities %.2g\n", config, n, worst);
	assert_true(worst < (narrow() ? 0.06 : 2e-5)); /* of about -6: one part in 100, two units of bfloat16 */
}

/* max |a - b| / max |b| of one tensor */
static double relative(const float *a, const float *b, int64_t n)
{
	double difference = 0, size = 0;
	for (int64_t i = 0; i < n; i++) {
		difference = fmax(difference, fabs((double)a[i] - (double)b[i]));
		size = fmax(size, fabs((double)b[i]));
	}
	return size > 0 ? difference / size : difference;
}

static void gradients(const char *config, struct backend *backend, int recompute)
{
	struct fixture f;
	fixture_open(&f, config, backend);
	const int64_t total = f.model->params.total;
	float *block = op_alloc(backend, (size_t)total * sizeof *block);
	struct weights grad;
	op_zero(backend, block, (size_t)total * sizeof *block);
	weights_bind(&grad, &f.model->config, block);
	for (int n = 0; n < CASE_COUNT; n++) {
		struct golden_case c;
		struct batch b;
		struct pass pass;
		assert_true(golden_case(&c, f.expected, n, f.model->config.vision.patch_dim));
		pack(&b, &f, &c);
		float *logp = favor_malloc((size_t)c.tokens * sizeof *logp),
		      *entropy = favor_malloc((size_t)c.tokens * sizeof *entropy);
		struct arena_mark mark = arena_mark(&f.arena);
		pass_forward(&pass, &f.run, f.model, &b, 1.0f, 1, recompute, 1, logp, entropy);
		check_logp(config, n, logp, &c);
		pass_backward(&pass, c.weight, &grad);
		pass_end(&pass);
		arena_reset(&f.arena, mark);
		free(logp);
		free(entropy);
		batch_free(&b);
		golden_free(&c);
	}
	double worst = 0;
	int compared = 0;
	float *values = downloaded(backend, block, total);
	for (int i = 0; i < f.model->params.count; i++) {
		const struct param *p = &f.model->params.params[i];
		char *name = favor_format("grad.%s", p->name);
		float *want = golden_floats(f.expected, name);
		if (!want)
			fail_msg("no golden gradient of %s", p->name);
		double r = relative(values + p->offset, want, p->count);
		if (r > (narrow() ? 0.08 : 1e-4))
			fail_msg("%s: gradient of %s differs by %.3g relative", config, p->name, r);
		worst = fmax(worst, r);
		compared++;
		free(want);
		free(name);
	}
	assert_int_equal(compared, f.model->params.count);
	print_message("%s: gradients of %d tensors, largest relative difference %.2g\n", config, compared, worst);
	free(values);
	weights_unbind(&grad);
	op_release(backend, block);
	fixture_close(&f);
}

static void test_gradients_cpu(void **state)
{
	(void)state;
	for (int i = 0; i < CONFIG_COUNT; i++)
		gradients(CONFIGS[i], backend_to_test(2), 0);
}

static void test_gradients_recompute(void **state)
{
	(void)state;
	for (int i = 0; i < CONFIG_COUNT; i++)
		gradients(CONFIGS[i], backend_to_test(1), 1);
}

static void test_gradients_reference(void **state)
{
	(void)state;
	for (int i = 0; i < CONFIG_COUNT; i++)
		gradients(CONFIGS[i], backend_reference_new(), 0);
}

/* Greedy decoding through the session's cache. */
static void test_greedy(void **state)
{
	(void)state;
	for (int i = 0; i < CONFIG_COUNT; i++) {
		struct fixture f;
		fixture_open(&f, CONFIGS[i], backend_to_test(2));
		struct session s;
		int others = 0, tokens = 0;
		session_init(&s, f.model);
		for (int n = 0; n < CASE_COUNT; n++) {
			struct favor_error e = {""};
			struct golden_case c;
			struct session_prompt prompt;
			struct timeline t, *all[1] = {&t};
			struct sampled d;
			const struct sampling greedy = {.temperature = 0, .top_p = 1};
			const double u = 0;
			assert_true(golden_case(&c, f.expected, n, f.model->config.vision.patch_dim));
			struct arena_mark mark = arena_mark(&f.arena);
			struct tensor logits = run_tensor(&f.run, 1, f.model->config.vocab_size);
			session_reset(&s, &(struct session_room){1, c.count, 1, c.greedy_count});
			assert_int_equal(0,
			                 session_prefill(&s, &f.run, 0, c.ids, c.count, c.images, c.image_count, &prompt, logits, &e));
			session_timeline(&s, 0, &prompt, &t);
			for (int k = 0; k < c.greedy_count; k++) {
				op_sample(f.backend, &d, logits, &u, &greedy);
				tokens++;
				others += d.token != c.greedy[k];
				d.token = c.greedy[k]; /* go on with transformers' */
				session_decode(&s, &f.run, all, &d.token, 1, logits);
			}
			arena_reset(&f.arena, mark);
			golden_free(&c);
		}
		print_message("%s: %d of %d greedy tokens are others\n", CONFIGS[i], others, tokens);
		assert_true(narrow() ? others * 5 <= tokens : others == 0); /* near ties fall otherwise where operands are rounded */
		session_free(&s);
		fixture_close(&f);
	}
}

/* Invariant 4: the packed row against G full rows, log-probabilities and gradients, within float32 rounding. */
static void test_shared_prefix(void **state)
{
	(void)state;
	for (int i = 0; i < CONFIG_COUNT; i++) {
		struct fixture f;
		fixture_open(&f, CONFIGS[i], backend_to_test(2));
		const int64_t total = f.model->params.total;
		float *packed = op_alloc(f.backend, (size_t)total * sizeof *packed),
		      *naive = op_alloc(f.backend, (size_t)total * sizeof *naive);
		op_zero(f.backend, packed, (size_t)total * sizeof *packed);
		op_zero(f.backend, naive, (size_t)total * sizeof *naive);
		struct weights grad_packed, grad_naive;
		weights_bind(&grad_packed, &f.model->config, packed);
		weights_bind(&grad_naive, &f.model->config, naive);
		for (int n = 0; n < CASE_COUNT; n++) {
			struct favor_error e = {""};
			struct golden_case c;
			struct batch b;
			struct pass pass;
			assert_true(golden_case(&c, f.expected, n, f.model->config.vision.patch_dim));
			float *logp = favor_malloc((size_t)c.tokens * 2 * sizeof *logp), *single = logp + c.tokens;
			struct arena_mark mark = arena_mark(&f.arena);
			pack(&b, &f, &c);
			pass_forward(&pass, &f.run, f.model, &b, 0.7f, 1, 0, 1, logp, NULL);
			pass_backward(&pass, c.weight, &grad_packed);
			pass_end(&pass);
			arena_reset(&f.arena, mark);
			for (int g = 0; g < c.groups; g++) { /* prompt and response as one causal row */
				int32_t tokens = c.start[g + 1] - c.start[g];
				int32_t *row = favor_malloc((size_t)(c.count + tokens) * sizeof *row);
				struct prefix whole;
				memcpy(row, c.ids, (size_t)c.count * sizeof *row);
				memcpy(row + c.count, c.responses + c.start[g], (size_t)tokens * sizeof *row);
				batch_clear(&b);
				assert_int_equal(0,
				                 batch_add_prompt(&b, row, c.count + tokens - 1, c.images, c.image_count, &whole, &e));
				for (int32_t t = 0; t < tokens; t++)
					batch_add_target(&b, c.count - 1 + t, row[c.count + t]);
				pass_forward(&pass, &f.run, f.model, &b, 0.7f, 1, 0, 1, single + c.start[g], NULL);
				pass_backward(&pass, c.weight + c.start[g], &grad_naive);
				pass_end(&pass);
				arena_reset(&f.arena, mark);
				free(row);
			}
			assert_true(relative(logp, single, c.tokens) < (narrow() ? 1e-2 : 1e-5));
			free(logp);
			batch_free(&b);
			golden_free(&c);
		}
		float *packed_here = downloaded(f.backend, packed, total), *naive_here = downloaded(f.backend, naive, total);
		double r = relative(packed_here, naive_here, total);
		free(packed_here);
		free(naive_here);
		print_message("%s: packed against naive gradients %.2g relative\n", CONFIGS[i], r);
		assert_true(r < (narrow() ? 2e-2 : 1e-5)); /* dK, dV of a prompt: one sum, or G sums rounded to bfloat16 each */
		weights_unbind(&grad_packed);
		weights_unbind(&grad_naive);
		op_release(f.backend, packed);
		op_release(f.backend, naive);
		fixture_close(&f);
	}
}

/* Invariant 5: what decode says of each response token, in batches that shrink, is what the pass says, to the bit. */
static void test_decode_equals_pass(void **state)
{
	(void)state;
	for (int i = 0; i < CONFIG_COUNT; i++)
		for (int threads = 1; threads <= (on_cuda() ? 1 : 3); threads++) {
			struct fixture f;
			fixture_open(&f, CONFIGS[i], backend_to_test(threads));
			struct session s;
			session_init(&s, f.model);
			for (int n = 0; n < CASE_COUNT; n++) {
				struct favor_error e = {""};
				struct golden_case c;
				struct batch b;
				struct pass pass;
				struct session_prompt prompt;
				struct timeline lines[8], *active[8];
				const float temperature = n == 1 ? 0.7f : 1.0f;
				assert_true(golden_case(&c, f.expected, n, f.model->config.vision.patch_dim));
				pack(&b, &f, &c);
				float *logp = favor_malloc((size_t)c.tokens * 2 * sizeof *logp), *decoded = logp + c.tokens;
				struct arena_mark mark = arena_mark(&f.arena);
				pass_forward(&pass, &f.run, f.model, &b, temperature, 1, 0, 1, logp, NULL);
				pass_end(&pass);
				arena_reset(&f.arena, mark);

				const int V = f.model->config.vocab_size;
				struct tensor logits = run_tensor(&f.run, c.groups, V);
				session_reset(&s, &(struct session_room){1, c.count, c.groups, c.tokens});
				assert_int_equal(0, session_prefill(&s, &f.run, 0, c.ids, c.count, c.images, c.image_count, &prompt,
				                                    tensor_rows(logits, 0, 1), &e));
				for (int g = 0; g < c.groups; g++)
					session_timeline(&s, g, &prompt, &lines[g]);
				for (int t = 0;; t++) {
					int32_t feed[8], who[8], count = 0;
					for (int g = 0; g < c.groups; g++) {
						if (t >= c.start[g + 1] - c.start[g])
							continue;
						who[count] = g;
						feed[count] = t ? c.responses[c.start[g] + t - 1] : -1;
						active[count++] = &lines[g];
					}
					if (!count)
						break;
					if (t)
						session_decode(&s, &f.run, active, feed, count, tensor_rows(logits, 0, count));
					float *all = downloaded(f.backend, logits.data, (int64_t)c.groups * V);
					for (int k = 0; k < count; k++) {
						/* u in the middle of the token's share of the distribution makes the sampler draw it */
						const float *row = all + (t ? k : 0) * (int64_t)V;
						double z = 0, largest = row[0], before = 0, at = 0;
						for (int v = 1; v < V; v++)
							largest = fmax(largest, (double)row[v]);
						for (int v = 0; v < V; v++) {
							double p = exp(((double)row[v] - largest) / (double)temperature);
							if (v < c.responses[c.start[who[k]] + t])
								before += p;
							if (v == c.responses[c.start[who[k]] + t])
								at = p;
							z += p;
						}
						const double u = (before + at / 2) / z;
						const struct sampling how = {.temperature = temperature, .top_p = 1};
						struct sampled d;
						op_sample(f.backend, &d, tensor_of(logits.data + (t ? k : 0) * (int64_t)V, 1, V), &u, &how);
						assert_int_equal(d.token, c.responses[c.start[who[k]] + t]);
						decoded[c.start[who[k]] + t] = d.logp;
					}
					free(all);
				}
				if (bits())
					assert_memory_equal(logp, decoded, (size_t)c.tokens * sizeof *logp);
				else
					assert_true(relative(decoded, logp, c.tokens) < (narrow() ? 1e-2 : 1e-5));
				arena_reset(&f.arena, mark);
				free(logp);
				batch_free(&b);
				golden_free(&c);
			}
			session_free(&s);
			fixture_close(&f);
		}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(test_gradients_reference), cmocka_unit_test(test_gradients_cpu),
	    cmocka_unit_test(test_gradients_recompute), cmocka_unit_test(test_greedy),
	    cmocka_unit_test(test_shared_prefix),       cmocka_unit_test(test_decode_equals_pass),
	};
	if (on_cuda()) /* but for the reference, which is what it was */
		return _cmocka_run_group_tests("golden, CUDA", tests + 1, sizeof tests / sizeof *tests - 1, NULL, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
