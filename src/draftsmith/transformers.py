"""For users of `transformers`: their `model.generate`, their argument names, our rounds.

```python
model.generate(**inputs, custom_generate=draftsmith.transformers.generate,
               assistant_model=draft, num_assistant_tokens=5)
```

Batches work, of any padding on the left, for decoder-only and encoder-decoder models. Logits
processors and stopping criteria are `transformers`' own, asked with the very prefix that holds at
each drafted position, so every sampling option keeps its meaning.
"""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from draftsmith.core.laws import History, best_tokens, point_masses
from draftsmith.core.params import Gamma, SamplingParams, check_gamma
from draftsmith.core.verify import verifier_named
from draftsmith.drafters import Drafter, ModelDrafter, PromptLookupDrafter
from draftsmith.engine.engine import Engine
from draftsmith.engine.generation import Generation, Job
from draftsmith.engine.sequence import Limits
from draftsmith.engine.sequence import Sequence as Sample
from draftsmith.engine.text import OutputText
from draftsmith.errors import InvalidRequestError, NumericsError
from draftsmith.models.contract import LanguageModel
from draftsmith.models.hf.load import wrap_model, wrap_tokenizer
from draftsmith.models.hf.output import generate_output

__all__ = ["ProcessorLaw", "generate"]

_DEFAULT_GAMMA = 4
_STATEFUL = {
    "UnbatchedClassifierFreeGuidanceLogitsProcessor",
    "SynthIDTextWatermarkLogitsProcessor",
}
"""Processors whose state a rejected draft would change."""


