"""Our side of the CPU benchmark: models loaded once, requests timed as the peer times its own."""

import inspect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch

from draftsmith import Engine, PromptLookupDrafter, SamplingParams, load_engine
from draftsmith.drafters import Drafter
from draftsmith.models.contract import LanguageModel
from draftsmith.models.reference import local_path, resolve


@dataclass(frozen=True)
class OurConfig:
    """One way to run ours."""

    name: str
    draft: str | None = None
    """`model`, `prompt-lookup`, or None for plain decoding."""
    gamma: int = 0


@dataclass(frozen=True)
class OurCompletion:
    """One request."""

    token_ids: tuple[int, ...]
    text: str
    first_s: float
    """Until the first round's tokens: the prompt and one round."""
    num_first_tokens: int
    decode_s: float
    """From there to the last token."""
    wall_s: float
    num_drafted: int
    num_accepted: int
    num_rounds: int


class Ours:
    """A target, and the drafters that its configurations name.

    Args:
        target: A catalogue name or a file.
        draft: The draft model's; None where there is none.
        threads: Threads of every pass.
    """

    def __init__(self, target: str, draft: str | None, *, threads: int) -> None:
        options = _thread_option(threads)
        engine = load_engine(target, draft, **options, prefix_caching=False)
        self.model: LanguageModel = engine.target
        self.tokenizer = engine.tokenizer
        self._drafters: dict[str, Drafter] = {"prompt-lookup": PromptLookupDrafter()}
        if engine.draft is not None:
            self._drafters["model"] = engine.draft

    def encode(self, prompt: str | list[dict[str, str]]) -> list[int]:
        """Ids of a text or a conversation."""
        assert self.tokenizer is not None
        if isinstance(prompt, str):
            return self.tokenizer.encode(prompt)
        return self.tokenizer.encode_chat(prompt)

    def complete(
        self, ids: Sequence[int], config: OurConfig, params: SamplingParams
    ) -> OurCompletion:
        """Generate, and note when tokens came."""
        draft = self._drafters[config.draft] if config.draft else None
        engine = Engine(
            self.model,
            self.tokenizer,
            draft,
            gamma=config.gamma,
            max_batch_size=1,
            prefix_caching=False,
        )
        start = time.perf_counter()
        run = engine.start(list(ids), params)
        first, num_first = start, 0
        for event in run:
            if not num_first and event.tokens:
                first, num_first = time.perf_counter(), len(event.tokens)
        end = time.perf_counter()
        result = run.results()[0]
        counts = result.statistics
        return OurCompletion(
            token_ids=result.token_ids,
            text=result.text,
            first_s=first - start,
            num_first_tokens=num_first,
            decode_s=end - first,
            wall_s=end - start,
            num_drafted=counts.num_drafted,
            num_accepted=counts.num_accepted,
            num_rounds=counts.num_rounds,
        )


def our_configs(*, has_draft: bool) -> list[OurConfig]:
    """Plain, and both kinds of draft over several lengths."""
    lookups = [OurConfig(f"prompt lookup {g}", "prompt-lookup", g) for g in (3, 5, 7, 11, 15)]
    drafts = [OurConfig(f"draft {g}", "model", g) for g in (1, 2, 3, 4, 6)]
    return [OurConfig("plain"), *(drafts if has_draft else []), *lookups]


def gguf_path(name: str) -> Path:
    """The file of a catalogue model, which both systems read."""
    path = local_path(resolve(name))
    assert path is not None
    return path


def weight_bytes(model: object, path: Path) -> int:
    """Bytes of weights that a pass over one row reads.

    The model's own count, else the file's tensors less an embedding table that is only looked up.
    """
    own = getattr(model, "weight_bytes_per_pass", None)
    if own is not None:
        count: Any = own() if callable(own) else own
        return int(count)
    return file_weight_bytes(path)


def file_weight_bytes(path: Path) -> int:
    """Bytes of a file's tensors, less an embedding table that is only looked up."""
    tensors = {tensor.name: int(tensor.n_bytes) for tensor in gguf.GGUFReader(path).tensors}
    is_tied = "output.weight" not in tensors
    return sum(tensors.values()) - (0 if is_tied else tensors["token_embd.weight"])


def _thread_option(threads: int) -> dict[str, Any]:
    torch.set_num_threads(threads)
    has_option = "threads" in inspect.signature(load_engine).parameters
    return {"threads": threads} if has_option else {}
