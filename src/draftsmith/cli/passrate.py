"""`draftsmith bench passrate`: HumanEval with and without speculation."""

import shlex
import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from cyclopts import Parameter

from draftsmith.cli.exits import INTERRUPTED
from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions, warn
from draftsmith.cli.options import (
    MODELS,
    OUTPUT,
    SAMPLING,
    BranchesChoices,
    Flag,
    GammaChoices,
    JsonFile,
    JsonOutput,
    MaxTokens,
    NumSamples,
    Real,
    Seed,
    SeveralDrafts,
    Target,
    Temperature,
    VerifierName,
    Whole,
)
from draftsmith.cli.progress import steps
from draftsmith.cli.runtime import DEFAULT_RUNTIME, DEFAULT_TARGET, RuntimeOptions, check_drafts
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.errors import DraftsmithError, InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from draftsmith.bench.arms import Arm, Cell
    from draftsmith.bench.run import Bench
    from draftsmith.bench.sandbox import Limits
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine
    from draftsmith.workloads import Workload

__all__ = ["passrate"]


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """Which models run.

    Parameters
    ----------
    target
        A catalogue name (see `draftsmith models list`), `org/name` on the Hub, a folder, or a
        `.gguf` file.
    draft
        What guesses, as for `draftsmith generate`; may be repeated.
    gamma
        Drafted tokens per round, 1 to 32, or auto; may be repeated.
    branches
        Guesses for each position of a draft at most, 1 to 8, of a draft model or a trained head on
        a CPU; more than 1 makes a draft a tree of gamma tokens; may be repeated.
    batch_size
        Prompts that run together.
    """

    target: Target = DEFAULT_TARGET
    draft: SeveralDrafts = ("prompt-lookup",)
    gamma: GammaChoices = (4,)
    branches: BranchesChoices = (1,)
    batch_size: Whole = 1
    runtime: RuntimeOptions = DEFAULT_RUNTIME


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class SampleOptions:
    """What is sampled.

    Parameters
    ----------
    problems
        The first so many of the 164; 0 takes all.
    num_samples
        Of each problem.
    style
        completion goes on from the function's head, chat asks for the function; auto is chat
        where the model has a chat template.
    temperature
        0 is greedy decoding.
    top_p
        Keep the smallest set of likeliest tokens with at least this mass.
    seed
        Sample r is drawn with seed + r.
    verifier
        With coupled every text is plain decoding's; with rejection or block the texts differ and
        have the same law, as in Chen et al.
    max_tokens
        The longest answer.
    """

    problems: Whole = 0
    num_samples: NumSamples = 1
    style: Literal["auto", "completion", "chat"] = "auto"
    temperature: Temperature = 0.8
    top_p: Real = 0.95
    seed: Seed = 0
    verifier: VerifierName = "coupled"
    max_tokens: MaxTokens = 512

    def params(self) -> "SamplingParams":
        """What all requests have in common.

        Raises:
            InvalidRequestError: If a value is out of its range.
        """
        from draftsmith.core.params import SamplingParams

        if self.num_samples < 1:
            raise InvalidRequestError(f"num_samples must be 1 or more, got {self.num_samples}")
        if not 0 <= self.problems <= 164:
            raise InvalidRequestError(
                f"problems must be between 0 (all) and 164, got {self.problems}"
            )
        return SamplingParams(
            temperature=self.temperature,
            top_p=self.top_p,
            seed=self.seed,
            verifier=self.verifier,
            max_tokens=self.max_tokens,
        )


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class ProgramOptions:
    """How the model's programs are run.

    Parameters
    ----------
    run_code
        Allow it: the programs run on this machine, as you, with limits.
    timeout
        Seconds for each.
    memory_mb
        Megabytes for each.
    json_output
        Print everything that was found as JSON, in the place of the table.
    json_file
        Write the same JSON to this file.
    """

    run_code: Flag = False
    timeout: Real = 10.0
    memory_mb: Whole = 2048
    json_output: JsonOutput = False
    json_file: JsonFile | None = None

    def limits(self) -> "Limits":
        """The limits, if it is allowed at all.

        Raises:
            InvalidRequestError: If it is not, or a limit is out of range.
        """
        from draftsmith.bench.sandbox import Limits
        from draftsmith.report.html import check_writable

        if not self.run_code:
            raise InvalidRequestError(
                "passrate runs programs that the model wrote on this machine, with limits on time "
                "and memory: give --run-code to allow it"
            )
        if not 0 < self.timeout <= 600:
            raise InvalidRequestError(
                f"timeout must be above 0 and at most 600, got {self.timeout}"
            )
        if self.memory_mb < 64:
            raise InvalidRequestError(f"memory_mb must be 64 or more, got {self.memory_mb}")
        if self.json_file is not None:
            check_writable(self.json_file, "--json-file")
        return Limits(timeout_s=self.timeout, memory_bytes=self.memory_mb * 2**20)


