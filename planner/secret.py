"""A secret in a file: made once, readable by its owner alone."""

from __future__ import annotations

import os
import secrets
import stat
from contextlib import suppress
from pathlib import Path


class SecretError(Exception):
    """The file cannot serve as a secret; the text says why and what to do."""


def read_or_make(path: Path) -> str:
    """The secret in a file of mode 0600, made of 256 random bits where there is none.

    Two processes that start together end with the same secret: only one of them makes it.

    Raises
    ------
    SecretError : if others may read the file, it is empty, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _make(path)
        descriptor = os.open(path, os.O_RDONLY)
        with os.fdopen(descriptor, encoding="ascii") as file:
            mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
            if mode & 0o077:
                raise SecretError(
                    f"{path} must be readable by its owner alone (chmod 600), got mode {mode:o}"
                )
            secret = file.read().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{path} must be a readable secret, got {error}") from None
    if len(secret) < 32:
        raise SecretError(
            f"{path} must hold at least 32 characters, got {len(secret)}; delete it to make a new one"
        )
    return secret


def _make(path: Path) -> None:
    if path.exists():
        return
    # Written aside and linked: a reader never sees half a secret.
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            file.write(secrets.token_urlsafe(32) + "\n")
        with suppress(FileExistsError):
            os.link(draft, path)
    finally:
        draft.unlink()
