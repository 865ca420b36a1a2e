#!/usr/bin/env bash
# transformers 5.24.0: installing scikit-learn changes what assisted generation samples from a seed.
#
# `model.generate(assistant_model=...)` tunes the assistant's confidence threshold by a ROC curve, but only if scikit-learn can be
# imported (generation/candidate_generator.py: `is_sklearn_available()`). The threshold sets how long drafts are, drafts consume torch's
# random numbers, so one program with one seed samples another text where somebody has installed scikit-learn. Nothing warns.
# Seen: 20 of 20 seeds sample another text after `pip install scikit-learn`; the same environment repeats its own texts exactly.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q torch==2.13.0 transformers==5.24.0 numpy==2.4.1
cat > "$folder/sample.py" <<'PY'
import json, sys, torch, transformers
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
ids, texts = torch.tensor([[5, 6, 7, 8, 5, 6, 7]]), []
for seed in range(20):
    target, assistant = model(1), model(2)
    torch.manual_seed(seed)
    text = target.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, max_new_tokens=32, assistant_model=assistant)
    texts.append(text[0, 7:].tolist())
json.dump(texts, open(sys.argv[1], "w"))
PY
"$python" "$folder/sample.py" "$folder/without.json" 2>/dev/null
"$python" "$folder/sample.py" "$folder/again.json" 2>/dev/null
"$python" -m pip install -q scikit-learn==1.9.1
"$python" "$folder/sample.py" "$folder/with.json" 2>/dev/null
"$python" - "$folder" <<'PY'
import json, sys
without, again, with_it = (json.load(open(f"{sys.argv[1]}/{name}.json")) for name in ("without", "again", "with"))
changed = sum(one != other for one, other in zip(without, with_it))
print(f"the same environment repeats {sum(a == b for a, b in zip(without, again))} of 20 texts")
print(f"after `pip install scikit-learn==1.9.1`, {changed} of 20 seeds sample another text")
print("seed 0 without:", without[0]); print("seed 0 with:   ", with_it[0])
sys.exit(0 if without == again and changed > 0 else 1)
PY
