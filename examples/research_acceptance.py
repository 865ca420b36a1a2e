"""Measure an acceptance rate twice: as the overlap of two laws, and as a share of drafts kept.

python examples/research_acceptance.py [TARGET [DRAFT]]

A drafted token is kept with probability beta, the sum over the vocabulary of the smaller of the
target's and the draft's probability; alpha is its mean (Leviathan et al., arXiv:2211.17192,
definition 3.1 and corollary 3.6). Equation 1 of the paper turns alpha into tokens per pass, as if
all positions were alike.
"""

import sys
from statistics import mean

import draftsmith
from draftsmith import SamplingParams
from draftsmith.core.theory import expected_tokens
from draftsmith.engine.replay import Text, guesses, read
from draftsmith.engine.requests.request import make_request

PROMPT = "def quicksort(items):\n"
GAMMA = 3


def main(
    target: str = "qwen2.5-coder-1.5b-instruct",
    draft: str = "qwen2.5-coder-0.5b-instruct",
    max_tokens: int | str = 48,
) -> None:
    """Compare what the laws foretell with what a run does."""
    engine = draftsmith.load_engine(target, draft, gamma=GAMMA)
    assert engine.draft is not None
    params = SamplingParams(
        temperature=1.0, seed=1, verifier="rejection", max_tokens=int(max_tokens), ignore_eos=True
    )
    (result,) = engine.generate([PROMPT], params)
    counts = result.statistics
    # Ask the drafter for one token at every position of the text that came.
    ids = list(result.prompt_token_ids)
    request = make_request(ids, params, engine.target.traits, engine.tokenizer)
    told = read(engine.target, Text(request, 1, result.token_ids))
    found = guesses(engine.target, engine.draft, told)
    overlap = mean(guess.overlap for guess in found)
    print(f"{len(found)} positions: mean overlap {overlap:.3f}")
    print(
        f"{counts.num_tested} drafts tested: {counts.num_accepted} kept, alpha {counts.alpha:.3f}"
    )
    print(f"tokens per pass: {counts.tokens_per_pass:.2f}")
    print(f"by equation 1 from the overlap: {expected_tokens(overlap, GAMMA):.2f}")


if __name__ == "__main__":
    main(*sys.argv[1:])
