"""Processors of structured-output libraries beside `custom_generate`: `transformers`' own text."""
# The libraries' and transformers' objects are looser than pyright's strict mode asks:
# pyright: basic

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LogitsProcessorList, PreTrainedTokenizerFast

import draftsmith.transformers
from tests import tiny

SCHEMA = '{"type": "object", "properties": {"name": {"type": "string", "maxLength": 6}, "age": {"type": "integer", "minimum": 0, "maximum": 99}}, "required": ["name", "age"], "additionalProperties": false}'  # fmt: skip  # noqa: E501
REGEX = r"(yes|no|perhaps)( [a-f]{2,5}){3}\."


def tokenizer() -> PreTrainedTokenizerFast:
    """Bytes, and an end."""
    bytes_ = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {byte: index for index, byte in enumerate(bytes_)} | {"<eos>": 256}
    backend = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # type: ignore[attr-defined] # tokenizers' stubs make it read-only
    backend.decoder = decoders.ByteLevel()  # type: ignore[attr-defined] # tokenizers' stubs make it read-only
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<eos>", pad_token="<eos>", bos_token="<eos>"
    )


def model() -> Any:
    made = tiny.raw_model("llama", vocab_size=257)
    made.generation_config.eos_token_id = made.generation_config.pad_token_id = 256
    return made


def check(make: Callable[[Any], Any], num_rows: int) -> str:
    """Equal to plain `generate`, for every draft; returns the first text."""
    target, words = model(), tokenizer()
    ids = torch.tensor([[75, 76, 75, 76, 75, 76], [80, 81, 82, 80, 81, 82]])[:num_rows]
    options: dict[str, Any] = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "max_new_tokens": 40,
        "do_sample": False,
    }
    plain = target.generate(**options, logits_processor=LogitsProcessorList([make(target)]))
    for drafts in ({"prompt_lookup_num_tokens": 4}, {"assistant_model": target}):
        processors = LogitsProcessorList([make(target)])
        with pytest.warns(UserWarning, match="LogitsProcessor may keep a state"):
            text = target.generate(
                **options,
                **drafts,
                logits_processor=processors,
                custom_generate=draftsmith.transformers.generate,
            )
        assert torch.equal(text, plain)
    return str(words.decode(plain[0, 6:], skip_special_tokens=True))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("num_rows", [1, 2])
def test_xgrammars_processor_gives_the_text_of_plain_generate(num_rows: int) -> None:
    xgr = pytest.importorskip("xgrammar", reason="xgrammar is not installed")
    from xgrammar.contrib.hf import LogitsProcessor

    info = xgr.TokenizerInfo.from_huggingface(tokenizer(), vocab_size=257)
    grammar = xgr.GrammarCompiler(info).compile_json_schema(SCHEMA)
    text = check(lambda _: LogitsProcessor(grammar), num_rows)
    assert text.lstrip().startswith("{")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("num_rows", [1, 2])
@torch.compiler.set_stance("force_eager")  # a minute of C++ for the same bits
def test_outlines_processor_gives_the_text_of_plain_generate(num_rows: int) -> None:
    outlines = pytest.importorskip("outlines", reason="outlines is not installed")
    from outlines.backends import get_regex_logits_processor

    text = check(
        lambda target: get_regex_logits_processor(
            "outlines_core", outlines.from_transformers(target, tokenizer()), REGEX
        ),
        num_rows,
    )
    assert text.startswith(("yes ", "no ", "perhaps "))
