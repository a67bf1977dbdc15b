/* See plan.h. */
#include "app/plan.h"

#include "app/exchange.h"
#include "backend/ops.h"
#include "model/pass.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static double mib(int64_t bytes)
{
	return (double)bytes / 1048576.0;
}

/* Working memory of the towers' attention in the backward: B prompts of P tokens with G responses of n, and B images. */
static int64_t attention_bytes(struct backend *b, const struct model_config *c, int64_t B, int64_t P, int64_t G, int64_t n,
                               int64_t patches, int vision)
{
	struct segment *s = favor_calloc((size_t)(B * (G + 1)), sizeof *s);
	int count = 0;
	for (int64_t i = 0; i < B; i++) {
		const int32_t prompt = (int32_t)(i * (P + G * n));
		s[count++] = (struct segment){
		    .q_start = prompt, .q_len = (int32_t)P, .kv_start = prompt, .kv_len = (int32_t)P, .causal = 1};
		for (int64_t g = 0; g < G; g++) {
			const int32_t own = prompt + (int32_t)(P + g * n);
			s[count++] = (struct segment){own, (int32_t)n, prompt, (int32_t)P, own, (int32_t)n, 1};
		}
	}
	const int64_t text = op_attention_bytes(b, s, count, B * (P + G * n), c->heads, c->kv_heads, c->head_dim);
	for (int64_t i = 0; i < B; i++)
		s[i] = (struct segment){.q_start = (int32_t)(i * patches),
		                        .q_len = (int32_t)patches,
		                        .kv_start = (int32_t)(i * patches),
		                        .kv_len = (int32_t)patches};
	const int64_t images = vision ? op_attention_bytes(b, s, (int)B, B * patches, c->vision.heads, c->vision.heads,
	                                                   c->vision.head_dim) : 0;
	free(s);
	return text > images ? text : images;
}

/* Weights are read once a token for all that decode together, so more is faster, and costs keys and values. */
int32_t plan_groups_at_once(const struct setup *s)
{
	enum { MOST_BY_ITSELF = 8 };
	const int32_t step = s->config.learner.groups_per_step, ranks = world_role_count(s->world, ROLE_ROLLOUT);
	int32_t most = s->config.rollout.groups;
	if (!most) {
		most = ranks ? (step + ranks - 1) / ranks : 1;
		most = most < MOST_BY_ITSELF ? most : MOST_BY_ITSELF;
	}
	return most < step ? most : step;
}

int plan_lends(const struct setup *s)
{
	const struct config *c = &s->config;
	const int learners = world_role_count(s->world, ROLE_LEARNER);
	return s->backend->in_host_memory && world_plays(s->world, ROLE_LEARNER) && !c->comm.reproducible &&
	       (c->learner.groups_per_step + learners - 1) / learners <= c->learner.micro_batch;
}

int64_t plan_feature_bytes(const struct setup *s)
{
	return s->config.model.vision == VISION_FROZEN && s->most_patches ? (int64_t)s->config.model.feature_cache << 20 : 0;
}

