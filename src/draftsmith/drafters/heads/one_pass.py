"""Drafts of heads whose laws do not depend on what is drafted: a law for each place, all at once.

A place is counted from the state that the head goes on from: place 0 is the token behind the next
committed one. What is drafted at a place has no effect on the law of the next, so that nodes of a
tree that lie equally deep share theirs.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.drafters.contract import DraftContext
from draftsmith.drafters.draft import Draft

__all__ = ["Asked", "Places", "drafted"]

Asked: TypeAlias = tuple[int, int]
"""A sequence, by its place in the round, and a place in its future."""
Laws: TypeAlias = Callable[[Sequence[Asked]], Float[Tensor, "asked vocab"]]


class Places(NamedTuple):
    """What a head can guess of one sequence."""

    first: int
    """The place of the first token that is drafted."""
    num_able: int
    """Tokens from there on that it can guess."""


def drafted(
    context: DraftContext, places: Mapping[int, Places], laws: Laws, branches: int = 1
) -> Draft:
    """Draft from laws that are known beforehand.

    Args:
        context: The round.
        places: Of each sequence that is drafted for.
        laws: Asked for the logits of some places, each of them once.
        branches: Guesses for each position at most; more than 1 grow trees where they are taken.

    Returns:
        The draft of the whole batch.
    """
    able = [row for row, one in places.items() if one.num_able > 0]
    if branches > 1 and context.takes_trees:
        return _grown(context, {row: places[row] for row in able}, laws, branches)
    done = dict.fromkeys(able, 0)
    while live := context.wanting([row for row, n in done.items() if n < places[row].num_able]):
        context.draw(live, laws([(row, places[row].first + done[row]) for row in live]))
        for row, known in zip(live, context.follow(live), strict=True):
            done[row] += 1 + len(known)
        done = {row: done[row] for row in live}
    return context.drawn()


def _grown(context: DraftContext, places: Mapping[int, Places], laws: Laws, branches: int) -> Draft:
    # The trees of a round share a bound: that of the sequence with the fewest places.
    depth = min((one.num_able for one in places.values()), default=0)
    growth = context.grow(list(places), branches, depth)
    while tips := growth.tips():
        asked = [(tip.row, places[tip.row].first + len(tip.path)) for tip in tips]
        distinct = list(dict.fromkeys(asked))
        logits = laws(distinct)
        lines = {one: line for line, one in enumerate(distinct)}
        growth.branch(logits[torch.tensor([lines[one] for one in asked], device=logits.device)])
    return context.drawn()
