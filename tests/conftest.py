"""What holds for all tests."""

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True, scope="module")
def collected() -> Iterator[None]:
    """Planners keep the collector from what lives as long as they do; in a test run that is not for ever."""
    yield
    gc.unfreeze()
    gc.collect()
