"""``tidegate top``: what it shows, and the full screen in a real terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import sys
import termios
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.cells import cell_len
from typer.testing import CliRunner

from northbound.cli import app
from northbound.cli_exit import Exit
from northbound.cli_top_keys import keys_in
from northbound.cli_top_view import Order, Shown, View, after_key, chosen
from planner.snapshot import Health
from tests.northbound.doubles import NOW, FakeOperations
from tests.northbound.test_cli import served

ROOT = Path(__file__).parents[2]
runner = CliRunner()
pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def url(operations: FakeOperations) -> Iterator[str]:
    with served(operations) as address:
        yield address


# What is chosen.


def pool(path: str, offered: float | None, grant: float | None) -> dict[str, Any]:
    level = ("global", "region", "group", "user")[path.count("/")]
    one = {"offered_bps": offered, "grant_bps": grant}
    return {"path": path, "level": level, "up": one, "down": {"offered_bps": 0, "grant_bps": 1}}


POOLS = [
    pool("global", 9, 10),
    pool("global/a", 9, 10),
    pool("global/b", None, 5),
    pool("global/a/g", 8, 4),
    pool("global/a/g/zoe", 3, 1),
    pool("global/a/g/ann", 5, 20),
]


def names(view: View) -> list[str]:
    return [one["path"].rpartition("/")[2] for one in chosen(POOLS, view)]


def test_tree_has_children_below_their_parent():
    """Although the planner lists level by level."""
    assert names(View()) == ["global", "a", "g", "ann", "zoe", "b"]


@pytest.mark.parametrize(
    ("order", "first"),
    [
        (Order.OFFERED, ["global", "a", "g", "ann", "zoe", "b"]),
        (Order.GRANT, ["ann", "global", "a", "b", "g", "zoe"]),
        (Order.SHORT, ["g", "zoe", "global", "a", "ann", "b"]),
        (Order.USE, ["zoe", "g", "global", "a", "ann", "b"]),
        (Order.NAME, ["a", "ann", "b", "g", "global", "zoe"]),
    ],
)
def test_most_comes_first_and_unknown_last(order: Order, first: list[str]):
    """Of what is sorted by; a pool of which nothing is known is no zero."""
    assert names(View(order=order, shown=Shown.UP)) == first


def test_level_and_text_filter():
    """Both must fit; capitals do not matter."""
    assert names(View(level="user")) == ["ann", "zoe"]
    assert names(View(text="A/G/Z")) == ["zoe"]
    assert names(View(level="region", text="zoe")) == []


def after(view: View, *keys: str, n_rows: int = 100, page: int = 10) -> View | None:
    for key in keys:
        changed = after_key(view, key, n_rows, page)
        if changed is None:
            return None
        view = changed
    return view


def test_keys_move_within_the_pools():
    """Never past an end."""
    assert after(View(), "down", "page down") == View(offset=11)
    assert after(View(), "end", "down", "page down") == View(offset=90)
    assert after(View(offset=90), "home", "up") == View()
    assert after(View(), "page down", "end", n_rows=3) == View()
    # Fewer pools than there were.
    assert after(View(offset=90), "up", n_rows=20) == View(offset=9)


def test_keys_choose():
    """Each goes round."""
    assert after(View(offset=4), "s") == View(order=Order.OFFERED)
    assert after(View(), *"ssssss") == View()
    assert after(View(), "l", "l") == View(level="group")
    assert after(View(), *"llll") == View()
    assert after(View(), "d") == View(shown=Shown.UP)
    assert after(View(), "p") == View(paused=True)
    assert after(View(), "x") == View()
    assert after(View(), "q") is None
    assert after(View(), "escape") is None


def test_filter_is_typed():
    """Letters are letters then, until Enter or Esc."""
    assert after(View(), "/", "q", "s", "backspace", "enter") == View(text="q")
    assert after(View(text="old"), "/", "x", "up", "escape") == View(text="old")
    assert after(View(text="old"), "/", "enter") == View(text="old")


def test_sequences_of_terminals_are_keys():
    """Both kinds of arrows, several at once, and those that mean nothing here."""
    assert keys_in("q\x1b[A\x1bOB\x1b[5~\x1b[6~/ü\r\x7f") == [
        "q", "up", "down", "page up", "page down", "/", "ü", "enter", "backspace"
    ]  # fmt: skip
    assert keys_in("\x1b[1;5C\x1b[24~s") == ["s"]
    assert keys_in("\x1b") == ["escape"]
    assert keys_in("\x1b[") == []


# One frame.


def once(url: str, *words: str) -> str:
    result = runner.invoke(app, ["top", "--url", url, "--once", *words])
    assert result.exit_code == Exit.DONE, result.output
    return result.stdout


def test_frame_has_state_and_pools(url: str):
    """Health, plan, switches and alarms above; a line a pool; nothing known is no zero."""
    lines = once(url).splitlines()
    assert re.match(r"tidegate \S+  ok  tick 9 of .*, took 12 ms$", lines[0].replace("13 ms", "12 ms"))
    assert re.match(r"plan \d+ of .*, live; switches 1 of 1 in step; alarms \d+ open", lines[1])
    (anna,) = (line for line in lines if line.strip().startswith("anna"))
    # offered, p90, grant, use
    assert anna.split()[1:5] == ["0", "5.00", "4.40", "0%"]
    assert "auto-bw" in anna
    (ben,) = (line for line in lines if line.strip().startswith("ben"))
    assert ben.split()[1:5] == ["–", "–", "4.60", "–"]
    assert "\x1b" not in "".join(lines)


def test_frame_is_sorted_and_filtered(url: str):
    """By the same options that keys change."""
    lines = once(url, "--level", "user", "--sort", "grant", "--direction", "up").splitlines()
    assert [line.split()[0] for line in lines[6:]] == ["west/g1/ben", "west/g1/anna"]
    assert "pools 1-1 of 1" in once(url, "--filter", "ANNA")


def test_frame_as_json(url: str):
    """The rows that the frame would have."""
    answer = json.loads(once(url, "--json", "--level", "user", "--rows", "1"))
    assert [one["path"] for one in answer["pools"]] == ["global/west/g1/anna"]
    assert set(answer) == {"health", "plan", "switches", "alarms", "pools", "total", "time"}


def test_wrong_calls():
    """Each is told in a line."""
    assert runner.invoke(app, ["top", "--once", "--url", "http://127.0.0.1:1"]).exit_code == Exit.UNREACHABLE
    result = runner.invoke(app, ["top"])
    assert (result.exit_code, result.stderr) == (
        Exit.MISUSED, "tidegate: top needs a terminal; --once prints one frame\n",
    )  # fmt: skip
    assert runner.invoke(app, ["top", "--level", "planet"]).exit_code == Exit.MISUSED
    assert runner.invoke(app, ["top", "--every", "often"]).exit_code == Exit.MISUSED


# The whole screen.


class Terminal:
    """A command in a terminal of its own."""

    def __init__(self, words: list[str], size: tuple[int, int], **environment: str) -> None:
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            # By the child: a size that is given before it has opened its side may be lost.
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))
            # Not the process' own: readline writes COLUMNS and LINES into that, past os.environ.
            clean = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
            clean |= {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT), **environment}
            os.execve(sys.executable, [sys.executable, "-m", "northbound", *words], clean)
        self.output = ""
        self.status: int | None = None

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    @property
    def screen(self) -> list[str]:
        """The lines of the newest frame, without styles."""
        newest = self.output.rpartition("\x1b[H")[2]
        return [line.rstrip() for line in re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", newest).split("\r\n")]

    def wait(self, until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 30
        while not until():
            assert time.monotonic() < deadline, self.output[-3000:]
            self._read()

    def shows(self, text: str) -> None:
        self.wait(lambda: text in "\n".join(self.screen))

    def ends(self) -> int:
        """The exit status."""

        def over() -> bool:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.status = os.waitstatus_to_exitcode(status)
            return bool(pid)

        self.wait(over)
        self._read()
        assert self.status is not None
        return self.status

    def _read(self) -> None:
        if select.select([self.fd], [], [], 0.1)[0]:
            try:
                self.output += os.read(self.fd, 65536).decode(errors="replace")
            except OSError:
                # The other side is closed.
                time.sleep(0.05)

    def close(self) -> None:
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)


@pytest.fixture
def start(url: str) -> Iterator[Callable[..., Terminal]]:
    """Starts ``top`` in a terminal of 24 lines of 100 columns."""
    begun: list[Terminal] = []

    def starting(*words: str, size: tuple[int, int] = (24, 100), **environment: str) -> Terminal:
        begun.append(Terminal(["top", "--url", url, "--every", "1s", *words], size, **environment))
        return begun[-1]

    yield starting
    for terminal in begun:
        terminal.close()


ALTERNATE_ON, ALTERNATE_OFF, CURSOR_ON = "\x1b[?1049h", "\x1b[?1049l", "\x1b[?25h"


def test_keys_change_the_screen(start: Callable[..., Terminal]):
    """Sort, level, direction, filter; q ends it with 0 and gives the terminal back."""
    terminal = start()
    terminal.shows("by tree; pools 1-5 of 5")
    before = termios.tcgetattr(terminal.fd)
    assert not before[3] & termios.ECHO
    terminal.wait(lambda: len(terminal.screen) == 24)
    terminal.press("s")
    terminal.shows("by offered")
    terminal.press("ll")
    terminal.shows("group, by offered; pools 1-1 of 1")
    terminal.press("ll/an")
    terminal.shows("filter: an_")
    terminal.press("\r")
    terminal.shows("filter 'an'; pools 1-1 of 1")
    terminal.press("p")
    terminal.shows("PAUSED")
    terminal.press("q")
    assert terminal.ends() == Exit.DONE
    assert terminal.output.index(ALTERNATE_ON) < terminal.output.rindex(ALTERNATE_OFF)
    assert CURSOR_ON in terminal.output
    assert termios.tcgetattr(terminal.fd)[3] & termios.ECHO


def test_screen_is_live(start: Callable[..., Terminal], operations: FakeOperations):
    """A tick later it shows what is new, without a key."""
    terminal = start()
    terminal.shows("tick 9 of")
    operations.snapshot = replace(
        operations.snapshot,
        health=Health(
            status="degraded",
            last_tick=NOW,
            tick_ms=3.0,
            ticks=10,
            steps_ms={},
            problems=("no \x1b[2J model",),
        ),
    )
    terminal.shows("degraded  tick 10 of")
    # What a terminal would obey is not passed on.
    terminal.shows("no ?[2J model")


@pytest.mark.parametrize(
    ("size", "columns", "plan", "keys"),
    [
        ((24, 80), "pool offered grant use load offered grant use load",
         r"plan \d+, live; switches 1 of 1 in step; alarms \d+ open", "pause  arrows"),
        ((20, 60), "pool offered grant use offered grant use", r"plan \d+, live; 1 of 1 in step; alarms \d+ open", "p pause"),
        ((10, 30), "pool offered offered", r"\d+, live; 1 of 1; \d+ open", "q s l d / p"),
    ],
)  # fmt: skip
def test_narrow_screen_has_what_matters(
    start: Callable[..., Terminal], size: tuple[int, int], columns: str, plan: str, keys: str
):
    """Columns fall away from the least telling one on, words are cut short: no line is cut in the middle of one."""
    terminal = start(size=size)
    terminal.shows("by tree")
    terminal.wait(lambda: len(terminal.screen) == size[0])
    screen = terminal.screen
    assert max(map(cell_len, screen)) <= size[1]
    assert re.fullmatch(plan + r"(, \d+ not acknowledged)?", screen[1])
    (headings,) = (line for line in screen if line.startswith("pool "))
    assert headings.split() == columns.split()
    (first,) = (line for line in screen if line.startswith("global "))
    assert len(first.split()) == len(headings.split())
    assert screen[-1].endswith(keys)


def test_screen_follows_the_size_of_the_terminal(start: Callable[..., Terminal]):
    """Smaller, larger, within a moment, without a key; nothing of the larger picture is left."""
    terminal = start(size=(24, 80))
    terminal.shows("by tree")
    for rows, width in ((20, 60), (40, 160), (8, 40), (24, 80)):
        fcntl.ioctl(terminal.fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, width, 0, 0))

        def fits(rows: int = rows, width: int = width) -> bool:
            newest = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", terminal.output.rpartition("\x1b[H")[2]).split(
                "\r\n"
            )
            # Each line is written to its end, over what was there.
            return len(newest) == rows and {cell_len(line) for line in newest} == {width}

        terminal.wait(fits)
    terminal.press("q")
    assert terminal.ends() == Exit.DONE


def test_exported_size_does_not_hold_it(start: Callable[..., Terminal]):
    """A shell may have exported the size that the terminal had once."""
    terminal = start(size=(20, 60), COLUMNS="132", LINES="50")
    terminal.shows("by tree")
    terminal.wait(lambda: len(terminal.screen) == 20)
    assert max(map(cell_len, terminal.screen)) <= 60


def test_columns_stay_while_one_scrolls(start: Callable[..., Terminal]):
    """They go by the names of all pools, not by those on the screen."""
    terminal = start(size=(8, 60))
    terminal.shows("1-1 of 5")
    before = [line for line in terminal.screen if line.startswith("pool ")]
    terminal.press("G")
    terminal.shows("5-5 of 5")
    assert [line for line in terminal.screen if line.startswith("pool ")] == before


def test_no_color_means_none(start: Callable[..., Terminal]):
    """With colours where they are wanted; without where NO_COLOR is set."""
    coloured = start()
    coloured.shows("by tree")
    assert re.search(r"\x1b\[[0-9;]*3[1-7]m", coloured.output)
    plain = start(NO_COLOR="1")
    plain.shows("by tree")
    assert not re.search(r"\x1b\[[0-9;]*[349][0-7]m", plain.output)


@pytest.mark.parametrize("way", [signal.SIGINT, signal.SIGTERM])
def test_signals_give_the_terminal_back(start: Callable[..., Terminal], way: signal.Signals):
    """Ctrl-C is a way to leave; being told to end is another."""
    terminal = start()
    terminal.shows("by tree")
    os.kill(terminal.pid, way)
    assert terminal.ends() == (Exit.DONE if way is signal.SIGINT else 128 + way)
    assert terminal.output.rindex(ALTERNATE_OFF) > terminal.output.index(ALTERNATE_ON)
    assert termios.tcgetattr(terminal.fd)[3] & termios.ECHO


def test_planner_that_goes_away_is_told(operations: FakeOperations):
    """The last picture stays, and a line says what is wrong; keys still work."""
    with served(operations) as address:
        terminal = Terminal(["top", "--url", address, "--every", "1s"], (24, 100))
        try:
            terminal.shows("by tree")
        except AssertionError:
            terminal.close()
            raise
    try:
        terminal.shows("no planner answers at")
        assert any(line.strip().startswith("anna") for line in terminal.screen)
        terminal.press("q")
        assert terminal.ends() == Exit.DONE
    finally:
        terminal.close()
