"""Draft heads: small trained networks that go on from what the target has computed."""

from draftsmith.drafters.heads.config import HeadConfig
from draftsmith.drafters.heads.drafter import HeadDrafter
from draftsmith.drafters.heads.weights import HeadWeights

__all__ = ["HeadConfig", "HeadDrafter", "HeadWeights"]
