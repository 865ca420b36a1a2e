"""The two vocabularies of 8,192 ids, trained on the text itself, as folders of `transformers`."""

from collections.abc import Iterable
from pathlib import Path

from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

__all__ = [
    "GPT_IDS",
    "T5_IDS",
    "VOCABULARY",
    "load_vocabulary",
    "train_byte_pairs",
    "train_wordpiece",
]

VOCABULARY = 8192
GPT_IDS = {"[PAD]": 0, "[UNK]": 1, "[CLS]": 2, "[SEP]": 3}
"""`[CLS]` begins a document and `[SEP]` ends it."""
T5_IDS = {"<pad>": 0, "</s>": 1, "<unk>": 2}


def train_wordpiece(texts: Iterable[str], folder: Path) -> None:
    """BERT's tokenisation, lower case, for the decoder-only pair (Leviathan et al., 4.2)."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    trainer = trainers.WordPieceTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(GPT_IDS),
        limit_alphabet=300,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A", special_tokens=[("[CLS]", GPT_IDS["[CLS]"])]
    )
    _save(
        folder,
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer,
            bos_token="[CLS]",
            eos_token="[SEP]",
            pad_token="[PAD]",
            unk_token="[UNK]",
        ),
    )


def train_byte_pairs(texts: Iterable[str], folder: Path) -> None:
    """One vocabulary for English and German: byte-pair merges over words with marked spaces."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=list(T5_IDS),
        limit_alphabet=300,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", T5_IDS["</s>"])]
    )
    _save(
        folder,
        PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token="</s>", pad_token="<pad>", unk_token="<unk>"
        ),
    )


def load_vocabulary(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a data folder."""
    return AutoTokenizer.from_pretrained(str(folder), trust_remote_code=False)


def _save(folder: Path, tokenizer: PreTrainedTokenizerFast) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(str(folder))
