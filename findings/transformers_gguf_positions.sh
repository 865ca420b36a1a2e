#!/usr/bin/env bash
# transformers 5.24.0: what a GGUF file says about rotary positions is dropped: linear scaling, YaRN, and Llama 3.1's rope_freqs tensor.
#
# `AutoModelForCausalLM.from_pretrained(folder, gguf_file=...)` converts metadata by a table (src/transformers/integrations/ggml.py) that has
# no key of `rope.scaling.*` for a Llama, and passes over the tensor `rope_freqs.weight`, in which llama.cpp's converter keeps the
# scaling of Llama 3.1 to 3.3. No error, no warning: the model has the positions of an unscaled one, and its long texts decay.
# Seen: four files that mean four models give bit-equal logits.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q torch==2.13.0 transformers==5.24.0 gguf==0.19.0 accelerate==1.15.0 numpy==2.4.1
"$python" - "$folder" 2>/dev/null <<'PY'
import sys
import gguf, numpy as np, torch, transformers
from transformers import AutoModelForCausalLM

def logits(name, keys=(), factors=None):
    width, ids, random = 64, 64, np.random.default_rng(0)
    writer = gguf.GGUFWriter(f"{sys.argv[1]}/{name}.gguf", "llama")
    writer.add_context_length(512); writer.add_embedding_length(width); writer.add_block_count(1)
    writer.add_feed_forward_length(width); writer.add_head_count(4); writer.add_head_count_kv(4)
    writer.add_layer_norm_rms_eps(1e-5); writer.add_rope_dimension_count(16); writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(ids)
    for add, key, value in keys:
        getattr(writer, add)(f"llama.rope.scaling.{key}", value)
    def put(name, *shape):
        scale = 3 / shape[-1] ** 0.5
        values = scale * random.standard_normal(shape) if len(shape) > 1 else np.ones(shape)
        writer.add_tensor(name, values.astype(np.float32))
    put("token_embd.weight", ids, width); put("output_norm.weight", width); put("output.weight", ids, width)
    for part in ("attn_norm", "ffn_norm"):
        put(f"blk.0.{part}.weight", width)
    for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        put(f"blk.0.{part}.weight", width, width)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", factors)
    writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()
    model = AutoModelForCausalLM.from_pretrained(sys.argv[1], gguf_file=f"{name}.gguf")
    with torch.no_grad():
        return model(torch.arange(60)[None]).logits

plain = logits("plain")
scaling = (("add_string", "type", "linear"), ("add_float32", "factor", 4.0))
yarn = (("add_string", "type", "yarn"), ("add_float32", "factor", 4.0), ("add_uint32", "original_context_length", 128))
dropped = {
    "linear scaling by 4": torch.equal(plain, logits("linear", scaling)),
    "yarn by 4": torch.equal(plain, logits("yarn", yarn)),
    "rope_freqs.weight": torch.equal(plain, logits("factors", factors=np.linspace(1, 8, 8, dtype=np.float32))),
}
print(f"transformers {transformers.__version__}, logits equal to those of a file without it:", dropped)
sys.exit(0 if all(dropped.values()) else 1)
PY
