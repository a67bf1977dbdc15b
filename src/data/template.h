/* The Qwen2-VL chat template: what transformers' apply_chat_template gives for one user turn of images and text with
 * add_generation_prompt. Each image stands as <|vision_start|><|image_pad|><|vision_end|>; prompt.h expands the pad. */
#ifndef FAVOR_DATA_TEMPLATE_H
#define FAVOR_DATA_TEMPLATE_H

#include "base/error.h"

#define TEMPLATE_DEFAULT_SYSTEM "You are a helpful assistant."

/* system: NULL = no system turn, else its text. Images come before the text. New string, owned by the caller. */
char *template_render(const char *system, int images, const char *user);
/* The configuration's data.system (default | none | text) as template_render takes it. */
const char *template_system(const char *option);
/* Compares the folder's chat template (chat_template.json, chat_template.jinja, tokenizer_config.json) with Qwen2-VL's,
 * white space and all. Returns NULL if equal or absent, else a new text (owned by the caller) that names the first
 * difference: for a warning. */
char *template_difference(const char *folder);

#endif
