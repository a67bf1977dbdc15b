"""transformers and autograd on a group's rows, each with the prompt and the image again: seconds of forward, GRPO loss and backward.
See common.arguments; "head" is fused (TRL's log-probabilities without logits) or full (logits of the responses, log_softmax),
"attention" sdpa or eager."""
import torch
from trl.trainer.utils import add_fused_lm_head

import common

a = common.arguments()
model, processor = common.open_model(a, a["dtype"], a["attention"])
inputs = common.group_inputs(a, processor, model)
group, response, prompt = a["group"], a["response"], inputs["input_ids"].shape[1]
torch.manual_seed(0)
drawn = torch.randint(300, processor.tokenizer.vocab_size - 100, (group, response))
inputs["input_ids"] = torch.cat([inputs["input_ids"], drawn], 1)
inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
inputs["mm_token_type_ids"] = torch.cat([inputs["mm_token_type_ids"], torch.zeros_like(drawn)], 1)
labels = inputs["input_ids"].clone()
labels[:, :prompt] = -100
advantages = torch.randn(group, 1)
add_fused_lm_head(model, outputs=("log_probs", "entropy"))
model.train()


def log_probabilities():
    if a["head"] == "fused":
        return model(**inputs, labels=labels, fused_lm_head=True).log_probs[:, -response:]
    logits = model(**inputs, logits_to_keep=response + 1).logits[:, :-1].float()
    return torch.log_softmax(logits, -1).gather(-1, drawn[..., None])[..., 0]


def work():
    model.zero_grad(set_to_none=True)
    logp = log_probabilities()
    ratio = torch.exp(logp - logp.detach())
    (-torch.min(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages).mean()).backward()


common.report(seconds=common.timed(a, work), prompt_tokens=prompt, shortest=response)
