"""The lines of an iCalendar body (RFC 5545, 3.1), so that a fault can say on which one it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from planner.events.parsed import BadFeed, Fault

_PROPERTY: Final = re.compile(r"[A-Z][A-Z-]+")
_VALUE: Final = 100


@dataclass(frozen=True)
class Line:
    """One content line, unfolded."""

    #: Of its first part, from 1.
    number: int
    #: Upper case, without parameters.
    name: str
    value: str


class Lines:
    """The content lines of a calendar, and where its entries are.

    Raises
    ------
    BadFeed : when the body is no text, or what begins in it does not end.
    """

    def __init__(self, body: bytes) -> None:
        try:
            text = body.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            number = body.count(b"\n", 0, error.start) + 1
            raise BadFeed(f"line {number}: text must be UTF-8, got byte 0x{body[error.start]:02x}") from None
        self._lines = list(_content_lines(text))
        #: Index of the first and after the last line of each VEVENT, in the order of their beginnings.
        self.entries: list[tuple[int, int]] = []
        self._find_entries()

    def _find_entries(self) -> None:
        if not self._lines or (self._lines[0].name, self._lines[0].value.upper()) != ("BEGIN", "VCALENDAR"):
            got = repr(self._lines[0].value[:_VALUE]) if self._lines else "nothing"
            raise BadFeed(
                f"line {self._lines[0].number if self._lines else 1}: text must begin with BEGIN:VCALENDAR, got {got}"
            )
        open_: list[tuple[Line, int | None]] = []
        for at, line in enumerate(self._lines):
            what = line.value.strip().upper()
            if line.name == "BEGIN":
                entry = None
                if what == "VEVENT":
                    entry = len(self.entries)
                    self.entries.append((at, at + 1))
                open_.append((line, entry))
            elif line.name == "END":
                if not open_ or open_[-1][0].value.strip().upper() != what:
                    wanted = (
                        f"of {open_[-1][0].value[:_VALUE]} (line {open_[-1][0].number})"
                        if open_
                        else "of what began"
                    )
                    raise BadFeed(f"line {line.number}: END must be {wanted}, got {line.value[:_VALUE]!r}")
                _, entry = open_.pop()
                if entry is not None:
                    self.entries[entry] = (self.entries[entry][0], at + 1)
        if open_:
            last = open_[-1][0]
            raise BadFeed(f"line {last.number}: BEGIN must have its END, got none of {last.value[:_VALUE]}")

    def told(self, fault: Fault) -> str:
        """A fault with the line that it is about: that of the property it names, else of the entry's beginning."""
        if fault.entry is None or fault.entry >= len(self.entries):
            return str(fault)
        first, after = self.entries[fault.entry]
        names = _PROPERTY.findall(fault.why)
        found = next(
            (line for name in names for line in self._lines[first:after] if line.name == name),
            self._lines[first],
        )
        return f"line {found.number}: {fault}" + (
            f" (here: {found.value[:_VALUE]!r})" if found.name in names else ""
        )


def _content_lines(text: str) -> Iterator[Line]:
    """Lines that begin with a blank go on with the one before."""
    begun, parts = 0, [""]
    # Not splitlines(): it also splits at characters that a summary may hold.
    for number, raw in enumerate(re.split(r"\r?\n", text), 1):
        if raw[:1] in (" ", "\t"):
            parts.append(raw[1:])
            continue
        if "".join(parts).strip():
            yield _line(begun, "".join(parts))
        begun, parts = number, [raw]
    if "".join(parts).strip():
        yield _line(begun, "".join(parts))


def _line(number: int, text: str) -> Line:
    # A parameter's value may hold a colon between quotation marks.
    quoted, at = False, len(text)
    for place, character in enumerate(text):
        if character == '"':
            quoted = not quoted
        elif character == ":" and not quoted:
            at = place
            break
    name = re.split("[;:]", text[:at], maxsplit=1)[0].strip().upper()
    return Line(number, name, text[at + 1 :] if at < len(text) else text)
