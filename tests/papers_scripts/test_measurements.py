from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks.papers.alphas import LENIENCES, Texts, betas_of, interval
from benchmarks.papers.batches import PairBatches, TextBatches
from benchmarks.papers.packed import compress, decompress, read_pairs

CPU = torch.device("cpu")


def test_betas_are_the_overlap_and_at_temperature_0_the_agreement() -> None:
    target = torch.tensor([[0.5, 0.3, 0.2], [0.2, 0.2, 0.6]])
    draft = torch.tensor([[0.2, 0.7, 0.1], [0.1, 0.1, 0.8]])
    texts = Texts(None, torch.zeros(1, 3, dtype=torch.long), torch.ones(1, 3, dtype=torch.bool))
    sampled = betas_of(target, draft, 1.0, texts)
    greedy = betas_of(target, draft, 0.0, texts)
    assert LENIENCES[:2] == (1.0, 0.5)
    torch.testing.assert_close(sampled[:, 0], torch.tensor([0.6, 0.8]).double())
    # (1/l) sum min(p, l q): 0.2 + 0.6 + 0.1 and, nothing lost, 1.
    torch.testing.assert_close(sampled[:, 1], torch.tensor([0.9, 1.0]).double())
    # The draft's likeliest token has 0.3 of 0.5 in the first row: enough for l = 0.5, not for 1.
    assert greedy[:, :2].tolist() == [[0.0, 1.0], [1.0, 1.0]]


def test_the_interval_counts_texts_not_tokens() -> None:
    sums, lengths = np.array([100.0, 0.0] * 8), np.full(16, 100)
    low, high = interval(sums, lengths)
    # Of 1,600 independent tokens it would be 0.5 +- 0.025; of 16 texts it is +- 0.245.
    assert 0.15 < low < 0.35 < 0.65 < high < 0.85


def test_all_models_see_the_same_windows_and_every_token_has_its_successor(tmp_path: Path) -> None:
    path = tmp_path / "train.u16"
    np.arange(1000, dtype=np.uint16).tofile(path)
    one = TextBatches(path, num_tokens=64, width=16, device=CPU).epochs(seed=1)
    other = TextBatches(path, num_tokens=64, width=16, device=CPU).epochs(seed=1)
    seen: set[int] = set()
    for _ in range(15):
        (batch, count), (same, _) = next(one), next(other)
        assert torch.equal(batch["input_ids"], same["input_ids"])
        assert torch.equal(batch["labels"], batch["input_ids"] + 1)
        assert count == 64
        seen |= set(batch["input_ids"].flatten().tolist())
    assert len(seen) == 15 * 64  # no window twice in an epoch


@pytest.fixture
def pairs(tmp_path: Path) -> Path:
    """Twenty pairs of various lengths, each side ended by id 1."""
    path = tmp_path / "train.u16"
    draws = np.random.default_rng(0)
    lengths = draws.integers(2, 60, size=(20, 2)).astype(np.uint16)
    sides = [
        np.append(draws.integers(3, 99, size=length - 1), 1).astype(np.uint16)
        for length in lengths.flatten()
    ]
    np.concatenate(sides).tofile(path)
    lengths.tofile(path.with_suffix(".lengths"))
    return path


def test_every_pair_comes_once_an_epoch_with_its_translation(pairs: Path) -> None:
    sources, targets = read_pairs(pairs)
    want = {
        tuple(map(int, source)): tuple(map(int, target))
        for source, target in zip(sources, targets, strict=True)
    }
    got: dict[tuple[int, ...], tuple[int, ...]] = {}
    for batch, _ in PairBatches(pairs, num_tokens=16, device=CPU).once(most=10**6):
        for row, source in enumerate(batch["input_ids"]):
            labels = batch["labels"][row]
            length = int(batch["attention_mask"][row].sum())
            target = labels[labels >= 0].tolist()
            got[tuple(source[:length].tolist())] = tuple(target)
            assert batch["decoder_input_ids"][row, : len(target)].tolist() == [0, *target[:-1]]
    assert got == want


def test_what_was_compressed_comes_back(pairs: Path, tmp_path: Path) -> None:
    folder = pairs.parent
    compress(folder, tmp_path / "upload")
    decompress(tmp_path / "upload", tmp_path / "back")
    assert (tmp_path / "back" / pairs.name).read_bytes() == pairs.read_bytes()
