"""What the whole suite runs under: calls are checked, and workers get whole files."""

import jaxtyping
import pytest
from xdist.remote import Producer
from xdist.scheduler import Scheduling

from tests.checked import checked
from tests.scheduling import FilesTogether

# What `--jaxtyping-packages` decorates with, before the package is first imported.
jaxtyping.jaxtyped = checked


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Scheduling | None:
    return FilesTogether(config, log) if config.getoption("dist") == "loadgroup" else None
