"""Where a key may come from, and that it is never shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from telemetry.keys import KEY_VARIABLE, StoreKey, StoreKeyError, create_key_file, load_key

HEX = "0123456789abcdef" * 4


def private(path: Path, text: str, mode: int = 0o600) -> Path:
    path.write_text(text)
    path.chmod(mode)
    return path


def test_a_created_key_file_loads_as_the_same_key(tmp_path: Path) -> None:
    """256 random bits, for the owner alone."""
    path = tmp_path / "store.key"
    key = create_key_file(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load_key(path, {}) == key
    assert create_key_file(tmp_path / "other.key") != key


def test_a_key_file_is_never_replaced(tmp_path: Path) -> None:
    """A store may depend on it."""
    path = private(tmp_path / "store.key", HEX)
    with pytest.raises(FileExistsError):
        create_key_file(path)
    assert path.read_text() == HEX


def test_the_environment_is_asked_where_no_file_is_named(tmp_path: Path) -> None:
    """And a file that is named wins over it."""
    assert load_key(None, {KEY_VARIABLE: f" {HEX}\n"}).secret.hex() == HEX
    path = private(tmp_path / "store.key", "f" * 64 + "\n")
    assert load_key(path, {KEY_VARIABLE: HEX}).secret.hex() == "f" * 64


@pytest.mark.parametrize("environ", [{}, {KEY_VARIABLE: ""}])
def test_no_key_at_all_says_where_to_put_one(environ: dict[str, str]) -> None:
    """Both places are named."""
    with pytest.raises(StoreKeyError, match=f"store.key_file or the environment's {KEY_VARIABLE}"):
        load_key(None, environ)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o620, 0o644])
def test_a_key_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """The error gives the mode and the command that mends it."""
    path = private(tmp_path / "store.key", HEX, mode)
    with pytest.raises(StoreKeyError, match=f"got mode {mode:04o}: chmod 600") as caught:
        load_key(path, {})
    assert HEX not in str(caught.value)


def test_a_missing_key_file_says_how_to_make_one(tmp_path: Path) -> None:
    """And does not fall back on the environment in silence."""
    with pytest.raises(StoreKeyError, match="does not exist: restore it, or for a new store make one"):
        load_key(tmp_path / "store.key", {KEY_VARIABLE: HEX})


def test_a_key_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    """A directory, for one."""
    with pytest.raises(StoreKeyError, match="cannot be read: Is a directory"):
        load_key(tmp_path, {})


@pytest.mark.parametrize("text", ["", "hunter2", HEX[:-1], HEX + "0", "g" * 64, "é" * 64, "\x00\xff"])
def test_what_is_not_a_key_is_refused_and_not_repeated(tmp_path: Path, text: str) -> None:
    """A mistyped key is nearly the key."""
    path = private(tmp_path / "store.key", text)
    with pytest.raises(StoreKeyError, match="must hold 64 hexadecimal digits") as caught:
        load_key(path, {})
    assert not text or text not in str(caught.value)


def test_a_key_shows_in_no_repr() -> None:
    """Neither whole nor in another notation."""
    key = StoreKey(bytes.fromhex(HEX))
    for shown in (repr(key), str(key), f"{key}", repr([key])):
        assert HEX not in shown
        assert key.as_base64() not in shown
        assert repr(key.secret) not in shown


def test_a_key_of_another_length_is_refused() -> None:
    """AES-256 takes 32 bytes."""
    with pytest.raises(StoreKeyError, match="must have 32 bytes, got 16"):
        StoreKey(bytes(16))
