"""Calls of the package are refused where a type, a shape or two sizes are not as annotated."""
# The calls are wrong on purpose:
# pyright: basic

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import pytest
import torch
from beartype import beartype
from jaxtyping import Float, Int, TypeCheckError, jaxtyped
from torch import Tensor

from draftsmith.core.theory import expected_tokens
from draftsmith.drafters import Draft
from tests.checked import checked


def alike(one: Float[Tensor, "batch ids"], two: Int[Tensor, " batch"]) -> None:
    """Two arguments with one size in common."""


def in_a_list(many: list[Float[Tensor, "batch ids"]]) -> None:
    """Shapes within."""


def first(one: Float[Tensor, "batch ids"], column: int) -> Float[Tensor, " batch"]:
    return one[:, 0] if column == 0 else one[0]


def sized(size: int) -> Float[Tensor, "{size} 2"]:
    return torch.zeros(3, 2)


def rows(one: Float[Tensor, "batch ids"], num: int) -> Iterator[Tensor]:
    yield from one[:num]


def plain(number: int) -> str:
    return "" if number else 0  # type: ignore[return-value] # wrong on purpose


LOGITS = torch.zeros(3, 5)
CASES = [
    (alike, (LOGITS, torch.tensor([1, 2, 3])), (LOGITS, torch.tensor([1, 2]))),
    (alike, (LOGITS, torch.tensor([1, 2, 3])), (LOGITS[0], torch.tensor([1, 2, 3]))),
    (in_a_list, ([LOGITS],), ([LOGITS[0]],)),
    (first, (LOGITS, 0), (LOGITS, 1)),
    (first, (LOGITS, 0), (LOGITS, "0")),
    (sized, (3,), (4,)),
    (plain, (1,), (0,)),
    (plain, (1,), ("1",)),
]


@pytest.mark.parametrize("how", [checked, jaxtyped])
@pytest.mark.parametrize(("function", "right", "wrong"), CASES)
def test_what_jaxtyping_refuses_is_refused(
    how: Callable[..., Callable[..., object]],
    function: Callable[..., object],
    right: tuple[object, ...],
    wrong: tuple[object, ...],
) -> None:
    decorated = how(function, typechecker=beartype)
    decorated(*right)
    with pytest.raises(TypeCheckError):
        decorated(*wrong)


@pytest.mark.parametrize("how", [checked, jaxtyped])
def test_the_sizes_of_one_call_bind_no_other(how: Callable[..., Callable[..., object]]) -> None:
    def outer(one: Float[Tensor, "batch ids"]) -> None:
        inner(one.T, 0)

    inner = how(first, typechecker=beartype)
    how(outer, typechecker=beartype)(torch.zeros(2, 5))
    with pytest.raises(TypeCheckError):
        inner(LOGITS, 1)


def told(what: Literal["rows", "columns"], of: Float[Tensor, "batch ids"]) -> int:
    return of.shape[what == "columns"]


def triple(three: tuple[int, int, int], of: Float[Tensor, "batch ids"]) -> None:
    """So many and no more."""


@pytest.mark.parametrize(
    ("function", "right", "wrong"),
    [
        (told, "rows", "all"),
        (triple, (1, 2, 3), tuple(range(9))),
        (triple, (1, 2, 3), (1, 2, "3")),
        (in_a_list, [LOGITS] * 9, [LOGITS[0]] * 9),
        (in_a_list, [LOGITS], [LOGITS.long()]),
        (in_a_list, [LOGITS], (LOGITS,)),
    ],
)
def test_a_call_that_was_right_excuses_no_other(
    function: Callable[..., object], right: object, wrong: object
) -> None:
    others = (LOGITS,) if function is not in_a_list else ()
    decorated = checked(function, typechecker=beartype)
    for _ in range(2):
        decorated(right, *others)
    with pytest.raises(TypeCheckError):
        decorated(wrong, *others)


def test_lists_of_several_kinds_are_looked_at_again_and_again() -> None:
    decorated = checked(in_a_list, typechecker=beartype)

    def all_of_them() -> None:
        for _ in range(200):  # one item of two each time: 1 in 2**200 misses the wrong one
            decorated([LOGITS, LOGITS[0]])

    with pytest.raises(TypeCheckError):
        all_of_them()


def test_a_result_is_checked_also_where_the_arguments_were_right_before() -> None:
    grown: list[Tensor] = [LOGITS[:, 0]] * 3

    def taken(one: Float[Tensor, "batch ids"]) -> Float[Tensor, " batch"]:
        assert one.shape == LOGITS.shape
        return grown.pop()

    decorated = checked(taken, typechecker=beartype)
    for _ in range(3):
        decorated(LOGITS)
    for wrong in (LOGITS[0], LOGITS, LOGITS[:, 0].long()):
        grown.append(wrong)
        with pytest.raises(TypeCheckError):
            decorated(LOGITS)


def test_a_generator_is_checked() -> None:
    decorated = checked(rows, typechecker=beartype)
    assert len(list(decorated(LOGITS, 2))) == 2
    with pytest.raises(TypeCheckError):
        list(decorated(LOGITS[0], 2))


def test_the_fields_of_a_dataclass_are_checked() -> None:
    @dataclass(frozen=True)
    class Scores:
        logits: Float[Tensor, "batch ids"]
        best: Int[Tensor, " batch"]

    decorated = checked(Scores, typechecker=beartype)
    decorated(LOGITS, torch.tensor([1, 2, 3]))
    with pytest.raises(TypeCheckError):
        decorated(LOGITS, torch.tensor([1, 2]))


def test_the_package_runs_checked() -> None:
    with pytest.raises(TypeCheckError):
        expected_tokens("0.5", 3)  # type: ignore[arg-type] # wrong on purpose
    with pytest.raises(TypeCheckError):
        Draft(torch.zeros(2, 3, dtype=torch.long), torch.zeros(3, dtype=torch.long), None)
