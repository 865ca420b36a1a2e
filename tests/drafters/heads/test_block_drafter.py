"""A block head's drafts: after any history its logits are those of the plain twin's fresh run."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
import torch

from draftsmith.drafters.heads import block
from draftsmith.drafters.heads.block import BlockHead
from draftsmith.drafters.heads.block_config import BlockConfig
from draftsmith.drafters.heads.block_drafter import BlockDrafter
from draftsmith.drafters.heads.block_weights import check_block
from draftsmith.drafters.heads.weights import HeadWeights
from draftsmith.errors import DraftsmithError
from tests.drafters.heads import block_kit, kit
from tests.drafters.recording import view

CPU = torch.device("cpu")


def drafter(config: BlockConfig, format: str | None = None, branches: int = 1) -> BlockDrafter:
    head = BlockHead(config, block_kit.weights(config), kit.target(), CPU, format)
    return BlockDrafter(head, branches=branches)


@pytest.mark.parametrize("name", block_kit.VARIANTS)
def test_after_any_rejections_its_logits_are_those_of_the_plain_twin(name: str) -> None:
    config, chance, handed = block_kit.config(name), Random(0), dict[int, int]()
    weights, state = block_kit.weights(config), drafter(config).open()
    texts = [[chance.randrange(kit.VOCAB) for _ in range(length)] for length in (2, 5, 300)]
    for _ in range(4):
        views = [view(text, chance.randint(0, 6), i) for i, text in enumerate(texts)]
        drawn = [[chance.randrange(kit.VOCAB) for _ in range(6)] for _ in texts]
        context = block_kit.Handing(views, drawn, config=config, handed=handed)
        state.propose(context)
        for row, text in enumerate(texts):
            count = min(views[row].gamma, config.longest)
            shown = context.logits_of(row)
            assert len(shown) == count
            if count:
                wanted, sure = block_kit.plain_laws(config, weights, text, drawn[row][: count - 1])
                torch.testing.assert_close(torch.stack(shown), wanted, rtol=1e-3, atol=1e-3)
                told = context.confidences_of(row)
                if sure is None:
                    assert told == [None] * count
                else:
                    torch.testing.assert_close(torch.tensor(told), sure, rtol=1e-3, atol=1e-3)
            kept = chance.randint(0, count)
            texts[row] = [*text, *drawn[row][:kept], chance.randrange(kit.VOCAB)]


@pytest.mark.parametrize("name", ["dflash", "dspark", "dspark-rnn"])
def test_tokens_that_a_grammar_has_forced_stand_in_the_place_of_masks(name: str) -> None:
    config, text = block_kit.config(name), [5, 6, 7, 8, 9]
    context = block_kit.Handing([view(text, 6)], [[1, 2, 3, 4]], config=config, num_unread=2)
    drafter(config).propose(context)
    shown = torch.stack(context.logits_of(0))
    assert len(shown) == config.longest - 1
    wanted, _ = block_kit.plain_laws(
        config, block_kit.weights(config), text, [1, 2, 3][: len(shown) - 1], 1
    )
    torch.testing.assert_close(shown, wanted, rtol=1e-3, atol=1e-3)


def test_where_more_is_forced_than_fits_the_newest_half_of_a_block_is_read() -> None:
    config, text = block_kit.config("dspark"), list(range(3, 40))
    context = block_kit.Handing([view(text, 6)], [[1, 2, 3, 4]], config=config, num_unread=30)
    drafter(config).propose(context)
    assert len(context.logits_of(0)) == config.longest - 1


@pytest.mark.parametrize("name", ["dflash", "dspark", "dspark-rnn"])
def test_tokens_that_take_no_draw_are_passed_over(name: str) -> None:
    class Followed(block_kit.Handing):
        def follow(self, rows: Sequence[int]) -> list[list[int]]:
            for row in rows:
                self.tokens[row].append(9)
            return [[9] for _ in rows]

    config, text = block_kit.config(name, block_size=6), [5, 6, 7]
    context = Followed([view(text, 6)], [[1, 2, 3]], config=config)
    drafter(config).propose(context)
    assert context.tokens[0][:4] == [1, 9, 2, 9]
    wanted, _ = block_kit.plain_laws(config, block_kit.weights(config), text, [1, 9, 2, 9])
    shown = torch.stack(context.logits_of(0))[:3]
    torch.testing.assert_close(shown, wanted[::2], rtol=1e-3, atol=1e-3)


def first_logits(config: BlockConfig, format: str | None, text: list[int]) -> torch.Tensor:
    context = block_kit.Handing([view(text, 4)], [[4, 5, 6, 7]], config=config)
    drafter(config, format).propose(context)
    return torch.stack(context.logits_of(0))


def test_in_eight_bits_it_is_nearly_the_same() -> None:
    config, text = block_kit.config("dspark-gated"), list(range(1, 40))
    wanted = first_logits(config, None, text).softmax(-1)
    got = first_logits(config, "Q8_0", text).softmax(-1)
    assert float((wanted - got).abs().sum(-1).max()) < 0.1
    assert not torch.equal(wanted, got)


@pytest.mark.parametrize("name", ["dflash", "dspark-gated"])
def test_without_the_kernels_torch_computes_the_same(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, text = block_kit.config(name), [one % kit.VOCAB for one in range(300)]
    wanted = first_logits(config, None, text)

    def nowhere(device: torch.device) -> bool:
        return False

    monkeypatch.setattr(block, "has_kernels", nowhere)
    torch.testing.assert_close(first_logits(config, None, text), wanted, rtol=1e-4, atol=1e-4)


def test_rows_that_see_all_of_a_block_differ_from_causal_ones() -> None:
    text = list(range(1, 40))
    laws = [first_logits(block_kit.config(name), None, text) for name in ("dflash", "causal")]
    assert float((laws[0] - laws[1]).abs().max()) > 0.01


def test_a_sequence_of_one_token_has_nothing_to_go_on_from() -> None:
    context = block_kit.Handing([view([5], 3, 1), view([5, 6], 3, 2)])
    draft = drafter(block_kit.BASE).propose(context)
    assert draft.num_drafted.tolist() == [0, 3]


def test_an_ended_sequence_is_forgotten() -> None:
    config = block_kit.config("dspark")
    state, texts = drafter(config).open(), [[5, 6, 7], [8, 9]]
    state.propose(block_kit.Handing([view(texts[0], 2, 1)], config=config))
    state.release(1)
    again = block_kit.Handing([view(texts[1], 2, 1)], config=config)
    state.propose(again)
    wanted, _ = block_kit.plain_laws(config, block_kit.weights(config), texts[1], [0])
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
    config = block_kit.BASE
    with pytest.raises(DraftsmithError, match=message) as refusal:
        BlockHead(config, block_kit.weights(config), kit.target(**changes), CPU)
    assert "give a head that was trained for the target" in str(refusal.value)


def test_tensors_that_are_not_the_configs_are_refused() -> None:
    config = block_kit.config("dspark-reduced")
    whole = block_kit.weights(config)
    tensors = dict(whole.tensors)
    del tensors["markov.following"]
    for broken, message in (
        (HeadWeights(tensors, whole.ids), "no tensor 'markov.following'"),
        (HeadWeights(whole.tensors | {"odd": torch.ones(1)}, whole.ids), "a tensor 'odd'"),
        (HeadWeights(whole.tensors), r"does not say which \(d2t\)"),
    ):
        with pytest.raises(DraftsmithError, match=message):
            check_block(config, broken)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"boundaries": ()}, "at least one"),
        ({"num_kv_heads": 3}, "4 heads cannot share 3"),
        ({"head_size": 7}, "no halves"),
        ({"num_layers": 0}, "0 layers"),
        ({"vocab_size": 97}, "97 ids of a target with 96"),
        ({"vocab_size": 40}, "40 of 96 ids and has no lm_head"),
        ({"mask_id": 96}, "mask_token_id is 96, of a target with 96"),
        ({"hidden_size": 64}, "64 wide and has no embed_tokens"),
        ({"hidden_size": 64, "has_embedding": True}, "64 wide and has no lm_head"),
        ({"block_size": 1}, "block_size is 1; it must be from 2"),
        ({"block_size": 65}, "block_size is 65"),
        ({"markov_rank": 8}, "markov_rank is 8 and its markov_head_type none"),
        ({"markov": "rnn", "markov_rank": 8}, "rnn and its sample_from_anchor false"),
        ({"has_confidence": True, "confidence_reads_token": True}, "has no Markov head"),
    ],
)
def test_a_config_that_is_none_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DraftsmithError, match=message) as refusal:
        block_kit.config(**changes)
    assert "\n" not in str(refusal.value)


def test_every_convention_is_told() -> None:
    told = block_kit.config("dspark-sure").described()
    assert told["kind"] == "DSpark"
    assert told["block"] == "5 rows, which draft 5 tokens"
    assert told["markov"] == "vanilla, rank 8"
    assert block_kit.BASE.described()["block"] == "5 rows, which draft 4 tokens"
