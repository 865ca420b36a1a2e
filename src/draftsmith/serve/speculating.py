"""How a request asks to be speculated for: gamma, who drafts, and a prediction."""

from draftsmith.core.structured import StructuredOutputs
from draftsmith.drafters import PromptLookupDrafter
from draftsmith.drafters.prediction import PredictionDrafter
from draftsmith.engine.control.own import OwnDraft
from draftsmith.engine.engine import Engine
from draftsmith.serve.errors import ApiError, refused
from draftsmith.serve.forms import as_forms_write_it
from draftsmith.serve.schemas.common import Prediction, Speculation, joined_text
from draftsmith.serve.settings import Limits

__all__ = ["own_draft"]

_PREDICTION_GAMMA = 16
"""A prediction costs nothing to draft, and is mostly right or silent."""
_LOOKUP_GAMMA = 4


def own_draft(
    engine: Engine,
    speculation: Speculation | None,
    prediction: Prediction | None,
    form: StructuredOutputs | None,
    limits: Limits,
) -> OwnDraft | None:
    """What a request asks of drafting; None where it asks nothing.

    Raises:
        ApiError: If it asks what this server has not.
    """
    asked = speculation or Speculation()
    gamma = None if asked.gamma == "auto" else asked.gamma
    if gamma == 0 or asked.draft == "none":
        if gamma:
            raise refused("speculation.draft", f"is none, and speculation.gamma {gamma}: drop one")
        return OwnDraft(0)
    if prediction is not None:
        text = joined_text(prediction.content)
        if form is not None and form.kind in ("json", "json_object"):
            text = as_forms_write_it(text)
        return _predicted(engine, asked, gamma, text, limits)
    if asked.draft is not None and asked.draft != _served(engine):
        return _looked_up(engine, asked.draft, gamma)
    if asked.gamma is None and asked.draft is None:
        return None
    _check_common(engine, asked)
    return None if gamma is None else OwnDraft(gamma)


def _served(engine: Engine) -> str | None:
    return None if engine.draft is None else engine.draft.name


def _check_common(engine: Engine, asked: Speculation) -> None:
    """Refuse what the server's own draft cannot do."""
    if engine.draft is None:
        raise refused("speculation.gamma", f"is {asked.gamma}, and this server drafts nothing")
    if asked.gamma == "auto" and engine.gamma != "auto":
        raise refused(
            "speculation.gamma", f"auto needs a server at auto; here it is {engine.gamma}"
        )


def _predicted(
    engine: Engine, asked: Speculation, gamma: int | None, text: str, limits: Limits
) -> OwnDraft:
    if asked.draft is not None:
        raise refused("speculation.draft", "and prediction both say who drafts: drop one")
    _check_target(engine, "prediction")
    if engine.tokenizer is None:
        raise refused("prediction", "needs a tokenizer, and the model is served without one")
    tokens = engine.tokenizer.encode_plain(text)
    most = limits.max_prediction_tokens
    if len(tokens) > most:
        raise refused("prediction", f"has {len(tokens)} tokens, and this server bears {most}")
    return OwnDraft(gamma or _PREDICTION_GAMMA, PredictionDrafter(tokens))


def _looked_up(engine: Engine, draft: str, gamma: int | None) -> OwnDraft:
    drafter = PromptLookupDrafter()
    if draft != drafter.name:
        here = ", ".join(dict.fromkeys(filter(None, (_served(engine), drafter.name, "none"))))
        raise refused("speculation.draft", f"must be one of {here}, got {draft!r}")
    _check_target(engine, "speculation.draft")
    return OwnDraft(gamma or _LOOKUP_GAMMA, drafter)


def _check_target(engine: Engine, param: str) -> None:
    traits = engine.target.traits
    if not traits.can_rollback:
        raise ApiError(400, f"{param} needs drafts, and {traits.why_no_rollback}", param=param)
