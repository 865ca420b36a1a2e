"""`draftsmith certify`: is this pair, or another system, exact? With the numbers."""

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cyclopts import Group, Parameter

from draftsmith.cli.exits import NOT_THE_SAME
from draftsmith.cli.files import DEFAULT_DOCUMENT, DocumentOptions
from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.options import Flag, Real, Seed, SeveralDrafts, Target, Whole
from draftsmith.cli.progress import loading, stages
from draftsmith.cli.runtime import DEFAULT_RUNTIME, DEFAULT_TARGET, RuntimeOptions, check_drafts
from draftsmith.cli.stdout import rich_console, write_json
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from rich.console import Console

    from draftsmith.audit.certificate import Effort
    from draftsmith.audit.record import Certificate, Record
    from draftsmith.audit.subject import Subject
    from draftsmith.models.tokenizer import Message
    from draftsmith.report.status import Status

__all__ = ["certify"]

CHECKS = Group("Checks", sort_key=1)
OTHERS = Group("Other systems", sort_key=2)
_ASSISTED_FACTOR = 2.5
"""Laws of transformers' generation are told apart less finely by default."""
_STYLES: "dict[Status, str]" = {
    "pass": "bold green",
    "fail": "bold white on red",
    "info": "bold blue",
    "untested": "bold yellow",
}
_ROW_STYLES: "dict[Status | None, str]" = {"fail": "bold red", "untested": "yellow"}


@Parameter(name="*", group=CHECKS)
@dataclass(frozen=True, kw_only=True)
class CheckOptions:
    """How much is checked.

    Parameters
    ----------
    workload
        Prompts: default, chat, edit, summarise, humaneval, or a JSONL file.
    quick
        Fewer prompts, worlds and samples.
    thorough
        More of them.
    detects
        Total variation that a sampled law may be off by before it surely fails; by default 0.1,
        with --quick 0.2, with --thorough 0.05.
    power
        How surely it then fails.
    samples
        Of each law; by default as many as that takes.
    false_fail_rate
        Probability at most that a correct system fails.
    seed
        Of all random numbers.
    plant
        Switch a planted bug into the engine: the certificate must fail and name it.
    """

    workload: str = "default"
    quick: Flag = False
    thorough: Flag = False
    detects: Real | None = None
    power: Real = 0.99
    samples: Whole | None = None
    false_fail_rate: Real = 1e-9
    seed: Seed = 7
    plant: str | None = None

    def effort(self) -> "Effort":
        """What is run.

        Raises:
            InvalidRequestError: If options contradict each other or are out of range.
        """
        from draftsmith.audit.certificate import EFFORTS
        from draftsmith.audit.law import Power

        if self.quick and self.thorough:
            raise InvalidRequestError("--quick and --thorough contradict each other: give one")
        if self.samples is not None and self.samples < 1:
            raise InvalidRequestError(f"samples must be 1 or more, got {self.samples}")
        if not 0 <= self.seed < 2**64:
            raise InvalidRequestError(f"seed must be between 0 and 2**64 - 1, got {self.seed}")
        name = "quick" if self.quick else "thorough" if self.thorough else "default"
        effort = EFFORTS[name]
        detects = effort.power.detects if self.detects is None else self.detects
        return replace(effort, power=Power(detects, self.power, self.false_fail_rate, self.samples))


