"""`transformers`' own assisted generation: greedy texts, the law of samples, known faults."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from draftsmith.audit.assisted_faults import faults_record
from draftsmith.audit.attribution import Attributor, Difference
from draftsmith.audit.law import Power
from draftsmith.audit.record import Certificate, Grid, Record, judged
from draftsmith.audit.significance import LawTest, detectable_distance, holm, judge_law
from draftsmith.audit.subject import encode_prompts
from draftsmith.audit.widths import has_checked, pass_widths
from draftsmith.core.params import SamplingParams
from draftsmith.models.contract import LanguageModel
from draftsmith.models.load import Dtype, ModelSettings, load_adapted_model, load_tokenizer
from draftsmith.models.tokenizer import Message, check_same_vocabulary

__all__ = ["AssistedPair", "certify_assisted", "load_pair"]

_DEPTH, _TOP_K, _TEMPERATURE = 2, 3, 0.8
_NUM_CELLS = _TOP_K**_DEPTH
_LONGEST = 32
"""Tokens of the prompt that is sampled after."""
_LOOKUP_TOKENS = 4


@dataclass(frozen=True)
class AssistedPair:
    """A target and what assists it, as `transformers` loads them."""

    target: LanguageModel
    """Our adapter, with the object of `transformers` inside."""
    assistant: Any
    """A model object; None is prompt lookup."""
    prompts: Sequence[Sequence[int]]
    checked: list[bool] = field(default_factory=list)
    """Of each assisted call so far, whether it checked any draft."""

    def generate(
        self, prompt: Sequence[int], options: dict[str, Any], *, is_assisted: bool
    ) -> list[int]:
        """New tokens of `model.generate`."""
        options = dict(options)
        model = self.raw
        ids = torch.tensor([list(prompt)], device=model.device)
        if is_assisted and self.assistant is not None:
            options["assistant_model"] = self.assistant
        elif is_assisted:
            options["prompt_lookup_num_tokens"] = _LOOKUP_TOKENS
        pad = model.generation_config.pad_token_id
        with pass_widths(model) if is_assisted else nullcontext([]) as widths:
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pad_token_id=0 if pad is None else pad,
                eos_token_id=None,
                **options,
            )[0].tolist()
        if is_assisted:
            num_read = 1 if model.config.is_encoder_decoder else len(prompt)
            self.checked.append(has_checked(widths, num_read))
        return output[1:] if model.config.is_encoder_decoder else output[len(prompt) :]

    @property
    def raw(self) -> Any:  # noqa: ANN401 - transformers' objects have no types that hold
        """The target's object."""
        return self.target.model  # type: ignore[attr-defined] # every adapter has one


def load_pair(
    target: str,
    draft: str,
    prompts: Sequence[str | Sequence[Message]],
    dtype: Dtype = "auto",
    device: str = "auto",
) -> AssistedPair:
    """Load a pair as `transformers` does.

    Args:
        target: A catalogue name, `org/name` on the Hub, a folder, or a `.gguf` file.
        draft: The same, or `prompt-lookup`.
        prompts: Texts or conversations.
        dtype: Of the weights; int8 and int4 are ours only.
        device: A torch device.

    Raises:
        DraftsmithError: If a model cannot be loaded, or the pair has two vocabularies.
    """
    tokenizer = load_tokenizer(target)
    if draft != "prompt-lookup":
        check_same_vocabulary(tokenizer, load_tokenizer(draft), target, draft)
    settings = ModelSettings(dtype, device)
    model = load_adapted_model(target, settings)
    assistant = None
    if draft != "prompt-lookup":
        assistant = load_adapted_model(draft, settings).model  # type: ignore[attr-defined] # as above
    return AssistedPair(model, assistant, encode_prompts(tokenizer, model, prompts))


class _Greedy(NamedTuple):
    """One prompt, plain and assisted."""

    plain: list[int]
    assisted: list[int]
    difference: Difference | None
    is_tested: bool
    """Whether a draft was checked."""


