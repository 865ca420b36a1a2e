"""`draftsmith chat`: a conversation, streamed."""

import difflib
import sys
from typing import TYPE_CHECKING

from draftsmith.cli.conversation import Conversation
from draftsmith.cli.exits import INTERRUPTED
from draftsmith.cli.messages import DEFAULT_MESSAGES, MessageOptions
from draftsmith.cli.options import System
from draftsmith.cli.prompt import check_unicode
from draftsmith.cli.remember import DEFAULT_REMEMBERING, RememberOptions
from draftsmith.cli.runtime import DEFAULT_MEMORY, DEFAULT_MODELS, MemoryOptions, ModelOptions
from draftsmith.cli.sampling import DEFAULT_SAMPLING, SamplingOptions
from draftsmith.cli.stdout import write_text
from draftsmith.cli.terminal import styled_console
from draftsmith.cli.turns import Interrupted, is_terminal, read_turn
from draftsmith.errors import DraftsmithError, InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.core.params import SamplingParams
    from draftsmith.engine.engine import Engine
    from draftsmith.engine.requests.request import Prompt
    from draftsmith.engine.requests.result import GenerationResult, StreamEvent

__all__ = ["COMMANDS", "chat"]

_MAX_TOKENS = 1024
COMMANDS = {
    "/help": "this list",
    "/clear": "forget the conversation (also /reset); the system's turn stays",
    "/system": 'show what the model is told first; /system TEXT changes it, /system "" ends it',
    "/stats": "tokens and acceptance so far, and how full the context is",
    "/exit": "leave (also /quit, Ctrl-D, or Ctrl-C twice)",
}
_OTHER_NAMES = {"/reset": "/clear", "/quit": "/exit"}
_HELP_NOTES = (
    'A line that ends in a backslash goes on in the next; """ opens a turn of several lines, and',
    '""" ends it. // begins a turn with a slash. Ctrl-C stops an answer, which stays as far as it',
    "came. When the context is full, the oldest turns are no longer seen.",
)


def chat(
    *,
    models: ModelOptions = DEFAULT_MODELS,
    memory: MemoryOptions = DEFAULT_MEMORY,
    remembering: RememberOptions = DEFAULT_REMEMBERING,
    sampling: SamplingOptions = DEFAULT_SAMPLING,
    system: System | None = None,
    messages: MessageOptions = DEFAULT_MESSAGES,
) -> None:
    """Talk to a model; each line is a turn, typed or piped.

    Parameters
    ----------
    system
        What the model is told before the conversation.
    """
    from draftsmith.cli.report import print_lossy

    messages.apply()
    params = sampling.params(max_tokens=_MAX_TOKENS)
    sampling.check_drawn()
    system = check_unicode(system or "", "--system")
    engine = _load(remembering.applied(models), memory)
    talk = _Talk(Conversation(engine, params, system))
    print_lossy(params)
    if is_terminal():
        talk.tell(f"{models.target} · /help lists the commands, Ctrl-D leaves")
    with remembering.kept(engine):
        talk.go_on_to_the_end()


def _load(models: ModelOptions, memory: MemoryOptions) -> "Engine":
    engine = models.load(memory)
    if engine.tokenizer is None or not engine.tokenizer.has_chat_template:
        raise InvalidRequestError(
            f"{models.target} has no chat template: use an instruct model, or draftsmith generate"
        )
    return engine


