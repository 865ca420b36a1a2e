"""Steps from every position at once are the drafts that would be made there."""

import pytest
import torch

from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.drafters.heads.unroll import unrolled
from tests.drafters.heads import kit


@pytest.mark.parametrize("name", ["plain", "fed-back-normed", "qwen3-heads", "joint-norm"])
def test_each_step_is_the_draft_from_its_position(name: str) -> None:
    config = kit.config(name)
    weights = kit.weights(config)
    text = [int(t) for t in torch.randint(kit.VOCAB, (14,), generator=torch.Generator())]
    head = PlainHead(config, weights.tensors)
    states = kit.states_of(text, config)[:-1].unsqueeze(0)
    embedded = kit.table(5)[text[1:]].unsqueeze(0)
    steps = [head.logits(one)[0] for one in unrolled(head, states, embedded, 4)]
    for length in range(2, len(text) - 3):
        # Of a text of so many tokens the last row is `length - 2`; the draft is the text itself.
        wanted = kit.plain_laws(config, weights, text[:length], text[length : length + 3])
        got = torch.stack([step[length - 2] for step in steps])
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)