def certify_assisted(
    pair: AssistedPair,
    name: str,
    power: Power,
    *,
    max_tokens: int = 32,
    seed: int = 7,
    on_step: Callable[[str, int, int], None] | None = None,
) -> Certificate:
    """Test `model.generate(assistant_model=...)` of one pair.

    Args:
        pair: Models, and prompts to go on from.
        name: What the pair is called.
        power: What the statistical check must be able to see.
        max_tokens: Of greedy texts.
        seed: Of torch's global generator, which `transformers` draws from.
        on_step: Told of the progress.

    Raises:
        InvalidRequestError: If the samples asked for are too few.
    """
    num_samples = power.samples(_NUM_CELLS, 2)
    tell = on_step or _silent
    greedy: list[_Greedy] = []
    for done, prompt in enumerate(pair.prompts):
        tell("greedy texts", done, len(pair.prompts))
        greedy.append(_greedily(pair, done, prompt, max_tokens))
    prompt = max(pair.prompts, key=lambda one: _liveliness(pair, one))
    law = _sampled(pair, list(prompt)[-_LONGEST:], num_samples, seed, power, tell)
    return Certificate(name, [_greedy_record(greedy), law, faults_record()])


def _greedily(pair: AssistedPair, number: int, prompt: Sequence[int], max_tokens: int) -> _Greedy:
    options: dict[str, Any] = {"do_sample": False, "max_new_tokens": max_tokens}
    plain, assisted = (pair.generate(prompt, options, is_assisted=flag) for flag in (False, True))
    why = Attributor(pair.target, SamplingParams(max_tokens=max_tokens, ignore_eos=True))
    difference = why.explain(number, prompt, plain, assisted)
    return _Greedy(plain, assisted, difference, pair.checked[-1])


def _greedy_record(greedy: Sequence[_Greedy]) -> Record:
    differences = [one.difference for one in greedy if one.difference is not None]
    by_numerics = sum(difference.is_numerics for difference in differences)
    num_same, num_tokens = len(greedy) - len(differences), sum(len(one.plain) for one in greedy)
    num_idle = sum(not one.is_tested for one in greedy)
    rows = [[f"prompt {one.prompt}", str(one)] for one in differences]
    return Record(
        "assisted-equality",
        "Assisted greedy text",
        judged(is_failed=by_numerics < len(differences), is_tested=num_idle < len(greedy)),
        f"{num_same} of {len(greedy)} texts ({num_tokens} tokens) are plain generation's; "
        f"{by_numerics} differ by numerics (top-2 margin below the measured logit error), "
        f"{len(differences) - by_numerics} do not.",
        "Any greedy token that assistance changes in these texts.",
        {
            "num_texts": len(greedy),
            "num_idle": num_idle,
            "num_same": num_same,
            "num_tokens": num_tokens,
            "num_numerics": by_numerics,
            "differences": [
                one._asdict() | {"is_numerics": one.is_numerics} for one in differences
            ],
        },
        [Grid("Where texts part", ["prompt", "where and why"], rows)] if rows else [],
        untested=[f"nothing was drafted in {num_idle} of {len(greedy)} texts"] if num_idle else (),
    )


def _sampled(
    pair: AssistedPair,
    prompt: Sequence[int],
    num_samples: int,
    seed: int,
    power: Power,
    tell: Callable[[str, int, int], None],
) -> Record:
    law = _exact_law(pair, prompt)
    found: Counter[tuple[int, ...]] = Counter()
    # One token more, so that a draft of two can be checked in one round.
    options: dict[str, Any] = {
        "do_sample": True,
        "temperature": _TEMPERATURE,
        "top_k": _TOP_K,
        "top_p": 1.0,
        "max_new_tokens": _DEPTH + 1,
        "min_new_tokens": _DEPTH + 1,
    }
    torch.manual_seed(seed)
    before = len(pair.checked)
    for done in range(num_samples):
        tell("sampled tokens", done, num_samples)
        text = pair.generate(prompt, options, is_assisted=True)
        found[tuple(text[:_DEPTH])] += 1
    tests = [
        _judged(_shortened(found, length), _shortened(law, length))
        for length in range(1, _DEPTH + 1)
    ]
    return _law_record(tests, num_samples, sum(pair.checked[before:]), power)


