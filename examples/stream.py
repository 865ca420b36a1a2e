"""Show text as it becomes certain, and stop when enough of it is there.

python examples/stream.py [TARGET [DRAFT]]
"""

import sys

import draftsmith


def main(target: str = "smollm2-135m-instruct", draft: str = "prompt-lookup") -> None:
    """Stream one text."""
    engine = draftsmith.load_engine(target, draft)
    params = draftsmith.SamplingParams(max_tokens=64)
    length = 0
    # Leaving the loop ends the generation: nothing runs on behind it.
    for event in engine.stream("The three primary colours are", params):
        print(event.text, end="", flush=True)
        length += len(event.tokens)
        if length >= 24:
            break
    print(f"\nstopped after {length} tokens")


if __name__ == "__main__":
    main(*sys.argv[1:])
