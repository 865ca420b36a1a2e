"""`draftsmith train`: a draft for a target, from the target's own text."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.options import (
    MODELS,
    OUTPUT,
    FilePath,
    FilePaths,
    JsonOutput,
    Real,
    Seed,
    Strings,
    Target,
    Temperature,
    Whole,
)
from draftsmith.cli.progress import working
from draftsmith.cli.runtime import DEFAULT_TARGET
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.cli.terminal import write_stderr
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.engine.engine import Engine
    from draftsmith.models.native.decoder import TorchDecoder
    from draftsmith.train import Outcome, TimeLimit, TrainOptions
    from draftsmith.train.run import Report

__all__ = ["train"]

TEXT = Group("Text", sort_key=1)
DRAFT = Group("Draft and training", sort_key=4)


@Parameter(name="*", group=TEXT)
@dataclass(frozen=True, kw_only=True)
class OwnTextOptions:
    """What the target writes, which is what the draft learns from.

    Parameters
    ----------
    prompts
        JSONL files of prompts that the target answers, `prompt` or `messages` in each line; may be
        repeated.
    workload
        The same with shipped prompts: chat, edit, summarise, humaneval or default.
    data
        Text files; the target goes on from the beginnings of their passages. May be repeated.
    self_prompts
        Prompts that the target invents itself: it writes users' turns in its own chat template.
    opening
        What every second one of them begins with; may be repeated, and they take turns.
    num_tokens
        Of text that the target writes.
    max_length
        Tokens of one text, its prompt included.
    temperature
        At which it writes; acceptance is foretold at it and at 0.
    greedy_share
        Of the texts, those that are written at temperature 0.
    batch_size
        Texts that are written side by side; by default 16 on a CPU and 256 on a GPU.
    """

    prompts: FilePaths = ()
    workload: Strings = ()
    data: FilePaths = ()
    self_prompts: Whole = 0
    opening: Strings = ()
    num_tokens: Whole = 1_000_000
    max_length: Whole = 512
    temperature: Temperature = 0.8
    greedy_share: Real = 0.0
    batch_size: Whole | None = None

    def check(self) -> None:
        """Refuse a training without text.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if not (self.prompts or self.workload or self.data or self.self_prompts):
            raise InvalidRequestError(
                "there is nothing to train on: give --self-prompts 1000, --prompts FILE.jsonl, "
                "--workload chat or --data TEXT"
            )
        if self.self_prompts < 0:
            raise InvalidRequestError(f"self_prompts must be 0 or more, got {self.self_prompts}")
        if self.opening and not self.self_prompts:
            raise InvalidRequestError(
                "--opening is what invented prompts begin with: give --self-prompts, too"
            )

    def read(
        self,
        engine: "Engine",
        seed: int,
        out: Path,
        limit: "TimeLimit",
        on_progress: Callable[[int], None],
    ) -> list[list[int]]:
        """What the target is asked, as token ids; what it invents, it writes first.

        Raises:
            DraftsmithError: A file is missing, or has no text.
        """
        from draftsmith.train.invented import invented
        from draftsmith.train.prompts import asked_by, passages_of, spread
        from draftsmith.train.state import refusing_full_disks

        words = engine.tokenizer
        if words is None:
            raise InvalidRequestError("the target has no tokenizer: give a folder that has one")
        kinds = [asked_by([*map(str, self.prompts), *self.workload], words, self.max_length)]
        if self.data:
            kinds.append(passages_of(self.data, words, self.max_length))
        if self.self_prompts:
            path = out / "training" / "prompts.jsonl"
            wanted = self.self_prompts, self.opening, self.max_length, seed, path
            with refusing_full_disks(out):
                path.parent.mkdir(parents=True, exist_ok=True)
                kinds.append(invented(engine, *wanted, on_progress, limit))
        return spread(kinds)


