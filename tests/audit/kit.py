"""A tiny system that the certificate's tests share."""
# transformers' annotations are looser than pyright's strict mode asks:
# pyright: basic

from functools import cache
from pathlib import Path
from tempfile import mkdtemp

import torch

from draftsmith.audit.subject import NUM_BRANCHES, Subject, is_row_exact
from draftsmith.drafters import ModelDrafter, PromptLookupDrafter
from draftsmith.models.load import load_model
from draftsmith.models.native.cpu import CpuDecoder
from tests import tiny

PROMPTS = [
    [5, 6, 7, 5, 6, 9, 5, 6],
    [20, 21, 22, 23, 24, 20, 21],
    [40, 41, 40, 41, 40],
]


@cache
def subject() -> Subject:
    """A tiny llama on the native decoder, with a twin that drafts well and prompt lookup."""
    raw = tiny.lively_model("llama")
    target, twin = (_native(model) for model in (raw, tiny.near_twin(raw, 0.1)))
    assert isinstance(target, CpuDecoder), "these tests need the kernels"
    drafters = {
        "twin": ModelDrafter(twin),
        "prompt-lookup": PromptLookupDrafter(min_ngram=1),
    }
    itself, trees = ModelDrafter(target), ModelDrafter(target, branches=NUM_BRANCHES)
    return Subject(target, drafters, PROMPTS, is_row_exact(target), itself, trees=trees)


def _native(raw):
    folder = Path(mkdtemp())
    raw.save_pretrained(folder)
    with torch.inference_mode():
        return load_model(str(folder))
