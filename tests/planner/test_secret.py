"""The seam's secret: made once, and for its owner's eyes."""

from __future__ import annotations

import stat
import threading
from pathlib import Path

import pytest

from planner.secret import SecretError, read_or_make


def test_secret_is_made_once_and_private(tmp_path: Path):
    """The first call makes it in a file of mode 0600, the next ones read it."""
    path = tmp_path / "var" / "seam.secret"
    secret = read_or_make(path)
    assert len(secret) >= 43
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert read_or_make(path) == secret
    assert [file.name for file in path.parent.iterdir()] == ["seam.secret"]


def test_makers_at_the_same_time_end_with_one_secret(tmp_path: Path):
    """However many start together, all have the same secret."""
    path, start, found = tmp_path / "seam.secret", threading.Barrier(8), []

    def make() -> None:
        start.wait()
        found.append(read_or_make(path))

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o644, 0o660])
def test_secret_that_others_can_read_is_refused(tmp_path: Path, mode: int):
    """A file that others may read is no secret any more; the error says what to do."""
    path = tmp_path / "seam.secret"
    read_or_make(path)
    path.chmod(mode)
    with pytest.raises(SecretError, match=f"chmod 600.*got mode {mode:o}"):
        read_or_make(path)


@pytest.mark.parametrize("content", [b"", b"short\n", b"\xff" * 40])
def test_file_without_a_secret_is_refused(tmp_path: Path, content: bytes):
    """An empty or damaged file is an error with its path, and stays as it is."""
    path = tmp_path / "seam.secret"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(SecretError, match=r"seam\.secret must"):
        read_or_make(path)
    assert path.read_bytes() == content


def test_place_that_cannot_be_written_is_an_error(tmp_path: Path):
    """A path below a file cannot be made; that is a SecretError and not a traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(SecretError, match="must be a readable secret"):
        read_or_make(tmp_path / "file" / "seam.secret")
