"""The whole of a training: texts, ids, steps, trials, files."""

import json
import math
import random
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from draftsmith import __version__
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.engine.engine import Engine
from draftsmith.errors import InvalidRequestError
from draftsmith.models.native.config import DecoderConfig, Scales
from draftsmith.models.native.decoder import TorchDecoder
from draftsmith.models.written import written_whole
from draftsmith.train.heldout import Acceptance, Gain, acceptance, foretold, measured_costs
from draftsmith.train.limit import TimeLimit
from draftsmith.train.making import DraftConfig, Making, boundaries_of, distilled, head_of
from draftsmith.train.options import TrainOptions
from draftsmith.train.state import TrainState, load_state, refusing_full_disks, save_state
from draftsmith.train.student import loss_of, split, trained
from draftsmith.train.teacher import Teacher, batches
from draftsmith.train.texts import Text, own_texts

__all__ = ["Outcome", "Report", "train_head"]

_LARGEST_GRADIENT = 1.0
_BETTER = 0.002
"""Tokens a pass by which a trial must be better to count as a gain."""


class Report(NamedTuple):
    """What there is to tell at a time."""

    stage: str
    done: int
    total: int
    unit: str
    trial: Acceptance | None = None
    loss: float | None = None
    """Of a trial: the mean since the one before."""


OnReport = Callable[[Report], None]


class Outcome(NamedTuple):
    """What came of it."""

    folder: Path
    config: DraftConfig
    acceptance: Acceptance
    greedy: Gain | None
    """Foretold at temperature 0; None where heads do not draft on the device."""
    sampled: Gain | None
    """At the training's temperature."""
    num_steps: int
    why: str
    """Why it ended."""


@dataclass
class _Course:
    """A training in progress."""

    teacher: Teacher
    options: TrainOptions
    folder: Path
    making: Making
    texts: list[Text]
    held: list[Text]
    state: TrainState
    on_report: OnReport
    limit: TimeLimit

    def __post_init__(self) -> None:
        self.parameters = {
            name: tensor.to(self.teacher.device, copy=True).requires_grad_()
            for name, tensor in self.state.tensors.items()
        }
        tables, ids = self.teacher.tables, self.making.ids
        rows = range(tables.vocab_size) if ids is None else ids.tolist()
        self.rows = tables.head_rows(list(rows)).clone()
        self.pupil = self.making.pupil(self.parameters, tables, self.rows)
        self.optimiser = torch.optim.AdamW(
            self.parameters.values(), lr=self.options.learning_rate, betas=(0.9, 0.95)
        )
        if self.state.optimiser:
            self.optimiser.load_state_dict(self.state.optimiser)
        batch_tokens = self.options.batch_tokens
        self.per_epoch = sum(1 for _ in batches(self.texts, batch_tokens, 0, 0))
        self.total = self.per_epoch * self.options.max_epochs
        self.per_trial = max(1, self.per_epoch // self.options.trials_per_epoch)
        self.began = self.state.progress, self.limit.spent
        self.loss, self.num_losses = torch.zeros((), device=self.teacher.device), 0

    @property
    def of(self) -> dict[str, object]:
        """What a checkpoint must be of."""
        return _of(self.teacher, self.options)

    @property
    def progress(self) -> float:
        """The part of the way that is over, as the time tells it; 0 without a limit."""
        before, spent = self.began
        return before + (1 - before) * (self.limit.spent - spent) / max(1e-9, 1 - spent)

    def run(self) -> Acceptance:
        """Go on until the end; what the best trial found."""
        state, options = self.state, self.options
        is_late = False
        while not (state.is_done or is_late):
            order = list(batches(self.texts, options.batch_tokens, options.seed, state.epoch))
            while state.batch < len(order) and not (state.is_done or is_late):
                self._step(order[state.batch])
                state.batch, state.step = state.batch + 1, state.step + 1
                self.on_report(Report("training", state.step, self.total, "steps"))
                is_late = self.limit.spent >= 1
                if is_late or state.step % self.per_trial == 0 or state.step == self.total:
                    self._try()
            if state.batch == len(order) and not state.is_done:
                state.epoch, state.batch = state.epoch + 1, 0
        if is_late and not state.is_done:
            # Not for good: the same command with more time goes on.
            state.why = f"{self.limit.minutes:g} minutes are over"
        best = max(state.trials, key=lambda trial: trial["score"])
        return Acceptance(best["greedy"], best["sampled"], best["num_tokens"])

    def _step(self, texts: Sequence[Text]) -> None:
        share = _share(self.state.step, self.total, self.progress)
        for group in self.optimiser.param_groups:
            group["lr"] = self.options.learning_rate * share
        lesson, options = self.teacher.lesson(texts), self.options
        is_half = options.precision == "bfloat16"
        with torch.autocast(self.teacher.device.type, torch.bfloat16, enabled=is_half):
            # By the number of the step, so that a training that goes on looks where it would have.
            chance = random.Random(f"anchors {options.seed} {self.state.step}")
            loss = loss_of(self.pupil, lesson, self.rows, options.temperature, chance)
        if not loss.requires_grad:  # no text of the target's own in it is long enough
            return
        self.optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), _LARGEST_GRADIENT)
        self.optimiser.step()
        # Added up on the device: reading it would wait for the step.
        self.loss += loss.detach()
        self.num_losses += 1

    def _try(self) -> None:
        """Try the head on held-out text, keep it if it is the best, and write everything down."""
        state, options = self.state, self.options
        found = acceptance(
            self.pupil, self.teacher, self.held, self.making.ids, options.temperature
        )
        loss = float(self.loss) / max(1, self.num_losses)
        self.loss, self.num_losses = torch.zeros_like(self.loss), 0
        state.progress = self.progress
        told = {"step": state.step, "score": found.score, "loss": loss}
        state.trials.append({**told, **asdict(found)})
        if found.score > state.best + _BETTER:
            state.best, state.num_stale = found.score, 0
            self.making.write(self.folder, trained(self.parameters))
        else:
            state.num_stale += 1
        if state.num_stale >= options.patience:
            state.is_done, state.why = True, f"{options.patience} trials without a gain"
        elif state.step >= self.total:
            state.is_done, state.why = True, f"{options.max_epochs} epochs are over"
        state.tensors = trained(self.parameters)
        state.optimiser = self.optimiser.state_dict()
        save_state(self.folder / "training" / "state.pt", state, self.of)
        self.on_report(Report("training", state.step, self.total, "steps", found, loss))


