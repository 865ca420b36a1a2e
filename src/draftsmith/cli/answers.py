"""How the answers of `draftsmith generate` are shown, as text or as JSON, one or a batch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cyclopts import Parameter

from draftsmith.cli.options import OUTPUT, FilePath, Flag, JsonOutput, NumSamples, Whole
from draftsmith.cli.prompt import Asked
from draftsmith.cli.stdout import write_json, write_text
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.cli.runtime import ModelOptions
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.requests.result import GenerationResult, StreamEvent

__all__ = ["Answers", "OutputOptions"]


@Parameter(name="*", group=OUTPUT)
@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What is printed.

    Parameters
    ----------
    num_samples
        Samples to draw for each prompt.
    json_output
        Print an object a prompt instead of the text: text, token ids, finish reason, statistics,
        seed, all parameters, versions.
    logprobs
        Report log-probabilities, and this many alternatives, with --json or --trace-html.
    trace
        Colour every token by where it came from, rejected drafts struck out.
    trace_html
        Write the coloured trace to this file, as a page.
    """

    num_samples: NumSamples = 1
    json_output: JsonOutput = False
    logprobs: Whole | None = None
    trace: Flag = False
    trace_html: FilePath | None = None

    @property
    def of_a_sample(self) -> dict[str, bool]:
        """Options that show how a text was sampled, and whether each was given."""
        return {
            "logprobs": self.logprobs is not None,
            "trace": self.trace,
            "trace_html": self.trace_html is not None,
        }

    def check(self, num_prompts: int) -> None:
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

            if num_prompts > 1:
                raise InvalidRequestError(
                    f"--trace-html shows one prompt, and --prompts has {num_prompts}: use one"
                )
            # Before the models: a minute's work should not end in a wrong path.
            check_writable(self.trace_html, "--trace-html")


class Answers:
    """Shows results in the order of their prompts, as soon as they are whole."""

    def __init__(
        self,
        engine: "Engine",
        models: "ModelOptions",
        output: OutputOptions,
        asked: list[Asked],
        requests: "list[SamplingParams]",
    ) -> None:
        self.engine = engine
        self.asked = asked
        self.requests = requests
        self._models = models
        self._output = output
        self._is_batch = asked[0].id is not None
        self._done: dict[int, GenerationResult] = {}
        self._num_shown = 0

    @property
    def is_live(self) -> bool:
        """Whether the text is shown as it grows."""
        output = self._output
        is_several = self._is_batch or output.num_samples > 1
        return not (output.json_output or output.trace or is_several)

    def hear(self, event: "StreamEvent") -> None:
        """Show what an event makes ready."""
        if self.is_live and event.text:
            write_text(event.text)
        if event.result is not None and self._is_batch:
            self._done[event.prompt_index] = event.result
            for number in self._ready():
                self._show(number, self._done[number])

    def finish(self, results: "list[GenerationResult]") -> None:
        """Show what is left, the summary and the page."""
        from draftsmith.cli.report import print_lossy, print_summary

        self._done = dict(enumerate(results))
        for number in self._ready():
            self._show(number, results[number])
        if not self._output.json_output:
            print_summary(results)
        print_lossy(self.requests[0])
        if self._output.trace_html is not None:
            from draftsmith.cli.trace_page import write_page

            page = self._output.trace_html
            write_page(page, results[0], self.engine, self._models.drafted_by)

    def _ready(self) -> Iterator[int]:
        """Numbers of the results that are next in line, counted as shown."""
        while self._num_shown in self._done:
            self._num_shown += 1
            yield self._num_shown - 1

    def _show(self, number: int, result: "GenerationResult") -> None:
        from draftsmith.cli.report import print_labelled, print_samples, print_trace

        if self._output.json_output:
            write_json(self._document(number, result))
        elif self.is_live:
            write_text("\n")
        elif self._output.trace:
            print_trace(result, self.engine, self._label(number))
        elif self._is_batch:
            print_labelled(result, self._label(number))
        else:
            print_samples(result)

    def _label(self, number: int) -> str:
        name = self.asked[number].id
        return "" if name is None else f"{number + 1} of {len(self.asked)}: {name}"

    def _document(self, number: int, result: "GenerationResult") -> dict[str, object]:
        from draftsmith.cli.provenance import provenance
        from draftsmith.cli.report import as_json

        label = {"index": number, "id": self.asked[number].id} if self._is_batch else {}
        document = as_json(result)
        num_tokens = len(result.prompt_token_ids)
        made = provenance(self.engine, self._models, self.requests[number], num_tokens)
        return label | document | made
