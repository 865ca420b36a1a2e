"""Generate for many prompts at once, each with parameters of its own.

python examples/batch.py [TARGET [DRAFT]]
"""

import sys

import draftsmith
from draftsmith import SamplingParams


def main(target: str = "smollm2-135m-instruct", draft: str = "prompt-lookup") -> None:
    """Run three requests beside each other."""
    engine = draftsmith.load_engine(target, draft, max_batch_size=8)
    prompts = ["def fibonacci(n):", "A haiku about the sea:", "never read"]
    params = [
        SamplingParams(max_tokens=16),
        SamplingParams(temperature=0.9, top_p=0.95, seed=3, n=2, max_tokens=16),
        # An id that no vocabulary has: this request fails, and the others do not notice.
        SamplingParams(allowed_token_ids=(10**9,)),
    ]
    for prompt, result in zip(prompts, engine.generate(prompts, params), strict=True):
        print(f"--- {prompt}")
        for completion in result.completions:
            print(completion.error or completion.text)


if __name__ == "__main__":
    main(*sys.argv[1:])
