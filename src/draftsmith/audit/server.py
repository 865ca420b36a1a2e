"""Another system's server, tested from outside: its greedy texts, its samples beside its laws."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import torch

from draftsmith.audit.client import Answer, Client, Position
from draftsmith.audit.law import HOLDS, Power
from draftsmith.audit.record import Certificate, Grid, Record, judged
from draftsmith.audit.reference import Reference
from draftsmith.audit.significance import (
    AcceptanceTest,
    detectable_distance,
    detectable_shift,
    holm,
    judge_acceptance,
    judge_law,
)
from draftsmith.report.status import Status

__all__ = ["OnRequest", "certify_server"]

OnRequest = Callable[[str, int, int], None]
"""Told which check is at which of how many requests."""
_NUM_TOP = 4
_NUM_CELLS = _NUM_TOP + 1
"""The likeliest tokens, and all others together."""
_SAMPLED_TOKENS = 4
_NUM_RANKS = 2
_WORKERS = 8


class _Event(NamedTuple):
    """How often one of the likeliest tokens came at one position, beside its own probabilities."""

    position: int
    rank: int
    test: AcceptanceTest


def certify_server(
    client: Client,
    prompts: Sequence[str],
    reference: Reference | None,
    power: Power,
    *,
    max_tokens: int = 48,
    seed: int = 7,
    on_request: OnRequest | None = None,
) -> Certificate:
    """Test a server by what it answers.

    Args:
        client: Connected to it.
        prompts: Texts to go on from.
        reference: The same weights here, to compare greedy texts with; None compares the server
            with itself only.
        power: What the statistical checks must be able to see.
        max_tokens: Of greedy texts.
        seed: Of the requests.
        on_request: Told of the progress.

    Raises:
        RemoteError: If the server does not answer, or not as it should.
        InvalidRequestError: If the samples asked for are too few.
    """
    model = client.connect()
    num_samples = power.samples(_NUM_CELLS, 1 + (_SAMPLED_TOKENS - 1) * _NUM_RANKS)
    tell = on_request or _silent
    greedy = _greedy(client, prompts, max_tokens, seed, tell)
    records = [_determinism(greedy), _argmax(greedy)]
    if reference is not None:
        first = [answers[0] for answers in greedy]
        records.append(_equality(reference, prompts, first, max_tokens))
    if all(answers[0].positions for answers in greedy):
        prompt = _liveliest(client, prompts, seed)
        answers = _samples(client, prompt, num_samples, seed, tell)
        if answers:
            records += [_first_token(answers, power), _later_tokens(answers, power)]
        else:
            records.append(_no_logprobs())
    else:
        records.append(_no_logprobs())
    # A path on the server says no more than its last part.
    name = model.rsplit("/", 1)[-1] if model.startswith("/") else model
    return Certificate(f"{name} at {client.url}", records)


def _greedy(
    client: Client, prompts: Sequence[str], max_tokens: int, seed: int, tell: OnRequest
) -> list[list[Answer]]:
    """Every prompt three times: twice alone, once beside all others."""

    def ask(prompt: str) -> Answer:
        return client.complete(
            prompt, max_tokens=max_tokens, temperature=0.0, seed=seed, num_logprobs=_NUM_TOP
        )

    answers: list[list[Answer]] = []
    for done, prompt in enumerate(prompts):
        tell("greedy texts", done, len(prompts))
        answers.append([ask(prompt), ask(prompt)])
    with ThreadPoolExecutor(_WORKERS) as pool:
        for own, together in zip(answers, pool.map(ask, prompts), strict=True):
            own.append(together)
    return answers


def _determinism(greedy: Sequence[Sequence[Answer]]) -> Record:
    alone = sum(one.text == two.text for one, two, _ in greedy)
    together = sum(one.text == three.text for one, _, three in greedy)
    is_same = alone == together == len(greedy)
    num_empty = sum(not any(one.text for one in answers) for answers in greedy)
    return Record(
        "server-determinism",
        "Greedy texts repeat",
        judged(is_failed=not is_same, is_tested=num_empty < len(greedy)),
        f"Asked again, {alone} of {len(greedy)} texts are the same; side by side, {together}.",
        "A greedy text that depends on chance, or on the requests beside it.",
        {
            "num_texts": len(greedy),
            "num_empty": num_empty,
            "num_same": alone,
            "num_same_together": together,
        },
        untested=_empty(num_empty, len(greedy)),
    )


def _empty(num_empty: int, num_texts: int) -> list[str]:
    """That nothing is the same as nothing says little."""
    return [f"{num_empty} of {num_texts} texts are empty"] if num_empty else []


def _argmax(greedy: Sequence[Sequence[Answer]]) -> Record:
    answered = [position for answers in greedy for one in answers for position in one.positions]
    # Where no other token is reported, the one that came is the likeliest of one.
    positions = [one for one in answered if one.top.keys() - {one.token}]
    num_alone = len(answered) - len(positions)
    off = [position for position in positions if not _is_best(position)]
    worst = max((max(one.top.values()) - one.logprob for one in off), default=0.0)
    return Record(
        "server-argmax",
        "Greedy tokens are the likeliest",
        judged(is_failed=bool(off), is_tested=bool(positions)),
        f"{len(positions) - len(off)} of {len(positions)} tokens are the likeliest by the server's "
        f"own log-probabilities; the others are up to {worst:.3g} behind."
        if positions
        else "The server reports no log-probabilities of other tokens than those that came.",
        "A token that speculation forced on a text, where log-probabilities are the target's.",
        {"num_tokens": len(positions), "num_off": len(off), "largest_gap": worst},
        untested=[f"{num_alone} of {len(answered)} tokens stand alone"] if num_alone else (),
    )


def _is_best(position: Position) -> bool:
    best = max(position.top.values(), default=-math.inf)
    return position.logprob >= best or position.top.get(position.token, -math.inf) >= best


def _equality(
    reference: Reference, prompts: Sequence[str], answers: Sequence[Answer], max_tokens: int
) -> Record:
    pairs = list(zip(prompts, answers, strict=True))
    compared = [
        reference.compare(number, prompt, answer, max_tokens)
        for number, (prompt, answer) in enumerate(pairs)
    ]
    found = [one.parting for one in compared if one.parting is not None]
    by_numerics = sum(parting.is_numerics for parting in found)
    num_empty = sum(not one.num_characters for one in compared)
    rows = [[str(one.prompt), str(one.position), str(one)] for one in found]
    return Record(
        "server-equality",
        "Greedy texts are the reference's",
        judged(is_failed=by_numerics < len(found), is_tested=num_empty < len(pairs)),
        f"{len(pairs) - len(found)} of {len(pairs)} texts are those of {reference.name}, decoded "
        f"plainly here; {by_numerics} part from it by numerics (the margin of the choice is below "
        f"the difference of the two systems' log-probabilities there), {len(found) - by_numerics} "
        "do not.",
        "Any greedy token that is not the target's, where the margin tells it from rounding.",
        {
            "num_texts": len(pairs),
            "num_empty": num_empty,
            "num_characters": sum(one.num_characters for one in compared),
            "num_same": len(pairs) - len(found),
            "num_numerics": by_numerics,
            "partings": [one._asdict() | {"is_numerics": one.is_numerics} for one in found],
        },
        [Grid("Where texts part", ["prompt", "token", "why"], rows)] if rows else [],
        untested=_empty(num_empty, len(pairs)),
    )


def _liveliest(client: Client, prompts: Sequence[str], seed: int) -> str:
    """The prompt after which the likeliest tokens and all others share the mass most evenly."""

    def entropy(prompt: str) -> float:
        answer = client.complete(
            prompt, max_tokens=1, temperature=1.0, seed=seed, num_logprobs=_NUM_TOP
        )
        tops = [position.top.values() for position in answer.positions[:1]]
        masses = [math.exp(logprob) for top in tops for logprob in top]
        cells = [*masses, max(0.0, 1.0 - sum(masses))]
        return -sum(mass * math.log(mass) for mass in cells if mass > 0)

    return max(prompts, key=entropy)


def _samples(client: Client, prompt: str, count: int, seed: int, tell: OnRequest) -> list[Answer]:
    def ask(number: int) -> Answer:
        return client.complete(
            prompt,
            max_tokens=_SAMPLED_TOKENS,
            temperature=1.0,
            seed=seed + 1 + number,
            num_logprobs=_NUM_TOP,
        )

    answers: list[Answer] = []
    with ThreadPoolExecutor(_WORKERS) as pool:
        for answer in pool.map(ask, range(count)):
            answers.append(answer)
            tell("sampled tokens", len(answers), count)
    return [answer for answer in answers if answer.positions]


def _first_token(answers: Sequence[Answer], power: Power) -> Record:
    """The first token's frequencies beside the law that the server reports for it."""
    firsts = [answer.positions[0] for answer in answers]
    law: defaultdict[str, float] = defaultdict(float)
    for first in firsts:
        for token, logprob in first.top.items():
            law[token] += math.exp(logprob) / len(firsts)
    names = sorted(law, key=lambda token: -law[token])[:_NUM_TOP]
    found = Counter(first.token if first.token in names else None for first in firsts)
    masses = [law[token] for token in names]
    masses.append(max(0.0, 1.0 - sum(masses)))
    counts = [found[token] for token in (*names, None)]
    test = judge_law(torch.tensor(counts), torch.tensor(masses, dtype=torch.float64))
    rate = power.rate
    distance = detectable_distance(len(firsts), _NUM_CELLS, rate, power.power)
    shown = zip([*map(repr, names), "others"], counts, masses, strict=True)
    rows = [
        [token, str(count), f"{count / len(firsts):.4f}", f"{mass:.4f}"]
        for token, count, mass in shown
    ]
    return Record(
        "server-first-token",
        "Law of the first sampled token",
        "fail" if test.p_value <= rate else "pass",
        f"In {len(firsts)} samples the first token is {test.distance:.3f} away (total variation) "
        f"from the server's own law; p is at most {test.p_value:.2g}.",
        f"A law that is {distance:.3f} or more away, with probability {power.power:g}; a correct "
        f"server fails with probability {rate:.1g} at most.",
        {**test._asdict(), "detectable_distance": distance, "power": power.power},
        [Grid("The first token", ["token", "came", "share", "probability"], rows)],
    )


