"""The trial of P-EAGLE heads at load, with heads that were fitted to what a target writes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot, rms_norm

from draftsmith.core.params import SamplingParams
from draftsmith.drafters.heads import HeadConfig, HeadWeights
from draftsmith.drafters.heads.load import load_head
from draftsmith.drafters.heads.parallel import ParallelDrafter
from draftsmith.drafters.heads.parallel_layout import Mask
from draftsmith.drafters.heads.parallel_plain import depths
from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.drafters.heads.trial import starts_of, written_by
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError
from draftsmith.models.contract import LanguageModel
from tests.drafters.heads import kit, parallel_kit
from tests.drafters.heads.test_parallel import speculators_keys, tensors_of, write
from tests.models.native.test_cpu import fast

GREEDY = SamplingParams(max_tokens=24, ignore_eos=True)


def fitted(model: LanguageModel, num_depths: int = 3) -> tuple[HeadConfig, HeadWeights, Mask]:
    """A random head whose output is the least squares of the trial's own texts."""
    tables = tables_of(model)
    config = parallel_kit.config(
        boundaries=(0, 1),
        target_hidden_size=tables.hidden_size,
        hidden_size=tables.hidden_size,
        target_vocab_size=tables.vocab_size,
        vocab_size=tables.vocab_size,
    )
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    head, embedding = PlainHead(config, weights.tensors), weights.tensors["embedding"]
    norm = weights.tensors["norm"]
    seen: list[Tensor] = []
    said: list[int] = []
    for text in written_by(model, starts_of(model), config.boundaries):
        states = torch.stack([text.states[b] for b in config.boundaries], dim=1)
        embedded = embedding[list(text.tokens[1:])]
        both = mask.states, embedding[mask.token]
        for depth, stream in enumerate(depths(head, states, embedded, *both, num_depths)):
            seen.append(rms_norm(stream, norm.shape, norm, config.norm_epsilon)[: -1 - depth])
            said += text.tokens[2 + depth :]
    wanted = one_hot(torch.tensor(said), tables.vocab_size).float()
    weights.tensors["head"] = torch.linalg.lstsq(torch.cat(seen), wanted).solution.T.contiguous()
    return config, weights, mask


def test_a_head_that_is_right_is_used_and_changes_no_text(tmp_path: Path) -> None:
    model = fast("llama")
    config, weights, mask = fitted(model, num_depths=2)
    write(tmp_path, speculators_keys(config, mask), tensors_of(config, weights, mask))
    drafter = load_head(tmp_path, model, dtype="float32")
    assert isinstance(drafter, ParallelDrafter)
    prompts = starts_of(model)
    wanted = Engine(model).generate(prompts, GREEDY)
    found = Engine(model, draft=drafter, gamma=2).generate(prompts, GREEDY)
    assert [one.token_ids for one in found] == [one.token_ids for one in wanted]
    kept = sum(one.statistics.num_accepted for one in found)
    assert kept > 0.1 * sum(one.statistics.num_drafted for one in found)


def test_a_head_that_is_read_at_other_layers_is_refused_with_the_reason(tmp_path: Path) -> None:
    model = fast("llama")
    config, weights, mask = fitted(model)
    keys = speculators_keys(config, mask) | {"eagle_aux_hidden_state_layer_ids": [1, 2]}
    write(tmp_path, keys, tensors_of(config, weights, mask))
    cause = "with states behind layers 0, 1 it would be right in [0-9]+ % of its first tokens"
    with pytest.raises(DraftsmithError, match=cause) as refusal:
        load_head(tmp_path, model)
    assert "\n" not in str(refusal.value)


def test_a_head_that_knows_nothing_of_the_target_is_refused(tmp_path: Path) -> None:
    model = fast("llama")
    config, _, mask = fitted(model)
    noise = kit.weights(config, seed=8)
    write(tmp_path, speculators_keys(config, mask), tensors_of(config, noise, mask))
    with pytest.raises(DraftsmithError, match="20 % is the least: no other reading"):
        load_head(tmp_path, model)
