/* The lists of params.h, walked once for names and shapes and once for pointers. */
#include "model/params.h"

#include <stdio.h>
#include <stdlib.h>

/* The letters that the lists' shapes are written in. Some lists use only some of them. */
#define PARAMS_LETTERS(c)                                                                                              \
	const int64_t E = (c)->vision.embed_dim, M = (c)->vision.mlp_dim, C = (c)->vision.patch_dim,                       \
	              S = (int64_t)(c)->vision.merge_size * (c)->vision.merge_size, H = (c)->hidden_size,                  \
	              F = (c)->intermediate_size, Q = (int64_t)(c)->heads * (c)->head_dim,                                 \
	              KV = (int64_t)(c)->kv_heads * (c)->head_dim, V = (c)->vocab_size;                                    \
	(void)E, (void)M, (void)C, (void)S, (void)H, (void)F, (void)Q, (void)KV, (void)V

static void add(struct param_list *l, const char *format, int index, int64_t rows, int64_t columns, int decay,
                int vision)
{
	struct param *p = &l->params[l->count++];
	char name[160];
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
	snprintf(name, sizeof name, format, index);
#pragma GCC diagnostic pop
	p->name = favor_strdup(name);
	p->ndim = columns ? 2 : 1;
	p->shape[0] = rows;
	p->shape[1] = columns;
	p->offset = l->total;
	p->count = rows * (columns ? columns : 1);
	p->decay = decay;
	p->vision = vision;
	l->total += p->count;
	if (vision)
		l->vision_total = l->total;
}

void params_list(struct param_list *l, const struct model_config *c)
{
	PARAMS_LETTERS(c);
	*l = (struct param_list){0};
	l->params = favor_calloc((size_t)(16 * (c->vision.depth + c->layers) + 32), sizeof *l->params);
#define ADD_VISION(field, name, rows, columns, decay) add(l, name, i, rows, columns, decay, 1);
#define ADD_TEXT(field, name, rows, columns, decay)   add(l, name, i, rows, columns, decay, 0);
	int i = 0;
	PARAMS_VISION_FIRST(ADD_VISION)
	struct param *embed = &l->params[0]; /* a 3-D convolution in files; a product of flattened patches here */
	embed->ndim = 5;
	embed->shape[1] = c->vision.channels;
	embed->shape[2] = c->vision.temporal_patch_size;
	embed->shape[3] = embed->shape[4] = c->vision.patch_size;
	for (i = 0; i < c->vision.depth; i++) {
		PARAMS_VISION_BLOCK(ADD_VISION)
	}
	PARAMS_VISION_LAST(ADD_VISION)
	PARAMS_TEXT_FIRST(ADD_TEXT)
	for (i = 0; i < c->layers; i++) {
		PARAMS_TEXT_LAYER(ADD_TEXT)
	}
	PARAMS_TEXT_LAST(ADD_TEXT)
	if (!c->tied) {
		PARAMS_HEAD(ADD_TEXT)
	}
#undef ADD_VISION
#undef ADD_TEXT
}

int64_t params_largest(const struct param_list *l)
{
	int64_t most = 0;
	for (int i = 0; i < l->count; i++)
		most = l->params[i].count > most ? l->params[i].count : most;
	return most;
}

void params_list_free(struct param_list *l)
{
	for (int i = 0; i < l->count; i++)
		free(l->params[i].name);
	free(l->params);
	*l = (struct param_list){0};
}

void weights_bind(struct weights *w, const struct model_config *c, float *block)
{
	PARAMS_LETTERS(c);
	*w = (struct weights){0};
	w->blocks = favor_calloc((size_t)c->vision.depth, sizeof *w->blocks);
	w->layers = favor_calloc((size_t)c->layers, sizeof *w->layers);
	float *p = block;
#define BIND(field, name, rows, columns, decay)                                                                        \
	owner->field = p;                                                                                                  \
	p += (rows) * ((columns) != 0 ? (columns) : 1);
	{
		struct weights *owner = w;
		PARAMS_VISION_FIRST(BIND)
	}
	for (int i = 0; i < c->vision.depth; i++) {
		struct vision_block *owner = &w->blocks[i];
		PARAMS_VISION_BLOCK(BIND)
	}
	{
		struct weights *owner = w;
		PARAMS_VISION_LAST(BIND)
		PARAMS_TEXT_FIRST(BIND)
	}
	for (int i = 0; i < c->layers; i++) {
		struct text_layer *owner = &w->layers[i];
		PARAMS_TEXT_LAYER(BIND)
	}
	{
		struct weights *owner = w;
		PARAMS_TEXT_LAST(BIND)
		if (c->tied)
			w->lm_head = w->embed;
		else {
			PARAMS_HEAD(BIND)
		}
	}
#undef BIND
}

void weights_unbind(struct weights *w)
{
	free(w->blocks);
	free(w->layers);
	*w = (struct weights){0};
}
