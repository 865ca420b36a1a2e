"""`draftsmith train`: a draft head for a target, from the target's own text."""

from collections.abc import Sequence
from dataclasses import dataclass
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
    from draftsmith.train import Outcome, TrainOptions
    from draftsmith.train.run import Report

__all__ = ["train"]

TEXT = Group("Text", sort_key=1)
HEAD = Group("Head and training", sort_key=4)


@Parameter(name="*", group=TEXT)
@dataclass(frozen=True, kw_only=True)
class OwnTextOptions:
    """What the target writes, which is what the head learns from.

    Parameters
    ----------
    prompts
        JSONL files of prompts that the target answers, `prompt` or `messages` in each line; may be
        repeated.
    workload
        The same with shipped prompts: chat, edit, summarise, humaneval or default.
    data
        Text files; the target goes on from the beginnings of their passages. May be repeated.
    num_tokens
        Of text that the target writes.
    max_length
        Tokens of one text, its prompt included.
    temperature
        At which it writes; acceptance is foretold at it and at 0.
    """

    prompts: FilePaths = ()
    workload: Strings = ()
    data: FilePaths = ()
    num_tokens: Whole = 1_000_000
    max_length: Whole = 512
    temperature: Temperature = 0.8

    def check(self) -> None:
        """Refuse a training without text.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if not (self.prompts or self.workload or self.data):
            raise InvalidRequestError(
                "there is nothing to train on: give --prompts FILE.jsonl, --workload chat or "
                "--data TEXT"
            )

    def read(self, engine: "Engine") -> list[list[int]]:
        """What the target is asked, as token ids.

        Raises:
            DraftsmithError: A file is missing, or has no text.
        """
        from draftsmith.train.prompts import asked_by, passages_of

        words = engine.tokenizer
        if words is None:
            raise InvalidRequestError("the target has no tokenizer: give a folder that has one")
        found = asked_by([*map(str, self.prompts), *self.workload], words, self.max_length)
        if self.data:
            found += passages_of(self.data, words, self.max_length)
        return found


@Parameter(name="*", group=HEAD)
@dataclass(frozen=True, kw_only=True)
class HeadOptions:
    """What is trained, and how.

    Parameters
    ----------
    draft_ids
        Ids that the head drafts, the most frequent of the text; 0 is all.
    num_layers
        Of the head.
    num_steps
        Draft steps that it practises from every position.
    batch_tokens
        Tokens of one step.
    learning_rate
        At its highest.
    max_epochs
        Passes over the text at most.
    patience
        Trials on held-out text without a gain after which it ends.
    held_out
        Share of the texts that it is never trained on.
    precision
        Of the products of a step; bfloat16 is faster where the processor multiplies it.
    seed
        Of the text, the first weights and the order; the same seed makes the same head.
    """

    draft_ids: Whole = 8192
    num_layers: Whole = 1
    num_steps: Whole = 3
    batch_tokens: Whole = 2048
    learning_rate: Real = 6e-4
    max_epochs: Whole = 6
    patience: Whole = 3
    held_out: Real = 0.05
    precision: Literal["float32", "bfloat16"] = "float32"
    seed: Seed = 0

    def resolved(self, texts: OwnTextOptions) -> "TrainOptions":
        """All options of the training, checked.

        Raises:
            InvalidRequestError: One is out of range.
        """
        from draftsmith.train import TrainOptions

        return TrainOptions(
            num_tokens=texts.num_tokens,
            max_length=texts.max_length,
            temperature=texts.temperature,
            vocab_size=self.draft_ids,
            num_layers=self.num_layers,
            num_steps=self.num_steps,
            batch_tokens=self.batch_tokens,
            learning_rate=self.learning_rate,
            max_epochs=self.max_epochs,
            patience=self.patience,
            held_out=self.held_out,
            precision=self.precision,
            seed=self.seed,
        )


_DEFAULT_TEXTS = OwnTextOptions()
_DEFAULT_HEAD = HeadOptions()


def train(
    *,
    target: Target = DEFAULT_TARGET,
    threads: Annotated[Whole | None, Parameter(alias="-t", group=MODELS)] = None,
    out: Annotated[FilePath, Parameter(group=OUTPUT)],
    export: Annotated[Literal["speculators"], Parameter(group=OUTPUT)] = "speculators",
    texts: OwnTextOptions = _DEFAULT_TEXTS,
    head: HeadOptions = _DEFAULT_HEAD,
    json_output: JsonOutput = False,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Train a draft head for a target, on text that the target writes itself.

    Parameters
    ----------
    target
        What it drafts for: a catalogue name, a folder or a `.gguf` file that runs natively.
    threads
        Of the target's passes and of the training; by default the physical cores.
    out
        A folder: the head, which --draft takes; beside it the texts, the last checkpoint and the
        recipe. The same command goes on where it was ended.
    export
        The layout of the files; vLLM loads it, too.
    json_output
        What came of it as JSON.
    """
    messages.apply()
    assert export == "speculators"
    texts.check()
    options = head.resolved(texts)
    if out.exists() and not out.is_dir():
        raise InvalidRequestError(f"--out {out} is a file: give a folder")
    from draftsmith.cli.runtime import RuntimeOptions
    from draftsmith.train import train_head

    engine = RuntimeOptions(threads=threads).load_target(target, None, 0)
    prompts = texts.read(engine)
    with working("train") as work:
        stage = [""]

        def told(report: "Report") -> None:
            if report.stage != stage[0]:
                stage[0] = report.stage
                work.begin(report.stage, report.total, report.unit)
            work.update(done=report.done)
            if report.trial is not None:
                with work.aside():
                    write_stderr(f"{_trial(report)}\n")

        found = train_head(engine, prompts, out, options, told)
    if json_output:
        write_json(_document(found))
        return
    write_text(_summary(found, options.temperature))


def _shares(rates: Sequence[float]) -> str:
    return " ".join(f"{100 * rate:.1f}" for rate in rates)


def _trial(report: "Report") -> str:
    assert report.trial is not None
    greedy, sampled = report.trial.greedy, report.trial.sampled
    return (
        f"step {report.done} of {report.total}: held-out acceptance by place, %: "
        f"{_shares(greedy)} at temperature 0, {_shares(sampled)} sampled"
    )


def _summary(found: "Outcome", temperature: float) -> str:
    lines = [
        f"head in {found.folder}, {found.num_steps} steps ({found.why})",
        f"ids drafted {found.config.vocab_size} of {found.config.target_vocab_size}",
    ]
    for name, rates, gain in (
        ("temperature 0", found.acceptance.greedy, found.greedy),
        (f"temperature {temperature:g}", found.acceptance.sampled, found.sampled),
    ):
        lines.append(
            f"{name}: accepted {_shares(rates)} % by place; {gain.tokens_per_pass:.2f} "
            f"tokens a pass and {gain.speed_up:.2f}x with --gamma {gain.gamma}, foretold"
        )
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
        "foretold": {"greedy": found.greedy._asdict(), "sampled": found.sampled._asdict()},
        "steps": found.num_steps,
        "ended": found.why,
    }
