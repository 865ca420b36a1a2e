"""`draftsmith generate`: one prompt or a batch, text on stdout."""

import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from draftsmith.cli.answers import Answers, OutputOptions
from draftsmith.cli.beams import BeamOptions
from draftsmith.cli.beams import show as show_beams
from draftsmith.cli.exits import INTERRUPTED
from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.options import PROMPT, TextPrompt
from draftsmith.cli.progress import working
from draftsmith.cli.prompt import Asked, PromptOptions
from draftsmith.cli.remember import DEFAULT_REMEMBERING, RememberOptions
from draftsmith.cli.runtime import DEFAULT_MEMORY, DEFAULT_MODELS, MemoryOptions, ModelOptions
from draftsmith.cli.sampling import DEFAULT_SAMPLING, SamplingOptions, seeded
from draftsmith.errors import DraftsmithError, InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.requests.result import GenerationResult, StreamEvent

__all__ = ["generate"]

_log = logging.getLogger(__name__)
_DEFAULT_SOURCE = PromptOptions()
_DEFAULT_OUTPUT = OutputOptions()
_DEFAULT_BEAMS = BeamOptions()


def generate(
    prompt: Annotated[TextPrompt | None, Parameter(group=PROMPT)] = None,
    *,
    source: PromptOptions = _DEFAULT_SOURCE,
    output: OutputOptions = _DEFAULT_OUTPUT,
    models: ModelOptions = DEFAULT_MODELS,
    memory: MemoryOptions = DEFAULT_MEMORY,
    remembering: RememberOptions = DEFAULT_REMEMBERING,
    sampling: SamplingOptions = DEFAULT_SAMPLING,
    beams: BeamOptions = _DEFAULT_BEAMS,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Generate text for one prompt, or for a batch.

    Parameters
    ----------
    prompt
        The text to go on from.
    """
    messages.apply()
    params = sampling.params(n=output.num_samples, logprobs=output.logprobs)
    remembering.check(models)
    models.check()
    source.check()
    beams.check(sampling, output.num_samples, output.of_a_sample)
    beams.check_draft(models.draft)
    if not beams.num_beams:
        sampling.check_drawn(output.num_samples)
    asked = source.read(prompt)
    output.check(len(asked))
    if beams.num_beams:
        memory.check_unused()
        remembering.check_unused()
        _search(asked, output, models.without_default_draft(), sampling, beams)
        return
    requests = [_with_limit(seeded(params), one) for one in asked]
    models = remembering.applied(models)
    engine = models.load(memory)
    _log.info("seed %s, verifier %s", requests[0].seed, requests[0].verifier_name)
    answers = Answers(engine, models, output, asked, requests)
    with remembering.kept(engine):
        results = _follow(answers)
    answers.finish(results)
    _exit(asked, results)


def _with_limit(params: "SamplingParams", asked: Asked) -> "SamplingParams":
    """The length that a prompts file asks for goes before --max-tokens."""
    return params if asked.max_tokens is None else replace(params, max_tokens=asked.max_tokens)


def _search(
    asked: list[Asked],
    output: OutputOptions,
    models: ModelOptions,
    sampling: SamplingOptions,
    beams: BeamOptions,
) -> None:
    """Search instead of sampling."""
    if asked[0].id is not None:
        raise InvalidRequestError("--num-beams searches for one prompt: give it without --prompts")
    engine = models.load()
    found = beams.search(engine, asked[0].prompt, sampling)
    n = output.num_samples
    parameters = beams.parameters(engine, found, sampling, n)
    show_beams(found, n, models, engine, parameters, is_json=output.json_output)


def _follow(answers: Answers) -> "list[GenerationResult]":
    """Run to the end or to Ctrl-C, showing what there is to show on the way."""
    from draftsmith.cli.interrupt import follow

    run = answers.engine.start([one.prompt for one in answers.asked], answers.requests)
    longest = sum(one.longest_output * one.n for one in answers.requests)
    with working("reading the prompt") as work:

        def show(event: "StreamEvent") -> None:
            if work.total is None:
                work.begin("generating", longest, "tokens at most")
            if answers.is_live and sys.stdout.isatty():
                work.stop()  # the text itself shows how far it is
            work.update(done=work.done + len(event.tokens))
            _log.debug("%s", _told(event))
            with work.aside():
                answers.hear(event)

        return follow(run, show)


def _told(event: "StreamEvent") -> str:
    """What a round brought to a sample, and where each token came from."""
    kinds = " ".join(token.origin.name.lower() for token in event.tokens)
    return f"prompt {event.prompt_index}, sample {event.sample_index}: {kinds or 'no token'}"


def _exit(asked: list[Asked], results: "list[GenerationResult]") -> None:
    """Fail if a sample did, once all that there is was shown."""
    from draftsmith.engine.requests.result import FinishReason

    failed = [
        (one.id, completion.error)
        for one, result in zip(asked, results, strict=True)
        for completion in result.completions
        if completion.error is not None
    ]
    if failed:
        name, error = failed[0]
        where = "" if name is None else f"prompt {name!r}: "
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 and name is not None else ""
        raise DraftsmithError(f"{where}{error}{more}")
    reasons = {one.finish_reason for result in results for one in result.completions}
    if FinishReason.ABORT in reasons:
        sys.exit(INTERRUPTED)
