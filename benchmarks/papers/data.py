"""Build the training data of both pairs from Debian packages.

    python -m benchmarks.papers.data --work /tmp/papers-data

Needs `apt-get` with Debian 12's package lists, no root, 2 GB of downloads and about 15 minutes of
one core. Packages are fetched by name and read, never installed. What `manifest.json` beside this
file says of versions and sums is checked; `--update-manifest` writes it anew, without packages
that give nothing. Texts and splits are the same every time; the WordPiece vocabulary is not quite,
because its trainer breaks ties by the order of a hash table.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from benchmarks.papers.corpus import extract, split_pairs, split_texts
from benchmarks.papers.debs import Package, fetch, read_manifest, write_manifest
from benchmarks.papers.packed import compress, pack_pairs, pack_texts
from benchmarks.papers.parallel import Pair
from benchmarks.papers.vocabulary import load_vocabulary, train_byte_pairs, train_wordpiece


def main() -> None:
    """Fetch, extract, split, train the vocabularies, pack, compress; each step says what it did."""
    options = _options()
    work: Path = options.work
    packages = read_manifest()
    fetch(packages, work / "debs")
    extract(packages, work / "debs", work / "extracted", options.processes)
    out = work / "data"
    for table in out.glob("*/*.npz"):
        table.unlink()  # counted of the text that is about to be replaced
    summary = {
        "gpt": _texts(packages, work / "extracted", out / "gpt"),
        "t5": _pairs(packages, work / "extracted", out / "t5"),
    }
    (out / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    print(json.dumps(summary, indent=1))
    if options.update_manifest:
        write_manifest(_useful(packages))
    for path in compress(out, work / "upload"):
        print(f"{path.stat().st_size:11,} {path}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="a folder with 6 GB of room")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--update-manifest", action="store_true")
    return parser.parse_args()


def _texts(packages: list[Package], extracted: Path, out: Path) -> dict[str, Any]:
    splits = split_texts(packages, extracted)
    print(f"{len(splits['train']):,} documents to train on", flush=True)
    train_wordpiece((text for _, text in splits["train"]), out / "tokenizer")
    tokenizer = load_vocabulary(out / "tokenizer")
    return {
        split: {
            "documents": len(documents),
            "characters": sum(len(text) for _, text in documents),
            "tokens": pack_texts((text for _, text in documents), tokenizer, out / f"{split}.u16"),
        }
        for split, documents in splits.items()
    }


def _pairs(packages: list[Package], extracted: Path, out: Path) -> dict[str, Any]:
    splits = split_pairs(packages, extracted)
    print(f"{len(splits['train']):,} pairs to train on", flush=True)
    train_byte_pairs((text for pair in splits["train"] for text in pair), out / "tokenizer")
    tokenizer = load_vocabulary(out / "tokenizer")
    return {
        split: _packed(pairs, tokenizer, out / f"{split}.u16") for split, pairs in splits.items()
    }


def _packed(pairs: list[Pair], tokenizer: Any, path: Path) -> dict[str, int]:
    return {
        "pairs": len(pairs),
        "pairs_short_enough": pack_pairs(pairs, tokenizer, path),
        "english_characters": sum(len(pair.english) for pair in pairs),
        "german_characters": sum(len(pair.german) for pair in pairs),
    }


def _useful(packages: list[Package]) -> list[Package]:
    """What gave text or pairs, and the English halves of documents that others translate."""
    return [
        package
        for package in packages
        if package.english_characters or package.pairs or package.has_originals
    ]


if __name__ == "__main__":
    main()
