"""Encoder-decoder models: the prompt is what the encoder reads.

python examples/encoder_decoder.py [TARGET [DRAFT]]
"""

import sys

import draftsmith


def main(target: str = "google-t5/t5-small", draft: str = "prompt-lookup") -> None:
    """Summarise; a lookup copies from the source."""
    engine = draftsmith.load_engine(target, draft, gamma=4)
    source = (
        "summarize: The house by the lake was sold in spring. The new owners painted the house "
        "by the lake green, and the boats by the lake were painted green as well."
    )
    (result,) = engine.generate([source], draftsmith.SamplingParams(max_tokens=32))
    print(result)
    print(f"{result.statistics.tokens_per_pass:.2f} tokens per pass")


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except draftsmith.DraftsmithError as error:  # the Hub out of reach, for one
        sys.exit(f"encoder_decoder.py: {error}")
