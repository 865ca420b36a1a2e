#!/usr/bin/env bash
# transformers 5.24.0: a GGUF file's split (`tokenizer.ggml.pre`) is GPT-2's unless its name is one of about twenty; special tokens get new ids.
#
# `AutoTokenizer.from_pretrained(folder, gguf_file=...)` builds a tokenizer from the file. The file names how texts are cut before merging;
# a name that the converter does not know (`smollm`, `deepseek-llm`, `command-r`, `falcon`, ...) is taken for GPT-2's, without a word, so
# the prompt of such a model has other ids than it was trained with. Seen below: "\n\n1" is 3 tokens, where the file's split
# (every digit alone, then GPT-2's) gives 2. And of two special tokens that are spelled as DeepSeek's are, outside the alphabet of bytes, one
# is cut into 12 pieces, and the bos token gets an id beyond the vocabulary, for which the model's embedding has no row.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q torch==2.13.0 transformers==5.24.0 gguf==0.19.0 tokenizers==0.23.3 numpy==2.4.1
"$python" - "$folder" 2>/dev/null <<'PY'
import sys
from pathlib import Path
import gguf, numpy as np, transformers
from tokenizers import Tokenizer, models, pre_tokenizers

letters = sorted(pre_tokenizers.ByteLevel.alphabet())
merges, special = [("Ċ", "Ċ")], ["<\uff5cbegin\u2581of\u2581sentence\uff5c>", "<\uff5cUser\uff5c>"]
tokens, width = [*letters, "ĊĊ", *special], 32
own = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(tokens)}, merges=merges))
own.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
own_ids = own.encode("\n\n1").ids

writer = gguf.GGUFWriter(Path(sys.argv[1]) / "tiny.gguf", "llama")
writer.add_context_length(64); writer.add_embedding_length(width); writer.add_block_count(1); writer.add_feed_forward_length(width)
writer.add_head_count(1); writer.add_head_count_kv(1); writer.add_layer_norm_rms_eps(1e-5); writer.add_rope_dimension_count(width)
writer.add_tokenizer_model("gpt2"); writer.add_tokenizer_pre("smollm"); writer.add_token_list(tokens)
writer.add_token_types([1] * (len(tokens) - 2) + [3, 3]); writer.add_token_merges([" ".join(pair) for pair in merges])
writer.add_bos_token_id(len(tokens) - 2); writer.add_eos_token_id(len(tokens) - 2)
writer.add_tensor("token_embd.weight", np.zeros((len(tokens), width), np.float32))
writer.write_header_to_file(); writer.write_kv_data_to_file(); writer.write_tensors_to_file(); writer.close()

theirs = transformers.AutoTokenizer.from_pretrained(sys.argv[1], gguf_file="tiny.gguf")
ids = theirs("\n\n1", add_special_tokens=False).input_ids
user = theirs(special[1], add_special_tokens=False).input_ids
print(f"transformers {transformers.__version__}: '\\n\\n1' is {ids}, the file's split gives {own_ids}; "
      f"special token {len(tokens) - 1} of {len(tokens)} becomes {user}, the bos token {len(tokens) - 2} becomes {theirs.bos_token_id}")
sys.exit(0 if len(ids) == 3 and len(own_ids) == 2 and len(user) == 12 and theirs.bos_token_id >= len(tokens) else 1)
PY
