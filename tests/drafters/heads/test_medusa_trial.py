"""The trial of Medusa heads at load, with heads that were fitted to what a target writes."""

from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot, rms_norm

from draftsmith.core.params import SamplingParams
from draftsmith.drafters.heads import HeadWeights, trial
from draftsmith.drafters.heads.load import load_head
from draftsmith.drafters.heads.medusa import MedusaDrafter
from draftsmith.drafters.heads.medusa_config import MedusaConfig
from draftsmith.drafters.heads.medusa_kind import Medusa
from draftsmith.drafters.heads.tables import tables_of
from draftsmith.drafters.heads.trial import starts_of, written_by
from draftsmith.engine.engine import Engine
from draftsmith.errors import DraftsmithError, InvalidRequestError
from draftsmith.models.contract import LanguageModel
from tests.drafters.heads import medusa_kit
from tests.drafters.heads.test_medusa import reference
from tests.models.native.test_cpu import fast

GREEDY = SamplingParams(max_tokens=24, ignore_eos=True)


def fitted(model: LanguageModel, *, lead: int = 0) -> tuple[MedusaConfig, HeadWeights]:
    """Heads whose outputs are the least squares of the trial's own texts; their blocks add 0."""
    tables = tables_of(model)
    config = medusa_kit.config(
        hidden_size=tables.hidden_size,
        target_vocab_size=tables.vocab_size,
        vocab_size=tables.vocab_size,
    )
    weight, epsilon = tables.final_norm
    tensors = {name: torch.zeros(shape) for name, shape in config.shapes().items()}
    texts = written_by(model, starts_of(model), [tables.num_layers])
    for head in range(config.num_heads):
        distance = 2 + head - lead
        seen: list[Tensor] = []
        said: list[int] = []
        for text in texts:
            states = text.states[tables.num_layers]
            given = rms_norm(states, weight.shape, weight, epsilon)
            seen.append(given[: len(text.tokens) - distance])
            said += text.tokens[distance:]
        wanted = one_hot(torch.tensor(said), tables.vocab_size).float()
        tensors[f"heads.{head}.output"] = torch.linalg.lstsq(torch.cat(seen), wanted).solution.T
    return config, HeadWeights(tensors)


def loaded(model: LanguageModel, folder: Path, heads: tuple[MedusaConfig, HeadWeights]) -> object:
    reference(folder, *heads)
    return load_head(folder, model, dtype="float32")


def test_on_a_gpu_they_are_refused_by_name(tmp_path: Path) -> None:
    model = fast("llama")
    reference(tmp_path, *fitted(model))
    model.can_be_captured = True
    try:
        with pytest.raises(InvalidRequestError, match=r"drafts on a CPU, .*: give --device"):
            load_head(tmp_path, model)
    finally:
        model.can_be_captured = False


def test_heads_that_are_right_are_used_and_change_no_text(tmp_path: Path) -> None:
    model = fast("llama")
    drafter = loaded(model, tmp_path, fitted(model))
    assert isinstance(drafter, MedusaDrafter)
    prompts = starts_of(model)
    wanted = Engine(model).generate(prompts, GREEDY)
    found = Engine(model, draft=drafter, gamma=3).generate(prompts, GREEDY)
    assert [one.token_ids for one in found] == [one.token_ids for one in wanted]
    kept = sum(one.statistics.num_accepted for one in found)
    assert kept > 0.2 * sum(one.statistics.num_drafted for one in found)


def test_a_gamma_beyond_the_heads_is_refused() -> None:
    model = fast("llama")
    made = Medusa(*fitted(model)).made(model, "heads")
    with pytest.raises(InvalidRequestError, match="gamma=4 is beyond the 3 tokens that heads"):
        Engine(model, draft=made, gamma=4)
    assert Engine(model, draft=made).gamma == 3
    assert Engine(model, draft=made.with_branches(2), gamma=6).gamma == 6


def test_states_before_the_norm_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As at targets whose norm does more than this one's."""

    def right_before(one: Medusa, *rest: object) -> list[float]:
        return [0.05, 0.01] if one.config.reads_normed else [0.6, 0.5]

    monkeypatch.setattr(trial, "rates_of", right_before)
    model = fast("llama")
    cause = "with states before the final norm it would be right in 60 % of its first tokens: its"
    with pytest.raises(DraftsmithError, match=cause) as refusal:
        loaded(model, tmp_path, fitted(model))
    assert "right in 5 %, 1 % of its first, second tokens" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_heads_of_which_the_first_guesses_the_next_token_are_refused(tmp_path: Path) -> None:
    model = fast("llama")
    cause = "if its first head guessed the target's own next token .* drop that head"
    with pytest.raises(DraftsmithError, match=cause) as refusal:
        loaded(model, tmp_path, fitted(model, lead=1))
    assert "\n" not in str(refusal.value)


def test_heads_that_know_nothing_of_the_target_are_refused(tmp_path: Path) -> None:
    model = fast("llama")
    config, _ = fitted(model)
    with pytest.raises(DraftsmithError, match="20 % is the least: no other reading"):
        loaded(model, tmp_path, (config, medusa_kit.weights(config)))
