"""Rules that look at the prefix, beside the logits processors of transformers, token by token."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from dataclasses import replace
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from transformers.generation import logits_process as theirs

from draftsmith.core.demands import Demands
from draftsmith.core.laws import History, SamplingLaw
from draftsmith.core.params import SamplingParams

VOCAB = 6
EOS = 5
token_ids = st.integers(0, VOCAB - 1)
quarters = st.integers(-12, 12).map(lambda value: value / 4)


def ids(*tokens: int) -> Tensor:
    return torch.tensor(tokens, dtype=torch.long)


def processors(options: dict[str, Any], source: list[int], num_prompt: int) -> Any:
    """What `transformers` would build (generation/utils.py, `_get_logits_processor`, 5.24)."""
    made: list[Any] = []
    seen: Any = torch.tensor([source])
    get = options.get
    if get("sequence_bias"):
        pairs = [[list(word), bias] for word, bias in options["sequence_bias"].items()]
        made.append(theirs.SequenceBiasLogitsProcessor(pairs))
    if get("encoder_repetition_penalty"):
        penalty = options["encoder_repetition_penalty"]
        made.append(theirs.EncoderRepetitionPenaltyLogitsProcessor(penalty, seen))
    if get("repetition_penalty"):
        made.append(theirs.RepetitionPenaltyLogitsProcessor(options["repetition_penalty"]))
    if get("no_repeat_ngram_size"):
        made.append(theirs.NoRepeatNGramLogitsProcessor(options["no_repeat_ngram_size"]))
    if get("encoder_no_repeat_ngram_size"):
        size = options["encoder_no_repeat_ngram_size"]
        made.append(theirs.EncoderNoRepeatNGramLogitsProcessor(size, seen))
    if get("bad_words"):
        made.append(theirs.NoBadWordsLogitsProcessor([list(word) for word in options["bad_words"]]))
    if get("min_tokens"):
        least = options["min_tokens"]
        made.append(theirs.MinNewTokensLengthLogitsProcessor(num_prompt, least, EOS))
    if get("forced_bos_token_id") is not None:
        made.append(theirs.ForcedBOSTokenLogitsProcessor(options["forced_bos_token_id"]))
    if get("forced_eos_token_id") is not None:
        longest = num_prompt + options["max_tokens"]
        made.append(theirs.ForcedEOSTokenLogitsProcessor(longest, options["forced_eos_token_id"]))
    if get("exponential_decay_length_penalty"):
        decay = options["exponential_decay_length_penalty"]
        made.append(theirs.ExponentialDecayLengthPenalty(decay, EOS, num_prompt))
    if get("suppress_token_ids"):
        made.append(theirs.SuppressTokensLogitsProcessor(list(options["suppress_token_ids"])))
    if get("begin_suppress_token_ids"):
        is_forced = get("forced_bos_token_id") is not None and num_prompt == 1
        made.append(
            theirs.SuppressTokensAtBeginLogitsProcessor(
                list(options["begin_suppress_token_ids"]), num_prompt + is_forced
            )
        )
    return theirs.LogitsProcessorList(made)


@st.composite
def prefix_options(draw: st.DrawFn) -> dict[str, Any]:
    """Every rule that looks at the prefix, off in about half of the examples."""
    some_ids = st.lists(token_ids, min_size=1, max_size=2, unique=True).map(tuple)
    words = st.lists(token_ids, min_size=1, max_size=3).map(tuple)
    choices: dict[str, st.SearchStrategy[Any]] = {
        "sequence_bias": st.dictionaries(words, quarters, min_size=1, max_size=3),
        "encoder_repetition_penalty": st.sampled_from([0.5, 2.0]),
        "repetition_penalty": st.sampled_from([0.5, 2.0]),
        "no_repeat_ngram_size": st.integers(1, 4),
        "encoder_no_repeat_ngram_size": st.integers(1, 4),
        "bad_words": st.lists(words, min_size=1, max_size=3, unique=True),
        "min_tokens": st.integers(1, 6),
        "forced_bos_token_id": token_ids,
        "forced_eos_token_id": token_ids,
        "exponential_decay_length_penalty": st.tuples(
            st.integers(0, 4), st.sampled_from([0.5, 2.0])
        ),
        "suppress_token_ids": some_ids,
        "begin_suppress_token_ids": some_ids,
    }
    chosen = {name: draw(values) for name, values in choices.items() if draw(st.booleans())}
    return chosen | {"max_tokens": draw(st.integers(7, 9))}


@settings(max_examples=120, deadline=None)
@given(
    options=prefix_options(),
    prompt=st.lists(token_ids, min_size=1, max_size=5),
    has_encoder=st.booleans(),
    source=st.lists(token_ids, min_size=1, max_size=6),
    output=st.lists(token_ids, max_size=4),
    drafted=st.lists(token_ids, max_size=3),
    data=st.data(),
)
def test_every_rule_of_the_prefix_is_transformers_own_at_every_drafted_position(
    options: dict[str, Any],
    prompt: list[int],
    has_encoder: bool,
    source: list[int],
    output: list[int],
    drafted: list[int],
    data: st.DataObject,
) -> None:
    """As a request's own fields, and as the demands of a model's files; any number of rows."""
    prompt, source = (prompt[:1], source) if has_encoder else (prompt, prompt)
    line = st.lists(quarters, min_size=VOCAB, max_size=VOCAB)
    table = data.draw(st.lists(line, min_size=len(drafted) + 1, max_size=len(drafted) + 1))
    logits, text = torch.tensor(table), [*prompt, *output, *drafted]
    rules = processors(options, source, len(prompt))
    first = len(prompt) + len(output)
    expected = torch.cat(
        [
            rules(torch.tensor([text[: first + row]]), logits[row : row + 1].clone())
            for row in range(len(table))
        ]
    )
    params = SamplingParams.from_options(**options)
    asked = SamplingLaw(params, (EOS,), source=tuple(source))
    demanded = SamplingLaw(
        SamplingParams(max_tokens=options["max_tokens"]),
        (EOS,),
        params.over(),
        tuple(source),
    )
    history = History(ids(*prompt), ids(*output))
    for law in (asked, demanded):
        found = law.adjusted(logits, history, ids(*drafted))
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)
        assert torch.equal(logits, torch.tensor(table)), "the input was written to"
        tail = law.adjusted(logits[1:], history, ids(*drafted)) if drafted else found[1:]
        assert torch.equal(tail, found[1:])


# --- a request's own value in the place of the model's ---------------------------------------

MODEL = Demands(
    repetition_penalty=1.5,
    no_repeat_ngram_size=2,
    suppress_token_ids=(3,),
    bad_words=((1, 2),),
    forced_bos_token_id=4,
    forced_eos_token_id=(5,),
    exponential_decay_length_penalty=(2, 1.5),
    min_tokens=3,
    min_length=7,
    stop=("x",),
)


def test_what_a_request_leaves_open_is_the_models() -> None:
    assert SamplingParams(temperature=0.7, top_p=0.9).over(MODEL) == MODEL


def test_every_demand_can_be_lifted_by_a_request() -> None:
    lifted = SamplingParams(
        repetition_penalty=1.0,
        no_repeat_ngram_size=0,
        suppress_token_ids=(),
        bad_words=(),
        forced_bos_token_id=-1,
        forced_eos_token_id=-1,
        exponential_decay_length_penalty=(0, 1.0),
        min_tokens=0,
        stop=(),
    ).over(MODEL)
    assert replace(lifted, exponential_decay_length_penalty=None).is_idle


def test_a_draft_obeys_the_same_rules_as_the_target() -> None:
    params = SamplingParams(no_repeat_ngram_size=2, draft_temperature=0.5)
    assert params.for_draft().over(MODEL) == params.over(MODEL)
    assert params.for_draft().temperature == 0.5