@Parameter(name="*", group=DRAFT)
@dataclass(frozen=True, kw_only=True)
class DraftOptions:
    """What is trained, and how.

    Parameters
    ----------
    kind
        `eagle3` is a head that drafts token by token, each from a step of its own; `block` is one
        that drafts a block of them in one pass (DFlash), with a term of the token drawn before
        (DSpark); `distilled` is a small model of the target's own kind, which any engine loads.
    draft_ids
        Ids that a head drafts, by default 8192, the most frequent of the text; 0 is all.
    num_layers
        By default 1 of a head, and 2 of a distilled draft, which begin as layers of the target's.
    num_steps
        Tokens of a draft that it practises; by default 3 steps, and a block of 7. A distilled
        draft is tried at as many, by default 5.
    markov_rank
        Of a block's term of the token drawn before, by default 128; 0 leaves it out (DFlash).
    batch_tokens
        Tokens of one step.
    learning_rate
        At its highest.
    max_epochs
        Passes over the text at most.
    patience
        Trials on held-out text without a gain after which it ends.
    trials_per_epoch
        Trials in one pass over the text.
    held_out
        Share of the texts that it is never trained on.
    precision
        Of the products of a step; bfloat16 is faster where the processor multiplies it.
    seed
        Of the text, the first weights and the order; the same seed makes the same draft.
    """

    kind: Literal["eagle3", "block", "distilled"] = "eagle3"
    draft_ids: Whole | None = None
    num_layers: Whole | None = None
    num_steps: Whole | None = None
    markov_rank: Whole | None = None
    batch_tokens: Whole = 2048
    learning_rate: Real = 6e-4
    max_epochs: Whole = 6
    patience: Whole = 3
    trials_per_epoch: Whole = 4
    held_out: Real = 0.05
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Seed = 0

    def resolved(self, texts: OwnTextOptions) -> "TrainOptions":
        """All options of the training, checked.

        Raises:
            InvalidRequestError: One is out of range.
        """
        from draftsmith.train import TrainOptions

        if self.kind == "distilled" and self.draft_ids:
            # By the name that it has here: below it is `vocab_size`.
            raise InvalidRequestError(
                f"draft_ids={self.draft_ids} is of a head, and a distilled draft has all ids: "
                "leave it out, and give --draft-vocab-size where it drafts"
            )
        return TrainOptions(
            kind=self.kind,
            num_tokens=texts.num_tokens,
            max_length=texts.max_length,
            temperature=texts.temperature,
            greedy_share=texts.greedy_share,
            vocab_size=self.draft_ids,
            num_layers=self.num_layers,
            num_steps=self.num_steps,
            markov_rank=self.markov_rank,
            batch_tokens=self.batch_tokens,
            learning_rate=self.learning_rate,
            max_epochs=self.max_epochs,
            patience=self.patience,
            trials_per_epoch=self.trials_per_epoch,
            held_out=self.held_out,
            precision=self.precision,
            seed=self.seed,
        )


Layout = Literal["speculators", "transformers"]
_ON_CPU, _ON_GPU = 16, 256
"""Texts that are written side by side."""
_DEFAULT_TEXTS = OwnTextOptions()
_DEFAULT_DRAFT = DraftOptions()


