"""What a T5's configuration may say, and how what it may not is refused."""
# transformers' objects have looser annotations than pyright's strict mode asks:
# pyright: basic

import json
import shutil
from pathlib import Path

import pytest

from draftsmith.errors import ModelFormatError
from draftsmith.models.native.t5 import read_plain_t5
from draftsmith.models.native.t5_config import native_t5_architecture
from tests import tiny


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("template")
    tiny.raw_model("t5").save_pretrained(where)
    return where


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """A saved v1.0, to be changed."""
    return shutil.copytree(template, tmp_path / "t5")


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in (config | changes).items() if v != "absent"}))


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"model_type": "umt5"}, "model_type 'umt5' is not supported"),
        ({"architectures": ["T5EncoderModel"]}, r"architectures \['T5EncoderModel'\]"),
        ({"feed_forward_proj": "gated-silu"}, "feed_forward_proj 'gated-silu' is not supported"),
        ({"dense_act_fn": "silu"}, "dense_act_fn 'silu' is not supported with relu"),
        ({"quantization_config": {}}, "quantization_config is not supported"),
    ],
)
def test_an_option_that_is_not_supported_is_named(
    folder: Path, changes: dict[str, object], why: str
) -> None:
    assert native_t5_architecture(json.loads((folder / "config.json").read_text()))
    change_config(folder, **changes)
    assert not native_t5_architecture(json.loads((folder / "config.json").read_text()))
    with pytest.raises(ModelFormatError, match=why) as caught:
        read_plain_t5(folder)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"d_model": "absent"}, "d_model must be a positive integer, got None"),
        ({"num_heads": True}, "num_heads must be a positive integer, got True"),
        ({"d_ff": 65}, r"shape \(64, 32\), but config.json needs \(65, 32\)"),
        ({"num_layers": 3, "num_decoder_layers": 2}, r"encoder\.block\.2.* is missing"),
        ({"num_layers": 1, "num_decoder_layers": 2}, r"encoder\.block\.1.*no T5 has"),
        ({"layer_norm_epsilon": "tiny"}, "layer_norm_epsilon must be .* got 'tiny'"),
        ({"relative_attention_num_buckets": 2}, "num_buckets must be at least 4, got 2"),
        ({"relative_attention_max_distance": 4}, "must exceed half of the 8 buckets, got 4"),
        ({"decoder_start_token_id": "absent"}, "decoder_start_token_id must be set"),
        ({"decoder_start_token_id": 96}, "below the vocab_size of 96, got 96"),
        ({"eos_token_id": "end"}, "eos_token_id must be an integer .* got 'end'"),
    ],
)
def test_a_config_that_does_not_fit_is_refused_by_name(
    folder: Path, changes: dict[str, object], why: str
) -> None:
    (folder / "generation_config.json").unlink()
    change_config(folder, **changes)
    with pytest.raises(ModelFormatError, match=why) as caught:
        read_plain_t5(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "why"), [(None, "cannot be read"), ("{", "not JSON"), ("[]", "not a JSON object")]
)
def test_a_config_that_cannot_be_read_is_named(folder: Path, content: str | None, why: str) -> None:
    path = folder / "config.json"
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(ModelFormatError, match=rf"config\.json.* {why}"):
        read_plain_t5(folder)


def test_generation_config_comes_first(folder: Path) -> None:
    ids = {"eos_token_id": [1, 7], "decoder_start_token_id": 4}
    (folder / "generation_config.json").write_text(json.dumps(ids))
    traits = read_plain_t5(folder, name="mine").traits
    assert traits.eos_token_ids == (1, 7)
    assert traits.decoder_start_token_id == 4
    assert traits.name == "mine"
