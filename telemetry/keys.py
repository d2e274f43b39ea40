"""The key of the store: where it comes from, and how it stays unseen."""

from __future__ import annotations

import os
import re
import secrets
import stat
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: The environment variable that holds the key where there is no key file.
KEY_VARIABLE: Final = "TIDEGATE_STORE_KEY"
KEY_BYTES: Final = 32
_HEX_KEY: Final = re.compile(r"[0-9a-fA-F]{64}")


class StoreKeyError(Exception):
    """The store's key is missing, unusable or not the one; says what to do. Never shows a key."""


@dataclass(frozen=True)
class StoreKey:
    """256 bits that neither ``repr`` nor ``str`` shows."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise StoreKeyError(f"a store key must have {KEY_BYTES} bytes, got {len(self.secret)}")

    @classmethod
    def parse(cls, text: str, where: str) -> StoreKey:
        """The key written as 64 hexadecimal digits, surrounding white space aside.

        A passphrase is refused: the file can be tried offline, so the key must be random.

        Raises
        ------
        StoreKeyError : if it is anything else; names ``where`` and not the text.
        """
        digits = text.strip()
        if not _HEX_KEY.fullmatch(digits):
            raise StoreKeyError(
                f"{where} must hold 64 hexadecimal digits (openssl rand -hex 32), "
                f"got {len(digits)} characters of another form"
            )
        return cls(bytes.fromhex(digits))

    def as_base64(self) -> str:
        """The form that DuckDB takes: 44 characters, none of them a quote."""
        return b64encode(self.secret).decode("ascii")


def load_key(key_file: Path | None, environ: Mapping[str, str]) -> StoreKey:
    """The store's key from its file or, where none is configured, from the environment.

    Raises
    ------
    StoreKeyError : if there is no key, the file can be read by others than
        its owner, or what is found is not a key.
    """
    if key_file is not None:
        return StoreKey.parse(_read_private(key_file), f"key file {key_file}")
    text = environ.get(KEY_VARIABLE, "")
    if not text:
        raise StoreKeyError(f"the store has no key: set store.key_file or the environment's {KEY_VARIABLE}")
    return StoreKey.parse(text, f"the environment's {KEY_VARIABLE}")


def create_key_file(path: Path) -> StoreKey:
    """A new random key, written to ``path`` for its owner alone.

    Raises
    ------
    FileExistsError : if there is a file; a key that may be in use is never replaced.
    """
    key = StoreKey(secrets.token_bytes(KEY_BYTES))
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(key.secret.hex() + "\n")
        file.flush()
        # A store written under a key that a power cut took away is lost.
        os.fsync(file.fileno())
    return key


def _read_private(path: Path) -> str:
    try:
        with path.open("rb") as file:
            # The mode of the file that is open, not of whatever has the name a moment later.
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            text = file.read(4096)
    except FileNotFoundError:
        raise StoreKeyError(
            f"key file {path} does not exist: restore it, or for a new store "
            f"make one (umask 077; openssl rand -hex 32 > {path})"
        ) from None
    except OSError as error:
        raise StoreKeyError(f"key file {path} cannot be read: {error.strerror}") from None
    if mode & 0o077:
        raise StoreKeyError(
            f"key file {path} must be its owner's alone, got mode {mode:04o}: chmod 600 {path}"
        )
    return text.decode("ascii", errors="replace")
