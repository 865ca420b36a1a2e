"""Our rounds behind `transformers`' own `model.generate`, batches included.

python examples/transformers_custom_generate.py [TARGET [DRAFT]]

Both are what `from_pretrained` takes; without a draft, repetitions are looked up in the text.
"""

# transformers' own annotation of `self` in `generate`:
# pyright: reportAttributeAccessIssue=false

import sys

from transformers import AutoModelForCausalLM, AutoTokenizer

import draftsmith.transformers


def main(target: str = "HuggingFaceTB/SmolLM2-135M-Instruct", draft: str | None = None) -> None:
    """Generate for two prompts."""
    tokenizer = AutoTokenizer.from_pretrained(target, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    model = AutoModelForCausalLM.from_pretrained(target)
    inputs = tokenizer(["def fibonacci(n):", "One, two,"], return_tensors="pt", padding=True)
    guess = {"prompt_lookup_num_tokens": 4}
    if draft is not None:
        assistant = AutoModelForCausalLM.from_pretrained(draft)
        guess = {"assistant_model": assistant, "num_assistant_tokens": 4}
    ours = draftsmith.transformers.generate
    output = model.generate(
        **inputs, **guess, custom_generate=ours, max_new_tokens=24, do_sample=False
    )
    for text in tokenizer.batch_decode(output, skip_special_tokens=True):
        print(text)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:  # what `from_pretrained` raises where the Hub is out of reach
        reason = str(error).strip().partition("\n")[0]
        sys.exit(f"transformers_custom_generate.py: {reason} Or give the folder of a model.")
