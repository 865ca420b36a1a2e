"""What a check has shown beside its verdict, for drafters that learn from it."""

from collections.abc import Sequence

from draftsmith.drafters.contract import CheckedText, DraftState
from draftsmith.engine.rounds.turn import Turn
from draftsmith.engine.rounds.verdicts import Checked, Outcome
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
    # Read on the host, which the verdicts have waited for.
    rows = top_ids(checked.places(members), drafter.num_top_ids).tolist()
    found: list[CheckedText] = []
    start = 0
    for place, member in zip(places, members, strict=True):
        drafted = checked.proposal.tokens[member]
        end = start + len(drafted) + 1
        view = turns[place].view
        found.append(
            CheckedText(
                view.id, [view.tokens[-1], *drafted], _parents(checked, member), rows[start:end]
            )
        )
        start = end
    drafter.learn(found)


def _parents(checked: Checked, member: int) -> Sequence[int]:
    """Of the newest token, and of the drafted ones behind it."""
    above = checked.proposal.parents_of(member)
    if above is None:
        return range(-1, len(checked.proposal.tokens[member]))
    return [-1, *(parent + 1 for parent in above)]
