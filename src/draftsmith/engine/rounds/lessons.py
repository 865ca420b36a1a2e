"""What a check has shown beside its verdict, for drafters that learn from it."""

from collections.abc import Sequence

from draftsmith.drafters.contract import CheckedText, DraftState
from draftsmith.engine.rounds.outcomes import Checked, Outcome
from draftsmith.engine.rounds.turn import Turn
from draftsmith.kernels.cpu.sampling import top_ids

__all__ = ["teach"]


def teach(drafter: DraftState, turns: Sequence[Turn], outcomes: Sequence[Outcome]) -> None:
    """Tell a drafter the target's likeliest ids behind every token of a pass.

    Args:
        drafter: Whom.
        turns: The batch.
        outcomes: Its verdicts, which share one pass; some sequences may not have been in it.
    """
    places = [place for place, outcome in enumerate(outcomes) if outcome.checked is not None]
    if not places:
        return
    checked = outcomes[places[0]].checked
    assert checked is not None
    members = [outcomes[place].place for place in places]
    rows = _top_ids(checked, members, drafter.num_top_ids)
    drafter.learn(
        [
            CheckedText(
                turns[place].view.id,
                [turns[place].view.tokens[-1], *checked.proposal.tokens[member]],
                _parents(checked, member),
                rows[member],
            )
            for place, member in zip(places, members, strict=True)
        ]
    )


def _top_ids(checked: Checked, members: Sequence[int], count: int) -> dict[int, list[list[int]]]:
    """Behind every token of some sequences; some verdicts have found theirs."""
    known = checked.top_ids or {}
    missing = [member for member in members if member not in known]
    if not missing:
        return known
    # Read on the host, which the verdicts have waited for.
    rows = top_ids(checked.places(missing), count).tolist()
    return known | checked.by_member(missing, rows)


def _parents(checked: Checked, member: int) -> Sequence[int]:
    """Of the newest token, and of the drafted ones behind it."""
    above = checked.proposal.parents_of(member)
    if above is None:
        return range(-1, len(checked.proposal.tokens[member]))
    return [-1, *(parent + 1 for parent in above)]