def _later_tokens(answers: Sequence[Answer], power: Power) -> Record:
    """Later tokens, which may have been drafted, beside the probabilities reported for them."""
    events = list(_events(answers))
    failed = holm([event.test.p_value for event in events], power.rate)
    rate = power.rate / max(len(events), 1)
    shifts = [
        detectable_shift(one.test.num_tested, one.test.expected, rate, power.power)
        for one in events
    ]
    # A test that no shift can fail has tested nothing.
    statuses: list[Status] = [
        judged(is_failed=fails, is_tested=shift < 1)
        for shift, fails in zip(shifts, failed, strict=True)
    ]
    grid = _later_grid(events, shifts, statuses)
    gap = max((abs(one.test.observed - one.test.expected) for one in events), default=0.0)
    return Record(
        "server-later-tokens",
        "Laws of later sampled tokens",
        judged(is_failed=any(failed), is_tested="pass" in statuses),
        f"At tokens 2 to {_SAMPLED_TOKENS} the likeliest tokens come as often as the server says, "
        f"to {gap:.4f}."
        if not any(failed)
        else f"Tokens come more or less often than the server's own laws say, by up to {gap:.4f}.",
        f"A share that is off by the last column, about, with probability {power.power:g}; a "
        f"correct server fails with probability {power.rate:.1g} at most (a bound; Holm).",
        {
            "events": [
                {"position": one.position, "rank": one.rank, "observed": one.test.observed}
                | one.test._asdict()
                | {"detectable_shift": shift, "is_rejected": fails}
                for one, shift, fails in zip(events, shifts, failed, strict=True)
            ]
        },
        [grid],
        untested=[
            row[0] for row, status in zip(grid.rows, statuses, strict=True) if status == "untested"
        ]
        if events
        else ["no later token was sampled"],
    )


