#!/usr/bin/env bash
# llama.cpp (wheel xllamacpp 2026.10.11549, build b11549): a piece of plain text spelled `</s>` ends every answer, and changes a prompt's ids.
#
# llama.cpp finds tokens that end a generation by their text (src/llama-vocab.cpp, `llama_vocab::impl::load`: a list of spellings), also where
# the file marks the token as normal, as it makes it a control token. In byte-pair vocabularies `</s>` can be a piece of HTML that merges
# make: Qwen2.5's token 128247 is one. The model's own tokenizer (here: the merges, run by `tokenizers`) makes other ids of a prompt with
# `</s>`, and a model that writes HTML stops at its first closing tag. Only a log line tells.
# Seen: is_eog True for the normal token; "a</s>b" is 3 tokens there, 5 in the model's own tokenizer.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q xllamacpp==2026.10.11549 gguf==0.19.0 tokenizers==0.23.3 numpy==2.4.1
"$python" - "$folder/tiny.gguf" <<'PY'
import ctypes, sys
from importlib.metadata import version
import gguf, numpy as np, xllamacpp
from tokenizers import Regex, Tokenizer, models, pre_tokenizers

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
merges = [("<", "/"), ("</", "s"), ("</s", ">")]
tokens = [*letters, *("".join(pair) for pair in merges), "<|end|>"]
closing, end, width = tokens.index("</s>"), len(tokens) - 1, 32

# The model's own tokenizer: Qwen2's split, then the merges.
split = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
own = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
own.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(Regex(split), "isolated"),
                                             pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
own_ids = own.encode("a</s>b").ids

writer = gguf.GGUFWriter(sys.argv[1], "llama")
writer.add_context_length(64); writer.add_embedding_length(width); writer.add_block_count(1); writer.add_feed_forward_length(width)
writer.add_head_count(1); writer.add_head_count_kv(1); writer.add_layer_norm_rms_eps(1e-5); writer.add_rope_dimension_count(width)
writer.add_tokenizer_model("gpt2"); writer.add_tokenizer_pre("qwen2"); writer.add_token_list(tokens)
writer.add_token_types([1] * end + [3]); writer.add_token_merges([" ".join(pair) for pair in merges]); writer.add_eos_token_id(end)
shapes = {"token_embd": (len(tokens), width), "output": (len(tokens), width), "output_norm": (width,), "blk.0.attn_norm": (width,), "blk.0.ffn_norm": (width,)}
shapes |= {f"blk.0.{part}": (width, width) for part in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")}
for name, shape in shapes.items():
    writer.add_tensor(f"{name}.weight", np.zeros(shape, np.float32))
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()

class Params(ctypes.Structure):  # room for the parameters, which are passed by value
    _fields_ = (("words", ctypes.c_uint32 * 256),)
library, pointer, integer = ctypes.CDLL(sys.modules["xllamacpp.xllamacpp"].__file__), ctypes.c_void_p, ctypes.c_int32
silent = ctypes.CFUNCTYPE(None, ctypes.c_int, ctypes.c_char_p, pointer)(lambda *_: None)
library.llama_log_set(silent, None); library.llama_backend_init()
library.llama_model_default_params.restype = Params
library.llama_model_load_from_file.restype, library.llama_model_load_from_file.argtypes = pointer, [ctypes.c_char_p, Params]
library.llama_model_get_vocab.restype, library.llama_model_get_vocab.argtypes = pointer, [pointer]
library.llama_vocab_is_eog.restype, library.llama_vocab_is_eog.argtypes = ctypes.c_bool, [pointer, integer]
library.llama_tokenize.argtypes = [pointer, ctypes.c_char_p, integer, ctypes.POINTER(integer), integer, ctypes.c_bool, ctypes.c_bool]
vocabulary = library.llama_model_get_vocab(library.llama_model_load_from_file(sys.argv[1].encode(), library.llama_model_default_params()))
room = (integer * 32)()
ids = list(room[: library.llama_tokenize(vocabulary, b"a</s>b", 6, room, 32, True, True)])
is_end = library.llama_vocab_is_eog(vocabulary, closing)
print(f"xllamacpp {version('xllamacpp')}: normal token '</s>' ends a generation: {is_end}; 'a</s>b' is {ids} there, {own_ids} in the model's tokenizer")
sys.exit(0 if is_end and ids == [tokens.index("a"), closing, tokens.index("b")] and len(own_ids) > len(ids) else 1)
PY
