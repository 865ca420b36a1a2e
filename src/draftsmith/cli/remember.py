"""What the free draft has learnt, kept in a file from run to run."""

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cyclopts import Parameter

from draftsmith.cli.options import MODELS, FilePath
from draftsmith.cli.runtime import ModelOptions
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.engine.engine import Engine

__all__ = ["DEFAULT_REMEMBERING", "RememberOptions"]

_FREE = "free"


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class RememberOptions:
    """Where the free draft keeps what it has learnt.

    Parameters
    ----------
    remember
        A file that --draft free begins with, if it is there, and in which generate, chat and serve
        leave what it has learnt; it holds words of the texts that passed through. There, it names
        that draft, too.
    """

    remember: FilePath | None = None

    def named(self, drafts: Sequence[str]) -> tuple[str, ...]:
        """The names of drafts, the free one's along with the file.

        Raises:
            InvalidRequestError: If the free one is not among them.
        """
        if self.remember is None:
            return tuple(drafts)
        if _FREE not in drafts:
            told = ", ".join(drafts) or "not given"
            raise InvalidRequestError(
                f"--remember {self.remember} is for --draft free, and the draft is {told}: "
                "add --draft free, or leave it out"
            )
        return tuple(f"{_FREE}:{self.remember}" if one == _FREE else one for one in drafts)

    def applied(self, models: ModelOptions) -> ModelOptions:
        """The models with the file, and with the draft that generate, chat and serve have.

        Raises:
            InvalidRequestError: If a draft is named that is not the free one.
        """
        self.check(models)
        if self.remember is None:
            return models.free_by_default()
        return replace(models.by_default(_FREE), draft=f"{_FREE}:{self.remember}")

    def check(self, models: ModelOptions) -> None:
        """Refuse a file where a draft is named that has no use for it.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if models.draft is not None:
            self.named((models.draft,))

    def check_unused(self) -> None:
        """Refuse a file where beams are searched, which are drafted by a model or not at all.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if self.remember is not None:
            raise InvalidRequestError(
                f"--remember {self.remember} is for --draft free, which drafts no beam search: "
                "leave it out"
            )

    @contextmanager
    def kept(self, engine: "Engine") -> Generator[None]:
        """Write the file at the end, whatever ends it.

        Raises:
            InvalidRequestError: If it cannot be written.
        """
        try:
            yield
        finally:
            if self.remember is not None:
                _save(engine)


def _save(engine: "Engine") -> None:
    from draftsmith.drafters import FreeDrafter

    if isinstance(engine.draft, FreeDrafter):
        engine.draft.save()


DEFAULT_REMEMBERING = RememberOptions()
