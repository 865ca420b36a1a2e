"""`draftsmith generate`: one prompt, text on stdout."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from draftsmith.cli.beams import BeamOptions
from draftsmith.cli.beams import show as show_beams
from draftsmith.cli.exits import INTERRUPTED
from draftsmith.cli.options import OUTPUT, PROMPT, Flag, ModelOptions, SamplingOptions, Whole
from draftsmith.cli.prompt import check_unicode, read_prompt
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.errors import DraftsmithError, InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.request import Prompt
    from draftsmith.engine.result import GenerationResult, StreamEvent

__all__ = ["generate"]


@Parameter(name="*", group=PROMPT)
@dataclass(frozen=True, kw_only=True)
class PromptOptions:
    """What the model is given.

    Parameters
    ----------
    file
        Read the prompt from a file, less the newline at its end; - is standard input.
    chat
        Put the prompt through the model's chat template, as a user's turn.
    system
        With --chat: the system's turn before it.
    """

    # Else a lone - would be taken for an option.
    file: Annotated[Path | None, Parameter(alias="-f", allow_leading_hyphen=True)] = None
    chat: Flag = False
    system: Annotated[str | None, Parameter(alias="--system-prompt")] = None

    def read(self, prompt: str | None) -> "Prompt":
        """The text, or the conversation."""
        if self.system is not None and not self.chat:
            raise InvalidRequestError("--system is a turn of a conversation: give --chat as well")
        text = read_prompt(prompt, self.file)
        if not self.chat:
            return text
        system = check_unicode(self.system or "", "--system")
        opening = [{"role": "system", "content": system}] if system else []
        return [*opening, {"role": "user", "content": text}]


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is printed.

    Parameters
    ----------
    n
        Samples to draw.
    json_output
        Print one object instead of the text: text, token ids, finish reason, statistics.
    logprobs
        Report log-probabilities, and this many alternatives, with --json or --trace-html.
    trace
        Colour every token by where it came from, rejected drafts struck out.
    trace_html
        Write the coloured trace to this file, as a page.
    """

    n: Whole = 1
    json_output: Annotated[Flag, Parameter(name="--json")] = False
    logprobs: Whole | None = None
    trace: Flag = False
    trace_html: Path | None = None

    @property
    def of_a_sample(self) -> dict[str, bool]:
        """Options that show how a text was sampled, and whether each was given."""
        return {
            "logprobs": self.logprobs is not None,
            "trace": self.trace,
            "trace_html": self.trace_html is not None,
        }

    @property
    def is_live(self) -> bool:
        """Whether the text is shown as it grows."""
        return not (self.json_output or self.trace or self.n > 1)

    def check(self) -> None:
        """Refuse options that would be ignored, and a page that cannot be written.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if self.json_output and self.trace:
            raise InvalidRequestError("--trace colours text, and --json prints none: use one")
        if self.logprobs is not None and not (self.json_output or self.trace_html):
            raise InvalidRequestError("--logprobs shows in --json or --trace-html: give one")
        if self.trace_html is not None:
            from draftsmith.report.html import check_writable

            # Before the models: a minute's work should not end in a wrong path.
            check_writable(self.trace_html, "trace page")


_DEFAULT_MODELS = ModelOptions()
_DEFAULT_SAMPLING = SamplingOptions()
_DEFAULT_SOURCE = PromptOptions()
_DEFAULT_OUTPUT = OutputOptions()
_DEFAULT_BEAMS = BeamOptions()


def generate(
    prompt: Annotated[str | None, Parameter(alias="-p", group=PROMPT)] = None,
    *,
    source: PromptOptions = _DEFAULT_SOURCE,
    output: OutputOptions = _DEFAULT_OUTPUT,
    models: ModelOptions = _DEFAULT_MODELS,
    sampling: SamplingOptions = _DEFAULT_SAMPLING,
    beams: BeamOptions = _DEFAULT_BEAMS,
) -> None:
    """Generate text for one prompt.

    Parameters
    ----------
    prompt
        The text to go on from.
    """
    params = sampling.params(n=output.n, logprobs=output.logprobs)
    output.check()
    request = source.read(prompt)
    beams.check(sampling, output.n, output.of_a_sample)
    engine = models.load()
    if beams.num_beams:
        found = beams.search(engine, request, sampling)
        show_beams(found, output.n, is_json=output.json_output)
        return
    result = _follow(engine, request, params, is_live=output.is_live)
    _show(engine, result, output, models)
    if output.trace_html is not None:
        from draftsmith.cli.trace_page import write_page

        write_page(output.trace_html, result, engine, models.draft)
    _exit(result)


def _follow(
    engine: "Engine", prompt: "Prompt", params: "SamplingParams", *, is_live: bool
) -> "GenerationResult":
    from draftsmith.cli.interrupt import follow

    def show(event: "StreamEvent") -> None:
        if is_live and event.text:
            write_text(event.text)

    return follow(engine.start(prompt, params), show)


def _show(
    engine: "Engine", result: "GenerationResult", output: OutputOptions, models: ModelOptions
) -> None:
    from draftsmith.cli.report import as_json, print_samples, print_summary, print_trace

    if output.json_output:
        draft = models.draft if engine.gamma else "none"
        about = {"target": models.target, "draft": draft, "gamma": engine.gamma}
        write_json(as_json(result, **about))
        return
    if output.is_live:
        write_text("\n")
    elif output.trace:
        print_trace(result, engine)
    else:
        print_samples(result)
    print_summary(result)


def _exit(result: "GenerationResult") -> None:
    """Fail if a sample did, once all that there is was shown."""
    from draftsmith.engine.result import FinishReason

    for completion in result.completions:
        if completion.error is not None:
            raise DraftsmithError(completion.error)
    if any(one.finish_reason is FinishReason.ABORT for one in result.completions):
        sys.exit(INTERRUPTED)
