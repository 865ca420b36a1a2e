"""Which models run and how, and loading them."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from draftsmith.cli.garbage import set_aside
from draftsmith.cli.options import (
    MODELS,
    Branches,
    Counts,
    Flag,
    GammaChoice,
    SingleDraft,
    Target,
    Whole,
)
from draftsmith.cli.progress import loading
from draftsmith.cli.resolved import resolved
from draftsmith.core.gamma import Gamma, check_branches, check_gamma
from draftsmith.errors import InvalidRequestError

if TYPE_CHECKING:
    from draftsmith.drafters import Drafter
    from draftsmith.engine.engine import Engine

__all__ = [
    "DEFAULT_MEMORY",
    "DEFAULT_MODELS",
    "DEFAULT_RUNTIME",
    "DEFAULT_TARGET",
    "MemoryOptions",
    "ModelOptions",
    "RuntimeOptions",
    "check_drafts",
]

_log = logging.getLogger(__name__)
DEFAULT_TARGET = "smollm2-135m-instruct"
_DEFAULT_DRAFT = "prompt-lookup"
_DEFAULT_GAMMA = 4


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """What models remember of texts.

    Parameters
    ----------
    cache_tokens
        Tokens whose keys and values each model holds at most, of all texts at once, in whole
        blocks of 64; texts wait for room, and stay the same. By default, as many as are asked for.
    no_prefix_caching
        Read every prompt whole, also where it begins as another text did.
    """

    cache_tokens: Annotated[Whole | None, Parameter(alias="--max-total-tokens")] = None
    no_prefix_caching: Annotated[Flag, Parameter(alias="--no-enable-prefix-caching")] = False

    @property
    def options(self) -> dict[str, Any]:
        """As `load_engine` takes them."""
        return {"cache_tokens": self.cache_tokens, "prefix_caching": not self.no_prefix_caching}

    def check_unused(self) -> None:
        """Refuse a bound where beams are searched, which count no tokens.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if self.cache_tokens is not None:
            raise InvalidRequestError(
                f"cache_tokens={self.cache_tokens} bounds no beam search: leave it out"
            )


DEFAULT_MEMORY = MemoryOptions()
_EACH_FOR_ITSELF = MemoryOptions(no_prefix_caching=True)
"""Where prompts are timed or compared, each is read."""


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """How models run.

    Parameters
    ----------
    dtype
        Of the weights; auto keeps what the file holds on a CPU and is bfloat16 on a GPU. int8
        and int4 round a float checkpoint on a CPU, which makes it a different model.
    device
        A torch device; auto is the GPU if there is one.
    activations
        Of products with quantised weights on a CPU: int8 rounds them, float32 keeps them;
        by default int8 where there are such.
    threads
        Of the CPU kernels; by default the physical cores.
    draft_vocab_size
        Ids that a draft model considers, on a CPU beside those of the text so far; 0 is all;
        by default 32768 on a CPU, and all on a GPU.
    layers_per_device
        Numbers of the target's layers on each GPU, from the first on, such as 20,20: for a model
        that fits on none of them, block after block in plain torch. By default all are on one.
    tensor_parallel
        Processes that run the models together, 1 to 64, each with a part of every layer; on GPUs,
        each has one. By default 1; under torchrun, as many as it has started.
    """

    dtype: Literal["auto", "float32", "bfloat16", "float16", "int8", "int4"] = "auto"
    device: str = "auto"
    activations: Literal["int8", "float32"] | None = None
    threads: Annotated[Whole | None, Parameter(alias="-t")] = None
    draft_vocab_size: Whole | None = None
    layers_per_device: Counts | None = None
    tensor_parallel: Annotated[Whole | None, Parameter(alias=["--tensor-parallel-size", "-tp"])] = (
        None
    )

    @property
    def is_on_cpu(self) -> bool:
        """Whether the target runs on a CPU."""
        if self.device != "auto":
            return self.device == "cpu"
        import torch

        return not torch.cuda.is_available()

    @property
    def _given(self) -> dict[str, Any]:
        """What only some models have a use for, and is passed on only where it was asked for."""
        asked = {"activations": self.activations, "draft_vocab_size": self.draft_vocab_size}
        return {name: value for name, value in asked.items() if value is not None}

    def load_target(
        self,
        target: str,
        draft: str | None,
        gamma: Gamma | None,
        memory: MemoryOptions = _EACH_FOR_ITSELF,
        max_batch_size: int = 16,
        branches: int | None = None,
    ) -> "Engine":
        """Load an engine, showing how a fetch gets on.

        Raises:
            DraftsmithError: What can be refused at a glance, before torch is even imported.
        """
        from draftsmith.models.reference import resolve

        if gamma is not None:
            check_gamma(gamma)
        if branches is not None:
            check_branches(branches)
        resolve(target)
        from draftsmith.api import load_engine

        self._meet_ranks()
        _log.info("loading %s, drafted by %s, gamma %s", target, draft or "nothing", gamma)
        start = time.monotonic()
        with loading(target) as on_progress:
            engine = load_engine(
                target,
                draft,
                gamma=gamma,
                branches=branches,
                dtype=self.dtype,
                device=self.device,
                threads=self.threads,
                layers_per_device=self.layers_per_device,
                parallel=self.tensor_parallel,
                max_batch_size=max_batch_size,
                on_progress=on_progress,
                **memory.options,
                **self._given,
            )
        _log.debug("runs as %s: %s", type(engine.target).__name__, resolved(engine, self))
        _log.info("loaded on %s in %.1f s", engine.target.device, time.monotonic() - start)
        set_aside()
        return engine

    def load_drafters(
        self, drafts: Sequence[str], engine: "Engine", branches: int = 1
    ) -> dict[str, "Drafter"]:
        """Load more drafts for a target that is loaded, each once.

        Args:
            drafts: References; what is there twice is loaded once.
            engine: Of the target.
            branches: As many as any arm asks for; fewer need no other model.
        """
        from draftsmith.drafters.given import draft_reference

        models = [one for one in drafts if draft_reference(one, None, None) is not None]
        if not models and drafts:
            # Nothing here has a use for it, which the first of them says.
            draft_reference(drafts[0], self.draft_vocab_size, None)
        return {
            name: self._drafter(name, engine, branches, is_model=name in models)
            for name in dict.fromkeys(drafts)
        }

    def _drafter(self, draft: str, engine: "Engine", branches: int, *, is_model: bool) -> "Drafter":
        """Load one more draft for a target that is loaded."""
        from draftsmith.api import load_drafter

        if not is_model:
            # How models are loaded, the target was told.
            return load_drafter(draft, engine, branches=branches)
        is_spread = self.layers_per_device is not None
        with loading(draft) as on_progress:
            return load_drafter(
                draft,
                engine,
                dtype=self.dtype,
                device=str(engine.target.device) if is_spread else self.device,
                threads=self.threads,
                branches=branches,
                on_progress=on_progress,
                **self._given,
            )

    def _meet_ranks(self) -> None:
        """Under torchrun, end ranks above 0 in here, before they show anything."""
        from draftsmith.models.settings import ModelSettings, meet_ranks, parallel_or_launched

        ranks = parallel_or_launched(self.tensor_parallel)
        if ranks > 1:
            meet_ranks(ModelSettings(device=self.device, tensor_parallel=ranks))


