"""Prompts that `transformers` itself has read: its keys and values become rows of our cache.

Pictures, embeddings, a cache of an earlier turn and encoder states are inputs of a prompt only.
So `transformers`' own prefill reads them, whatever the model makes of them; what it leaves in the
cache is copied, without the columns of padding, and text goes on from there as any text does.
"""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer, DynamicSlidingWindowLayer

from draftsmith.errors import InvalidRequestError
from draftsmith.models.contract import Cache, LanguageModel, Rows
from draftsmith.models.hf.causal import CausalModel
from draftsmith.models.hf.ragged_cache import RaggedCache
from draftsmith.models.hf.seq2seq import EncoderDecoderModel

__all__ = [
    "EncodedModel",
    "ReadModel",
    "ReadPrompt",
    "new_cache",
    "read_prompts",
    "takes_prompts",
    "takes_sources",
    "why_not_read",
]

KeysAndValues = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class ReadPrompt:
    """What `transformers`' pass over one prompt has left."""

    layers: Sequence[KeysAndValues]
    """Of each layer, `[heads, columns, dim]`, padding left out."""
    logits: Float[Tensor, " vocab"]
    """After the last column."""

    @property
    def num_columns(self) -> int:
        """Tokens, pictures' and embeddings' places among them."""
        return self.layers[0][0].shape[-2]


def takes_prompts(model: LanguageModel) -> bool:
    """Whether `ReadModel` can give its cache what `transformers` has read."""
    return isinstance(model, CausalModel)


def takes_sources(model: LanguageModel) -> bool:
    """Whether `EncodedModel` can give it what an encoder has made."""
    return isinstance(model, EncoderDecoderModel)


def new_cache(model: Any) -> Any:
    """An empty cache of `transformers` that `read_prompts` can take from."""
    return DynamicCache(config=model.config.get_text_config(decoder=True))


def why_not_read(cache: Any) -> str:
    """Why a cache cannot be taken from; empty if it can."""
    if type(cache) is not DynamicCache or getattr(cache, "offloading", False):
        return f"a {type(cache).__name__}"
    odd = {type(layer) for layer in cache.layers} - {DynamicLayer, DynamicSlidingWindowLayer}
    if odd:
        return f"a cache with a {odd.pop().__name__}"
    lengths = {cast(Any, layer).get_seq_length() for layer in cache.layers}
    return "" if len(lengths) < 2 else f"a cache with layers of {sorted(lengths)} tokens"


def read_prompts(
    model: Any,
    input_ids: Tensor,
    config: Any,
    cache: Any,
    model_kwargs: dict[str, Any],
    mask: Bool[Tensor, "batch columns"] | None,
) -> tuple[list[ReadPrompt], Any]:
    """Let `transformers` read a batch of prompts into `cache`, and take what it leaves.

    Args:
        model: An object of `transformers`.
        input_ids: Prompts, padded on the left; no columns where there are embeddings only.
        config: Its generation config.
        cache: Named in `model_kwargs`; empty, or filled by an earlier turn.
        model_kwargs: Everything else that its `generate` has prepared.
        mask: The columns of the cache, once read, that are no padding; None is all.

    Returns:
        One for each row, and the model's output.

    Raises:
        InvalidRequestError: If what it leaves is no plain cache.
    """
    output = model._prefill(input_ids, config, model_kwargs)
    reason = why_not_read(cache)
    if reason:
        raise InvalidRequestError(f"{model.config.model_type} reads such a prompt into {reason}")
    num_columns = cache.get_seq_length()
    keep = torch.ones(len(output.logits), num_columns).bool() if mask is None else mask.cpu()
    layers = [
        (_whole(layer.keys, num_columns), _whole(layer.values, num_columns))
        for layer in cache.layers
    ]
    prompts = [
        ReadPrompt([(k[row][:, kept], v[row][:, kept]) for k, v in layers], logits)
        for row, (kept, logits) in enumerate(zip(keep, output.logits[:, -1], strict=True))
    ]
    return prompts, output


