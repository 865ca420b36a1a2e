from pathlib import Path

import torch
import transformers

from draftsmith.models.contract import Rows
from draftsmith.models.load import ModelSettings, load_model


def test_a_cap_on_attention_is_not_left_out(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.Gemma2Config(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=8,
        attn_logit_softcapping=2.0,
        query_pre_attn_scalar=8,
    )
    model = transformers.Gemma2ForCausalLM(config).eval()
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.5)
    model.save_pretrained(tmp_path)
    ids = list(range(3, 15))
    ours = load_model(str(tmp_path), ModelSettings(device="cpu"))
    cache = ours.open_cache()
    logits = ours.forward(cache, Rows([cache.add()], [ids]))[0]
    with torch.no_grad():
        wanted = model(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(logits, wanted, rtol=1e-4, atol=1e-4)