DEFAULT_RUNTIME = RuntimeOptions()


def check_drafts(drafts: Sequence[str]) -> None:
    """Refuse "none" where plain decoding is measured beside every draft.

    Raises:
        InvalidRequestError: With the remedy.
    """
    if "none" in drafts:
        raise InvalidRequestError(
            "--draft none is plain decoding, which is always measured beside the drafts: "
            "leave it out"
        )


@Parameter(name="*", group=MODELS)
@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """Which models run, and how.

    Parameters
    ----------
    target
        A catalogue name (see `draftsmith models list`), `org/name` on the Hub, a folder, or a
        `.gguf` file.
    draft
        What guesses: the same for a draft model or a trained head, or `prompt-lookup`, `free`,
        `random`, `unigram:FILE`, `bigram:FILE`, `none`; by default free where generate, chat and
        serve run on a CPU, prompt-lookup elsewhere, and none in a beam search.
    gamma
        Drafted tokens per round, 0 to 32; 0 is plain decoding, auto is what pays; by default auto
        where free is the default, and in serve, else 4.
    branches
        Guesses for each position of a draft at most, 1 to 8, of a draft model or a trained head on
        a CPU; more than 1 makes a draft a tree of gamma tokens; by default 1.
    """

    target: Target = DEFAULT_TARGET
    draft: SingleDraft | None = None
    gamma: GammaChoice | None = None
    branches: Branches | None = None
    runtime: RuntimeOptions = DEFAULT_RUNTIME

    @property
    def num_drafted(self) -> Gamma:
        """Gamma as it holds: without a draft, nothing is drafted."""
        if self.draft == "none":
            return 0
        return _DEFAULT_GAMMA if self.gamma is None else self.gamma

    @property
    def drafted_by(self) -> str:
        """The draft as it holds, by name."""
        return (self.draft or _DEFAULT_DRAFT) if self.num_drafted else "none"

    def check(self) -> None:
        """Refuse a draft length of no draft.

        Raises:
            InvalidRequestError: With the remedy.
        """
        if self.gamma is not None:
            check_gamma(self.gamma)
        if self.draft == "none" and self.gamma:
            raise InvalidRequestError(
                f"gamma must be 0 with --draft none, which drafts nothing, got {self.gamma}: "
                "drop one of the two"
            )
        if self.branches is not None:
            check_branches(self.branches)
        if self.draft == "none" and self.branches is not None:
            raise InvalidRequestError(
                f"branches={self.branches} needs a draft, and there is none: drop one of the two"
            )

    def free_by_default(self) -> "ModelOptions":
        """The same, drafted for free on a CPU unless a draft was named.

        Trees are what makes that draft better than prompt lookup, and no other device checks them
        as fast as chains.

        Raises:
            ModelNotFoundError: If there is no such target, which is told before torch is imported.
        """
        from draftsmith.models.reference import resolve

        if self.draft is not None:
            return self
        resolve(self.target)
        return self.by_default("free") if self.runtime.is_on_cpu else self

    def by_default(self, draft: str) -> "ModelOptions":
        """The same, drafted so as far as it pays, unless a draft was named."""
        if self.draft is not None:
            return self
        return replace(self, draft=draft, gamma="auto" if self.gamma is None else self.gamma)

    def without_default_draft(self) -> "ModelOptions":
        """The same, plain unless a draft was asked for."""
        return self if self.draft is not None else replace(self, draft="none", gamma=None)

    def load(self, memory: MemoryOptions = _EACH_FOR_ITSELF, max_batch_size: int = 16) -> "Engine":
        """Load the engine, showing how a fetch gets on."""
        self.check()
        draft = self.drafted_by
        gamma = self.gamma if self.draft == "none" else self.num_drafted
        draft = None if draft == "none" else draft
        branches = None if draft is None else self.branches
        return self.runtime.load_target(self.target, draft, gamma, memory, max_batch_size, branches)


DEFAULT_MODELS = ModelOptions()