def _whole(states: Tensor, num_columns: int) -> Tensor:
    """Zeros for what a sliding window has dropped: no token after it will look there."""
    return torch.nn.functional.pad(states, (0, 0, num_columns - states.shape[-2], 0))


class _ReadCache(Cache):
    """Rows of a ragged cache that begin as the prompts in their order.

    A row's length is in tokens that the engine knows, which may be fewer than its columns.
    """

    def __init__(self, inner: RaggedCache, prompts: Sequence[ReadPrompt]) -> None:
        self.inner = inner
        self._prompts = prompts
        self._num_opened = 0
        self.offsets: dict[int, int] = {}
        self.first_logits: dict[int, Tensor] = {}
        """Of rows that nothing was fed to yet: they follow the prompt's last token."""
        self._numbers: dict[int, int] = {}
        self._gone: dict[int, list[KeysAndValues]] = {}

    def add(self) -> int:
        """Open a row for the next prompt."""
        row = self.inner.add()
        self._numbers[row] = self._num_opened
        self._num_opened += 1
        return row

    @torch.inference_mode()
    def begin(self, row: int, num_tokens: int, device: torch.device) -> None:
        """Give a row what was read of its prompt, of which the engine knows so many tokens."""
        prompt = self._prompts[self._numbers[row]]
        self.inner.layout.begin([row], [0], prompt.num_columns, device)
        for index, (keys, values) in enumerate(prompt.layers):
            self.inner.for_model.update(keys[None], values[None], index)
        self.inner.lost()  # noted for the tokens that come after
        self.inner.append(row, prompt.num_columns)
        self.offsets[row] = prompt.num_columns - num_tokens
        self.first_logits[row] = prompt.logits

    def remove(self, row: int) -> None:
        """Close a row, and keep what it held of its output."""
        self._gone[self._numbers[row]] = self._output(row)
        self.inner.remove(row)
        self.first_logits.pop(row, None)
        del self._numbers[row], self.offsets[row]

    def length(self, row: int) -> int:
        """Tokens that the row holds, its prompt's last one only once it was fed."""
        is_unfed = row in self.first_logits
        return self.inner.length(row) - self.offsets[row] - int(is_unfed)

    def rollback(self, row: int, length: int) -> None:
        """Forget all but the first `length` tokens of a row."""
        if row not in self.first_logits:
            self.inner.rollback(row, length + self.offsets[row])

    def outputs(self) -> list[list[KeysAndValues]]:
        """Keys and values behind each prompt, in order, rejected tokens at the end among them."""
        live = {number: self._output(row) for row, number in self._numbers.items()}
        return [both for _, both in sorted((self._gone | live).items())]

    @torch.inference_mode()
    def _output(self, row: int) -> list[KeysAndValues]:
        prompt, held = self._prompts[self._numbers[row]], self.inner.length(row)
        device = prompt.logits.device
        self.inner.layout.begin([row], [held], 0, device)
        parts: list[KeysAndValues] = []
        for index, (keys, values) in enumerate(prompt.layers):
            # Nothing is appended: an update answers with all that the row holds.
            all_of = self.inner.for_model.update(keys[None, :, :0], values[None, :, :0], index)
            k, v = (states[0, :, prompt.num_columns :].clone() for states in all_of)
            parts.append((k, v))
        return parts


