"""Medusa heads: their drafts are the plain twin's, in every layout, or they are refused."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from draftsmith.core.trees import ancestors
from draftsmith.drafters.heads import HeadWeights
from draftsmith.drafters.heads.described import described_head
from draftsmith.drafters.heads.kinds import is_head, is_head_config, read_head
from draftsmith.drafters.heads.load import head_folder
from draftsmith.drafters.heads.medusa import MedusaDrafter, MedusaHeads
from draftsmith.drafters.heads.medusa_config import MedusaConfig
from draftsmith.drafters.heads.medusa_kind import Medusa
from draftsmith.drafters.heads.medusa_layout import read_medusa
from draftsmith.errors import DraftsmithError, InvalidRequestError
from draftsmith.models.hf import load
from draftsmith.models.reference import ModelSource
from draftsmith.models.saved import save_tensors
from tests.drafters.heads import kit, medusa_kit
from tests.drafters.heads.test_trees import PARENTS, Growing
from tests.drafters.recording import view

CPU = torch.device("cpu")


def drafter(config: MedusaConfig, weights: HeadWeights, format: str | None = None) -> MedusaDrafter:
    return MedusaDrafter(MedusaHeads(config, weights, medusa_kit.target(), CPU, format))


def laws(config: MedusaConfig, weights: HeadWeights, format: str | None = None) -> Tensor:
    context = kit.Handing([view(list(range(3, 20)), 8)], config=medusa_kit.STATES)
    drafter(config, weights, format).propose(context)
    return torch.stack(context.logits_of(0))


@pytest.mark.parametrize("name", medusa_kit.VARIANTS)
def test_after_any_rejections_its_logits_are_those_of_the_plain_twin(name: str) -> None:
    config, chance, handed = medusa_kit.config(name), Random(0), dict[int, int]()
    weights = medusa_kit.weights(config)
    state = drafter(config, weights).open()
    texts = [[chance.randrange(kit.VOCAB) for _ in range(length)] for length in (2, 5, 30)]
    for _ in range(4):
        views = [view(text, chance.randint(0, 6), i) for i, text in enumerate(texts)]
        drawn = [[chance.randrange(kit.VOCAB) for _ in range(6)] for _ in texts]
        context = kit.Handing(views, drawn, config=medusa_kit.STATES, handed=handed)
        state.propose(context)
        for row, text in enumerate(texts):
            num_drafted = min(views[row].gamma, config.num_heads)
            shown = context.logits_of(row)
            assert len(shown) == num_drafted
            if shown:
                wanted = medusa_kit.plain_laws(config, weights, text, num_drafted)
                torch.testing.assert_close(torch.stack(shown), wanted, rtol=1e-3, atol=1e-3)
            kept = chance.randint(0, num_drafted)
            texts[row] = [*text, *drawn[row][:kept], chance.randrange(kit.VOCAB)]


def test_in_eight_bits_it_is_nearly_the_same() -> None:
    config = medusa_kit.config()
    weights = medusa_kit.weights(config)
    wanted, got = (laws(config, weights, one).softmax(-1) for one in (None, "Q8_0"))
    assert float((wanted - got).abs().sum(-1).max()) < 0.1
    assert not torch.equal(wanted, got)


def test_a_sequence_of_one_token_has_nothing_to_go_on_from() -> None:
    config = medusa_kit.config()
    made = drafter(config, medusa_kit.weights(config))
    context = kit.Handing([view([5], 3, 1), view([5, 6], 3, 2)], config=medusa_kit.STATES)
    assert made.propose(context).num_drafted.tolist() == [0, 3]


def test_tokens_that_take_no_draw_use_up_a_head() -> None:
    class Followed(kit.Handing):
        def follow(self, rows: Sequence[int]) -> list[list[int]]:
            for row in rows:
                self.tokens[row].append(9)
            return [[9] for _ in rows]

    config = medusa_kit.config()
    weights = medusa_kit.weights(config)
    text = [5, 6, 7]
    context = Followed([view(text, 6)], [[1, 2, 3]], config=medusa_kit.STATES)
    made = drafter(config, weights)
    assert made.propose(context).tokens.tolist() == [[1, 9, 2, 9]]
    wanted = medusa_kit.plain_laws(config, weights, text, 3)
    torch.testing.assert_close(torch.stack(context.logits_of(0)), wanted[[0, 2]])


def test_heads_of_tokens_that_a_grammar_has_forced_are_passed_over() -> None:
    """The target has read fewer than all tokens but the last."""

    class Behind(kit.Handing):
        def states(self, row: int) -> Tensor:
            return super().states(row)[:-2]

    config = medusa_kit.config("without-bias")
    weights = medusa_kit.weights(config)
    text = [5, 6, 7, 8, 9]
    context = Behind([view(text, 6)], [[1, 2, 3]], config=medusa_kit.STATES)
    assert drafter(config, weights).propose(context).num_drafted.tolist() == [3]
    wanted = medusa_kit.plain_laws(config, weights, text[:-2], 5)
    torch.testing.assert_close(torch.stack(context.logits_of(0)), wanted[2:])


def test_an_ended_sequence_is_forgotten() -> None:
    config = medusa_kit.config()
    weights = medusa_kit.weights(config)
    state = drafter(config, weights).open()
    state.propose(kit.Handing([view([5, 6, 7], 2, 1)], config=medusa_kit.STATES))
    state.release(1)
    again = kit.Handing([view([8, 9], 2, 1)], config=medusa_kit.STATES)
    state.propose(again)
    wanted = medusa_kit.plain_laws(config, weights, [8, 9], 2)
    torch.testing.assert_close(torch.stack(again.logits_of(0)), wanted)


@pytest.mark.parametrize("name", ["without-bias", "one-output", "reduced"])
def test_a_nodes_logits_are_those_of_its_depth(name: str) -> None:
    config = medusa_kit.config(name, num_heads=5)
    weights, texts = medusa_kit.weights(config), [[5, 6, 7, 8], [9, 3]]
    made = MedusaDrafter(MedusaHeads(config, weights, medusa_kit.target(), CPU, None), "heads", 2)
    context = Growing([view(text, 8, i) for i, text in enumerate(texts)], config=medusa_kit.STATES)
    context.takes_trees = True
    made.propose(context)
    for (row, node), line in context.bush.logits.items():
        wanted = medusa_kit.plain_laws(config, weights, texts[row], 5)
        depth = len(ancestors(PARENTS, node))
        torch.testing.assert_close(line, wanted[depth], rtol=1e-4, atol=1e-4)


# --- layouts -------------------------------------------------------------------------------------


def reference_names(config: MedusaConfig, weights: HeadWeights) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in weights.tensors.items():
        _, head, *rest = name.split(".")
        if rest == ["output"]:
            found[f"{head}.{config.num_blocks}.weight"] = tensor
        else:
            kind = "bias" if rest[-1] == "bias" else "weight"
            found[f"{head}.{rest[1]}.linear.{kind}"] = tensor
    return found


def vllm_names(config: MedusaConfig, weights: HeadWeights) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {}
    for name, tensor in weights.tensors.items():
        parts = name.split(".")
        if name == "output":
            found["lm_heads.0.weight"] = tensor
        elif parts[2] == "output":
            found[f"lm_heads.{parts[1]}.weight"] = tensor
        else:
            kind = "bias" if parts[-1] == "bias" else "weight"
            found[f"blocks.{parts[1]}.layers.{parts[3]}.{kind}"] = tensor
    return found


def reference_keys(config: MedusaConfig) -> dict[str, Any]:
    return {
        "medusa_num_heads": config.num_heads,
        "medusa_num_layers": config.num_blocks,
        "base_model_name_or_path": "the/target",
        "transformers_version": "4.31.0",
    }


def vllm_keys(config: MedusaConfig, **more: Any) -> dict[str, Any]:
    return {
        "architectures": ["MedusaModel"],
        "model_type": "medusa",
        "hidden_size": config.hidden_size,
        "vocab_size": config.target_vocab_size,
        "num_heads": config.num_heads,
        "num_hidden_layers": config.num_blocks,
        "truncated_vocab_size": config.vocab_size,
        "max_paths": 64,
        "topk": 10,
        **more,
    }


def keys_at(folder: Path, keys: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(keys))


def reference(folder: Path, config: MedusaConfig, weights: HeadWeights) -> None:
    keys_at(folder, reference_keys(config))
    torch.save(reference_names(config, weights), folder / "medusa_lm_head.pt")


def as_safetensors(folder: Path, config: MedusaConfig, weights: HeadWeights) -> None:
    keys_at(folder, reference_keys(config))
    save_tensors(folder / "medusa_lm_head.safetensors", reference_names(config, weights))


def second_version(folder: Path, config: MedusaConfig, weights: HeadWeights) -> None:
    """text-generation-inference's: the output matrix is the target's."""
    keys_at(folder, {**reference_keys(config), "version": "2"})
    save_tensors(folder / "medusa_lm_head.safetensors", reference_names(config, weights))


def vllm(folder: Path, config: MedusaConfig, weights: HeadWeights) -> None:
    keys_at(folder, vllm_keys(config, medusa_fc_bias=config.has_bias))
    save_tensors(folder / "model.safetensors", vllm_names(config, weights))


def vllm_mapped(folder: Path, config: MedusaConfig, weights: HeadWeights) -> None:
    """Whole output matrices beside the ids that are drafted."""
    assert weights.ids is not None
    keys_at(folder, vllm_keys(config))
    tensors = {f"medusa_heads.{k}": v for k, v in vllm_names(config, weights).items()}
    for name in [name for name in tensors if "lm_heads" in name]:
        whole = torch.randn(kit.VOCAB, kit.WIDTH)
        whole[weights.ids] = tensors[name]
        tensors[name] = whole
    save_tensors(folder / "model.safetensors", {**tensors, "token_map": weights.ids})


def vllm_shared(folder: Path, config: MedusaConfig, weights: HeadWeights) -> None:
    keys_at(folder, vllm_keys(config, original_lm_head=True))
    save_tensors(folder / "model.safetensors", vllm_names(config, weights))


def speculators(folder: Path, config: MedusaConfig, weights: HeadWeights) -> None:
    keys = {
        "architectures": ["MedusaModel"],
        "speculators_model_type": "medusa",
        "speculators_config": {"verifier": {"name_or_path": "the/target"}},
        "medusa_hidden_size": config.hidden_size,
        "medusa_vocab_size": config.target_vocab_size,
        "num_heads": config.num_heads,
        "num_hidden_layers": config.num_blocks,
        "truncated_vocab_size": 0,
        "original_lm_head": config.outputs == "target's",
        "medusa_fc_bias": config.has_bias,
        "head_weight_decay": 0.8,
    }
    keys_at(folder, keys)
    tensors = vllm_names(config, weights)
    if weights.ids is not None:
        keys_at(folder, {**keys, "truncated_vocab_size": config.vocab_size})
        tensors["d2t"] = weights.ids - torch.arange(len(weights.ids))
        marks = torch.zeros(config.target_vocab_size, dtype=torch.bool)
        marks[weights.ids] = True
        tensors["t2d"] = marks
    save_tensors(folder / "model.safetensors", tensors)


Writer = Callable[[Path, MedusaConfig, HeadWeights], None]
LAYOUTS: dict[str, tuple[Writer, str, str]] = {
    "pickle": (reference, "plain", "FasterDecoding"),
    "pickle-two-blocks": (reference, "two-blocks", "FasterDecoding"),
    "safetensors": (as_safetensors, "plain", "FasterDecoding"),
    "second-version": (second_version, "target-output", "FasterDecoding"),
    "vllm": (vllm, "without-bias", "vLLM"),
    "vllm-two-blocks": (vllm, "two-blocks", "vLLM"),
    "vllm-mapped": (vllm_mapped, "reduced", "vLLM"),
    "vllm-shared": (vllm_shared, "one-output", "vLLM"),
    "speculators": (speculators, "reduced", "speculators"),
    "speculators-target-output": (speculators, "target-output", "speculators"),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_each_layout_loads_to_the_logits_of_the_plain_twin(tmp_path: Path, name: str) -> None:
    written, variant, layout = LAYOUTS[name]
    config = medusa_kit.config(variant)
    weights = medusa_kit.weights(config)
    written(tmp_path / "head", config, weights)
    assert is_head(tmp_path / "head")
    head = read_head(tmp_path / "head", medusa_kit.target())
    assert isinstance(head, Medusa)
    assert head.boundaries == (kit.LAYERS,)
    told = head.described()
    assert told["kind"] == "Medusa"
    assert told["layout"] == layout
    assert told["boundaries"] == "6, behind the final norm"
    assert told["heads"].startswith(str(config.num_heads))
    wanted = medusa_kit.plain_laws(config, weights, list(range(3, 20)), 8)
    torch.testing.assert_close(laws(head.config, head.weights), wanted, rtol=1e-4, atol=1e-4)


def test_blocks_that_share_their_weights_are_read_as_they_are_stored(tmp_path: Path) -> None:
    """The reference's two blocks of a head are one object, which its file names twice."""
    config = medusa_kit.config("two-blocks")
    tensors = dict(medusa_kit.weights(config).tensors)
    for name in [name for name in tensors if ".blocks.1" in name]:
        tensors[name] = tensors[name.replace(".blocks.1", ".blocks.0")]
    shared = HeadWeights(tensors)
    reference(tmp_path, config, shared)
    found, read = read_medusa(tmp_path, medusa_kit.target())
    assert found.num_blocks == 2
    wanted = medusa_kit.plain_laws(config, shared, list(range(3, 20)), 8)
    torch.testing.assert_close(laws(found, read), wanted, rtol=1e-4, atol=1e-4)


