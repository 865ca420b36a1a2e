"""The logits of a token, bit by bit, whatever runs beside it in the pass."""

import itertools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from draftsmith.audit.findings import Finding, Trace
from draftsmith.audit.record import Grid, Record, judged
from draftsmith.audit.subject import Subject
from draftsmith.core.params import SamplingParams
from draftsmith.engine.requests.request import make_request
from draftsmith.engine.threads import one_torch_thread
from draftsmith.kernels.cpu.library import num_threads, using_threads
from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.report.status import Status

__all__ = ["BitTest", "bit_tests", "bit_traces", "bits_record"]

_MAX_ROWS = 16
_MAX_TEXTS = 4
_MAX_ORDERS = 4
_NUM_WRONG = 3


class BitTest(NamedTuple):
    """One way to run the same tokens, beside feeding them one at a time."""

    kind: str
    """`rows`, `batch`, `threads` or `rollback`."""
    what: str
    num_rows: int
    """Rows of logits that were compared."""
    num_different: int
    """Rows in which a bit differs."""
    error: float
    """The largest difference of a logit."""
    is_tested: bool
    """Whether anything was different about the passes: short texts have no wide passes."""


class _Text(NamedTuple):
    """One text, and its logits fed token by token."""

    source: list[int]
    tokens: list[int]
    logits: Float[Tensor, "tokens vocab"]


def bit_tests(subject: Subject, num_texts: int, num_tokens: int) -> Iterator[BitTest]:
    """Run texts in passes of every shape, and compare with passes of one row.

    Args:
        subject: The target, and the prompts that the texts are cut from.
        num_texts: Texts for the passes of several rows.
        num_tokens: Tokens of each.
    """
    # Torch's threads would spin on the cores of kernels that have their own.
    with one_torch_thread(not subject.target.uses_torch_threads):
        yield from _tests(subject, num_texts, num_tokens)


def _tests(subject: Subject, num_texts: int, num_tokens: int) -> Iterator[BitTest]:
    model = subject.target
    texts = [_text(model, prompt, num_tokens) for prompt in subject.prompts[:_MAX_TEXTS]]
    for rows in range(1, _MAX_ROWS + 1):
        pairs = [(_in_chunks(model, text, rows), text.logits) for text in texts[:num_texts]]
        is_wide = any(len(text.tokens) >= rows for text in texts[:num_texts])
        yield _compared("rows", f"{rows} rows a pass", pairs, is_tested=is_wide)
    for order in itertools.islice(itertools.permutations(range(len(texts))), _MAX_ORDERS):
        shuffled = [texts[index] for index in order]
        logits = [text.logits for text in shuffled]
        pairs = list(zip(_in_batch(model, shuffled), logits, strict=True))
        what = f"texts side by side in the order {order}"
        yield _compared("batch", what, pairs, is_tested=len(texts) > 1)
    for count in sorted({1, 2, 3, num_threads()}):
        with using_threads(count):
            pairs = [(_in_chunks(model, texts[0], 5), texts[0].logits)]
        # Torch's threads are not these.
        is_ours = not model.uses_torch_threads
        yield _compared("threads", f"{count} threads", pairs, is_tested=is_ours)
    if model.traits.can_rollback:
        pairs = [(_rolled_back(model, text), text.logits) for text in texts[:num_texts]]
        is_long = any(len(text.tokens) > _NUM_WRONG for text in texts[:num_texts])
        what = "three wrong tokens and back, at every token"
        yield _compared("rollback", what, pairs, is_tested=is_long)


def bits_record(subject: Subject, tests: Sequence[BitTest]) -> Record:
    """The comparisons as a check of the certificate; a measured error where none is promised."""
    traces = bit_traces(tests, is_exact=subject.is_row_exact)
    kinds = {test.kind: [one for one in tests if one.kind == test.kind] for test in tests}
    error = max(test.error for test in tests)
    num_rows = sum(test.num_rows for test in tests if test.is_tested)
    if traces:
        status, summary = "fail", "; ".join(trace.finding.value for trace in traces) + "."
    elif subject.is_row_exact:
        status = judged(is_failed=False, is_tested=any(test.is_tested for test in tests))
        summary = f"All {num_rows} rows of logits are bit-equal to those of passes over one row."
    else:
        status = "info"
        summary = (
            f"This target promises no equal bits; its logits move by up to {error:.2g} with the "
            "shape of a pass."
        )
    idle = {kind: [one.what for one in group if not one.is_tested] for kind, group in kinds.items()}
    rows = [
        [
            kind,
            str(len(group)),
            str(sum(test.num_rows for test in group)),
            str(sum(test.num_different for test in group)),
            f"{max(test.error for test in group):.2g}",
            _result(group),
        ]
        for kind, group in kinds.items()
    ]
    columns = [
        "what varies", "shapes", "rows compared", "rows that differ", "largest error", "tested",
    ]  # fmt: skip
    statuses: list[Status | None] = [
        None if any(one.is_tested for one in group) else "untested" for group in kinds.values()
    ]
    return Record(
        "bits",
        "Bits of the logits",
        status,
        summary,
        f"A difference of one bit in any of the {subject.target.traits.vocab_size} logits of a row "
        f"with 1 to {_MAX_ROWS} rows, in shuffled batches, on several threads, after rollbacks, "
        "where these were tested.",
        {"is_promised": subject.is_row_exact, "tests": [test._asdict() for test in tests]},
        [Grid("The same tokens in passes of other shapes", columns, rows, statuses)],
        traces,
        [f"{kind}: {_span(whats)}" for kind, whats in idle.items() if whats],
    )


