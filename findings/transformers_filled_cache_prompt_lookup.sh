#!/usr/bin/env bash
# transformers 5.24.0: a filled cache with prompt lookup (or an assistant) is fed the whole prompt again, and greedy text changes.
#
# A chat keeps its DynamicCache from turn to turn; plain `generate` runs only the new tokens over it. Assisted generation's first pass
# ignores what the cache holds (generation/utils.py, `_assisted_decoding`: `next_sequence_length = None` in the first iteration) and
# appends all tokens again, at positions that the cache has already. Speculation is documented not to change greedy text; here it does,
# without a warning. Seen: for 5 of 5 models another greedy text; the first pass runs 7 prompt tokens where 3 are new.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q torch==2.13.0 transformers==5.24.0 numpy==2.4.1
"$python" - 2>/dev/null <<'PY'
import sys, torch, transformers
torch.set_num_threads(1)
def model(seed):
    config = transformers.LlamaConfig(vocab_size=64, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                                      num_attention_heads=4, num_key_value_heads=2)
    made, generator = transformers.LlamaForCausalLM(config).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in made.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.25, generator=generator)
    made.generation_config = transformers.GenerationConfig(pad_token_id=0, bos_token_id=1, eos_token_id=None)
    return made
ids, widths = torch.tensor([[5, 6, 7, 8, 5, 6, 7]]), []
def text(target, is_filled, **drafts):
    cache = transformers.DynamicCache(config=target.config)
    if is_filled:
        with torch.no_grad():
            target(input_ids=ids[:, :4], cache=cache)
    widths.clear()
    hook = target.register_forward_pre_hook(lambda _, args, kwargs: widths.append(kwargs["input_ids"].shape[1]), with_kwargs=True)
    output = target.generate(ids, attention_mask=torch.ones_like(ids), cache=cache, do_sample=False, max_new_tokens=16, **drafts)
    hook.remove()
    return output[0, 7:].tolist()
lookup, changed, control = {"prompt_lookup_num_tokens": 3}, 0, 0
for seed in range(5):
    target = model(seed)
    plain = text(target, True)
    plain_width = widths[0]
    assisted = text(target, True, **lookup)
    print(f"model {seed}: first pass {plain_width} tokens plainly, {widths[0]} with prompt lookup (3 drafts at most)")
    print("   plain   ", plain); print("   lookup  ", assisted)
    changed += plain != assisted
    control += text(target, False) == text(target, False, **lookup) == plain
print(f"after a filled cache {changed} of 5 greedy texts change with prompt lookup; with an empty cache {5 - control} do")
sys.exit(0 if changed == 5 and control == 5 else 1)
PY