@Parameter(name="*", group=OTHERS)
@dataclass(frozen=True, kw_only=True)
class OtherOptions:
    """Which other system is certified, in the place of this one.

    Parameters
    ----------
    url
        An OpenAI-compatible server, such as http://localhost:8000/v1. With --target its greedy
        texts are compared with that model's, decoded plainly here.
    server_model
        The server's name of the model; by default its first.
    transformers
        Assisted generation of transformers, with --target and --draft.
    """

    url: str | None = None
    server_model: str | None = None
    transformers: Flag = False

    def check(self, checks: CheckOptions) -> None:
        """Refuse options that contradict each other.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if self.url is not None and self.transformers:
            raise InvalidRequestError(
                f"--url {self.url} and --transformers are two systems: give one"
            )
        if self.server_model is not None and self.url is None:
            raise InvalidRequestError(
                f"--server-model {self.server_model} names a model of a server: give --url, or "
                "name a model of this machine by --target"
            )
        if checks.plant is not None and (self.url is not None or self.transformers):
            raise InvalidRequestError(
                f"--plant {checks.plant} breaks this engine only: drop --url, --transformers"
            )


_DEFAULT_CHECKS = CheckOptions()
_DEFAULT_OTHERS = OtherOptions()


def certify(
    *,
    target: Target | None = None,
    draft: SeveralDrafts = (),
    checks: CheckOptions = _DEFAULT_CHECKS,
    others: OtherOptions = _DEFAULT_OTHERS,
    runtime: RuntimeOptions = DEFAULT_RUNTIME,
    output: DocumentOptions = DEFAULT_DOCUMENT,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Certify that speculation does not change what a target generates.

    Parameters
    ----------
    target
        As `generate` takes it.
    draft
        As `generate` takes it; may be repeated. Prompt lookup is always among them.
    """
    messages.apply()
    check_drafts(draft)
    others.check(checks)
    effort = checks.effort()
    output.check()
    if others.url is not None:
        certificate = _certify_server(others, target, draft, checks, effort, runtime)
    elif others.transformers:
        certificate = _certify_assisted(target, draft, checks, effort, runtime)
    else:
        certificate = _certify_pair(target or DEFAULT_TARGET, draft, checks, effort, runtime)
    _hand_over(certificate, output)


def _certify_pair(
    target: str,
    drafts: tuple[str, ...],
    checks: CheckOptions,
    effort: "Effort",
    runtime: RuntimeOptions,
) -> "Certificate":
    """This engine."""
    from draftsmith.audit.certificate import certify as run
    from draftsmith.audit.planted import bug_named

    bug = None if checks.plant is None else bug_named(checks.plant)
    subject = _load(target, drafts, checks.workload, runtime)
    name = f"{target} with {', '.join(subject.drafters)}"
    if bug is not None:
        name += f" (planted: {bug.name})"
    with stages("certify") as on_step:
        return run(subject, name, effort, bug=bug, seed=checks.seed, on_step=on_step)


def _certify_server(
    others: OtherOptions,
    target: str | None,
    drafts: tuple[str, ...],
    checks: CheckOptions,
    effort: "Effort",
    runtime: RuntimeOptions,
) -> "Certificate":
    """A server, from outside."""
    from draftsmith.audit.client import Client
    from draftsmith.audit.reference import Reference
    from draftsmith.audit.server import certify_server
    from draftsmith.workloads.workload import as_text

    if drafts:
        raise InvalidRequestError(f"a server drafts for itself, got --draft {drafts[0]}: drop it")
    if target is None and runtime.layers_per_device is not None:
        raise InvalidRequestError("layers_per_device is for --target, and there is none: name it")
    assert others.url is not None
    client = Client(others.url, others.server_model)
    # Before the reference is loaded: a wrong URL should not cost a minute.
    client.connect()
    prompts = [as_text(one) for one in _prompts(checks.workload)[: effort.num_prompts]]
    reference = None if target is None else Reference(runtime.load_target(target, None, 0))
    with stages("certify") as on_request:
        return certify_server(
            client, prompts, reference, effort.power, seed=checks.seed, on_request=on_request
        )


