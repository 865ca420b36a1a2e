"""What each `tokenizer.ggml.pre` stands for: a split, and what else the name implies.

The names are those of llama.cpp's build b11549 (`llama_vocab::impl::load` in
`src/llama-vocab.cpp`), each tried on that build, but for `whitespace`, an encoder's. Any other name
is refused there, and here.
"""

from typing import NamedTuple

from tokenizers import Regex, pre_tokenizers
from tokenizers.pre_tokenizers import PreTokenizer

from draftsmith.errors import ModelFormatError
from draftsmith.models.gguf.keys import PREFIX
from draftsmith.models.gguf.splits import SPLITS, spelled_out
from draftsmith.models.gguf.vocabulary import Vocabulary

__all__ = ["PRE_TOKENIZERS", "PreRule", "build_split", "pre_rule"]


class PreRule(NamedTuple):
    """What a name implies.

    Attributes:
        split: A name of `splits.SPLITS`.
        ignores_merges: Whether a word that is a token is that token, whatever the merges say.
        adds_bos: Whether texts begin with the bos token, if `add_bos_token` does not say.
        is_raw: Whether tokens are spelled in plain characters, with U+2581 for a space and
            `<0x0A>` for a byte, not in the alphabet of bytes.
        keeps_lines: Whether a run of line ends that is a token is that token (raw only).
        is_metaspace: Whether each space begins a word, and a text gets one (raw only).
    """

    split: str
    ignores_merges: bool = False
    adds_bos: bool = False
    is_raw: bool = False
    keeps_lines: bool = False
    is_metaspace: bool = False


_LLAMA3 = PreRule("llama3", ignores_merges=True, adds_bos=True)
_GEMMA4 = PreRule("lines", adds_bos=True, is_raw=True, keeps_lines=True)

_RULES: dict[PreRule, str] = {
    PreRule("default"): "default",
    PreRule("gpt2"): (
        "gpt-2 phi-2 jina-es jina-de gigachat jina-v2-es jina-v2-de a.x-4.0 mellum modern-bert "
        "jina-v1-en jina-v2-code roberta-bpe mpt olmo jais trillion granite-docling exaone4"
    ),
    PreRule("digits"): ("starcoder refact command-r smollm codeshell exaone minerva-7b mellum2"),
    _LLAMA3: "llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 jina-v5-nano",
    PreRule("llama3"): "dbrx smaug-bpe chatglm-bpe",
    PreRule("llama3", ignores_merges=True): "glm4 glm5",
    PreRule("qwen2"): (
        "qwen2 deepseek-r1-qwen kormo f2llmv2 megrez stablelm2 hunyuan solar-open grok-2 "
        "bailingmoe bailingmoe2 llada-moe"
    ),
    PreRule("qwen35"): "qwen35",
    PreRule("jais2"): "jais-2",
    PreRule("deepseek-llm"): "deepseek-llm",
    PreRule("deepseek-coder"): "deepseek-coder",
    PreRule("deepseek3"): "deepseek-v3 hunyuan-dense joyai-llm hy_v4",
    PreRule("spark"): "spark2_5",
    PreRule("youtu", ignores_merges=True): "youtu",
    PreRule("falcon"): "falcon",
    PreRule("bloom"): "bloom poro-chat gpt3-finnish",
    PreRule("viking"): "viking",
    PreRule("tekken", ignores_merges=True, adds_bos=True): "tekken",
    PreRule("gpt-4o"): "gpt-4o llama4 kanana2 talkie minimax-m2",
    PreRule("granite-embedding", ignores_merges=True): "granite-embed-multi-97m",
    PreRule("tiny-aya"): "tiny_aya cohere2moe",
    PreRule("kimi-k2"): "kimi-k2",
    PreRule("k2-horizon"): "k2-horizon",
    PreRule("superbpe"): "superbpe",
    PreRule("seed-coder"): "seed-coder",
    PreRule("ufakzeka"): "ufakzeka",
    PreRule("afmoe"): "afmoe",
    PreRule("laguna"): "laguna",
    PreRule("exaone-moe"): "exaone-moe",
    PreRule("minicpm5", ignores_merges=True): "minicpm5",
    PreRule("chameleon", adds_bos=True): "chameleon",
    _GEMMA4: "gemma4 granite-embed-multi-311m",
    PreRule("lines", is_raw=True): "sarvam-moe",
    PreRule("lines", is_raw=True, keeps_lines=True, is_metaspace=True): "mmbert",
}

PRE_TOKENIZERS = {name: rule for rule, names in _RULES.items() for name in names.split()}
"""By `tokenizer.ggml.pre`; a file without it is llama.cpp's `default`."""


def pre_rule(vocabulary: Vocabulary) -> PreRule:
    """Return what a byte-pair file's `tokenizer.ggml.pre` stands for.

    Raises:
        ModelFormatError: If the name is unknown.
    """
    values = vocabulary.values
    is_gemma4 = values.get(PREFIX + "model") == "gemma4"  # files of that kind name no split
    name = "gemma4" if is_gemma4 else values.get(PREFIX + "pre") or "default"
    if name not in PRE_TOKENIZERS:
        raise ModelFormatError(
            f"{vocabulary.path}: {PREFIX}pre is {name!r}, a split of texts that we do not know; "
            "use the model's original folder"
        )
    return PRE_TOKENIZERS[name]


def build_split(split: str) -> PreTokenizer:
    """Build a split of byte-level words: cut, then spell each word in the alphabet of bytes.

    Args:
        split: A name of `SPLITS`.
    """
    cuts = [
        pre_tokenizers.Split(Regex(spelled_out(pattern)), "isolated") for pattern in SPLITS[split]
    ]
    letters = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return pre_tokenizers.Sequence([*cuts, letters])