@dataclass(frozen=True)
class ProcessorLaw:
    """The law that `transformers`' logits processors give to one row of a batch.

    Some processors know a row by its number, or count the columns of the padded prompt. So they
    are shown a batch of the shape that they were made for, with this row in every place.
    """

    processors: Callable[[Tensor, Tensor], Tensor]
    is_greedy: bool
    prompt: Int[Tensor, " padded"]
    row: int
    batch: int

    def __call__(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        """The laws of consecutive positions; the last row follows all of `drafted`."""
        scores = self._processed(logits, history, drafted)
        best = scores.amax(-1, keepdim=True)
        law = point_masses(scores) if self.is_greedy else scores.softmax(-1)
        return torch.where(best.isfinite(), law, 0.0)

    def points(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Int[Tensor, " rows"]:
        """Where the point masses of a greedy law stand; `NO_TOKEN` for a law without mass."""
        return best_tokens(self._processed(logits, history, drafted))

    def _processed(
        self,
        logits: Float[Tensor, "rows vocab"],
        history: History,
        drafted: Int[Tensor, " drafts"],
    ) -> Float[Tensor, "rows vocab"]:
        prefix = torch.cat([self.prompt, history.output, drafted])
        rows = len(logits)
        return torch.stack(
            [
                self._scores(prefix[: len(prefix) - (rows - 1 - index)], line)
                for index, line in enumerate(logits.float())
            ]
        )

    def _scores(
        self, prefix: Int[Tensor, " columns"], logits: Float[Tensor, " vocab"]
    ) -> Float[Tensor, " vocab"]:
        ids, lines = prefix.expand(self.batch, -1), logits.repeat(self.batch, 1)
        return self.processors(ids, lines)[self.row]


def generate(
    model: Any,
    input_ids: Tensor,
    logits_processor: Any = None,
    stopping_criteria: Any = None,
    generation_config: Any = None,
    *,
    assistant_model: Any = None,
    tokenizer: Any = None,
    assistant_tokenizer: Any = None,
    streamer: Any = None,
    inputs_tensor: Tensor | None = None,
    draft: Drafter | None = None,
    verifier: str | None = None,
    seed: int | None = None,
    **model_kwargs: Any,
) -> Any:
    """A `custom_generate` for `model.generate`; not to be called by itself.

    Args:
        model: The target; `transformers` passes it, and the next four.
        input_ids: Prompts, padded on the left.
        logits_processor: The target's sampling transform.
        stopping_criteria: Asked after every token.
        generation_config: `num_assistant_tokens` is gamma (4 if unset), and
            `prompt_lookup_num_tokens` is gamma for prompt lookup.
        assistant_model: A draft model of the same tokenizer.
        tokenizer: The target's, to be checked against the next.
        assistant_tokenizer: The draft's.
        streamer: Gets token ids as they become certain; for one prompt.
        inputs_tensor: The encoder's tokens; `transformers` passes it.
        draft: A drafter of ours, in the place of `assistant_model`.
        verifier: `rejection`, `block` or `coupled`.
        seed: Fixes the text, with speculation on or off. Without it, torch's global generator
            seeds the run.
        **model_kwargs: `attention_mask` and what else `transformers` prepares.

    Returns:
        Prompt and output ids, as `transformers` returns them.

    Raises:
        InvalidRequestError: If an option cannot be honoured exactly.
    """
    caller = _arguments_of_generate()
    assistant_model = (
        assistant_model if assistant_model is not None else caller.get("assistant_model")
    )
    streamer = streamer if streamer is not None else caller.get("streamer")
    _check_options(generation_config, logits_processor, len(input_ids), streamer)
    target = wrap_model(model)
    gamma = _gamma(generation_config)
    drafter = draft or _drafter(assistant_model, generation_config)
    tokenizers = [
        wrap_tokenizer(one) if one is not None else None for one in (tokenizer, assistant_tokenizer)
    ]
    # The engine refuses a pair that cannot work.
    engine = Engine(target, tokenizers[0], drafter, gamma=gamma, draft_tokenizer=tokenizers[1])
    masks = model_kwargs.get("attention_mask")
    prompts, sources = _unpadded(target, input_ids, inputs_tensor, masks)
    params = SamplingParams(
        temperature=1.0 if generation_config.do_sample else 0.0, verifier=verifier, seed=seed
    )
    rules = _Rules(logits_processor, stopping_criteria, generation_config, params)
    pairs = enumerate(zip(prompts, sources, strict=True))
    samples = [_sample(target, rules, input_ids, row, *pair) for row, pair in pairs]
    _run(engine, samples, streamer)
    sequences = _padded(samples, input_ids, generation_config)
    if generation_config.return_dict_in_generate:
        return generate_output(sequences, is_encoder_decoder=target.traits.is_encoder_decoder)
    return sequences


def _arguments_of_generate() -> dict[str, Any]:
    """What the user passed to `model.generate`.

    `transformers` keeps `assistant_model` and `streamer` from a callable `custom_generate`
    (generation/utils.py, `_extract_generation_mode_kwargs`), so they are read where they are.
    """
    frame = inspect.currentframe()
    while frame is not None and "custom_generate" not in frame.f_locals:
        frame = frame.f_back
    names = ("assistant_model", "streamer")
    return {} if frame is None else {name: frame.f_locals.get(name) for name in names}


def _check_options(config: Any, processors: Any, batch: int, streamer: Any) -> None:
    """Refuse what cannot be honoured exactly."""
    if (config.num_beams or 1) > 1:
        raise InvalidRequestError(f"num_beams must be 1, got {config.num_beams}: no beam search")
    for name in (
        "output_scores",
        "output_logits",
        "output_attentions",
        "output_hidden_states",
        "use_mtp",
        "assistant_early_exit",
        "penalty_alpha",
        "dola_layers",
    ):
        if getattr(config, name, None):
            raise InvalidRequestError(f"{name} cannot be honoured here: leave it out")
    for processor in processors or ():
        kind = type(processor).__name__
        if kind in _STATEFUL:
            raise InvalidRequestError(f"{kind} cannot be honoured here: leave its option out")
    if streamer is not None and batch > 1:
        raise InvalidRequestError(f"a streamer takes one prompt, got {batch}")


def _gamma(config: Any) -> Gamma:
    for name in ("prompt_lookup_num_tokens", "num_assistant_tokens"):
        if getattr(config, name, None) is not None:
            return check_gamma(getattr(config, name))
    return _DEFAULT_GAMMA


def _drafter(assistant_model: Any, config: Any) -> Drafter | None:
    if config.prompt_lookup_num_tokens is not None:
        longest = getattr(config, "max_matching_ngram_size", None) or 2
        return PromptLookupDrafter(min_ngram=1, max_ngram=longest)
    return None if assistant_model is None else ModelDrafter(wrap_model(assistant_model))


def _unpadded(
    target: LanguageModel, input_ids: Tensor, inputs_tensor: Tensor | None, mask: Tensor | None
) -> tuple[list[list[int]], list[list[int]]]:
    """Prompts and sources as lists, without padding."""
    if not target.traits.is_encoder_decoder:
        return _rows(input_ids, mask), [[] for _ in input_ids]
    if inputs_tensor is None or inputs_tensor.is_floating_point() or inputs_tensor.ndim != 2:
        raise InvalidRequestError("an encoder-decoder needs token ids as input")
    # num_return_sequences repeats the decoder's ids and the mask, but not the encoder's ids.
    inputs_tensor = inputs_tensor.repeat_interleave(len(input_ids) // len(inputs_tensor), dim=0)
    if mask is not None and bool((mask.diff(dim=1) > 0).any()):
        raise InvalidRequestError("pad an encoder's inputs on the right (padding_side='right')")
    return input_ids.tolist(), _rows(inputs_tensor, mask)


def _rows(ids: Tensor, mask: Tensor | None) -> list[list[int]]:
    if mask is None:
        return ids.tolist()
    if mask.shape != ids.shape:
        raise InvalidRequestError(
            f"attention_mask has shape {tuple(mask.shape)}, ids {tuple(ids.shape)}"
        )
    return [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]


@dataclass(frozen=True)
class _Rules:
    """What holds for every row of a call."""

    processors: Any
    criteria: Any
    config: Any
    params: SamplingParams

    def seed(self) -> int:
        """The request's, or a fresh one of torch's global generator, as users of it expect."""
        return int(torch.randint(2**62, ())) if self.params.seed is None else self.params.seed

    def is_over(
        self, input_ids: Tensor, row: int, num_prompt: int
    ) -> Callable[[Sequence[int]], bool]:
        """Ask `transformers`' stopping criteria with the tokens as it would have them."""

        def is_over(tokens: Sequence[int]) -> bool:
            output = torch.tensor(list(tokens[num_prompt:]), device=input_ids.device)
            ids = torch.cat([input_ids[row], output]).expand(len(input_ids), -1)
            answer = torch.as_tensor(self.criteria(ids, None))
            return bool(answer[row] if answer.ndim else answer)

        return is_over


def _sample(
    target: LanguageModel,
    rules: _Rules,
    input_ids: Tensor,
    row: int,
    prompt: list[int],
    source: list[int],
) -> Sample:
    if not prompt:
        raise InvalidRequestError(f"prompt {row} is empty: give at least one token")
    params, padded = rules.params, input_ids[row].to(target.device)
    limits = Limits(
        max_tokens=rules.config.max_length - len(padded),
        context_length=target.traits.context_length,
        stop_token_ids=frozenset(),
        is_over=rules.is_over(input_ids, row, len(prompt)),
    )
    law = ProcessorLaw(rules.processors, params.is_greedy, padded, row, len(input_ids))
    return Sample(
        prompt=prompt,
        source=source,
        params=params,
        law=law,
        draft_law=law,
        verifier=verifier_named(params.verifier_name),
        seed=rules.seed(),
        sample_index=row % (rules.config.num_return_sequences or 1),
        limits=limits,
        output=OutputText(None, ()),
        device=target.device,
    )


def _run(engine: Engine, samples: list[Sample], streamer: Any) -> None:
    jobs = [Job(tuple(sample.prompt), [sample]) for sample in samples]
    run = Generation(engine.target, engine.draft, engine.controller, len(samples), jobs)
    for event in run:
        if streamer is not None:
            for token in event.tokens:
                streamer.put(torch.tensor([token.token_id]))
    if streamer is not None:
        streamer.end()
    for row, sample in enumerate(samples):
        if sample.error is not None:
            raise NumericsError(f"prompt {row}: {sample.error}")


def _padded(samples: list[Sample], input_ids: Tensor, config: Any) -> Tensor:
    """Prompts as they came, outputs padded on the right."""
    width = max(sample.num_output for sample in samples)
    pad = config._pad_token_tensor
    fill = 0 if pad is None else int(pad)
    outputs = [[*s.tokens[len(s.prompt) :], *[fill] * (width - s.num_output)] for s in samples]
    return torch.cat([input_ids, torch.tensor(outputs, device=input_ids.device)], dim=1)