def test_without_the_target_its_vocabulary_may_be_missing(tmp_path: Path) -> None:
    config = medusa_kit.config()
    reference(tmp_path / "whole", config, medusa_kit.weights(config))
    assert read_head(tmp_path / "whole", None).described()["boundaries"].startswith("the last,")
    config = medusa_kit.config("target-output")
    second_version(tmp_path / "less", config, medusa_kit.weights(config))
    with pytest.raises(InvalidRequestError, match="give --target"):
        read_head(tmp_path / "less", None)


def test_from_the_hub_their_own_files_are_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def fetched(
        source: ModelSource, is_wanted: Callable[[dict[str, Any]], bool], more: Sequence[str] = ()
    ) -> Path | None:
        asked.extend([source.reference, *more])
        return tmp_path if is_wanted(reference_keys(medusa_kit.config())) else None

    monkeypatch.setattr(load, "hub_folder", fetched)
    assert head_folder("org/medusa-head") == tmp_path
    assert asked[0] == "org/medusa-head"
    assert set(asked) > {"medusa_lm_head.pt", "medusa_lm_head.safetensors", "pytorch_model.bin"}


def test_what_is_shown_says_its_kind(tmp_path: Path) -> None:
    config = medusa_kit.config()
    reference(tmp_path, config, medusa_kit.weights(config))
    document = described_head(tmp_path)
    assert document is not None
    assert document["kind"] == "Medusa"
    assert document["path"] == str(tmp_path)
    assert document["num_bytes"] == sum(one.stat().st_size for one in tmp_path.iterdir())


