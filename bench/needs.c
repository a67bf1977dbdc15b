/* See needs.h. */
#include "needs.h"

/* The decoder over that many rows: products with its layers' weights, pairs of a query and a key that it sees, rows
 * through the head. */
static double text_flops(const struct model_config *c, double rows, double pairs, double head_rows)
{
	const double H = c->hidden_size, Q = (double)c->heads * c->head_dim, KV = (double)c->kv_heads * c->head_dim;
	const double layer = 2 * Q * H + 2 * KV * H + 3 * H * c->intermediate_size;
	return c->layers * (2 * rows * layer + 4 * Q * pairs) + 2 * head_rows * c->vocab_size * H;
}

void count_needs(const struct model *m, const struct need_shape *s, struct need needs[PHASES])
{
	const struct model_config *c = &m->config;
	const struct vision_config *v = &c->vision;
	const double H = c->hidden_size, F = c->intermediate_size, Q = (double)c->heads * c->head_dim,
	             KV = (double)c->kv_heads * c->head_dim, L = c->layers, E = v->embed_dim, M = v->mlp_dim,
	             C = v->patch_dim, S = (double)v->merge_size * v->merge_size, depth = v->depth, P = s->patches,
	             n = s->prompt, G = s->group, T = s->response, N = s->groups;
	const double prompt_pairs = n * (n + 1) / 2, response_pairs = G * ((T - 1) * n + T * (T - 1) / 2),
	             rows = n + G * (T - 1), pairs = prompt_pairs + response_pairs;
	const double patch_product = 2 * P * E * C,
	             tower_products = patch_product + 2 * P * depth * (4 * E * E + 2 * E * M) +
	                              2 * P / S * (S * E * S * E + H * S * E),
	             tower_attention = 4 * E * P * P * depth;
	needs[VISION].flops = tower_products + tower_attention;
	needs[PREFILL].flops = text_flops(c, n, prompt_pairs, 1);
	needs[DECODE].flops = N * text_flops(c, G * (T - 1), response_pairs, G * (T - 1));
	needs[FORWARD].flops = needs[VISION].flops + text_flops(c, rows, pairs, G * T);
	needs[BACKWARD].flops = 2 * (tower_products + text_flops(c, rows, 0, 0)) - patch_product +
	                        2.5 * (tower_attention + text_flops(c, 0, pairs, 0)) + 3 * text_flops(c, 0, 0, G * T);
	needs[UPDATE].flops = 17 * (double)m->params.total;

	const double word = s->operand, all = word * (double)m->params.total, tower = word * (double)m->params.vision_total,
	             text = all - tower, kv = word * 2 * KV * L, masters = sizeof(float) * (double)m->params.total,
	             kept = word * (rows * L * (5 * H + 2 * Q + 2 * KV + 3 * F) + P * depth * (8 * E + 2 * M) + P * C);
	needs[VISION].bytes = P > 0 ? tower + word * P * C : 0;
	needs[PREFILL].bytes = text + n * kv;
	needs[DECODE].bytes = (T - 1) * (text + N * n * kv) + N * G * T * (T - 1) / 2 * kv;
	needs[FORWARD].bytes = all + kept;
	needs[BACKWARD].bytes = all + 2 * masters + kept;
	needs[UPDATE].bytes = 9 * masters;
	needs[VISION].set = needs[VISION].bytes;
	needs[PREFILL].set = needs[PREFILL].bytes;
	needs[DECODE].set = text + N * (n + G * T) * kv;
	needs[FORWARD].set = needs[FORWARD].bytes;
	needs[BACKWARD].set = all + masters + kept;
	needs[UPDATE].set = 4 * masters;
}
