"""Contract suites, public so that a drafter or a model of your own can run through them."""

from draftsmith.testing.contracts import check_drafter, check_model

__all__ = ["check_drafter", "check_model"]
