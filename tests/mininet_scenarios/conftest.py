"""The real parts of these tests are those of ``tests/e2e``."""

from tests.e2e.conftest import ovs, scenario

__all__ = ["ovs", "scenario"]