def _law_record(
    tests: Sequence[LawTest], num_samples: int, num_drafted: int, power: Power
) -> Record:
    failed = holm([test.p_value for test in tests], power.rate)
    distance = detectable_distance(num_samples, _NUM_CELLS, power.rate / 2, power.power)
    names = ("first token", "first two tokens")
    rows = [
        [
            name,
            str(test.num_cells),
            f"{test.statistic:.1f}",
            f"{test.distance:.4f}",
            f"{test.p_value:.2g}",
            "fails" if fails else "holds",
        ]
        for name, test, fails in zip(names, tests, failed, strict=True)
    ]
    return Record(
        "assisted-law",
        "Law of assisted sampling",
        judged(is_failed=any(failed), is_tested=num_drafted > 0),
        f"In {num_samples} samples the first token is {tests[0].distance:.3f}, the first two are "
        f"{tests[1].distance:.3f} away (total variation) from the target's exact law.",
        f"A law that is {distance:.3f} or more away, with probability {power.power:g}; an exact "
        f"system fails with probability {power.rate:.1g} at most (bounds; Holm).",
        {
            "num_samples": num_samples,
            "num_drafted": num_drafted,
            "detectable_distance": distance,
            "tests": [
                {"of": name, **test._asdict(), "is_rejected": fails}
                for name, test, fails in zip(names, tests, failed, strict=True)
            ],
        },
        [Grid("Beside the exact law", ["of the", "texts", "G", "TV", "p at most", "law"], rows)],
        untested=() if num_drafted else ["nothing was drafted"],
    )


def _exact_law(pair: AssistedPair, prompt: Sequence[int]) -> dict[tuple[int, ...], float]:
    """The chain rule over plain passes of the target, with `transformers`' own cut-offs' meaning.

    Its top-k keeps ties; logits of a float model have none that matter.
    """
    law: dict[tuple[int, ...], float] = {(): 1.0}
    for _ in range(_DEPTH):
        longer: dict[tuple[int, ...], float] = {}
        for text, mass in law.items():
            row = _next_law(pair, prompt, text)
            for token in row.nonzero()[:, 0].tolist():
                longer[(*text, token)] = mass * float(row[token])
        law = longer
    return law


@torch.inference_mode()
def _next_law(pair: AssistedPair, prompt: Sequence[int], text: Sequence[int]) -> torch.Tensor:
    model = pair.raw
    if model.config.is_encoder_decoder:
        start = pair.target.traits.decoder_start_token_id
        source = torch.tensor([list(prompt)], device=model.device)
        decoder = torch.tensor([[start, *text]], device=model.device)
        logits = model(input_ids=source, decoder_input_ids=decoder).logits[0, -1]
    else:
        logits = model(torch.tensor([[*prompt, *text]], device=model.device)).logits[0, -1]
    scores = logits.double().cpu() / _TEMPERATURE
    threshold = scores.topk(_TOP_K).values[-1]
    return scores.masked_fill(scores < threshold, -torch.inf).softmax(-1)


def _liveliness(pair: AssistedPair, prompt: Sequence[int]) -> float:
    """How unsure the target is of the next token."""
    return 1.0 - float(_next_law(pair, list(prompt)[-_LONGEST:], ()).max())


def _shortened(counts: Mapping[tuple[int, ...], Any], length: int) -> dict[tuple[int, ...], Any]:
    """The same, of the first tokens only."""
    shorter: dict[tuple[int, ...], Any] = {}
    for text, value in counts.items():
        shorter[text[:length]] = shorter.get(text[:length], 0) + value
    return shorter


def _judged(found: dict[tuple[int, ...], Any], law: dict[tuple[int, ...], Any]) -> LawTest:
    cells = [*law, *(text for text in found if text not in law)]
    observed = torch.tensor([found.get(text, 0) for text in cells])
    masses = torch.tensor([law.get(text, 0.0) for text in cells], dtype=torch.float64)
    return judge_law(observed, masses)


def _silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""
