"""A head's drafts: after any history its logits are those of the plain twin's fresh run."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
import torch

from draftsmith.drafters.heads import HeadConfig, HeadDrafter, HeadWeights, eagle3
from draftsmith.drafters.heads.eagle3 import EagleHead
from draftsmith.errors import DraftsmithError
from tests.drafters.heads import kit
from tests.drafters.recording import view

CPU = torch.device("cpu")


def drafter(name: str, format: str | None = None) -> HeadDrafter:
    config = kit.config(name)
    return HeadDrafter(EagleHead(config, kit.weights(config), kit.target(), CPU, format))


@pytest.mark.parametrize("name", kit.VARIANTS)
def test_after_any_rejections_its_logits_are_those_of_the_plain_twin(name: str) -> None:
    config, chance, handed = kit.config(name), Random(0), dict[int, int]()
    weights, state = kit.weights(config), drafter(name).open()
    texts = [[chance.randrange(kit.VOCAB) for _ in range(length)] for length in (2, 5, 300)]
    for _ in range(4):
        views = [view(text, chance.randint(0, 4), i) for i, text in enumerate(texts)]
        drawn = [[chance.randrange(kit.VOCAB) for _ in range(4)] for _ in texts]
        context = kit.Handing(views, drawn, config=config, handed=handed)
        state.propose(context)
        for row, text in enumerate(texts):
            gamma = views[row].gamma
            shown = context.logits_of(row)
            assert len(shown) == gamma
            if gamma:
                wanted = kit.plain_laws(config, weights, text, drawn[row][: gamma - 1])
                torch.testing.assert_close(torch.stack(shown), wanted, rtol=1e-3, atol=1e-3)
            kept = chance.randint(0, gamma)
            texts[row] = [*text, *drawn[row][:kept], chance.randrange(kit.VOCAB)]


def first_logits(config: HeadConfig, format: str | None, text: list[int]) -> torch.Tensor:
    head = EagleHead(config, kit.weights(config), kit.target(), CPU, format)
    context = kit.Handing([view(text, 3)], [[4, 5, 6]], config=config)
    HeadDrafter(head).propose(context)
    return torch.stack(context.logits_of(0))


def test_in_eight_bits_it_is_nearly_the_same() -> None:
    text = list(range(1, 40))
    wanted = first_logits(kit.BASE, None, text).softmax(-1)
    got = first_logits(kit.BASE, "Q8_0", text).softmax(-1)
    assert float((wanted - got).abs().sum(-1).max()) < 0.1
    assert not torch.equal(wanted, got)


def test_without_the_kernels_torch_computes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    text = list(range(1, 40))
    wanted = first_logits(kit.BASE, None, text)

    def nowhere(device: torch.device) -> bool:
        return False

    monkeypatch.setattr(eagle3, "has_kernels", nowhere)
    torch.testing.assert_close(first_logits(kit.BASE, None, text), wanted, rtol=1e-4, atol=1e-4)


def test_a_sequence_of_one_token_has_nothing_to_go_on_from() -> None:
    context = kit.Handing([view([5], 3, 1), view([5, 6], 3, 2)])
    draft = drafter("plain").propose(context)
    assert draft.num_drafted.tolist() == [0, 3]


def test_tokens_that_take_no_draw_are_read_with_those_that_do() -> None:
    class Followed(kit.Handing):
        def follow(self, rows: Sequence[int]) -> list[list[int]]:
            for row in rows:
                self.tokens[row].append(9)
            return [[9] for _ in rows]

    context = Followed([view([5, 6, 7], 6)], [[1, 2, 3]])
    assert drafter("plain").propose(context).tokens.tolist() == [[1, 9, 2, 9, 3, 9]]


def test_an_ended_sequence_is_forgotten() -> None:
    state = drafter("plain").open()
    texts = [[5, 6, 7], [8, 9]]
    first = kit.Handing([view(text, 2, 1) for text in texts[:1]])
    state.propose(first)
    state.release(1)
    again = kit.Handing([view(texts[1], 2, 1)])
    state.propose(again)
    wanted = kit.plain_laws(kit.BASE, kit.weights(kit.BASE), texts[1], [0])
    torch.testing.assert_close(torch.stack(again.logits_of(0)), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 48}, "states of 32 numbers, and the target's have 48"),
        ({"vocab_size": 95}, "a target of 96 ids, and the target has 95"),
        ({"num_layers": 4}, "behind layer 5, and the target has 4 layers"),
    ],
)
def test_a_head_for_another_target_is_refused(changes: dict[str, int], message: str) -> None:
    with pytest.raises(DraftsmithError, match=message) as refusal:
        EagleHead(kit.BASE, kit.weights(kit.BASE), kit.target(**changes), CPU)
    assert "give a head that was trained for the target" in str(refusal.value)


def test_tensors_that_are_not_the_configs_are_refused() -> None:
    config, whole = kit.config("reduced"), kit.weights(kit.config("reduced"))
    assert whole.ids is not None
    tensors = dict(whole.tensors)
    for broken, message in (
        (HeadWeights({k: v for k, v in tensors.items() if k != "fc"}, whole.ids), "no tensor 'fc'"),
        (HeadWeights(tensors | {"odd": torch.ones(1)}, whole.ids), "a tensor 'odd'"),
        (HeadWeights(tensors | {"norm": torch.ones(31)}, whole.ids), r"\[31\] where its .* \[32\]"),
        (HeadWeights(tensors | {"norm": torch.full((32,), torch.nan)}, whole.ids), "not finite"),
        (HeadWeights(tensors), r"does not say which \(d2t\)"),
        (HeadWeights(tensors, whole.ids + 60), "names id [0-9]+ of a target with 96"),
        (HeadWeights(tensors, whole.ids.clamp(max=20)), "ids for 40 outputs"),
    ):
        with pytest.raises(DraftsmithError, match=message):
            broken.check(config)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boundaries": ()}, "at least one"),
        ({"boundaries": (-1, 2)}, "from 0"),
        ({"num_kv_heads": 3}, "4 heads cannot share 3"),
        ({"head_size": 7}, "no halves"),
        ({"num_layers": 0}, "0 layers"),
        ({"vocab_size": 97}, "97 ids of a target with 96"),
        ({"hidden_size": 64}, "64 wide and has no embed_tokens"),
        ({"rope_theta": 0.5}, "above 1"),
    ],
)
def test_a_config_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DraftsmithError, match=message):
        kit.config(**changes)


def test_every_convention_is_told() -> None:
    told = kit.config("reduced").described()
    assert told["ids"] == "40 of 96"
    assert told["boundaries"] == "1, 3, 5"
    assert told["rope"] == "theta 10000, scaling default"
