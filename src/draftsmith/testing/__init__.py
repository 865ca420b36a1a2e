"""Contract suites, public so that a drafter or a model of your own can run through them."""

from draftsmith.testing.drafter import check_drafter
from draftsmith.testing.model import check_model

__all__ = ["check_drafter", "check_model"]
