"""Prompts in every shape: the same ids give the same text, and what could mean two is refused."""
# tensors' and transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

from typing import Any

import numpy as np
import pytest
import torch
from transformers import BatchEncoding

from draftsmith.api import generate
from draftsmith.engine.engine import Engine
from draftsmith.engine.requests.prompts import plain_prompts
from draftsmith.errors import InvalidRequestError
from tests import tiny
from tests.engine.kit import target, text_model, text_tokenizer

IDS = [5, 6, 7]
ONE: list[tuple[str, Any]] = [
    ("tuple", (5, 6, 7)),
    ("range", range(5, 8)),
    ("tensor", torch.tensor(IDS)),
    ("tensor of one row", torch.tensor([IDS])),
    ("int32 tensor", torch.tensor(IDS, dtype=torch.int32)),
    ("array", np.array(IDS)),
    ("array of one row", np.array([IDS])),
    ("numpy ids", list(np.array(IDS))),
    ("scalar tensors", list(torch.tensor(IDS))),
    ("mapping", {"input_ids": IDS}),
    ("mapping of one row", {"input_ids": [IDS], "attention_mask": [[1, 1, 1]]}),
    ("BatchEncoding", BatchEncoding({"input_ids": torch.tensor([IDS])})),
    ("padded left", {"input_ids": [[0, 0, *IDS]], "attention_mask": [[0, 0, 1, 1, 1]]}),
    (
        "padded right",
        {
            "input_ids": torch.tensor([[*IDS, 0]]),
            "attention_mask": torch.tensor([[1, 1, 1, 0]]),
            "token_type_ids": torch.tensor([[0, 0, 0, 0]]),
        },
    ),
]
SEVERAL: list[tuple[str, Any]] = [
    ("lists", [[5, 6, 7], [8, 9]]),
    ("tuples", ((5, 6, 7), (8, 9))),
    ("tensors", [torch.tensor(IDS), torch.tensor([8, 9])]),
    ("arrays", (np.array(IDS), np.array([[8, 9]]))),
    ("mappings", [{"input_ids": IDS}, {"input_ids": [[8, 9]]}]),
    (
        "mapping of two rows",
        {"input_ids": [[5, 6, 7], [0, 8, 9]], "attention_mask": [[1, 1, 1], [0, 1, 1]]},
    ),
    ("generator", (ids for ids in ([5, 6, 7], [8, 9]))),
]
REFUSED: list[tuple[Any, str]] = [
    (None, "the prompt is None: give text, token ids, or a list of messages"),
    (5, "the prompt is 5: give text"),
    (b"bytes", "the prompt is b'bytes': give text"),
    ({5, 6}, "the prompt is {5, 6}: give text"),
    ([], "prompts is empty: give at least one"),
    ([5, "six"], "holds 'six', which is no token id"),
    ([5, 6.0], "holds 6.0, which is no token id"),
    ([5, True], "holds True, which is no token id"),
    ([True, 5], "prompt 0 is True: give text"),
    (["text", None], "prompt 1 is None: give text"),
    ([["a", "b"]], "prompt 0 holds 'a', which is no token id"),
    (torch.tensor([0.5, 1.5]), "holds 0.5, which is no token id"),
    (torch.tensor([True]), "holds True, which is no token id"),
    (torch.tensor(5), "has 0 dimensions: give one row of ids, or rows"),
    (torch.zeros(1, 2, 3), "has 3 dimensions"),
    ([torch.zeros(2, 3, dtype=torch.long)], "prompt 0 has 2 rows: give each as its own prompt"),
    ({"role": "user", "content": "hi"}, "is a mapping of 'role', 'content': give a list of"),
    ([{"content": "hi"}], "has a message without 'role'"),
    ([{"role": "user"}], "has a message without 'content'"),
    ([{"role": "user", "content": "a"}, "b"], "holds 'b', which is no"),
    ({"input_ids": [[5, 6]], "pixel_values": 1}, "has 'pixel_values', which cannot be honoured"),
    ({"input_ids": [[5, 6]], "attention_mask": [[1]]}, "attention_mask of the prompt has another"),
    ({"input_ids": [[5, 6, 7]], "attention_mask": [[1, 0, 1]]}, "has a hole"),
    ({"input_ids": [[5, 6]], "attention_mask": [[1, 2]]}, "attention_mask of the prompt holds 2"),
    ({"input_ids": [[5, 6]], "token_type_ids": [[0, 1]]}, "token_type_ids of the prompt holds 1"),
    ({"input_ids": [[5.0]]}, "input_ids of the prompt holds 5.0"),
]


