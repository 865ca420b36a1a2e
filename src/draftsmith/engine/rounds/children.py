"""The guesses behind one node of a tree that need not be drawn: nothing is left to chance."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.core.laws import NO_TOKEN
from draftsmith.core.sampling_table import top_ids
from draftsmith.engine.rounds.draft_laws import likeliest
from draftsmith.engine.rounds.tree import Child
from draftsmith.engine.rounds.turn import Turn
from draftsmith.kernels.cpu.sampling import exponentials_at, noise_of

__all__ = ["certain_children", "coupled_children"]

_MOST_RUNNERS = 64
"""Tokens that are looked at for the places behind the first: the draft's likeliest."""


def certain_children(
    turn: Turn, logits: Float[Tensor, "1 vocab"], drafted: Sequence[int], count: int
) -> list[Child]:
    """The likeliest tokens of a greedy draft, the token of a chain first.

    Args:
        turn: Of the sequence.
        logits: The drafter's.
        drafted: The tokens on the way to the node.
        count: How many, at most.
    """
    masses = logits[0].softmax(dim=-1)
    found = [likeliest(turn, logits, drafted)]
    left = logits.clone()
    while len(found) < count:
        left[0, found[-1]] = -torch.inf
        token = turn.draft_point_after(left, drafted)
        # A rule that forces a token names it again.
        if token == NO_TOKEN or token in found:
            break
        found.append(token)
    # The sync is the draft's own: its next pass needs the tokens.
    sure = masses[found].nan_to_num(nan=0.0).tolist()
    return [Child(token, one) for token, one in zip(found, sure, strict=True)]


def coupled_children(
    turns: Sequence[Turn], laws: Float[Tensor, "nodes vocab"], depths: Sequence[int], count: int
) -> list[list[Child]]:
    """The winner of each node's race, as a chain has it, and those that came in behind it.

    The race is run with the noise that the target will use at that position: these are the
    Gumbel-top-k of the draft's law (Kool et al., arXiv:1903.06059). A token is the surer the
    further it is ahead: its speed, mass over noise, as a share of all speeds.

    Args:
        turns: Of the sequence of each node.
        laws: The draft's behind each node.
        depths: Drafted tokens on the way to each.
        count: Children of each, at most.
    """
    slots = [turn.noise_slot for turn in turns]
    places = [
        slot._replace(position=slot.position + depth)
        for slot, depth in zip(slots, depths, strict=True)
    ]
    noise = noise_of(places, laws.device, turns[0].level, turns[0].inner_round)
    first = turns[0].verifier.draw(laws, noise, 0).unsqueeze(1)
    runners = top_ids(laws, _MOST_RUNNERS)
    ids = torch.cat([first, runners], dim=1)
    speeds = laws.gather(1, ids) / exponentials_at(places, ids)
    # The winner runs once.
    speeds[:, 1:] = speeds[:, 1:].masked_fill(runners == first, 0.0)
    sure = speeds / speeds.sum(dim=1, keepdim=True)
    order = top_ids(sure[:, 1:], count - 1) + 1
    order = torch.cat([torch.zeros_like(first), order], dim=1)
    # The sync is the draft's own: its next pass needs the tokens.
    tokens, chances = ids.gather(1, order).tolist(), sure.gather(1, order).tolist()
    return [
        [Child(token, one) for token, one in zip(*both, strict=True) if one > 0]
        for both in zip(tokens, chances, strict=True)
    ]
