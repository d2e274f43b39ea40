"""Secrets in files: made once, readable by their owner alone, replaced whole."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
        if not path.exists():
            # Linked and not renamed: of two that make one, the first wins.
            with _draft(path, secrets.token_urlsafe(32).encode() + b"\n") as draft, suppress(FileExistsError):
                os.link(draft, path)
        secret = read_owned(path).decode("ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{path} must be a readable secret, got {error}") from None
    if len(secret) < 32:
        raise SecretError(
            f"{path} must hold at least 32 characters, got {len(secret)}; delete it to make a new one"
        )
    return secret


def read_owned(path: Path) -> bytes:
    """What a file of mode 0600 holds.

    Raises
    ------
    SecretError : if others may read the file, or it cannot be read.
    """
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise SecretError(
                    f"{path} must be readable by its owner alone (chmod 600), got mode {mode:o}"
                )
            return file.read()
    except OSError as error:
        raise SecretError(f"{path} must be a readable secret, got {error}") from None


def write_owned(path: Path, body: bytes) -> None:
    """Replace a file, or make it with mode 0600; a reader sees the old or the new, also after a power cut.

    Raises
    ------
    SecretError : if it cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _draft(path, body) as draft:
            draft.replace(path)
        directory = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
    except OSError as error:
        raise SecretError(f"{path} must be writable, got {error}") from None


@contextmanager
def _draft(path: Path, body: bytes) -> Iterator[Path]:
    """The whole content in a file beside it: a reader never sees half a secret."""
    draft = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(body)
            file.flush()
            os.fsync(descriptor)
        yield draft
    finally:
        draft.unlink(missing_ok=True)


class OwnerFile:
    """A file of mode 0600 that others replace while this process runs."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._seen: tuple[int, ...] | None = None

    def changed(self) -> bool:
        """Whether it was replaced since it was last asked; true at first."""
        try:
            now = self._path.stat()
            # Also its mode and owner: a change of these decides whether it may be read.
            seen: tuple[int, ...] = (now.st_mtime_ns, now.st_ctime_ns, now.st_ino, now.st_size)
        except OSError:
            seen = ()
        if seen == self._seen:
            return False
        self._seen = seen
        return True

    def read(self) -> bytes | None:
        """Its content; None where there is no such file. Raises SecretError."""
        return read_owned(self._path) if self._seen else None
