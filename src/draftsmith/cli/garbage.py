"""Keep what a process has loaded out of the collections of garbage to come."""

import gc
from functools import cache

__all__ = ["set_aside"]


@cache
def set_aside() -> None:
    """Leave all that lives now to the end of the process; once, and of no use again.

    With torch and transformers loaded a full collection looks at some 200,000 objects that stay
    anyway: 0.1 to 0.3 s, in the middle of a text, every few hundred rounds (docs/log.md). What was
    garbage by then is collected first.
    """
    gc.collect()
    gc.freeze()
