"""Rows of a batch as our sequences: their laws, their ends, and a run over them."""
# transformers' objects have no types that hold from one version to the next:
# pyright: basic

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor

from draftsmith.core.params import SamplingParams
from draftsmith.core.statistics import SpeculationStatistics
from draftsmith.core.verify import verifier_named
from draftsmith.engine.control.contract import Controller
from draftsmith.engine.control.fixed import FixedGamma
from draftsmith.engine.engine import Engine
from draftsmith.engine.generation import Generation, Job
from draftsmith.engine.requests.sequence import Limits
from draftsmith.engine.requests.sequence import Sequence as Sample
from draftsmith.engine.requests.text import OutputText
from draftsmith.engine.scheduler import Scheduler
from draftsmith.errors import InvalidRequestError, NumericsError
from draftsmith.models.contract import LanguageModel
from draftsmith.transformers.law import ProcessorLaw, unprocessed
from draftsmith.transformers.lockstep import Lockstep, LockstepModel
from draftsmith.transformers.prompts import Prompts
from draftsmith.transformers.state import names_of_stateful

__all__ = ["Call", "Texts", "padded", "run"]


@dataclass(frozen=True)
class Call:
    """One call of `model.generate`."""

    input_ids: Tensor
    prompts: Prompts
    processors: Any
    """A list that `transformers` can call; empty, it may be a plain one."""
    criteria: Sequence[Any]
    config: Any
    params: SamplingParams

    @property
    def is_batch(self) -> bool:
        """Whether there are several rows."""
        return len(self.input_ids) > 1

    @property
    def has_end(self) -> bool:
        """Whether rows that have ended go on as padding; else they go on until all have ended."""
        return any(hasattr(one, "eos_token_id") for one in self.criteria)

    @cached_property
    def is_lockstep(self) -> bool:
        """Whether rules must be asked once a token, with the whole batch."""
        if names_of_stateful(self.processors):
            return True
        ending = [one for one in self.criteria if not hasattr(one, "max_length")]
        # One row's criteria are asked in order as its tokens are committed.
        return self.is_batch and (
            bool(names_of_stateful(ending)) or (bool(ending) and not self.has_end)
        )

    def process(self, ids: Tensor, scores: Tensor) -> Tensor:
        """What `transformers`' processors make of a batch's scores."""
        return self.processors(ids, scores) if self.processors else scores

    def are_over(self, ids: Tensor) -> Tensor:
        """Which rows of a batch `transformers`' criteria end, `[batch]`."""
        over = torch.zeros(len(ids), dtype=torch.bool)
        for one in self.criteria:
            over |= torch.as_tensor(one(ids, None)).cpu()
        return over


class Texts(NamedTuple):
    """What has come of the rows."""

    outputs: list[list[int]]
    statistics: list[SpeculationStatistics]


def run(call: Call, engine: Engine, streamer: Any) -> Texts:
    """Generate for every row.

    Raises:
        InvalidRequestError: If a prompt is empty.
        NumericsError: If a model's logits are no distribution.
    """
    target, draft = call.prompts.target, engine.draft
    controller: Controller = engine.controller
    steps: Lockstep | None = None
    if call.is_lockstep:
        steps, draft, controller = _lockstep(call), None, FixedGamma(0)
        target = LockstepModel(target, steps)
    samples = [_sample(call, target, row, steps) for row in range(len(call.input_ids))]
    jobs = [Job(tuple(sample.prompt), [sample]) for sample in samples]
    # Whole prompts: what `transformers` has read is handed over at once, in the order of the rows.
    scheduler = Scheduler(target, draft, controller, len(samples), prompt_budget=None)
    for event in Generation(scheduler, jobs):
        if streamer is not None:
            for token in event.tokens:
                streamer.put(torch.tensor([token.token_id]))
    if streamer is not None:
        streamer.end()
    for row, sample in enumerate(samples):
        if sample.error is not None:
            raise NumericsError(f"prompt {row}: {sample.error}")
    lengths = {} if steps is None else steps.lengths
    outputs = [
        sample.tokens[len(sample.prompt) :][: lengths.get(row)]
        for row, sample in enumerate(samples)
    ]
    return Texts(outputs, [SpeculationStatistics.from_rounds(one.records) for one in samples])


def _lockstep(call: Call) -> Lockstep:
    pad = _pad(call) if call.has_end else None
    return Lockstep(call.input_ids, call.process, call.are_over if call.is_batch else None, pad)


def _sample(call: Call, target: LanguageModel, row: int, steps: Lockstep | None) -> Sample:
    prompts, params = call.prompts, call.params
    prompt = prompts.tokens[row]
    if not prompt:
        raise InvalidRequestError(f"prompt {row} is empty: give at least one token")
    padded = call.input_ids[row].to(target.device)
    # What transformers runs beyond its trained length runs on here too.
    context = target.traits.position_limit
    limits = Limits(
        max_tokens=call.config.max_length - len(padded),
        context_length=None if context is None else context - prompts.num_hidden[row],
        stop_token_ids=frozenset(),
        is_over=_ending(call, row, len(prompt), steps),
    )
    process = call.process if steps is None else unprocessed
    law = ProcessorLaw(process, params.is_greedy, padded, row, len(call.input_ids))
    return Sample(
        prompt=prompt,
        source=prompts.sources[row],
        params=params,
        law=law,
        draft_law=law,
        verifier=verifier_named(params.verifier_name),
        seed=_seed(params),
        sample_index=row % (call.config.num_return_sequences or 1),
        limits=limits,
        output=OutputText(None, ()),
        device=target.device,
    )


def _seed(params: SamplingParams) -> int:
    """The request's, or a fresh one of torch's global generator, as users of it expect."""
    return int(torch.randint(2**62, ())) if params.seed is None else params.seed


def _ending(
    call: Call, row: int, num_prompt: int, steps: Lockstep | None
) -> Callable[[Sequence[int]], bool]:
    """Ask `transformers`' stopping criteria with the tokens as it would have them."""

    def is_over(tokens: Sequence[int]) -> bool:
        if steps is not None and call.is_batch:
            return steps.is_over(row)
        output = torch.tensor(list(tokens[num_prompt:]), device=call.input_ids.device)
        ids = torch.cat([call.input_ids[row], output]).expand(len(call.input_ids), -1)
        return bool(call.are_over(ids)[row])

    return is_over


def _pad(call: Call) -> int:
    pad = call.config._pad_token_tensor
    return 0 if pad is None else int(pad)


def padded(call: Call, outputs: Sequence[Sequence[int]]) -> Tensor:
    """Prompts as they came, outputs padded on the right."""
    width = max(len(output) for output in outputs)
    fill = _pad(call)
    table = [[*output, *[fill] * (width - len(output))] for output in outputs]
    return torch.cat([call.input_ids, torch.tensor(table, device=call.input_ids.device)], dim=1)
