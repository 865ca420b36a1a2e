#!/usr/bin/env bash
# llama.cpp (wheel xllamacpp 2026.10.11549, build b11549): with longrope (Phi-3 128k, Phi-4-mini), the same prompt has other logits in a larger session.
#
# Such a model has two sets of rotary factors: short ones for texts within its original context, long ones beyond it. The model's makers
# (and transformers) take them by the length of the text. llama.cpp takes them by the size of the session (src/llama-model.cpp,
# `get_rope_factors`: `n_ctx_seq > n_ctx_orig_yarn`), so that `-c`, which a user takes for a limit, changes every answer, also to a short prompt.
# Seen: 9 tokens, original context 256: n_ctx 256 and 512 give logits that differ by more than a tenth of the largest, and another best token.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q xllamacpp==2026.10.11549 gguf==0.19.0 numpy==2.4.1
"$python" - "$folder/tiny.gguf" <<'PY'
import ctypes, sys
from importlib.metadata import version
import gguf, numpy as np, xllamacpp

path, width, inner, ids = sys.argv[1], 64, 128, 64
writer = gguf.GGUFWriter(path, "phi3")
writer.add_context_length(1024); writer.add_embedding_length(width); writer.add_block_count(2)
writer.add_feed_forward_length(inner); writer.add_head_count(4); writer.add_head_count_kv(4)
writer.add_layer_norm_rms_eps(1e-5); writer.add_rope_dimension_count(16); writer.add_rope_freq_base(10000.0)
writer.add_rope_scaling_orig_ctx_len(256); writer.add_vocab_size(ids)
writer.add_tokenizer_model("llama"); writer.add_bos_token_id(1); writer.add_eos_token_id(2)
writer.add_token_list(["<unk>", "<s>", "</s>", *(f"t{i}" for i in range(ids - 3))])
writer.add_token_types([2, 3, 3] + [1] * (ids - 3)); writer.add_token_scores([0.0] * ids)
random = np.random.default_rng(0)
def put(name, *shape, gain=1.0):
    scale = gain / shape[-1] ** 0.5
    values = scale * random.standard_normal(shape) if len(shape) > 1 else np.ones(shape)
    writer.add_tensor(name, values.astype(np.float32))
put("token_embd.weight", ids, width, gain=8.0); put("output_norm.weight", width); put("output.weight", ids, width)
for i in range(2):
    put(f"blk.{i}.attn_norm.weight", width); put(f"blk.{i}.ffn_norm.weight", width)
    put(f"blk.{i}.attn_qkv.weight", 3 * width, width, gain=2.0); put(f"blk.{i}.attn_output.weight", width, width)
    put(f"blk.{i}.ffn_up.weight", 2 * inner, width); put(f"blk.{i}.ffn_down.weight", width, inner)
writer.add_tensor("rope_factors_short.weight", np.ones(8, np.float32))
writer.add_tensor("rope_factors_long.weight", np.linspace(1, 30, 8, dtype=np.float32))
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()

class Params(ctypes.Structure):  # any of llama.cpp's parameters; a context's first word is n_ctx
    _fields_ = (("words", ctypes.c_uint32 * 256),)

class Batch(ctypes.Structure):
    _fields_ = (("n_tokens", ctypes.c_int32), ("token", ctypes.POINTER(ctypes.c_int32)), ("embd", ctypes.c_void_p),
                ("pos", ctypes.c_void_p), ("n_seq_id", ctypes.c_void_p), ("seq_id", ctypes.c_void_p), ("logits", ctypes.c_void_p))

silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, ctypes.c_void_p)(lambda *_: None)
library = ctypes.CDLL(sys.modules["xllamacpp.xllamacpp"].__file__)
pointer, number = ctypes.c_void_p, ctypes.c_int32
for name, result, arguments in (
    ("llama_log_set", None, [ctypes.c_void_p, pointer]), ("llama_backend_init", None, []),
    ("llama_model_default_params", Params, []), ("llama_context_default_params", Params, []),
    ("llama_model_load_from_file", pointer, [ctypes.c_char_p, Params]), ("llama_init_from_model", pointer, [pointer, Params]),
    ("llama_batch_get_one", Batch, [pointer, number]), ("llama_decode", number, [pointer, Batch]),
    ("llama_get_logits", ctypes.POINTER(ctypes.c_float), [pointer]),
):
    function = getattr(library, name); function.restype, function.argtypes = result, arguments
library.llama_log_set(silent, None); library.llama_backend_init()
model = library.llama_model_load_from_file(path.encode(), library.llama_model_default_params())
prompt = (number * 9)(1, 10, 20, 30, 40, 50, 60, 11, 21)

def last_logits(n_ctx):
    params = library.llama_context_default_params(); params.words[0] = n_ctx
    context = library.llama_init_from_model(model, params)
    assert library.llama_decode(context, library.llama_batch_get_one(prompt, len(prompt))) == 0
    return np.ctypeslib.as_array(library.llama_get_logits(context), (ids,)).copy()

small, again, large = last_logits(256), last_logits(256), last_logits(512)
difference = float(np.abs(small - large).max() / np.abs(small).max())
print(f"xllamacpp {version('xllamacpp')}: {len(prompt)} tokens; n_ctx 256 twice: equal {np.array_equal(small, again)}; n_ctx 512: "
      f"relative difference {difference:.2f}, best token {small.argmax()} and {large.argmax()}")
sys.exit(0 if np.array_equal(small, again) and difference > 0.1 else 1)
PY