def _later_grid(events: Sequence[_Event], shifts: Sequence[float], statuses: list[Status]) -> Grid:
    rows = [
        [
            f"token {event.position + 1}, rank {event.rank + 1}",
            str(event.test.num_tested),
            f"{event.test.observed:.4f}",
            f"{event.test.expected:.4f}",
            f"{event.test.p_value:.2g}",
            f"{shift:.3f}" if shift < 1 else "nothing",
            HOLDS[status],
        ]
        for event, shift, status in zip(events, shifts, statuses, strict=True)
    ]
    return Grid(
        "Sampled tokens beside the server's own probabilities",
        ["event", "samples", "share", "probability", "p at most", "would see", "law"],
        rows,
        statuses,
    )


def _events(answers: Sequence[Answer]) -> Iterator[_Event]:
    for index in range(1, _SAMPLED_TOKENS):
        places = [one.positions[index] for one in answers if len(one.positions) > index]
        for rank in range(_NUM_RANKS):
            laws = [sorted(one.top.items(), key=lambda item: -item[1]) for one in places]
            pairs = zip(places, laws, strict=True)
            known = [(one, law[rank]) for one, law in pairs if len(law) > rank]
            if known:
                came = [float(one.token == token) for one, (token, _) in known]
                chances = [math.exp(logprob) for _, (_, logprob) in known]
                yield _Event(
                    index, rank, judge_acceptance(torch.tensor(came), torch.tensor(chances))
                )


def _no_logprobs() -> Record:
    return Record(
        "server-law",
        "Laws of sampled tokens",
        "untested",
        "The server reports no log-probabilities: sampled behaviour cannot be tested.",
        "Nothing.",
    )


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""