@pytest.mark.parametrize(("shape", "prompt"), ONE, ids=lambda value: str(value)[:20])
def test_one_prompt_is_its_ids_in_any_shape(shape: str, prompt: Any) -> None:
    assert plain_prompts(prompt) == ([IDS], True)
    [result] = Engine(target("llama")).generate(prompt, max_tokens=3)
    assert result.prompt_token_ids == tuple(IDS)
    assert all(type(token) is int for token in result.prompt_token_ids)


@pytest.mark.parametrize(("shape", "prompts"), SEVERAL, ids=lambda value: str(value)[:20])
def test_several_prompts_are_several_in_any_shape(shape: str, prompts: Any) -> None:
    assert plain_prompts(prompts) == ([[5, 6, 7], [8, 9]], False)


@pytest.mark.parametrize(("prompt", "said"), REFUSED, ids=str)
def test_what_is_no_prompt_is_refused_in_one_line(prompt: Any, said: str) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        Engine(target("llama")).generate(prompt)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_chat_templates_mapping_is_the_conversation_itself() -> None:
    tokenizer, turns = tiny.raw_tokenizer(), [{"role": "user", "content": "the fox"}]
    engine = Engine(text_model(), text_tokenizer())
    plain = engine.generate(turns, max_tokens=5)[0]
    ways: tuple[dict[str, Any], ...] = ({}, {"return_tensors": "pt"}, {"return_dict": False})
    for options in ways:
        prompt: Any = tokenizer.apply_chat_template(turns, add_generation_prompt=True, **options)
        found = engine.generate(prompt, max_tokens=5)[0]
        assert (found.prompt_token_ids, found.text) == (plain.prompt_token_ids, plain.text)


def test_a_batch_that_a_tokenizer_has_padded_is_each_prompt_alone() -> None:
    tokenizer = tiny.raw_tokenizer()
    tokenizer.padding_side = "left"
    texts = ["the quick brown fox", "dog"]
    batch = tokenizer(texts, return_tensors="pt", padding=True)
    engine = Engine(text_model(), text_tokenizer())
    together = engine.generate(batch, max_tokens=5)
    alone = [engine.generate(text, max_tokens=5)[0] for text in texts]
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]


# --- the one-call way -------------------------------------------------------------------------


def test_generate_answers_every_prompt_of_a_list_and_one_alone() -> None:
    options: dict[str, Any] = {"target": text_model(), "tokenizer": text_tokenizer()}
    one = generate("the fox", max_tokens=4, **options)
    other = generate("dog", max_tokens=4, **options)
    both = generate(["the fox", "dog"], max_tokens=4, n=2, **options)
    assert [result.text for result in both] == [one.text, other.text]
    assert [len(result.completions) for result in both] == [2, 2]
    assert [one.text] == [result.text for result in generate(["the fox"], max_tokens=4, **options)]
    rows = generate(torch.tensor([[5, 6], [7, 8]]), max_tokens=4, **options)
    assert isinstance(rows, list)
    assert len(rows) == 2
    single = generate(torch.tensor([[5, 6]]), max_tokens=4, **options)
    assert not isinstance(single, list)
    assert single.token_ids == rows[0].token_ids


def test_one_prompt_of_a_list_that_cannot_be_served_does_not_stop_the_others() -> None:
    found = generate([[5, 6], [5, 999]], target=target("llama"), max_tokens=4)
    assert [result.finish_reason for result in found] == ["length", "error"]
