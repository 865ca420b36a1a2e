"""A drafter of your own: one method. Whatever it proposes, the text stays the target's.

python examples/own_drafter.py [TARGET]
"""

import sys

import draftsmith
from draftsmith.testing import check_drafter


class Repeat(draftsmith.Drafter):
    """Guesses that the last two tokens go on alternating."""

    name = "repeat"

    def propose(self, context: draftsmith.DraftContext) -> draftsmith.Draft:
        """As many tokens for each sequence as its round may draft."""
        rows = [
            [one.tokens[-2 + index % 2] for index in range(one.gamma if len(one.tokens) > 1 else 0)]
            for one in context.sequences
        ]
        # Certain: each token was chosen, not drawn from a law.
        return draftsmith.Draft.certain(rows, context.device)


def main(target: str = "smollm2-135m-instruct") -> None:
    """Test the drafter, then use it."""
    check_drafter(Repeat(), vocab_size=100)
    engine = draftsmith.load_engine(target, Repeat(), gamma=3)
    (result,) = engine.generate(["na na na na na na"], draftsmith.SamplingParams(max_tokens=24))
    print(result)
    print(f"{result.statistics.tokens_per_pass:.2f} tokens per pass")


if __name__ == "__main__":
    main(*sys.argv[1:])