def train(
    *,
    target: Target = DEFAULT_TARGET,
    device: Annotated[str, Parameter(group=MODELS)] = "auto",
    threads: Annotated[Whole | None, Parameter(alias="-t", group=MODELS)] = None,
    out: Annotated[FilePath, Parameter(group=OUTPUT)],
    export: Annotated[Layout | None, Parameter(group=OUTPUT)] = None,
    max_minutes: Annotated[Real | None, Parameter(group=DRAFT)] = None,
    texts: OwnTextOptions = _DEFAULT_TEXTS,
    draft: DraftOptions = _DEFAULT_DRAFT,
    json_output: JsonOutput = False,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Train a draft for a target, on text that the target writes itself.

    Parameters
    ----------
    target
        What it drafts for: a catalogue name, a folder or a `.gguf` file that runs natively.
    device
        Where it writes, reads and trains: a torch device; auto is the GPU if there is one.
    threads
        Of the target's passes and of the training, on a CPU; by default the physical cores.
    out
        A folder: the draft, which --draft takes; beside it the texts, the last checkpoint and the
        recipe. The same command goes on where it was ended.
    max_minutes
        Of this command: half of them for text. The learning rate falls as they pass, and the best
        draft is kept.
    export
        The layout of the files, which vLLM loads, too: of a head that of speculators, of a
        distilled draft that of transformers.
    json_output
        What came of it as JSON.
    """
    messages.apply()
    texts.check()
    options = draft.resolved(texts)
    _check_layout(export, options.kind)
    if out.exists() and not out.is_dir():
        raise InvalidRequestError(f"--out {out} is a file: give a folder")
    from draftsmith.train import TimeLimit, train_head
    from draftsmith.train.run import Report

    limit = TimeLimit(max_minutes)
    engine, reader = _loaded(target, device, threads, texts.batch_size)
    with working("train") as work:
        stage = [""]

        def told(report: Report) -> None:
            if report.stage != stage[0]:
                stage[0] = report.stage
                work.begin(report.stage, report.total, report.unit)
            work.update(done=report.done)
            if report.trial is not None:
                with work.aside():
                    write_stderr(f"{_trial(report)}\n")

        def has_invented(count: int) -> None:
            told(Report("prompts of the target's", count, texts.self_prompts, "prompts"))

        prompts = texts.read(engine, draft.seed, out, limit, has_invented)
        found = train_head(engine, prompts, out, options, told, reader=reader, limit=limit)
    if json_output:
        write_json(_document(found))
        return
    write_text(_summary(found, options.temperature))


def _check_layout(layout: Layout | None, kind: str) -> None:
    """Refuse a layout in which no such draft is written."""
    own = "transformers" if kind == "distilled" else "speculators"
    if layout not in (None, own):
        raise InvalidRequestError(
            f"export={layout} is no layout of --kind {kind}, which is written in that of {own}: "
            "leave it out"
        )


def _loaded(
    target: str, device: str, threads: int | None, batch_size: int | None
) -> "tuple[Engine, TorchDecoder | None]":
    """What writes, and on a GPU what reads whole batches for their states."""
    from draftsmith.cli.runtime import RuntimeOptions
    from draftsmith.engine.engine import Engine
    from draftsmith.models.load import load_reader

    runtime = RuntimeOptions(device=device, threads=threads)
    engine = runtime.load_target(target, None, 0, max_batch_size=batch_size or _ON_CPU)
    place = engine.target.device
    if place.type == "cpu":
        return engine, None
    size = batch_size or _ON_GPU
    writer = Engine(
        engine.target, engine.tokenizer, gamma=0, max_batch_size=size, prefix_caching=False
    )
    return writer, load_reader(target, place)


def _shares(rates: Sequence[float]) -> str:
    return " ".join(f"{100 * rate:.1f}" for rate in rates)


def _trial(report: "Report") -> str:
    assert report.trial is not None
    greedy, sampled = report.trial.greedy, report.trial.sampled
    return (
        f"step {report.done} of {report.total}, loss {report.loss:.3f}: "
        "held-out acceptance by place, %: "
        f"{_shares(greedy)} at temperature 0, {_shares(sampled)} sampled"
    )


def _summary(found: "Outcome", temperature: float) -> str:
    lines = [
        f"draft in {found.folder}, {found.num_steps} steps ({found.why})",
        f"ids drafted {found.config.vocab_size} of {found.config.target_vocab_size}",
    ]
    for name, rates, gain in (
        ("temperature 0", found.acceptance.greedy, found.greedy),
        (f"temperature {temperature:g}", found.acceptance.sampled, found.sampled),
    ):
        line = f"{name}: accepted {_shares(rates)} % by place"
        if gain is not None:
            line += (
                f"; {gain.tokens_per_pass:.2f} tokens a pass and {gain.speed_up:.2f}x with "
                f"--gamma {gain.gamma}, foretold"
            )
        lines.append(line)
    lines.append(f"use it: draftsmith generate --draft {found.folder}")
    return "\n".join(lines) + "\n"


def _document(found: "Outcome") -> dict[str, Any]:
    return {
        "folder": str(found.folder),
        "conventions": found.config.described(),
        "acceptance": {
            "greedy": list(found.acceptance.greedy),
            "sampled": list(found.acceptance.sampled),
            "num_tokens": found.acceptance.num_tokens,
        },
        "foretold": {
            "greedy": found.greedy and found.greedy._asdict(),
            "sampled": found.sampled and found.sampled._asdict(),
        },
        "steps": found.num_steps,
        "ended": found.why,
    }