def _of(teacher: Teacher, options: TrainOptions) -> dict[str, object]:
    return {"target": teacher.tables.name, **options.resolved}


def _share(step: int, total: int, progress: float) -> float:
    """Of the highest learning rate: a short rise, then a cosine down to a twentieth.

    Where the time will be over before the steps are, `progress` says how far it has come.
    """
    rise = max(1, total // 50)
    if step < rise:
        return (step + 1) / rise
    way = max((step - rise) / max(1, total - rise), progress)
    return 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * way))


def train_head(
    engine: Engine,
    prompts: Sequence[Sequence[int]],
    folder: Path,
    options: TrainOptions,
    on_report: OnReport = lambda report: None,
    *,
    reader: TorchDecoder | None = None,
    limit: TimeLimit | None = None,
) -> Outcome:
    """Train a draft for a target, or go on with a training that was ended early.

    The folder is a draft as soon as there is a first trial, a head in the layout of speculators and
    a small model in that of `transformers`; beside it, `training/` holds the texts and the last
    checkpoint.

    Args:
        engine: Of the target, plain.
        prompts: That the target answers, as token ids.
        folder: Made where it is missing.
        options: The rest.
        on_report: Told how it gets on.
        reader: The target once more, in plain torch: it reads whole batches for their states, and
            the training runs where it is. None reads with the engine's target, text by text.
        limit: Of the time: half of it is for text, and the learning rate falls as it passes. None
            has no end.

    Returns:
        What the draft is worth, and why the training ended.

    Raises:
        DraftsmithError: The target has no states, a prompt has no text, the folder is another
            training's or cannot be written to.
    """
    target, limit = reader or engine.target, limit or TimeLimit()
    tables = tables_of(target)
    shape = getattr(target, "config", None)
    assert isinstance(shape, DecoderConfig)
    if shape.scales != Scales():
        raise InvalidRequestError(
            f"{tables.name} scales its numbers in ways that no draft's layout can say: "
            "train for another target"
        )
    # Before hours of text: what cannot be made is refused at once.
    is_head = options.kind != "distilled"
    making = None if is_head else distilled(options, shape, tables, engine.tokenizer)
    boundaries = boundaries_of(options.kind, tables.num_layers)
    teacher = Teacher(target, tables, boundaries, reads_whole=reader is not None)
    beside = folder / "training"
    with refusing_full_disks(folder), _fast_products(target.device):
        beside.mkdir(parents=True, exist_ok=True)
        # So is another training's checkpoint.
        state = load_state(beside / "state.pt", _of(teacher, options))

        def told(count: int) -> None:
            on_report(Report("text of the target's", count, options.num_tokens, "tokens"))

        settled = 0 if state is None else state.num_texts
        path = beside / "texts.jsonl"
        texts = own_texts(engine, prompts, options, path, told, limit, settled)
        making = making or head_of(options, shape, tables, texts)
        if state is None:
            begun = making.begun(target, tables, options.seed)
            state = TrainState(begun, num_texts=len(texts))
        learnt, held = split(texts, options.held_out, options.seed)
        course = _Course(teacher, options, folder, making, learnt, held, state, on_report, limit)
        found = course.run()
        return _finish(course, found)


@contextmanager
def _fast_products(device: torch.device) -> Generator[None]:
    """On a GPU multiply float32 on its matrix units, rounded to 10 bits of mantissa."""
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _finish(course: _Course, found: Acceptance) -> Outcome:
    """Measure what drafts and checks cost here, and write the recipe."""
    target, costs = course.teacher.target, None
    if not course.teacher.reads_whole:
        drafter = course.making.drafter(course.folder, course.state.tensors, target)
        costs = measured_costs(drafter, target)
    outcome = Outcome(
        course.folder,
        course.making.config,
        found,
        costs and foretold(found.greedy, costs),
        costs and foretold(found.sampled, costs),
        course.state.step,
        course.state.why,
    )
    recipe = {
        "made_by": f"draftsmith {__version__} train",
        "target": course.teacher.tables.name,
        "options": course.options.resolved,
        "texts": len(course.texts) + len(course.held),
        "tokens": sum(text.num_own for text in (*course.texts, *course.held)),
        "conventions": course.making.config.described(),
        "acceptance": asdict(found),
        "foretold": {
            "greedy": outcome.greedy and outcome.greedy._asdict(),
            "sampled": outcome.sampled and outcome.sampled._asdict(),
        },
        "costs": costs and costs._asdict(),
        "minutes": course.limit.minutes,
        "steps": outcome.num_steps,
        "ended": outcome.why,
        "trials": course.state.trials,
    }
    with written_whole(course.folder / "recipe.json") as place:
        place.write_text(json.dumps(recipe, indent=1) + "\n", encoding="utf-8")
    return outcome
