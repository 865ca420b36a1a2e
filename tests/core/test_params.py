"""A request is checked once, and a refusal names the field and the value."""

import copy
import math
import pickle
from dataclasses import FrozenInstanceError, asdict
from typing import Any

import pytest

from draftsmith.core.gamma import MAX_GAMMA, check_gamma
from draftsmith.core.params import SamplingParams
from draftsmith.core.verify import VERIFIERS
from draftsmith.errors import DraftsmithError, InvalidRequestError

REFUSALS: list[tuple[str, object]] = [
    ("temperature", -0.1),
    ("temperature", math.nan),
    ("temperature", math.inf),
    ("top_k", -2),
    ("top_p", 0.0),
    ("top_p", -0.5),
    ("top_p", 1.01),
    ("top_p", math.nan),
    ("min_p", -0.01),
    ("min_p", 1.01),
    ("min_p", math.nan),
    ("repetition_penalty", 0.0),
    ("repetition_penalty", -1.0),
    ("repetition_penalty", math.inf),
    ("repetition_penalty", math.nan),
    ("presence_penalty", math.inf),
    ("presence_penalty", math.nan),
    ("frequency_penalty", -math.inf),
    ("frequency_penalty", math.nan),
    ("banned_token_ids", (3, -1)),
    ("stop_token_ids", (-7,)),
    ("allowed_token_ids", (-1,)),
    ("allowed_token_ids", ()),
    ("min_tokens", -1),
    ("min_tokens", 257),
    ("max_tokens", 0),
    ("stop", ("a", "")),
    ("n", 0),
    ("seed", -1),
    ("seed", 2**64),
    ("logprobs", -1),
    ("logprobs", 101),
    ("verifier", "greedy"),
    ("verifier", ""),
]

ACCEPTED: list[tuple[str, object]] = [
    ("temperature", 0.0),
    ("temperature", 1e-30),
    ("temperature", 1e30),
    ("top_k", -1),
    ("top_k", 10**9),
    ("top_p", 1.0),
    ("top_p", 1e-9),
    ("min_p", 0.0),
    ("min_p", 1.0),
    ("repetition_penalty", 0.5),
    ("presence_penalty", -2.0),
    ("frequency_penalty", -2.0),
    ("banned_token_ids", (0,)),
    ("stop_token_ids", (0,)),
    ("allowed_token_ids", (0,)),
    ("allowed_token_ids", None),
    ("min_tokens", 256),
    ("max_tokens", 1),
    ("stop", ("a",)),
    ("n", 1),
    ("seed", 0),
    ("seed", 2**64 - 1),
    ("logprobs", 0),
    ("logprobs", 100),
    ("verifier", "block"),
]


@pytest.mark.parametrize(("name", "value"), REFUSALS, ids=str)
def test_a_value_out_of_range_is_refused_with_its_name_and_itself(name: str, value: object) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams.from_options(**{name: value})
    message = str(caught.value)
    assert message.startswith(f"{name} must be ")
    assert f", got {value!r}" in message
    assert "\n" not in message


@pytest.mark.parametrize(("name", "value"), ACCEPTED, ids=str)
def test_a_value_at_the_edge_of_its_range_is_accepted(name: str, value: object) -> None:
    kept = getattr(SamplingParams.from_options(**{name: value}), name)
    assert kept == (0 if (name, value) == ("top_k", -1) else value)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_bias_that_is_not_finite_is_refused_with_the_remedy(value: float) -> None:
    with pytest.raises(InvalidRequestError, match=r"logit_bias.*banned_token_ids.*got -?(inf|nan)"):
        SamplingParams(logit_bias={1: value})


def test_a_bias_for_no_token_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"logit_bias must be keyed by token ids, got -4"):
        SamplingParams(logit_bias={-4: 1.0})


def test_bans_that_leave_nothing_allowed_are_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"allowed_token_ids.*non-empty.*\(1, 2\)"):
        SamplingParams(allowed_token_ids=(1, 2), banned_token_ids=(2, 1, 3))
    kept = SamplingParams(allowed_token_ids=(1, 2), banned_token_ids=(2,))
    assert kept.allowed_token_ids == (1, 2)


def test_a_minimum_beyond_the_maximum_is_refused() -> None:
    with pytest.raises(InvalidRequestError, match=r"min_tokens.*max_tokens \(5\), got 6"):
        SamplingParams(min_tokens=6, max_tokens=5)
    assert SamplingParams(min_tokens=5, max_tokens=5).min_tokens == 5