class _Talk:
    """Reads turns and commands, and shows answers."""

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._is_fullness_told = False

    def go_on_to_the_end(self) -> None:
        """Until the user leaves or the input ends."""
        is_leaving = False
        while True:
            try:
                turn = read_turn()
            except Interrupted:
                if is_leaving:
                    return
                is_leaving = True
                self.tell("Ctrl-C again, or Ctrl-D, leaves; the conversation is kept")
                continue
            is_leaving = False
            if turn is None or not self._is_going_on(turn):
                return

    def tell(self, text: str) -> None:
        """A remark on stderr; what was asked for is told under --quiet too."""
        out = styled_console(highlight=False, soft_wrap=True)
        out.print(text, style="dim", markup=False)

    def _is_going_on(self, turn: str) -> bool:
        """Deal with a turn; at a terminal, one that is refused is told, and the talk goes on."""
        try:
            if turn.startswith("/") and not turn.startswith("//"):
                return self._command(turn)
            if turn:
                self._answer(turn.removeprefix("/") if turn.startswith("//") else turn)
        except DraftsmithError as error:
            if not is_terminal():
                raise
            self.tell(f"{error} (the conversation is kept; /clear forgets it)")
        return True

    def _command(self, line: str) -> bool:
        """Whether the talk goes on after a command."""
        name, _, rest = line.partition(" ")
        name, rest = _OTHER_NAMES.get(name, name), rest.strip()
        if name not in COMMANDS:
            near = difflib.get_close_matches(name, [*COMMANDS, *_OTHER_NAMES], n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise InvalidRequestError(
                f"unknown command {name}: {hint}/help lists them, // begins a turn with a slash"
            )
        if rest and name != "/system":
            raise InvalidRequestError(f"{name} takes nothing after it, got {rest!r}: leave it out")
        if name == "/help":
            self._help()
        elif name == "/stats":
            self._stats()
        elif name == "/clear":
            self._conversation.clear()
            self._is_fullness_told = False
        elif name == "/system":
            self._system(rest)
        return name != "/exit"

    def _help(self) -> None:
        width = max(map(len, COMMANDS))
        for name, what in COMMANDS.items():
            self.tell(f"{name:<{width}}  {what}")
        for line in _HELP_NOTES:
            self.tell(line)

    def _system(self, text: str) -> None:
        if text:
            self._conversation.system = "" if text in ('""', "''") else text
        system = self._conversation.system
        self.tell(f"system: {system}" if system else "no system's turn")

    def _stats(self) -> None:
        totals, length = self._conversation.totals, self._conversation.context_length
        counts = totals.statistics
        lines = [f"{totals.num_answers} answers, {counts.num_committed} tokens"]
        if counts.alpha is not None and counts.tokens_per_pass is not None:
            lines.append(f"alpha {counts.alpha:.2f}, {counts.tokens_per_pass:.2f} tokens per pass")
        of = "" if length is None else f" of {length:,}"
        lines.append(f"the last prompt had {totals.num_prompt_tokens:,}{of} tokens")
        if totals.num_forgotten:
            lines.append(f"{totals.num_forgotten} turns are no longer seen")
        for line in lines:
            self.tell(line)

    def _answer(self, text: str) -> None:
        from draftsmith.cli.report import print_summary
        from draftsmith.engine.requests.result import FinishReason

        forgotten = self._conversation.totals.num_forgotten
        result = self._conversation.say(text, self._run)
        if self._conversation.totals.num_forgotten > forgotten and not self._is_fullness_told:
            self._is_fullness_told = True
            self.tell(
                f"the context of {self._conversation.context_length:,} tokens is full: "
                "the oldest turns are no longer seen (/clear forgets all)"
            )
        if result.finish_reason is FinishReason.ABORT:
            self.tell("[stopped]" if result.token_ids else "[stopped before it began: forgotten]")
        elif result.finish_reason is FinishReason.LENGTH:
            self.tell("[cut off: --max-tokens, or the context, is reached]")
        print_summary([result])
        if result.finish_reason is FinishReason.ABORT and not is_terminal():
            sys.exit(INTERRUPTED)

    def _run(self, turns: "Prompt", params: "SamplingParams") -> "GenerationResult":
        from draftsmith.cli.interrupt import follow

        engine = self._conversation.engine
        result = follow(engine.start(turns, params), _show)[0]
        write_text("\n")
        return result


def _show(event: "StreamEvent") -> None:
    if event.text:
        write_text(event.text)