class ReadModel(LanguageModel):
    """A decoder-only model whose prompts were read beforehand; rows open in their order.

    The order is all that ties a row to its prompt: a model hears of rows, never of sequences, and
    two prompts with the same tokens may have been read differently. It holds as one engine is made
    for one call: it admits sequences in the order in which they came. An engine that opens its
    caches again after an interrupt would open the rows of the texts that are left: none is kept.

    Args:
        inner: The model behind our contract.
        prompts: What was read, in the order in which rows will be opened.
    """

    def __init__(self, inner: LanguageModel, prompts: Sequence[ReadPrompt]) -> None:
        self._inner = inner
        self._prompts = prompts
        self._cache: _ReadCache | None = None
        self.traits = inner.traits
        self.device = inner.device

    def open_cache(self) -> _ReadCache:
        """An empty cache, for the prompts."""
        inner = self._inner.open_cache()
        assert isinstance(inner, RaggedCache)
        self._cache = _ReadCache(inner, self._prompts)
        return self._cache

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them.

        A prompt's last token was read with its prompt: what follows it is known.
        """
        assert isinstance(cache, _ReadCache)
        assert batch.parents is None
        known = [cache.first_logits.pop(row, None) for row in batch.rows]
        feeds = [
            tokens if logits is None else tokens[1:]
            for tokens, logits in zip(batch.tokens, known, strict=True)
        ]
        live = [index for index, feed in enumerate(feeds) if feed]
        parts: Tensor | None = None
        if live:
            rows = Rows([batch.rows[i] for i in live], [feeds[i] for i in live])
            parts = self._inner.forward(cache.inner, rows)
        if not any(logits is not None for logits in known):
            assert parts is not None
            return parts
        return _joined(batch.width, known, live, parts)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        assert isinstance(cache, _ReadCache)
        assert row not in cache.first_logits
        self._inner.extend(cache.inner, row, tokens)

    def prefill(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Give a row its prompt; `tokens` are those of it that the engine knows, but the last."""
        assert isinstance(cache, _ReadCache)
        cache.begin(row, len(tokens) + 1, self.device)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Never called: there is no encoder."""
        raise AssertionError("a decoder-only model has no encoder")

    @torch.no_grad()
    def write_back(self, cache: Any, num_output: Sequence[int]) -> None:
        """Append what was generated to a cache of `transformers`, as its own `generate` does.

        Args:
            cache: The one that the prompts were read into.
            num_output: Output tokens of each row; the last one was never fed.
        """
        assert self._cache is not None
        width = max(num_output) - 1
        rows = self._cache.outputs()
        for index, layer in enumerate(cache.layers if width else ()):
            keys, values = (
                torch.stack(
                    [
                        _cut(row[index][part], count - 1, width)
                        for row, count in zip(rows, num_output, strict=True)
                    ]
                )
                for part in (0, 1)
            )
            layer.update(keys, values)


def _cut(states: Tensor, length: int, width: int) -> Tensor:
    """The first so many columns, and zeros up to the width."""
    return torch.nn.functional.pad(states[:, :length], (0, 0, 0, width - length))


def _joined(
    width: int, known: Sequence[Tensor | None], live: Sequence[int], parts: Tensor | None
) -> Float[Tensor, "batch rows vocab"]:
    """Logits in the batch's order, those known before a pass in front."""
    first = next(logits for logits in known if logits is not None)
    joined = first.new_zeros(len(known), width, first.shape[-1])
    for index, logits in enumerate(known):
        if logits is not None:
            joined[index, 0] = logits
    for part, index in enumerate(live):
        assert parts is not None
        start = int(known[index] is not None)
        count = min(width - start, parts.shape[1])
        joined[index, start : start + count] = parts[part, :count]
    return joined


class EncodedModel(LanguageModel):
    """An encoder-decoder whose sources were encoded beforehand; rows open in their order.

    For the reason that `ReadModel` gives; ids cannot tell states apart that were made of
    embeddings.

    Args:
        inner: The model behind our contract.
        states: The encoder's output for each row, `[source, hidden]`, padding left out.
    """

    def __init__(self, inner: LanguageModel, states: Sequence[Tensor]) -> None:
        assert isinstance(inner, EncoderDecoderModel)
        self._inner = inner
        self._states = list(states)
        self.traits = inner.traits
        self.device = inner.device

    def open_cache(self) -> Cache:
        """The model's."""
        self._waiting = list(self._states)
        return self._inner.open_cache()

    def forward(self, cache: Cache, batch: Rows) -> Float[Tensor, "batch rows vocab"]:
        """Append the tokens to their rows; return the logits after each of them."""
        return self._inner.forward(cache, batch)

    def extend(self, cache: Cache, row: int, tokens: Sequence[int]) -> None:
        """Append tokens to one row, without logits."""
        self._inner.extend(cache, row, tokens)

    def encode(self, cache: Cache, row: int, source: Sequence[int]) -> None:
        """Give a row its states; `source` was encoded."""
        self._inner.hold_source(cache, row, self._waiting.pop(0))
