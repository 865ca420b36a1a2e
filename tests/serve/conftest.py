"""One server for all tests that leave it as it was."""

from collections.abc import Generator

import pytest

from tests.serve import live


@pytest.fixture(scope="session")
def server() -> Generator[live.Live]:
    """Drafts with a model, three tokens a round."""
    with live.serving(live.engine(live.model_draft(), gamma=3)) as found:
        yield found


@pytest.fixture(scope="session")
def plain() -> Generator[live.Live]:
    """Never drafts."""
    with live.serving(live.engine(gamma=0)) as found:
        yield found
