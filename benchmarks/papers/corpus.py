"""Text and pairs, clean, without repeats, split by document and by package."""

import hashlib
import json
import multiprocessing
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from benchmarks.papers.debs import Package, find
from benchmarks.papers.english import documents
from benchmarks.papers.markup import Block
from benchmarks.papers.parallel import Pair, aligned, clean, halves

__all__ = ["extract", "split_pairs", "split_texts"]

_HELD_OUT = 0.02
_DIGITS = re.compile(r"\d+")


def extract(packages: Sequence[Package], debs: Path, folder: Path, processes: int) -> None:
    """Read every package once; write `english/NAME.json` and `parallel/NAME.json`."""
    for use in ("english", "parallel"):
        (folder / use).mkdir(parents=True, exist_ok=True)
    tasks = [
        (find(package, debs), use, folder / use / f"{package.name}.json")
        for package in packages
        for use in package.uses
    ]
    tasks = [task for task in tasks if not task[2].exists()]
    with multiprocessing.Pool(processes) as pool:
        for number, name in enumerate(pool.imap_unordered(_extract_one, tasks), 1):
            print(f"{number}/{len(tasks)} {name}", flush=True)


def split_texts(packages: Sequence[Package], folder: Path) -> dict[str, list[tuple[str, str]]]:
    """Documents as (name, text) in `train` and `valid`; no paragraph occurs twice."""
    seen: set[bytes] = set()
    splits: dict[str, list[tuple[str, str]]] = {"train": [], "valid": []}
    for package in packages:
        if "english" not in package.uses:
            continue
        package.english_characters = 0
        for path, paragraphs in json.loads(_path(folder, "english", package).read_bytes()):
            fresh = [text for text in paragraphs if _is_new(_DIGITS.sub("0", text), seen)]
            if sum(map(len, fresh)) < 200:
                continue
            package.english_characters += sum(map(len, fresh))
            name = f"{package.name}:{path}"
            splits["valid" if _is_held_out(name) else "train"].append((name, "\n".join(fresh)))
    for documents_ in splits.values():
        # Neighbours in a package are alike; the order is fixed, and by chance.
        documents_.sort(key=lambda document: _digest(document[0]))
    return splits


def split_pairs(packages: Sequence[Package], folder: Path) -> dict[str, list[Pair]]:
    """Pairs in `train` and `valid`, by package; no English text is in both, or twice in one."""
    contents = {
        package.name: json.loads(_path(folder, "parallel", package).read_bytes())
        for package in packages
        if "parallel" in package.uses
    }
    english: dict[str, list[Block]] = {}
    for content in contents.values():
        for key, document in content["english"].items():
            english.setdefault(key, [Block(*block) for block in document])
    wanted = {key for content in contents.values() for key in content["german"]}
    for package in packages:
        originals = contents[package.name]["english"] if package.name in contents else {}
        package.has_originals = not wanted.isdisjoint(originals)
    splits: dict[str, list[Pair]] = {"train": [], "valid": []}
    seen: set[bytes] = set()
    names = sorted(contents, key=lambda name: (_is_held_out(name), _digest(name)))
    by_name = {package.name: package for package in packages}
    for name in names:  # train first: what it holds is no test
        content = contents[name]
        pairs = list(map(Pair._make, content["messages"]))
        for key, document in content["german"].items():
            if key in english:
                pairs += aligned(english[key], [Block(*block) for block in document])
        kept = list(_fresh_pairs(pairs, seen))
        by_name[name].pairs = len(kept)
        splits["valid" if _is_held_out(name) else "train"] += kept
    for pairs in splits.values():
        pairs.sort(key=lambda pair: _digest(pair.english))
    return splits


def _extract_one(task: tuple[Path, str, Path]) -> str:
    deb, use, out = task
    if use == "english":
        content: object = list(documents(deb))
    else:
        messages, found = halves(deb)
        content = {
            "messages": [pair for raw in messages if (pair := clean(raw))],
            "english": found.english,
            "german": found.german,
        }
    part = out.with_suffix(".part")
    part.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    part.rename(out)
    return f"{out.stem} {use}"


def _fresh_pairs(pairs: Iterable[Pair], seen: set[bytes]) -> Iterator[Pair]:
    for raw in pairs:
        pair = clean(raw)
        if pair and _is_new(pair.english.casefold().rstrip(".:…! "), seen):
            yield pair


def _path(folder: Path, use: str, package: Package) -> Path:
    return folder / use / f"{package.name}.json"


def _is_new(text: str, seen: set[bytes]) -> bool:
    digest = _digest(text)[:8]
    is_new = digest not in seen
    seen.add(digest)
    return is_new


def _is_held_out(name: str) -> bool:
    return int.from_bytes(_digest(name)[:4]) < _HELD_OUT * 2**32


def _digest(text: str) -> bytes:
    return hashlib.blake2b(text.encode(), digest_size=16).digest()
