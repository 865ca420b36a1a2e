"""What a drafter may not propose: a draft of a wrong form, or a wrong part for one sequence."""

from collections.abc import Sequence

import torch

from draftsmith.core.trees import ROOT, is_chain
from draftsmith.drafters.draft import Draft
from draftsmith.engine.rounds.turn import Turn
from draftsmith.errors import DraftError

__all__ = ["LAW_TOLERANCE", "breaches", "check_contract"]

LAW_TOLERANCE = 1e-3
"""How far the mass of a law may be from 1."""


def check_contract(
    draft: Draft, turns: Sequence[Turn], vocab_size: int, name: str, *, takes_trees: bool = False
) -> None:
    """Catch a drafter that proposes what nothing could be.

    Raises:
        DraftError: If lengths, ids, parents, shapes or masses are off.
    """
    for message in breaches(draft, turns, vocab_size, name, takes_trees=takes_trees).values():
        raise DraftError(message)


def breaches(
    draft: Draft,
    turns: Sequence[Turn],
    vocab_size: int,
    name: str,
    *,
    are_laws_known: bool = False,
    takes_trees: bool = False,
) -> dict[int, str]:
    """What is wrong with the drafts of single sequences, by their places in the batch.

    Args:
        draft: A proposal.
        turns: Whom it is for.
        vocab_size: Of the target.
        name: The drafter's.
        are_laws_known: Whether the laws are the ones that the engine itself has made.
        takes_trees: Whether the round checks trees.

    Raises:
        DraftError: If the whole has a wrong form, so that no sequence's part can be told.
    """
    _check_form(draft, turns, vocab_size, name)
    if draft.is_listed:
        tokens = draft.lists()
        lengths = list(map(len, tokens))
    else:
        lengths, tokens = draft.num_drafted.tolist(), draft.tokens.tolist()
    masses = None if are_laws_known else _masses(draft)
    found: dict[int, str] = {}
    for row, (turn, length) in enumerate(zip(turns, lengths, strict=True)):
        why = _tokens_breach(tokens[row], length, turn.view.gamma, vocab_size)
        if not why and draft.confidences is not None:
            why = _confidence_breach(draft.confidences[row], length)
        if not why and draft.parents is not None:
            why = _tree_breach(draft.parents[row], length, takes_trees=takes_trees)
        if not why and masses is not None and turn.verifier.needs_draft_probs:
            why = _law_breach(masses[row][:length])
        if why:
            found[row] = f"drafter {name} {why}"
    return found


def _check_form(draft: Draft, turns: Sequence[Turn], vocab_size: int, name: str) -> None:
    if not isinstance(draft, Draft):  # pyright: ignore[reportUnnecessaryIsInstance] # users'
        kind = type(draft).__name__
        raise DraftError(f"drafter {name} proposed a {kind}: return a Draft (Draft.certain)")
    counts = (
        {len(draft.lists())} if draft.is_listed else {len(draft.num_drafted), len(draft.tokens)}
    )
    if counts != {len(turns)}:
        raise DraftError(f"drafter {name} gave {max(counts)} drafts for {len(turns)} sequences")
    if draft.confidences is not None and len(draft.confidences) != len(turns):
        raise DraftError(f"drafter {name} gave confidences that do not fit its drafts")
    if draft.parents is not None and len(draft.parents) != len(turns):
        raise DraftError(f"drafter {name} gave parents that do not fit its drafts")
    if draft.probs is not None and draft.probs.shape != (*draft.tokens.shape, vocab_size):
        raise DraftError(f"drafter {name} gave laws of shape {tuple(draft.probs.shape)}")


def _masses(draft: Draft) -> list[list[float]] | None:
    """Of every law, where there are laws."""
    if draft.probs is None:
        return None
    # The sync is the round's: the verdict is read on the host.
    return draft.probs.sum(dim=-1, dtype=torch.float32).tolist()


def _tokens_breach(row: list[int], length: int, gamma: int, vocab_size: int) -> str:
    if not 0 <= length <= min(gamma, len(row)):
        return f"drafted {length} tokens of {gamma}"
    drafted = row[:length]
    if drafted and not (min(drafted) >= 0 and max(drafted) < vocab_size):
        return f"drafted an id outside 0 … {vocab_size - 1}"
    return ""


def _confidence_breach(confidences: Sequence[float], length: int) -> str:
    if len(confidences) != length:
        return "gave confidences that do not fit its drafts"
    off = [one for one in confidences if not 0 <= one <= 1]
    return f"gave the confidence {off[0]}: they go from 0 to 1" if off else ""


def _tree_breach(parents: Sequence[int], length: int, *, takes_trees: bool) -> str:
    if len(parents) != length:
        return "gave parents that do not fit its drafts"
    for node, parent in enumerate(parents):
        if not ROOT <= parent < node:
            return f"gave token {node} the parent {parent}: it must be -1, or a token before it"
    if not takes_trees and not is_chain(parents):
        return "proposed a tree where only chains are checked: see DraftContext.takes_trees"
    return ""


def _law_breach(masses: list[float]) -> str:
    # Not "> tolerance": a NaN must be caught as well.
    bad = [mass for mass in masses if not abs(mass - 1) <= LAW_TOLERANCE]
    return f"gave a law that sums to {bad[0]:.6g}, not 1" if bad else ""