def _certify_assisted(
    target: str | None,
    drafts: tuple[str, ...],
    checks: CheckOptions,
    effort: "Effort",
    runtime: RuntimeOptions,
) -> "Certificate":
    """Assisted generation of `transformers`."""
    from draftsmith.audit.assisted import certify_assisted, load_pair

    if runtime.layers_per_device is not None:
        raise InvalidRequestError(
            "layers_per_device is for models that run here, and --transformers runs them by "
            "itself: leave one out"
        )
    if len(drafts) > 1:
        raise InvalidRequestError(f"transformers takes one assistant, got {', '.join(drafts)}")
    name, draft = target or DEFAULT_TARGET, drafts[0] if drafts else "prompt-lookup"
    power = effort.power
    if checks.detects is None:
        # Each sample is a call of `generate`, of one text.
        power = replace(power, detects=min(0.9, _ASSISTED_FACTOR * power.detects))
    prompts = _prompts(checks.workload)[: effort.num_prompts]
    with loading(name):
        pair = load_pair(name, draft, prompts, runtime.dtype, runtime.device)
    title = f"transformers' assisted generation of {name} with {draft}"
    with stages("certify") as on_step:
        return certify_assisted(pair, title, power, seed=checks.seed, on_step=on_step)


def _prompts(workload: str) -> "list[str | tuple[Message, ...]]":
    from draftsmith.workloads import load_workload

    return [item.prompt for item in load_workload(workload).items]


def _load(
    target: str, drafts: tuple[str, ...], workload: str, runtime: RuntimeOptions
) -> "Subject":
    """Models, drafters and prompts."""
    prompts = _prompts(workload)
    engine = runtime.load_target(target, None, 0)
    from draftsmith.audit.subject import make_subject

    drafters = runtime.load_drafters((*drafts, "prompt-lookup"), engine)
    return make_subject(engine, drafters, prompts)


def _hand_over(certificate: "Certificate", output: DocumentOptions) -> None:
    """Show and write; exit status 1 if anything failed."""
    if not output.json_output:
        _show(certificate)
    if output != DEFAULT_DOCUMENT:
        _write(certificate, output)
    if not certificate.is_pass:
        sys.stdout.flush()
        sys.exit(NOT_THE_SAME)


def _show(certificate: "Certificate") -> None:
    from rich.text import Text

    # In a pipe or a file there is no width that the tables would have to fit.
    width = None if sys.stdout.isatty() else 160
    out = rich_console(highlight=False, soft_wrap=True, width=width)
    for record in certificate.records:
        _show_record(out, record)
    out.print()
    outcome = certificate.outcome
    out.print(Text.assemble((outcome.word, _STYLES[outcome.status]), f"  {certificate.verdict}"))


def _show_record(out: "Console", record: "Record") -> None:
    from rich.table import Table
    from rich.text import Text

    from draftsmith.report.status import WORDS

    word = (WORDS[record.status].upper(), _STYLES[record.status])
    heading = word, "  ", (record.title, "bold")
    out.print()
    out.print(Text.assemble(*heading))
    out.print(Text(record.summary))
    out.print(Text(f"Would see: {record.detects}", style="dim"))
    if record.untested:
        untested = f"Not tested: {'; '.join(record.untested)}."
        out.print(Text(untested, style=_ROW_STYLES["untested"]))
    for grid in record.grids:
        table = Table(box=None, pad_edge=False, header_style="dim")
        for number, column in enumerate(grid.columns):
            table.add_column(column, justify="right" if number else "left", overflow="fold")
        for row, status in zip(grid.rows, grid.statuses or [None] * len(grid.rows), strict=True):
            table.add_row(*map(Text, row), style=_ROW_STYLES.get(status))
        out.print(table)


def _write(certificate: "Certificate", output: DocumentOptions) -> None:
    import shlex

    from draftsmith.audit.pages import as_document, sections
    from draftsmith.report.document import environment, facts
    from draftsmith.report.document import write_json as write_document
    from draftsmith.report.html import write_text
    from draftsmith.report.page import page

    command = shlex.join(["draftsmith", *sys.argv[1:]])
    where = environment()
    document = as_document(certificate, where, command)
    if output.json_output:
        write_json(document)
    if output.json_file is not None:
        write_document(output.json_file, document)
    if output.html is not None:
        text = page(
            f"Certificate: {certificate.subject}",
            certificate.verdict,
            sections(certificate),
            facts(where, command),
            certificate.outcome,
        )
        write_text(output.html, text, "--html")
