"""Single keys from a terminal, and the terminal as it was afterwards."""

from __future__ import annotations

import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_ESCAPE: Final = "\x1b"
#: What terminals send for keys that are no character, after the escape.
_SEQUENCES: Final = {
    "[A": "up", "OA": "up", "[B": "down", "OB": "down", "[5~": "page up", "[6~": "page down",
    "[H": "home", "OH": "home", "[1~": "home", "[F": "end", "OF": "end", "[4~": "end",
}  # fmt: skip
_NAMED: Final = {"\r": "enter", "\n": "enter", "\x7f": "backspace", "\b": "backspace"}
#: A sequence that a slow line has cut arrives within this.
_REST_S: Final = 0.05


def keys_in(text: str) -> list[str]:
    """The keys that a terminal tells in this text; unknown sequences are left out."""
    keys = []
    while text:
        if not text.startswith(_ESCAPE):
            keys.append(_NAMED.get(text[0], text[0]))
            text = text[1:]
            continue
        n = _length(text[1:])
        if n == 0:
            keys.append("escape")
        elif (name := _SEQUENCES.get(text[1 : n + 1])) is not None:
            keys.append(name)
        text = text[n + 1 :]
    return keys


def _length(text: str) -> int:
    """The length of the sequence that begins after an escape; 0: there is none."""
    if text[:1] == "O":
        return min(2, len(text))
    if text[:1] != "[":
        return 0
    # Parameters, and the letter or tilde that ends it.
    return next((at + 1 for at, letter in enumerate(text[1:], 1) if "@" <= letter <= "~"), len(text))


class Keyboard:
    """Keys as they are pressed. Without a terminal none ever is."""

    def __init__(self, fd: int | None) -> None:
        self._fd = fd

    def wait(self, seconds: float) -> list[str]:
        """The keys pressed by then; returns at the first. Raises EOFError where the terminal is gone."""
        found, _, _ = select.select([] if self._fd is None else [self._fd], [], [], seconds)
        if not found:
            return []
        assert self._fd is not None
        text = self._read()
        while text.endswith((_ESCAPE, f"{_ESCAPE}[", f"{_ESCAPE}O")):
            if not select.select([self._fd], [], [], _REST_S)[0]:
                break
            text += self._read()
        return keys_in(text)

    def _read(self) -> str:
        assert self._fd is not None
        body = os.read(self._fd, 1024)
        if not body:
            raise EOFError
        return body.decode(errors="ignore")


@contextmanager
def keyboard() -> Iterator[Keyboard]:
    """The keyboard of this terminal, without echo; put back at the end, whatever it is."""
    if not sys.stdin.isatty():
        yield Keyboard(None)
        return
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd)
    try:
        tty.setcbreak(fd)
        # Ctrl-Z would leave the shell with a screen that is not its own.
        quiet = termios.tcgetattr(fd)
        quiet[6][termios.VSUSP] = b"\0"
        termios.tcsetattr(fd, termios.TCSADRAIN, quiet)
        yield Keyboard(fd)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)
