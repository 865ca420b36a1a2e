#!/usr/bin/env bash
# transformers 5.24.0: sampling with an assistant of another tokenizer has another law than the target, and cuts the assistant for good.
#
# With `tokenizer=`, `assistant_tokenizer=` and do_sample=True the assistant's output layer is replaced, in the object that the caller
# passed, by one over the shared words only (generation/candidate_generator.py, `_PruneReindexingLMHead`). Its columns lie in the order
# of the vocabulary's mapping, but `AssistantToTargetTranslator.get_target_logits` reads them in the order of the ids. So tokens are
# drawn from one law and accepted by another, and the speculative rule ("lossless") no longer gives the target's law.
# Here the target's law is the same at every position and known exactly: 8,000 tokens beside it, with and without the assistant, which
# is the target with its ids in another order and one word of its own. Seen in four runs (the mapping's order is another in each
# process): chi-square 60.5 plainly (63 degrees of freedom), 228 to 278 with the assistant, whose own logits have 64 columns then, not 65.
set -euo pipefail
folder=$(mktemp -d); trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"; python="$folder/venv/bin/python"
"$python" -m pip install -q torch==2.13.0 transformers==5.24.0 numpy==2.4.1
"$python" - 2>/dev/null <<'PY'
import sys, torch, transformers
from tokenizers import Tokenizer, models, pre_tokenizers
torch.set_num_threads(1)
VOCAB, LENGTH, CALLS = 64, 100, 80
def tokenizer(words):
    backend = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token=words[0]))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, unk_token=words[0], pad_token=words[0])
def model(head):
    """Every token's embedding is the same and the layer adds nothing: one law at every position."""
    config = transformers.LlamaConfig(vocab_size=len(head), hidden_size=16, intermediate_size=16, num_hidden_layers=1,
                                      num_attention_heads=2, num_key_value_heads=2)
    made = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for weights in made.parameters():
            if weights.ndim > 1:
                weights.zero_()
        made.get_input_embeddings().weight.fill_(1.0)
        made.get_output_embeddings().weight.copy_(head[:, None].expand(-1, 16) / 16)
    made.generation_config = transformers.GenerationConfig(pad_token_id=0, bos_token_id=1, eos_token_id=None)
    return made
scores = torch.randn(VOCAB, generator=torch.Generator().manual_seed(1)) / 2
order = torch.randperm(VOCAB, generator=torch.Generator().manual_seed(2))
target, assistant = model(scores), model(torch.cat([scores[order], torch.tensor([-3.0])]))
words = [f"w{index}" for index in range(VOCAB)]
own = tokenizer([words[index] for index in order] + ["other"])
ids = torch.tensor([[5, 6, 7]])
with torch.no_grad():
    law = target(ids).logits[0, -1].double().softmax(-1)
def chi_square(**drafts):
    counts = torch.zeros(VOCAB, dtype=torch.double)
    for seed in range(CALLS):
        torch.manual_seed(seed)
        text = target.generate(ids, attention_mask=torch.ones_like(ids), do_sample=True, top_k=0, max_new_tokens=LENGTH, **drafts)
        counts += torch.bincount(text[0, 3:], minlength=VOCAB)
    expected = law * LENGTH * CALLS
    print("   largest shares, expected against seen:", [(round(float(law[i]), 3), round(float(counts[i] / counts.sum()), 3)) for i in law.topk(4).indices])
    return float(((counts - expected) ** 2 / expected).sum())
columns = assistant(ids).logits.shape[-1]
plain = chi_square()
assisted = chi_square(assistant_model=assistant, tokenizer=tokenizer(words), assistant_tokenizer=own)
after = assistant(ids).logits.shape[-1]
print(f"chi-square against the target's exact law, 63 degrees of freedom: {plain:.1f} plainly, {assisted:.1f} with the assistant")
print(f"the assistant's own logits: {columns} columns before, {after} after")
# 160 is passed with probability 1e-9 by a system that is exact.
sys.exit(0 if plain < 160 < assisted and after != columns else 1)
PY
