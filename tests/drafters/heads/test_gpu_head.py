"""A head on a GPU's kernels: the plain twin's logits after any history, and pages that go back."""
# pyright: basic

from random import Random
from unittest import mock

import pytest
import torch

from draftsmith.drafters.heads import HeadDrafter
from draftsmith.drafters.heads import gpu_head as module
from draftsmith.drafters.heads.steps import Span
from draftsmith.errors import CacheFullError, DraftsmithError
from draftsmith.kernels.gpu import attention, norms, products
from tests.drafters.heads import gpu_kit, kit
from tests.drafters.recording import view
from tests.kernels.gpu.device import DEVICE


@pytest.mark.parametrize("name", kit.VARIANTS)
def test_after_any_rejections_its_logits_are_those_of_the_plain_twin(name: str) -> None:
    config, chance, handed = kit.config(name), Random(0), dict[int, int]()
    weights, state = kit.weights(config), HeadDrafter(gpu_kit.head(config)).open()
    texts = [[chance.randrange(kit.VOCAB) for _ in range(length)] for length in (2, 5, 90)]
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
                torch.testing.assert_close(torch.stack(shown).cpu(), wanted, rtol=1e-3, atol=1e-3)
            kept = chance.randint(0, gamma)
            texts[row] = [*text, *drawn[row][:kept], chance.randrange(kit.VOCAB)]


def test_a_step_of_many_rows_is_run_in_parts() -> None:
    head = gpu_kit.head(kit.BASE)
    chance = torch.Generator().manual_seed(1)
    counts = [3, 1, 4, 2]
    feature = torch.randn(sum(counts), kit.WIDTH, generator=chance)

    def stream() -> torch.Tensor:
        spans = [Span(head.open_row(), list(range(count)), 0) for count in counts]
        return head.run(spans, feature)

    states = torch.randn(20, 3, kit.WIDTH, generator=chance)
    whole, read = stream(), head.feature(states)
    with mock.patch.object(module, "MOST_ROWS", 8):
        torch.testing.assert_close(stream(), whole)
        torch.testing.assert_close(head.feature(states), read)


def test_pages_go_back_when_a_sequence_is_forgotten() -> None:
    head = gpu_kit.head(kit.BASE)
    state, free = HeadDrafter(head).open(), head.pool.num_free_pages
    state.propose(kit.Handing([view(list(range(1, 90)), 3, 1), view([5, 6], 3, 2)]))
    assert head.pool.num_free_pages == free - 3
    state.release(1)
    assert head.pool.num_free_pages == free - 1
    del state
    assert head.pool.num_free_pages == free
    head.pool.check_integrity([])


def test_without_memory_nothing_is_drafted() -> None:
    head = gpu_kit.head(kit.BASE)
    context = kit.Handing([view([5, 6, 7], 3, 1)])
    with mock.patch.object(head.pool, "take_pages", side_effect=CacheFullError("full")):
        assert HeadDrafter(head).propose(context).num_drafted.tolist() == [0]


def test_long_texts_are_read_in_parts_that_fit() -> None:
    head = gpu_kit.head(kit.BASE)
    assert head.most_rows(10) == 512
    assert head.most_rows(64 * 512) == 16


def test_a_head_for_another_target_is_refused() -> None:
    config = kit.config(target_vocab_size=95, vocab_size=95)
    with pytest.raises(DraftsmithError, match="a target of 95 ids, and the target has 96"):
        gpu_kit.head(config)


@pytest.mark.skipif(DEVICE.type == "cuda", reason="there the kernels run anyway")
def test_the_kernels_give_what_their_twins_give() -> None:
    """In Triton's interpreter."""
    config, chance = kit.config("norm-each"), torch.Generator().manual_seed(0)
    states = torch.randn(3, 3, kit.WIDTH, generator=chance)
    found: list[list[torch.Tensor]] = []
    for is_twin in (True, False):
        head = gpu_kit.head(config)
        if not is_twin:
            head._norm = norms.norm
            head._fc._product = head._head._product = products.product
            head._layers._product, head._layers._attend = products.product, attention.attend
        feature = head.feature(states)
        stream = head.run([Span(head.open_row(), [4, 5, 6], 0)], feature)
        found.append([feature, stream, *head.finish(stream[1:])])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