def test_an_unknown_option_is_refused_and_the_known_ones_are_named() -> None:
    with pytest.raises(InvalidRequestError) as caught:
        SamplingParams.from_options(temprature=1.0)
    assert "unknown sampling option 'temprature'" in str(caught.value)
    assert "temperature" in str(caught.value)
    assert "verifier" in str(caught.value)


def test_a_refusal_is_a_value_error_and_an_error_of_ours() -> None:
    for kind in (ValueError, DraftsmithError):
        with pytest.raises(kind, match="top_p"):
            SamplingParams(top_p=2.0)


def test_the_defaults_are_greedy_and_change_nothing() -> None:
    params = SamplingParams()
    assert params == SamplingParams.from_options()
    assert params.is_greedy
    assert not params.has_penalties
    assert (params.temperature, params.top_k, params.top_p, params.min_p) == (0.0, 0, 1.0, 0.0)
    penalties = params.repetition_penalty, params.presence_penalty, params.frequency_penalty
    assert penalties == (None, 0.0, 0.0)
    assert params.over().is_idle
    assert dict(params.logit_bias) == {}
    assert (params.banned_token_ids, params.allowed_token_ids) == ((), None)
    assert (params.min_tokens, params.max_tokens, params.n) == (None, None, 1)
    assert params.longest_output == 256
    assert (params.stop, params.stop_token_ids, params.ignore_eos) == (None, (), False)
    assert (params.seed, params.logprobs, params.verifier) == (None, None, None)


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({}, "coupled"),
        ({"seed": 0}, "coupled"),
        ({"temperature": 1.0}, "block"),
        ({"temperature": 1.0, "seed": 0}, "coupled"),
        ({"temperature": 1.0, "verifier": "rejection"}, "rejection"),
        ({"temperature": 1.0, "seed": 7, "verifier": "block"}, "block"),
        ({"verifier": "rejection"}, "rejection"),
        ({"temperature": 1.0, "verifier": "coupled"}, "coupled"),
    ],
    ids=str,
)
def test_the_verifier_is_the_one_asked_for_else_coupled_with_a_seed_or_greedy_else_block(
    options: dict[str, Any], name: str
) -> None:
    assert SamplingParams.from_options(**options).verifier_name == name


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_every_verifier_can_be_asked_for(name: str) -> None:
    assert SamplingParams(verifier=name).verifier_name == name


@pytest.mark.parametrize(
    "options",
    [{"repetition_penalty": 1.1}, {"presence_penalty": -0.1}, {"frequency_penalty": 0.1}],
    ids=str,
)
def test_any_penalty_makes_the_law_depend_on_the_past(options: dict[str, Any]) -> None:
    assert SamplingParams.from_options(**options).has_penalties


def test_parameters_are_frozen_to_the_last_field() -> None:
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias)
    with pytest.raises(FrozenInstanceError):
        params.temperature = 1.0  # pyright: ignore[reportAttributeAccessIssue]  # the point of the test
    with pytest.raises(TypeError):
        params.logit_bias[1] = 3.0  # pyright: ignore[reportIndexIssue]  # the point of the test
    bias[1] = 9.0
    assert params.logit_bias[1] == 2.0


@pytest.mark.parametrize("gamma", [0, 1, MAX_GAMMA])
def test_a_legal_gamma_is_returned(gamma: int) -> None:
    assert check_gamma(gamma) == gamma


@pytest.mark.parametrize("gamma", [-1, MAX_GAMMA + 1, 40])
def test_an_illegal_gamma_is_refused_with_its_bounds(gamma: int) -> None:
    message = rf"gamma must be between 0 and 32, or auto, got {gamma}$"
    with pytest.raises(InvalidRequestError, match=message):
        check_gamma(gamma)


@pytest.mark.parametrize("name", ["logit_bias", "stop_token_ids", "banned_token_ids", "stop"])
def test_none_asks_nothing_where_others_libraries_take_it(name: str) -> None:
    assert SamplingParams.from_options(**{name: None}) == SamplingParams()


def test_parameters_are_pickled_copied_hashed_and_turned_into_a_dict() -> None:
    params = SamplingParams(logit_bias={3: 1.0}, stop=["a"], allowed_token_ids=(3, 4))
    assert pickle.loads(pickle.dumps(params)) == copy.deepcopy(params) == params
    assert hash(copy.copy(params)) == hash(params)
    assert SamplingParams.from_options(**asdict(params)) == params


def test_one_stop_string_is_one_string_and_not_its_letters() -> None:
    assert SamplingParams(stop="ab").stop_strings == ("ab",)
    assert SamplingParams(stop=["ab", "c"]).stop_strings == ("ab", "c")
