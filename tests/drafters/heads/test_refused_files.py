"""Files of heads that say two things at once, or hold what no weight is: one line each."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from draftsmith.core.params import SamplingParams
from draftsmith.drafters.heads.keys import rope_keys
from draftsmith.drafters.heads.medusa_layout import read_medusa
from draftsmith.drafters.heads.mtp import claims_mtp
from draftsmith.engine.rounds.drafting import RoundContext
from draftsmith.errors import DraftError, ModelFormatError
from tests.engine.test_rounds import CPU, turns_of
from tests.engine.test_rounds import VOCAB as IDS

WIDTH, VOCAB = 8, 12


def medusa(folder: Path, config: dict[str, object], **tensors: torch.Tensor) -> Path:
    """One head of one block, with these in the place of its own."""
    own = {
        "0.0.linear.weight": torch.zeros(WIDTH, WIDTH),
        "0.0.linear.bias": torch.zeros(WIDTH),
        "0.1.weight": torch.ones(VOCAB, WIDTH),
    }
    given = {name.replace("__", "."): tensor for name, tensor in tensors.items()}
    save_file(own | given, folder / "medusa_lm_head.safetensors")
    told = {
        "medusa_num_heads": 1,
        "medusa_num_layers": 1,
        "hidden_size": WIDTH,
        "vocab_size": VOCAB,
    }
    (folder / "config.json").write_text(json.dumps(told | config))
    return folder


@pytest.mark.parametrize(
    ("config", "tensors", "message"),
    [
        ({}, {"0__0__linear__weight": torch.zeros(WIDTH, WIDTH).long()}, "holds int64"),
        ({}, {"0__0__linear__weight": torch.tensor(1.0)}, r"shape \[\], and a matrix"),
        ({}, {"medusa_heads__0__1__weight": torch.zeros(VOCAB, WIDTH)}, "'0.1.weight' twice"),
        ({}, {"9__0__linear__weight": torch.zeros(WIDTH, WIDTH)}, "names 10 heads"),
        (
            {},
            {"d2t": torch.zeros(VOCAB).long(), "token_map": torch.arange(VOCAB)},
            "d2t and token_map: take one out",
        ),
        ({}, {"d2t": torch.zeros(1, 1).long()}, r"d2t of \[1, 1\] is no list"),
        ({"draft_vocab_size": 5}, {}, "draft_vocab_size is 5, and 12 ids"),
        ({"truncated_vocab_size": 5}, {}, "truncated_vocab_size is 5, and 12 ids"),
    ],
)
def test_medusa_heads_that_say_two_things(
    tmp_path: Path, config: dict[str, object], tensors: dict[str, torch.Tensor], message: str
) -> None:
    medusa(tmp_path, {})
    read_medusa(tmp_path, None)
    with pytest.raises(ModelFormatError, match=message):
        read_medusa(medusa(tmp_path, config, **tensors), None)


def test_both_keys_of_rotary_positions_are_read() -> None:
    scaled = {"rope_type": "yarn", "factor": 4.0}
    both = rope_keys({"rope_parameters": {"rope_theta": 1e6}, "rope_scaling": scaled})
    assert both == {"rope_theta": 1e6, **scaled}
    with pytest.raises(ModelFormatError, match=r"say factor is 2\.0 and 4\.0"):
        rope_keys({"rope_parameters": {"factor": 2.0}, "rope_scaling": scaled})
    with pytest.raises(ModelFormatError, match="rope_scaling is 'yarn', no JSON object"):
        rope_keys({"rope_scaling": "yarn"})


@pytest.mark.parametrize(
    ("name", "is_mtp"),
    [
        ("Qwen3_5MTP", True),
        ("DeepSeekMTPModel", True),
        ("GlmNextN", True),
        ("SmtpForCausalLM", False),
    ],
)
def test_letters_by_chance_are_no_mtp_layers(name: str, is_mtp: bool) -> None:
    assert claims_mtp({"architectures": [name]}) is is_mtp


@pytest.mark.parametrize("confidences", [[float("nan")], [1.5], [], [0.5, 0.5]])
def test_a_confidence_is_a_number_from_0_to_1_for_each_token(confidences: list[float]) -> None:
    context = RoundContext(turns_of([SamplingParams(max_tokens=8)]), IDS, CPU)
    with pytest.raises(DraftError, match="a confidence from 0 to 1 for each"):
        context.draw([0], torch.zeros(1, context.vocab_size), confidences)
