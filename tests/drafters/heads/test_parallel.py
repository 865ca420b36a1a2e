"""P-EAGLE heads: their drafts are the plain twin's, in every layout, or they are refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.core.trees import ancestors
from draftsmith.drafters.heads import HeadConfig, HeadWeights
from draftsmith.drafters.heads.eagle3 import EagleHead
from draftsmith.drafters.heads.export import (
    speculators_config,
    speculators_tensors,
)
from draftsmith.drafters.heads.kinds import is_head, read_head
from draftsmith.drafters.heads.parallel import ParallelDrafter
from draftsmith.drafters.heads.parallel_kind import ParallelEagle
from draftsmith.drafters.heads.parallel_layout import Mask, read_parallel
from draftsmith.drafters.heads.parallel_plain import depths
from draftsmith.drafters.heads.plain import PlainHead
from draftsmith.errors import DraftsmithError
from draftsmith.models.saved import save_tensors
from tests.drafters.heads import kit, parallel_kit
from tests.drafters.heads.test_trees import PARENTS, Growing
from tests.drafters.recording import view

CPU = torch.device("cpu")
FLOAT = torch.float32


def drafter(
    config: HeadConfig,
    weights: HeadWeights,
    mask: Mask,
    format: str | None = None,
    branches: int = 1,
) -> ParallelDrafter:
    head = EagleHead(config, weights, kit.target(), CPU, format)
    return ParallelDrafter(head, mask, "head", branches)


def laws(config: HeadConfig, weights: HeadWeights, mask: Mask, gamma: int = 5) -> Tensor:
    context = kit.Handing([view(list(range(3, 20)), gamma)], config=config)
    drafter(config, weights, mask).propose(context)
    return torch.stack(context.logits_of(0))


@pytest.mark.parametrize("name", parallel_kit.VARIANTS)
def test_after_any_rejections_its_logits_are_those_of_the_plain_twin(name: str) -> None:
    config, chance, handed = parallel_kit.config(name), Random(0), dict[int, int]()
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    state = drafter(config, weights, mask).open()
    texts = [[chance.randrange(kit.VOCAB) for _ in range(length)] for length in (2, 5, 300)]
    for _ in range(4):
        views = [view(text, chance.randint(0, 5), i) for i, text in enumerate(texts)]
        drawn = [[chance.randrange(kit.VOCAB) for _ in range(5)] for _ in texts]
        context = kit.Handing(views, drawn, config=config, handed=handed)
        state.propose(context)
        for row, text in enumerate(texts):
            gamma = views[row].gamma
            shown = context.logits_of(row)
            assert len(shown) == gamma
            if gamma:
                wanted = parallel_kit.plain_laws(config, weights, mask, text, gamma)
                torch.testing.assert_close(torch.stack(shown), wanted, rtol=1e-3, atol=1e-3)
            kept = chance.randint(0, gamma)
            texts[row] = [*text, *drawn[row][:kept], chance.randrange(kit.VOCAB)]


def test_a_long_draft_is_that_of_one_pass() -> None:
    """More places than one pass has laws for."""
    config = parallel_kit.config("four-layers")
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    wanted = parallel_kit.plain_laws(config, weights, mask, list(range(3, 20)), 21)
    torch.testing.assert_close(laws(config, weights, mask, 21), wanted, rtol=1e-3, atol=1e-3)


def test_asked_again_before_anything_was_committed_it_says_the_same() -> None:
    config = parallel_kit.config()
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    state, handed = drafter(config, weights, mask).open(), dict[int, int]()
    found: list[Tensor] = []
    for gamma in (4, 1, 4):
        context = kit.Handing([view([5, 6, 7, 8], gamma)], config=config, handed=handed)
        state.propose(context)
        found.append(torch.stack(context.logits_of(0)))
    torch.testing.assert_close(found[1], found[0][:1])
    torch.testing.assert_close(found[2], found[0])


def test_each_depth_of_the_twin_is_the_draft_from_its_position() -> None:
    config = parallel_kit.config("four-layers")
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    text = [int(one) for one in torch.randint(kit.VOCAB, (12,), generator=torch.Generator())]
    head, embedding = PlainHead(config, weights.tensors), weights.tensors["embedding"]
    streams = depths(
        head,
        kit.states_of(text, config)[:-1],
        embedding[text[1:]],
        mask.states,
        embedding[mask.token],
        3,
    )
    found = torch.stack([head.logits(one) for one in streams])
    for length in range(2, len(text) + 1):
        wanted = parallel_kit.plain_laws(config, weights, mask, text[:length], 3)
        torch.testing.assert_close(found[:, length - 2], wanted, rtol=1e-4, atol=1e-4)


def test_a_sequence_of_one_token_has_nothing_to_go_on_from() -> None:
    config = parallel_kit.config()
    made = drafter(config, kit.weights(config), parallel_kit.mask(config))
    context = kit.Handing([view([5], 3, 1), view([5, 6], 3, 2)], config=config)
    assert made.propose(context).num_drafted.tolist() == [0, 3]


def test_tokens_that_take_no_draw_use_up_a_place() -> None:
    class Followed(kit.Handing):
        def follow(self, rows: Sequence[int]) -> list[list[int]]:
            for row in rows:
                self.tokens[row].append(9)
            return [[9] for _ in rows]

    config = parallel_kit.config()
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    context = Followed([view([5, 6, 7], 6)], [[1, 2, 3]], config=config)
    made = drafter(config, weights, mask)
    assert made.propose(context).tokens.tolist() == [[1, 9, 2, 9, 3, 9]]
    wanted = parallel_kit.plain_laws(config, weights, mask, [5, 6, 7], 5)
    shown = torch.stack(context.logits_of(0))
    torch.testing.assert_close(shown, wanted[[0, 2, 4]], rtol=1e-4, atol=1e-4)


def test_places_of_tokens_that_a_grammar_has_forced_are_passed_over() -> None:
    """The target has read fewer than all tokens but the last."""

    class Behind(kit.Handing):
        def states(self, row: int) -> Tensor:
            return super().states(row)[:-2]

    config = parallel_kit.config()
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    text = [5, 6, 7, 8, 9]
    context = Behind([view(text, 3)], [[1, 2, 3]], config=config)
    drafter(config, weights, mask).propose(context)
    wanted = parallel_kit.plain_laws(config, weights, mask, text[:-2], 5)
    shown = torch.stack(context.logits_of(0))
    torch.testing.assert_close(shown, wanted[2:], rtol=1e-4, atol=1e-4)


def test_an_ended_sequence_is_forgotten() -> None:
    config = parallel_kit.config()
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    state = drafter(config, weights, mask).open()
    state.propose(kit.Handing([view([5, 6, 7], 2, 1)], config=config))
    state.release(1)
    again = kit.Handing([view([8, 9], 2, 1)], config=config)
    state.propose(again)
    wanted = parallel_kit.plain_laws(config, weights, mask, [8, 9], 2)
    torch.testing.assert_close(torch.stack(again.logits_of(0)), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["four-layers", "reduced"])
def test_a_nodes_logits_are_those_of_its_depth(name: str) -> None:
    config = parallel_kit.config(name)
    weights, mask, texts = kit.weights(config), parallel_kit.mask(config), [[5, 6, 7, 8], [9, 3]]
    made = drafter(config, weights, mask, branches=2)
    context = Growing([view(text, 8, i) for i, text in enumerate(texts)], config=config)
    context.takes_trees = True
    made.propose(context)
    for (row, node), line in context.bush.logits.items():
        wanted = parallel_kit.plain_laws(config, weights, mask, texts[row], 5)
        depth = len(ancestors(PARENTS, node))
        torch.testing.assert_close(line, wanted[depth], rtol=1e-3, atol=1e-3)


# --- layouts -------------------------------------------------------------------------------------


def tensors_of(config: HeadConfig, weights: HeadWeights, mask: Mask) -> dict[str, Tensor]:
    found = speculators_tensors(config, weights, FLOAT)
    return {**found, "mask_hidden": mask.states.reshape(1, 1, -1)}


def speculators_keys(config: HeadConfig, mask: Mask) -> dict[str, Any]:
    keys = speculators_config(config, FLOAT)
    del keys["norm_output"]
    return {
        **keys,
        "architectures": ["PEagleSpeculator"],
        "speculators_model_type": "peagle",
        "mask_token_id": mask.token,
        "embed_requires_grad": True,
    }


def flat_keys(config: HeadConfig, **more: Any) -> dict[str, Any]:
    return {
        "architectures": ["LlamaForCausalLMEagle3"],
        "model_type": "llama",
        "hidden_size": config.hidden_size,
        "intermediate_size": config.intermediate_size,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_size,
        "rms_norm_eps": config.norm_epsilon,
        "vocab_size": config.target_vocab_size,
        "draft_vocab_size": config.vocab_size,
        **more,
    }


def write(folder: Path, keys: dict[str, Any], tensors: dict[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(keys))
    save_tensors(folder / "model.safetensors", tensors)


def layout(name: str, config: HeadConfig, mask: Mask) -> dict[str, Any]:
    ids = {"eagle_aux_hidden_state_layer_ids": list(config.boundaries)}
    return {
        "speculators": speculators_keys(config, mask),
        "speculators-early": {
            **{k: v for k, v in speculators_keys(config, mask).items() if k != "mask_token_id"},
            "ptd_token_id": mask.token,
            "para_depths": 8,
            "down_sample_ratio": 0.7,
            "down_sample_ratio_min": 0.1,
            "max_seq_len": 2048,
            "prediction_loss_weight": 1.0,
        },
        "vllm": flat_keys(config, pard_token=mask.token, parallel_drafting=True, **ids),
        "vllm-text": flat_keys(config, ptd_token_id=str(mask.token), **ids),
        "SpecForge": flat_keys(
            config,
            architectures=["PEagleDraftModel"],
            mask_token_id=mask.token,
            **ids,
        ),
    }[name]


@pytest.mark.parametrize("is_reduced", [False, True])
@pytest.mark.parametrize(
    "name", ["speculators", "speculators-early", "vllm", "vllm-text", "SpecForge"]
)
def test_each_layout_loads_to_the_logits_of_the_plain_twin(
    tmp_path: Path, name: str, is_reduced: bool
) -> None:
    config = parallel_kit.config("four-layers", **({"vocab_size": 40} if is_reduced else {}))
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    write(tmp_path / "head", layout(name, config, mask), tensors_of(config, weights, mask))
    assert is_head(tmp_path / "head")
    head = read_head(tmp_path / "head", kit.target())
    assert isinstance(head, ParallelEagle)
    assert head.boundaries == config.boundaries
    assert head.config.num_layers == 4
    told = head.described()
    assert told["kind"] == "P-EAGLE"
    assert told["mask"].startswith("id 9 (")
    assert told["embedding"] == "its own"
    assert told["layout"] == {"vllm": "layers.0", "vllm-text": "layers.0"}.get(
        name, name.removesuffix("-early")
    )
    wanted = parallel_kit.plain_laws(config, weights, mask, list(range(3, 20)), 5)
    found = laws(head.config, head.weights, head.mask)
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mask_token_id": "gone"}, "config.json has none of them: it must have exactly one"),
        ({"ptd_token_id": 3}, "mask_token_id 9, ptd_token_id 3: it must have exactly one"),
        ({"mask_token_id": 96}, "mask_token_id is 96, and the target has ids 0 to 95"),
        ({"mask_token_id": -1}, "mask_token_id is -1"),
        ({"mask_token_id": 1.5}, "mask_token_id is 1.5; it must be an id"),
        ({"parallel_drafting": False}, "parallel_drafting is False beside mask_token_id"),
        ({"architectures": ["OddDraftModel"]}, "architectures is 'OddDraftModel': of P-EAGLE"),
        ({"odd_switch": True}, r"the key odd_switch \(True\)"),
        ({"eagle_aux_hidden_state_layer_ids": [1, 2]}, "reads 3 states .* 2 are told"),
        ({"eagle_aux_hidden_state_layer_ids": [1, 3, 9]}, "behind layer 9, and the target has 6"),
        ({"target_hidden_size": 40}, "no whole states of 40"),
        ({"norm_before_fc": True}, "norm_before_fc is True, and the tensors"),
    ],
)
def test_what_is_not_known_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = parallel_kit.config()
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    keys = {**speculators_keys(config, mask), **changes}
    keys = {k: v for k, v in keys.items() if v != "gone"}
    write(tmp_path, keys, tensors_of(config, weights, mask))
    with pytest.raises(DraftsmithError, match=message) as refusal:
        EagleHead(*read_parallel(tmp_path, kit.target())[:2], kit.target(), CPU)
    assert "\n" not in str(refusal.value)


def test_the_residual_that_all_readers_agree_on_need_not_be_told(tmp_path: Path) -> None:
    config = parallel_kit.config()
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    keys = speculators_keys(config, mask)
    del keys["norm_before_residual"]
    write(tmp_path, keys, tensors_of(config, weights, mask))
    assert read_head(tmp_path, kit.target()).described()["residual"] == "raw feature"


def test_missing_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    config = parallel_kit.config("reduced")
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    whole = tensors_of(config, weights, mask)
    for changes, message in (
        ({"mask_hidden": None}, "there is no tensor mask_hidden"),
        ({"mask_hidden": torch.ones(1, 1, 64)}, r"\[1, 1, 64\] does not stand for 3 states of 32"),
        ({"mask_hidden": whole["mask_hidden"] / 0}, "mask_hidden is not finite"),
        ({"fc.weight": None}, "holds no fc.weight"),
        ({"layers.1.mlp.up_proj.weight": None}, "no tensor 'layers.1.up'"),
        ({"markov_head.markov_w1": torch.ones(1)}, "of DSpark"),
        ({"d2t": whole["d2t"] + 1000}, "names ids beyond the target's 96"),
    ):
        tensors = {k: v for k, v in {**whole, **changes}.items() if v is not None}
        write(tmp_path, speculators_keys(config, mask), tensors)
        with pytest.raises(DraftsmithError, match=message) as refusal:
            read_head(tmp_path, kit.target())
        assert "\n" not in str(refusal.value)


def test_a_file_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    config = parallel_kit.config()
    weights, mask = kit.weights(config), parallel_kit.mask(config)
    write(tmp_path, speculators_keys(config, mask), tensors_of(config, weights, mask))
    path = tmp_path / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(DraftsmithError, match=r"model\.safetensors is truncated"):
        read_head(tmp_path, kit.target())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 48}, "states of 32 numbers, and the target's have 48"),
        ({"vocab_size": 95}, "a target of 96 ids, and the target has 95"),
    ],
)
def test_a_head_for_another_target_is_refused(changes: dict[str, int], message: str) -> None:
    config = parallel_kit.config()
    with pytest.raises(DraftsmithError, match=message):
        EagleHead(config, kit.weights(config), kit.target(**changes), CPU)