_DEFAULT_PAIR = PairOptions()
_DEFAULT_SAMPLES = SampleOptions()
_DEFAULT_PROGRAMS = ProgramOptions()


def passrate(
    *,
    programs: ProgramOptions = _DEFAULT_PROGRAMS,
    pair: PairOptions = _DEFAULT_PAIR,
    sampling: SampleOptions = _DEFAULT_SAMPLES,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """HumanEval's pass rate and ms per token, plainly and with speculation."""
    messages.apply()
    from draftsmith.bench.arms import Cell, make_arms
    from draftsmith.workloads import humaneval_problems

    check_drafts(pair.draft)
    params, limits = sampling.params(), programs.limits()
    if pair.batch_size < 1:
        raise InvalidRequestError(f"batch_size must be 1 or more, got {pair.batch_size}")
    arms = make_arms(pair.draft, pair.gamma, pair.branches)
    problems = humaneval_problems()[: sampling.problems or None]
    engine = pair.runtime.load_target(pair.target, None, 0)
    drafters = pair.runtime.load_drafters(pair.draft, engine, max(pair.branches))

    from draftsmith.bench.passrate import pass_rates
    from draftsmith.bench.programs import STOP_STRINGS, as_workload
    from draftsmith.bench.run import Bench

    style = _style(sampling.style, engine, pair.target)
    if style == "completion":
        params = replace(params, stop=STOP_STRINGS)
    measured = Bench(
        engine, drafters, arms, params, sampling.num_samples, sampling.seed, sampling.max_tokens
    )
    plan = [
        (Cell("humaneval", sampling.temperature, pair.batch_size), as_workload(problems, style))
    ]
    is_interrupted = _is_cut_short(measured, plan)
    run = measured.cells[0]
    num_texts = sum(len(batch.requests) for one in run.tracks for batch in one.batches.values())
    with steps("passrate", num_texts, "programs") as step:
        found = pass_rates(run, problems, style, limits, lambda: step("running programs"))
    is_interrupted = is_interrupted or not found["is_judged"]
    _finish(
        measured,
        programs,
        {**found, "settings": _settings(pair, sampling, style)},
        is_interrupted=is_interrupted,
    )


def _is_cut_short(measured: "Bench", plan: "Sequence[tuple[Cell, Workload]]") -> bool:
    """Run all arms; whether Ctrl-C has ended that."""
    with steps("passrate", measured.num_steps(plan), "runs") as step:

        def on_step(cell: "Cell", arm: "Arm", is_warm_up: bool) -> None:
            note = ", warming up" if is_warm_up else ""
            step(f"{cell.name}: {arm.name}{note}", is_counted=not is_warm_up)

        try:
            measured.run(plan, on_step)
        except KeyboardInterrupt:
            return True
    return False


def _settings(pair: PairOptions, sampling: SampleOptions, style: str) -> dict[str, object]:
    """What the report says of how its figures were made."""
    return {
        "target": pair.target,
        "style": style,
        "samples": sampling.num_samples,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "seed": sampling.seed,
        "verifier": sampling.verifier,
        "max_tokens": sampling.max_tokens,
        "batch_size": pair.batch_size,
    }


def _style(wanted: str, engine: "Engine", target: str) -> Literal["completion", "chat"]:
    """How the model is asked.

    Raises:
        InvalidRequestError: If a chat is wanted of a model without a template.
    """
    assert engine.tokenizer is not None
    has_template = engine.tokenizer.has_chat_template
    if wanted == "chat" and not has_template:
        raise InvalidRequestError(f"{target} has no chat template: use --style completion")
    return "chat" if has_template and wanted != "completion" else "completion"


def _finish(
    measured: "Bench", programs: ProgramOptions, found: dict[str, Any], *, is_interrupted: bool
) -> None:
    """Show and write what there is, then say what was not finished."""
    from draftsmith.bench.passrate import SCHEMA, VERSION, pass_table
    from draftsmith.cli.grid import print_table
    from draftsmith.report.document import environment
    from draftsmith.report.document import write_json as write_document

    failed = [track for run in measured.cells for track in run.tracks if track.error]
    document = {
        "schema": SCHEMA,
        "version": VERSION,
        "is_complete": not failed and not is_interrupted,
        "command": shlex.join(["draftsmith", *sys.argv[1:]]),
        "environment": environment(),
        **found,
    }
    if programs.json_output:
        write_json(document)
    else:
        print_table(pass_table(document))
        if not found["is_isolated"]:
            lacking = [name for name, holds in found["isolation"].items() if not holds]
            write_text(
                f"The programs were not kept from everything: this system gives no isolation of "
                f"{', '.join(lacking)}.\n"
            )
    if programs.json_file is not None:
        write_document(programs.json_file, document)
    for track in failed:
        warn(f"{track.arm.name} failed: {track.error}")
    if is_interrupted:
        warn("interrupted: these are the numbers up to here")
        sys.exit(INTERRUPTED)
    if failed:
        raise DraftsmithError(f"{len(failed)} arms failed, and the others were kept")
