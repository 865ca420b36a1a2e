#!/usr/bin/env bash
# transformers 5.24.0: with dynamic NTK a greedy text depends on what the model wrote before: a longer text's frequencies stay.
#
# modeling_rope_utils.py, `dynamic_frequency_update`, recomputes `inv_freq` when a text outgrows the longest one so far, and goes back only
# for a text within the trained length. A text between the two is read with the frequencies of the longer one, in the same process and in
# other requests. Seen, for 5 random Llamas (trained length 16, factor 4): the first 12 greedy tokens after a prompt of 20, asked twice of
# one object with a prompt of 60 in between, differ for 5 of 5; with default rotary frequencies for 0 of 5.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q torch==2.13.0 transformers==5.24.0 numpy==2.4.1
"$python" - 2>/dev/null <<'PY'
import sys, torch, transformers as tf
torch.set_num_threads(1)
def model(seed, rope):
    config = tf.LlamaConfig(vocab_size=96, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                            num_key_value_heads=2, max_position_embeddings=16, rope_parameters=rope)
    torch.manual_seed(seed)
    made, generator = tf.LlamaForCausalLM(config).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in made.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.25, generator=generator)
    made.generation_config = tf.GenerationConfig(pad_token_id=0, eos_token_id=None)
    return made
def text(target, prompt):
    ids = torch.tensor([prompt])
    return target.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)[0, len(prompt):].tolist()
short, long = list(range(10, 30)), list(range(10, 70))
counts = {}
for name, rope in (("default", {"rope_type": "default", "rope_theta": 10000.0}),
                   ("dynamic", {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0})):
    counts[name] = 0
    for seed in range(5):
        target = model(seed, rope)
        before = text(target, short); text(target, long); after = text(target, short)
        counts[name] += before != after
    print(name, "before", before); print(name, "after ", after)
print("texts that change after a longer one, of 5:", counts)
sys.exit(0 if counts == {"default": 0, "dynamic": 5} else 1)
PY
