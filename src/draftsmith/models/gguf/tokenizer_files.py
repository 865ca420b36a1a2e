"""A GGUF file's byte-pair tokenizer as the files of a folder of `transformers`.

Its splits, merges and special tokens are said in the words of the `tokenizers` library, which this
module's reader runs on as well.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tokenizers import AddedToken, decoders
from tokenizers.processors import TemplateProcessing

from draftsmith.errors import InvalidRequestError
from draftsmith.models.gguf.byte_pair import merging
from draftsmith.models.gguf.special import Special
from draftsmith.models.gguf.vocabulary import CONTROL, UNKNOWN, Vocabulary

__all__ = ["Described", "byte_pair_files"]


class Described(NamedTuple):
    """What a tokenizer is, beside its vocabulary."""

    types: Sequence[int]
    specials: Sequence[Special]
    before: Sequence[int]
    """Ids that every text begins with."""
    after: Sequence[int]
    chat_template: str | dict[str, str] | None
    named: Mapping[str, str]
    """The special tokens that a template may name."""


def byte_pair_files(vocabulary: Vocabulary, described: Described) -> dict[str, str]:
    """The texts of the files by name.

    Args:
        vocabulary: Of the file.
        described: The rest.

    Raises:
        InvalidRequestError: It is no byte-level vocabulary of pairs.
    """
    found = None if vocabulary.is_sentence_piece else merging(vocabulary)
    if found is None:
        raise InvalidRequestError(
            f"the tokenizer of {vocabulary.path} is spelled in plain characters, which is not "
            "written in the layout of transformers: give the model's original folder"
        )
    found.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue] # tokenizers' stubs make it read-only
    hidden = (CONTROL, UNKNOWN)
    for special in described.specials:
        token = AddedToken(
            special.text,
            lstrip=special.strips_left,
            rstrip=special.strips_right,
            normalized=False,
            special=described.types[special.token] in hidden,
        )
        found.add_tokens([token])
    edges = [*described.before, *described.after]
    if edges:
        names = [vocabulary.tokens[one] for one in edges]
        first = len(described.before)
        found.post_processor = TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue] # the same
            single=[*names[:first], "$A", *names[first:]],
            special_tokens=list(dict(zip(names, edges, strict=True)).items()),
        )
    # Here, because it imports transformers, which only a folder's files need.
    from draftsmith.models.hf.tokenizer import files_of

    return files_of(found, described.chat_template, dict(described.named))