int plan_memory(const struct setup *s, struct memory_plan *plan, struct favor_error *e)
{
	const struct config *c = &s->config;
	const struct model *m = s->assets.model;
	const int grpo = c->method == METHOD_GRPO;
	/* the node's memory is shared by its ranks; a rank may be planned against its share */
	const int64_t node = (int64_t)sysconf(_SC_PHYS_PAGES) * sysconf(_SC_PAGESIZE), device = op_memory_limit(s->backend);
	*plan = (struct memory_plan){.on_device = device > 0,
	                             .limit = c->run.memory_limit ? c->run.memory_limit << 20
	                                      : device            ? device
	                                                          : node / world_node_ranks(s->world)};
	if (!m)
		return 0;
	const int G = grpo ? c->rollout.group_size : 1, tokens = grpo ? c->rollout.max_tokens : s->longest_target;
	const int learns = world_plays(s->world, ROLE_LEARNER), reference = learns && grpo && c->learner.beta > 0;
	const int64_t block = m->params.total * (int64_t)sizeof(float);
	int64_t own = op_own_bytes(s->backend, m->params.total, 1 + reference);
	if (plan_lends(s)) /* in the gradient's memory */
		own -= own < block ? own : block;
	plan->weights = block + own;
	int32_t longest = s->longest_prompt + tokens;
	if (longest > m->config.max_positions)
		return favor_fail(e,
		                  "the longest prompt has %d tokens and a response up to %d more, but the model's "
		                  "max_position_embeddings is %d: lower data.max_pixels or rollout.max_tokens",
		                  s->longest_prompt, tokens, m->config.max_positions);
	if (learns) {
		if (!c->learner.shard)
			plan->shard = world_role_count(s->world, ROLE_LEARNER) > 1 ? SHARD_HELPS : SHARD_WANTS_LEARNERS;
		const int64_t B = c->comm.reproducible ? 1 : c->learner.micro_batch;
		plan->fixed = learner_fixed_bytes(m, &c->learner, c->model.vision, world_role_index(s->world, ROLE_LEARNER),
		                                  world_role_count(s->world, ROLE_LEARNER), c->comm.reproducible);
		plan->activations =
			pass_bytes(s->backend, &m->config, B * (s->longest_prompt + (int64_t)G * tokens), B * s->most_patches,
		               B * (int64_t)G * tokens, c->learner.recompute, c->model.vision == VISION_FULL) +
			attention_bytes(s->backend, &m->config, B, s->longest_prompt, G, tokens, s->most_patches,
		                    c->model.vision == VISION_FULL);
	}
	if (grpo && world_plays(s->world, ROLE_ROLLOUT)) {
		const struct rollout_room room = {plan_groups_at_once(s), G, s->longest_prompt};
		plan->rollout = rollout_bytes(s->backend, &m->config, &room, s->most_patches, tokens);
	}
	if (setup_eval_count(s) && world_plays(s->world, ROLE_ROLLOUT)) {
		const struct rollout_room room = {EVAL_AT_ONCE, 1, s->longest_prompt};
		const int64_t evaluation = rollout_bytes(s->backend, &m->config, &room, s->most_patches, c->rollout.max_tokens);
		plan->rollout = plan->rollout > evaluation ? plan->rollout : evaluation;
	}
	plan->features = plan_feature_bytes(s);
	plan->host = assets_staging_bytes(m, learns) + exchange_bytes(s);
	plan->total = plan->weights + plan->fixed + plan->activations + plan->rollout + plan->features +
	              (plan->on_device ? 0 : plan->host);
	return 0;
}

void plan_advice(const struct memory_plan *p, char *text, size_t size)
{
	static const char *const shard[] = {"", " or learner.shard", ", or learner.shard with more learners"};
	const int learns = p->activations > 0, rolls = p->rollout > 0;
	snprintf(text, size, "lower %s%srollout.group_size, rollout.max_tokens%s or data.max_pixels%s%s",
	         learns ? "learner.micro_batch, " : "", rolls ? "rollout.groups, " : "", p->features ? ", model.feature_cache" : "",
	         learns ? ", or set learner.recompute" : "", shard[p->shard]);
}

int plan_check(struct setup *s, struct favor_error *e)
{
	const struct config *c = &s->config;
	struct memory_plan p;
	/* ranks without weights know nothing of the model: all agree before they leave */
	if (world_agree(s->world, !plan_memory(s, &p, e), e))
		return -1;
	double plan[] = {(double)p.weights, (double)p.fixed,    (double)p.activations,
	                 (double)p.rollout, (double)p.features, (double)p.host};
	world_max_all(s->world, plan, sizeof plan / sizeof *plan);
	if (world_rank(s->world) == 0) {
		char features[64] = "";
		if (plan[4] > 0)
			snprintf(features, sizeof features, ", image features %.1f MiB", mib((int64_t)plan[4]));
		fprintf(stderr,
		        "favor: memory plan, at most per rank%s: weights %.1f MiB, gradients + moments%s%s %.1f MiB, activations "
		        "%.1f MiB, rollout cache %.1f MiB%s%s %.1f MiB\n",
		        p.on_device ? " on its GPU" : "", mib((int64_t)plan[0]),
		        c->learner.shard && world_role_count(s->world, ROLE_LEARNER) > 1 ? " (sharded)" : "",
		        c->learner.beta > 0 && c->method == METHOD_GRPO ? " + reference" : "",
		        mib((int64_t)plan[1]), mib((int64_t)plan[2]), mib((int64_t)plan[3]), features,
		        p.on_device ? "; on the host, to and from checkpoints and MPI," : ", to and from checkpoints", mib((int64_t)plan[5]));
	}
	int fits = p.total <= p.limit;
	if (!fits) {
		char advice[PLAN_ADVICE_MAX];
		plan_advice(&p, advice, sizeof advice);
		favor_fail(e, "the memory plan of rank %d (%s) is %.0f MiB, above its limit of %.0f MiB%s: %s (run.memory_limit sets the limit)",
		           world_rank(s->world), world_role_of(s->world, world_rank(s->world)), mib(p.total), mib(p.limit), p.on_device ? " on the GPU" : "", advice);
	}
	return world_agree(s->world, fits, e);
}
