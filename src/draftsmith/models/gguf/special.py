"""The tokens of a GGUF file that are more than text: what they are, and where they end a text.

The rules and the spellings are llama.cpp's (build b11549, `llama_vocab::impl::load` in
`src/llama-vocab.cpp`), which knows many tokens by their text, because files mark them wrong or
not at all. Where a vocabulary has several spellings of one role (`<PAD>` and `<fim_pad>`),
llama.cpp takes the one that its hash table gives first; we take all.

One rule is not followed: llama.cpp ends at a token with one of these texts also where it is a
piece of plain text, as `</s>` is in Qwen2.5's vocabulary, which HTML is written with. Such a token
(marked normal, and made by a merge or of a SentencePiece vocabulary) is text here.
"""

from collections.abc import Iterator
from typing import NamedTuple

from draftsmith.models.gguf.vocabulary import (
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
)

__all__ = ["Special", "end_token_ids", "special_tokens", "token_types"]

_ENDINGS = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<|return|>", "<|call|>", "<|flush|>", "<|calls|>",
    "<end_of_turn>", "<|endoftext|>", "</s>", "<|eom_id|>", "<EOT>", "_<EOT>", "[EOT]", "[EOS]",
    "<|end_of_text|>", "<end_of_utterance>", "<eos>", "<turn|>", "<|tool_response>", "[e~[",
    "<\uff5cend\u2581of\u2581sentence\uff5c>", "<|ifm|im_end|>",
}  # fmt: skip
"""Texts that end a generation."""

_FILLING_ENDINGS = {
    "fim_pad": {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"},
    "fim_rep": {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"},
    "fim_sep": {"<|file_sep|>", "<|plamo:file_separator|>"},
}
"""Texts of roles that end a generation, for files that do not name the role's id."""

_FILLING = {
    "fim_pre": {
        "<|fim_prefix|>", "<fim-prefix>", "<fim_prefix>", "<\uff5cfim\u2581begin\uff5c>", "<PRE>",
        "\u2581<PRE>", "<|code_prefix|>", "<|prefix|>", "<|plamo:fim_prefix|>",
    },
    "fim_suf": {
        "<|fim_suffix|>", "<fim-suffix>", "<fim_suffix>", "<\uff5cfim\u2581hole\uff5c>", "<SUF>",
        "\u2581<SUF>", "<|code_suffix|>", "<|suffix|>", "<|plamo:fim_suffix|>",
    },
    "fim_mid": {
        "<|fim_middle|>", "<fim-middle>", "<fim_middle>", "<\uff5cfim\u2581end\uff5c>", "<MID>",
        "\u2581<MID>", "<|code_middle|>", "<|middle|>", "<|plamo:fim_middle|>",
    },
}  # fmt: skip
"""Texts of other roles that make a token special."""

_OLD_NAMES = {"fim_pre": "prefix", "fim_suf": "suffix", "fim_mid": "middle"}
_SHOWN = {"<|channel|>", "<|message|>", "<|start|>", "<|constrain|>"}
"""What gpt-oss writes between the parts of an answer: special, but shown."""


class Special(NamedTuple):
    """A token that is found in a text before the text is cut into words."""

    token: int
    text: str
    strips_left: bool
    """Whether it takes the white space before it."""
    strips_right: bool


def token_types(vocabulary: Vocabulary) -> list[int]:
    """Return the kinds of the tokens, by id, once those known by their text are set right."""
    types, ids = list(vocabulary.types), vocabulary.ids
    for text in _known_texts(vocabulary):
        types[ids[text]] = CONTROL
    for text in _meant(vocabulary, _SHOWN):
        types[ids[text]] = USER_DEFINED
    for text, type in _no_endings(ids).items():
        types[ids[text]] = type
    return types


def end_token_ids(vocabulary: Vocabulary) -> tuple[int, ...]:
    """Return the ids at which a text of the model ends, the file's `eos_token_id` first.

    Args:
        vocabulary: Of the model's GGUF file.
    """
    ids = vocabulary.ids
    named = [vocabulary.special_id(name) for name in ("eos", "eot", "eom", *_FILLING_ENDINGS)]
    texts = set(_ENDINGS)
    for name, spellings in _FILLING_ENDINGS.items():
        if vocabulary.special_id(name) is None:
            texts |= spellings
    found = sorted(ids[text] for text in _meant(vocabulary, texts))
    wrong = {ids[text] for text in _no_endings(ids)}
    endings = dict.fromkeys(id for id in (*named, *found) if id is not None and id not in wrong)
    return tuple(endings)


def special_tokens(vocabulary: Vocabulary, types: list[int]) -> list[Special]:
    """Return the tokens that are looked for in a text, in that order: the longest first.

    Args:
        vocabulary: Of a GGUF file.
        types: As `token_types` gives them.
    """
    kinds = (CONTROL, USER_DEFINED, UNKNOWN)
    found = [index for index, type in enumerate(types) if type in kinds]
    texts = {index: vocabulary.tokens[index] for index in found}
    left, right = _stripping(vocabulary, set(texts.values()))
    specials = [Special(index, t, t in left, t in right) for index, t in texts.items()]
    return sorted(specials, key=lambda special: -len(special.text.encode()))


def _known_texts(vocabulary: Vocabulary) -> Iterator[str]:
    """Texts whose tokens are control tokens, whatever the file says."""
    texts = set(_ENDINGS)
    for name, spellings in (_FILLING | _FILLING_ENDINGS).items():
        old = _OLD_NAMES.get(name, name)
        if vocabulary.special_id(name) is None and vocabulary.special_id(old) is None:
            texts |= spellings
    yield from _meant(vocabulary, texts)


def _meant(vocabulary: Vocabulary, texts: set[str]) -> Iterator[str]:
    """Those of the texts that are tokens, and not mere text."""
    for text in texts & vocabulary.ids.keys():
        is_normal = vocabulary.types[vocabulary.ids[text]] == NORMAL
        if not (is_normal and (vocabulary.is_sentence_piece or vocabulary.is_merged(text))):
            yield text


def _no_endings(ids: dict[str, int]) -> dict[str, int]:
    """Texts that end nothing beside certain others, and what kind of token they then are."""
    no_endings: dict[str, int] = {}
    calls = "<|call|>" in ids or "<|calls|>" in ids
    if calls and ("<|return|>" in ids or "<|flush|>" in ids) and "<|end|>" in ids:
        no_endings["<|end|>"] = USER_DEFINED
    if "</s>" in ids and "<|tool_response>" in ids:
        no_endings["</s>"] = NORMAL
    return no_endings


def _stripping(vocabulary: Vocabulary, texts: set[str]) -> tuple[set[str], set[str]]:
    """Which special tokens take the white space before them, and which that after them.

    No GGUF key says so: it is known by the names of models.
    """
    name = str(vocabulary.values.get("general.name", "")).lower()
    pre = str(vocabulary.values.get("tokenizer.ggml.pre", ""))
    architecture = vocabulary.values.get("general.architecture")
    if any(part in pre for part in ("jina-v2-de", "jina-v2-es", "jina-v2-code", "mmbert")):
        return {"<mask>"}, set()
    if architecture in ("nomic-bert-moe", "jina-bert-v3"):
        return {"<mask>"}, set()
    if "phi-3" in name or "phi3" in name:
        return set(), texts - {"<unk>", "<s>", "<|endoftext|>"}
    return ({"[MASK]"} if "modern-bert" in name else set()), set()
