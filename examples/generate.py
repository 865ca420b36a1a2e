"""Generate with and without a draft: the same text, and what speculation did.

python examples/generate.py [TARGET [DRAFT]]
"""

import sys

import draftsmith

PROMPT = "def add(a, b):\n    return a + b\n\n\ndef multiply(a, b):\n"


def main(target: str = "smollm2-135m-instruct", draft: str = "prompt-lookup") -> None:
    """Generate twice."""
    params = draftsmith.SamplingParams(temperature=0.8, seed=7, max_tokens=48)
    fast = draftsmith.load_engine(target, draft, gamma=4)
    # The same loaded target, without the draft.
    plain = draftsmith.Engine(fast.target, fast.tokenizer, gamma=0)
    (one,), (other,) = fast.generate([PROMPT], params), plain.generate([PROMPT], params)
    print(one)
    print("the same text without a draft:", one.token_ids == other.token_ids)
    counts = one.statistics
    print(f"{counts.num_committed} tokens in {counts.num_rounds} passes of the target")
    print(f"{counts.num_accepted} of {counts.num_drafted} drafted tokens were kept")


if __name__ == "__main__":
    main(*sys.argv[1:])
