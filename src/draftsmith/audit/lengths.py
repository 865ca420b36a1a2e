"""Non-anticipation: how much of a draft is checked must not depend on the tokens in it."""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple, NoReturn

from draftsmith.audit.findings import Finding, Trace
from draftsmith.audit.record import Grid, Record, judged
from draftsmith.audit.subject import Subject
from draftsmith.core.params import SamplingParams
from draftsmith.drafters.contract import Drafter, SequenceView
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.rounds.drafting import RoundContext, States
from draftsmith.engine.threads import one_torch_thread
from draftsmith.models.contract import LanguageModel, Rows
from draftsmith.report.status import Status

__all__ = ["Lengths", "draft_lengths", "length_traces", "lengths_record"]

_GAMMA = 3
_NUM_TWINS = 12
"""Sequences that differ in their random numbers only."""


class Lengths(NamedTuple):
    """What one drafter handed on for one prompt, again and again."""

    drafter: str
    prompt: int
    has_law: bool
    """Whether its tokens were drawn; a certain draft may be of any length."""
    lengths: tuple[int, ...]
    num_drafts: int
    """Different drafts among them."""

    @property
    def is_anticipating(self) -> bool:
        """Whether the length follows the tokens."""
        return self.has_law and len(set(self.lengths)) > 1

    @property
    def status(self) -> Status | None:
        """None where any length is allowed; not tested, where all draws came to the same draft."""
        if not self.has_law and any(self.lengths):
            return None
        return judged(is_failed=self.is_anticipating, is_tested=self.num_drafts > 1)

    @property
    def result(self) -> str:
        """In words."""
        if self.status is None:
            return "any length is allowed"
        if self.status == "untested":
            return "not tested: all alike" if any(self.lengths) else "not tested: nothing drafted"
        return "CUT BY A LOOK" if self.is_anticipating else "always the same"


def draft_lengths(subject: Subject) -> Iterator[Lengths]:
    """Ask every drafter for drafts that differ only in what was drawn."""
    drafters = dict(subject.drafters)
    if subject.itself is not None:
        drafters["the target itself"] = subject.itself
    with one_torch_thread(not subject.target.uses_torch_threads):
        for name, drafter in drafters.items():
            for number in range(len(subject.prompts)):
                yield _lengths(subject, name, drafter, number)


def length_traces(found: list[Lengths]) -> list[Trace]:
    """What is wrong, if anything."""
    is_off = any(one.is_anticipating for one in found)
    return [Trace("draft", Finding.CUT)] if is_off else []


def lengths_record(found: list[Lengths]) -> Record:
    """The lengths as a check of the certificate."""
    traces = length_traces(found)
    drawn = [one for one in found if one.status == "pass"]
    idle = [one for one in found if one.status == "untested"]
    rows = [
        [
            one.drafter,
            str(one.prompt),
            "drawn" if one.has_law else "certain",
            str(one.num_drafts),
            " ".join(str(length) for length in sorted(set(one.lengths))),
            one.result,
        ]
        for one in found
    ]
    summary = (
        "Some drafts are cut by a look at the tokens they hold."
        if traces
        else f"Whatever was drawn, as many tokens were checked ({len(drawn)} drafts with laws, "
        f"{_NUM_TWINS} draws each)."
    )
    columns = ["draft", "prompt", "tokens", "different drafts", "lengths", "length"]
    return Record(
        "lengths",
        "Length of the drafts",
        judged(is_failed=bool(traces), is_tested=bool(drawn)),
        summary,
        "A draft that is cut where its own tokens are unlikely: it biases the text.",
        {"drafts": [one._asdict() for one in found]},
        [Grid(f"{_NUM_TWINS} draws for each prompt", columns, rows, [one.status for one in found])],
        traces,
        [
            f"{name} drafted nothing, or always the same, for {count} of its prompts"
            for name, count in Counter(one.drafter for one in idle).items()
        ],
    )


def _lengths(subject: Subject, name: str, drafter: Drafter, number: int) -> Lengths:
    target = subject.target
    params = SamplingParams(temperature=1.0, verifier="rejection", max_tokens=_GAMMA + 1)
    request = make_request(subject.prompts[number], params, target.traits, None)
    samples = [request.sequence(0, seed, target.device, None) for seed in range(_NUM_TWINS)]
    turns = [one.turn(_GAMMA) for one in samples]
    states = _states(target, drafter.boundaries, subject.prompts[number])
    draft = drafter.propose(
        RoundContext(turns, target.traits.vocab_size, target.device, states=states)
    )
    lengths = draft.num_drafted.tolist()
    drafts = {
        tuple(row[:length]) for row, length in zip(draft.tokens.tolist(), lengths, strict=True)
    }
    return Lengths(name, number, draft.probs is not None, tuple(lengths), len(drafts))


def _states(target: LanguageModel, boundaries: Sequence[int], prompt: Sequence[int]) -> States:
    """Hands out the streams of a prompt, to each sequence that has it."""
    if not boundaries:
        return _none
    cache = target.open_cache()
    batch = Rows([cache.add()], [list(prompt[:-1])])
    states = target.forward_with_states(cache, batch, boundaries)[1][0].clone()
    return lambda _: states


def _none(_: SequenceView) -> NoReturn:
    raise AssertionError("a drafter without boundaries asks for no states")