def _result(group: Sequence[BitTest]) -> str:
    num_tested = sum(test.is_tested for test in group)
    return f"{num_tested} of {len(group)}" if num_tested else "not tested"


def _span(whats: Sequence[str]) -> str:
    return whats[0] if len(whats) == 1 else f"{whats[0]} to {whats[-1]}"


def bit_traces(tests: Sequence[BitTest], *, is_exact: bool) -> list[Trace]:
    """What is wrong, if anything."""
    moved = max((test.error for test in tests if test.kind != "rollback"), default=0.0)
    traces: list[Trace] = []
    if is_exact and any(test.num_different for test in tests if test.kind != "rollback"):
        traces.append(Trace("model", Finding.ROWS))
    for test in tests:
        # A token that stays behind moves logits by far more than the shape of a pass does.
        is_trace = test.error > 2 * moved if not is_exact or traces else test.num_different > 0
        if test.kind == "rollback" and is_trace:
            traces.append(Trace("model", Finding.ROLLBACK))
    return traces


def _compared(
    kind: str, what: str, pairs: Sequence[tuple[Tensor, Tensor]], *, is_tested: bool
) -> BitTest:
    num_rows = num_different = 0
    error = 0.0
    for found, expected in pairs:
        num_rows += len(expected)
        differs = (found != expected).any(-1)
        num_different += int(differs.sum())
        if bool(differs.any()):
            # -inf - -inf is no difference.
            error = max(error, float((found - expected).abs().nan_to_num(0.0).max()))
    return BitTest(kind, what, num_rows, num_different, error, is_tested and num_rows > 0)


def _text(model: LanguageModel, prompt: Sequence[int], num_tokens: int) -> _Text:
    request = make_request(prompt, SamplingParams(max_tokens=1), model.traits, None)
    # An encoder-decoder's prompt is its source; what its decoder reads does not matter here.
    ids = [*request.prompt, *prompt] if request.source else request.prompt
    longest = min(num_tokens, model.traits.context_length or num_tokens)
    tokens = list(itertools.islice(itertools.cycle(ids), longest))
    text = _Text(request.source, tokens, torch.empty(0))
    return text._replace(logits=_in_chunks(model, text, 1))


def _in_chunks(model: LanguageModel, text: _Text, rows: int) -> Float[Tensor, "tokens vocab"]:
    cache = model.open_cache()
    row = _opened(model, cache, text)
    parts = [
        _logits(model, cache, [row], [text.tokens[first : first + rows]])[0]
        for first in range(0, len(text.tokens), rows)
    ]
    return torch.cat(parts)


def _in_batch(model: LanguageModel, texts: Sequence[_Text]) -> list[Float[Tensor, "tokens vocab"]]:
    """Ragged passes: the text in place i takes i + 1 tokens a pass, until all are read."""
    cache = model.open_cache()
    rows = [_opened(model, cache, text) for text in texts]
    parts: list[list[Tensor]] = [[] for _ in texts]
    done = [0] * len(texts)
    while live := [i for i, text in enumerate(texts) if done[i] < len(text.tokens)]:
        fed = [texts[i].tokens[done[i] : done[i] + i + 1] for i in live]
        found = _logits(model, cache, [rows[i] for i in live], fed)
        for index, tokens, logits in zip(live, fed, found, strict=True):
            parts[index].append(logits)
            done[index] += len(tokens)
    return [torch.cat(part) for part in parts]


def _rolled_back(model: LanguageModel, text: _Text) -> Float[Tensor, "tokens vocab"]:
    cache = model.open_cache()
    row = _opened(model, cache, text)
    parts: list[Tensor] = []
    for index, token in enumerate(text.tokens):
        if index and index + _NUM_WRONG <= len(text.tokens):
            model.forward(cache, Rows([row], [text.tokens[:_NUM_WRONG]]))
            cache.rollback(row, index)
        parts.append(_logits(model, cache, [row], [[token]])[0])
    return torch.cat(parts)


def _opened(model: LanguageModel, cache: Cache, text: _Text) -> int:
    row = cache.add()
    if text.source:
        model.encode(cache, row, text.source)
    return row


def _logits(
    model: LanguageModel, cache: Cache, rows: Sequence[int], tokens: Sequence[Sequence[int]]
) -> list[Float[Tensor, "tokens vocab"]]:
    """A copy of each row's own logits, in float32."""
    logits = model.forward(cache, Rows(rows, tokens)).float().cpu()
    return [line[: len(fed)].clone() for line, fed in zip(logits, tokens, strict=True)]
