#!/usr/bin/env bash
# transformers 5.24.0: FSMT (wmt19 translation) generates other greedy text with use_cache=False: its decoder then sees the tokens ahead.
#
# modeling_fsmt.py, `FSMTModel.forward`, makes the decoder's causal mask only `if not use_cache and input_ids is not None`. `generate` hands the
# model its encoder's output and no input_ids, so a pass over the whole text, which is what use_cache=False asks for at every step, has no
# mask at all: every token's states depend on the tokens after it, as they never did in training. No error, no warning; who turns the
# cache off to save memory, or to compare with a cache of his own, gets another translation.
# Seen, for 5 random models and 10 sources each: with the cache 50 of 50 texts are those of whole passes (source given, causal mask made);
# without it 30 are.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q torch==2.13.0 transformers==5.24.0 numpy==2.4.1
"$python" - 2>/dev/null <<'PY'
import sys, torch, transformers as tf
torch.set_num_threads(1)
def model(seed):
    config = tf.FSMTConfig(langs=["en", "de"], src_vocab_size=96, tgt_vocab_size=96, d_model=32, encoder_layers=2, decoder_layers=2,
                           encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=64, decoder_ffn_dim=64,
                           max_position_embeddings=64, pad_token_id=0, bos_token_id=0, eos_token_id=95, decoder_start_token_id=2)
    torch.manual_seed(seed)
    made, generator = tf.FSMTForConditionalGeneration(config).eval(), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weights in made.parameters():
            if weights.ndim > 1:
                weights.normal_(0, 0.25, generator=generator)
    made.generation_config = tf.GenerationConfig(pad_token_id=0, eos_token_id=None, decoder_start_token_id=2)
    return made
def generated(target, ids, use_cache):
    return target.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=8, use_cache=use_cache)[0].tolist()
@torch.no_grad()
def whole_passes(target, ids):
    text = [2]
    for _ in range(8):
        logits = target(input_ids=ids, decoder_input_ids=torch.tensor([text]), use_cache=False).logits
        text.append(int(logits[0, -1].argmax()))
    return text
counts = {True: 0, False: 0}
for seed in range(5):
    target = model(seed)
    for first in range(10):
        ids = torch.arange(5 + first, 12 + first)[None]
        right = whole_passes(target, ids)
        for use_cache in counts:
            counts[use_cache] += generated(target, ids, use_cache) == right
print("texts of 50 that are those of whole passes:", {f"use_cache={key}": value for key, value in counts.items()})
sys.exit(0 if counts[True] == 50 and counts[False] < 40 else 1)
PY