def test_a_model_that_holds_medusa_heads_is_no_head() -> None:
    assert not is_head_config({"architectures": ["LlamaForCausalLM"], "medusa_num_heads": 5})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"medusa_num_heads": 2},
            r"medusa_num_heads is 2, .* 3 heads \(the reference reads 5 .*write 3 into",
        ),
        ({"medusa_num_layers": 2}, "medusa_num_layers is 2, .* 1 blocks a head"),
        ({"medusa_num_heads": 0}, "medusa_num_heads 0; it must be"),
        ({"hidden_size": 48}, "hidden_size is 48, .* 32 numbers a state"),
        ({"vocab_size": 97}, r"truncated|is \[96, 32\] where its config says \[97, 32\]"),
        ({"medusa_fc_bias": False}, "medusa_fc_bias is False, and the tensors have biases"),
        ({"original_lm_head": True}, "original_lm_head is True, .* 3 output matrices"),
        ({"original_lm_head": 1}, "original_lm_head is 1; it must be true or false"),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu': of Medusa heads, only 'silu'"),
        ({"logit_scale": 0.5}, "logit_scale is 0.5"),
        ({"version": "3"}, "version is '3'"),
        ({"odd_switch": True}, r"the key odd_switch \(True\)"),
    ],
)
def test_a_config_that_contradicts_the_tensors_is_refused_by_name(
    tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    config = medusa_kit.config()
    reference(tmp_path, config, medusa_kit.weights(config))
    keys_at(tmp_path, {**reference_keys(config), **changes})
    with pytest.raises(DraftsmithError, match=message) as refusal:
        read_head(tmp_path, medusa_kit.target())
    assert "\n" not in str(refusal.value)
    assert str(tmp_path) in str(refusal.value)


def test_missing_and_unknown_tensors_are_named(tmp_path: Path) -> None:
    config = medusa_kit.config()
    whole = reference_names(config, medusa_kit.weights(config))
    keys = {"base_model_name_or_path": "the/target", "model_type": "medusa"}
    nan = torch.full((kit.WIDTH,), torch.nan)
    for changes, message in (
        ({"1.0.linear.weight": None}, "no tensor 'heads.1.blocks.0'"),
        ({"0.0.linear.weight": None}, "no first block of a Medusa head"),
        ({"2.1.weight": None}, "no tensor 'heads.2.output'"),
        ({"1.0.linear.bias": None}, r"no tensor 'heads.1.blocks.0.bias'"),
        ({"1.0.linear.bias": nan}, "'heads.1.blocks.0.bias' is not finite"),
        ({"1.0.linear.weight": torch.ones(32, 16)}, r"is \[32, 16\] where .* \[32, 32\]"),
        ({"7.1.weight": torch.ones(96, 32)}, "'heads.7.output' that its config"),
        ({"0.0.norm.weight": torch.ones(32)}, r"holds tensor '0.0.norm.weight'"),
        ({"token_map": torch.tensor([3, 3])}, "no list of distinct ids"),
    ):
        tensors = {k: v for k, v in {**whole, **changes}.items() if v is not None}
        keys_at(tmp_path, keys)
        torch.save(tensors, tmp_path / "medusa_lm_head.pt")
        with pytest.raises(DraftsmithError, match=message) as refusal:
            read_head(tmp_path, medusa_kit.target())
        assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("written", [reference, as_safetensors])
def test_a_file_that_is_cut_off_is_refused(tmp_path: Path, written: Writer) -> None:
    config = medusa_kit.config()
    written(tmp_path, config, medusa_kit.weights(config))
    path = next(tmp_path.glob("medusa_lm_head.*"))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DraftsmithError, match=r"medusa_lm_head\.\w+ (cannot be read|is truncated)"):
        read_head(tmp_path, medusa_kit.target())


def test_code_in_a_pickle_is_not_run(tmp_path: Path) -> None:
    config = medusa_kit.config()
    keys_at(tmp_path, reference_keys(config))
    torch.save({"0.0.linear.weight": Path}, tmp_path / "medusa_lm_head.pt")
    with pytest.raises(DraftsmithError, match=r"medusa_lm_head\.pt cannot be read") as refusal:
        read_head(tmp_path, medusa_kit.target())
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 48}, "states of 32 numbers, and the target's have 48"),
        ({"vocab_size": 95}, "a target of 96 ids, and the target has 95"),
    ],
)
def test_heads_for_another_target_are_refused(changes: dict[str, int], message: str) -> None:
    config = medusa_kit.config()
    with pytest.raises(DraftsmithError, match=message) as refusal:
        MedusaHeads(config, medusa_kit.weights(config), medusa_kit.target(**changes), CPU)
    assert "give a head that was trained for the target" in str(refusal.value)


def test_half_of_the_ids_through_the_targets_output_are_refused(tmp_path: Path) -> None:
    config = medusa_kit.config("target-output")
    keys_at(tmp_path, vllm_keys(config, original_lm_head=True, truncated_vocab_size=2))
    tensors = vllm_names(config, medusa_kit.weights(config))
    save_tensors(tmp_path / "model.safetensors", {**tensors, "token_map": torch.tensor([3, 5])})
    with pytest.raises(DraftsmithError, match="drafts 2 of 96 ids through the target's output"):
        read_head(tmp_path, medusa_kit.target())
