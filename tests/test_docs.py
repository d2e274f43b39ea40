"""What the documents say of themselves and of the program: links lead somewhere, commands and configuration exist."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

import click
import pytest
import typer.main
import yaml

from northbound.cli import app
from planner.config import Config, load, parse

ROOT: Final = Path(__file__).parent.parent
DOCS: Final = ROOT / "docs"
INDEX: Final = DOCS / "README.md"
PAGES: Final = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])

_FENCE: Final = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_LINK: Final = re.compile(r"\[[^\]\n]*\]\(([^()\s]+)\)")
_INLINE: Final = re.compile(r"`([^`\n]+)`")
#: First keys of YAML that is not Tidegate's configuration: cases of a policy file, Prometheus' own.
_NOT_OURS: Final = {"cases", "scrape_configs"}
#: What a part of a configuration is laid over, so that it can be read as one.
_BASE: Final[dict[str, Any]] = {
    "capacity_mbps": 1000,
    "regions": {
        "west": {"dpids": [0x11, 0x12], "capacity_mbps": 1000},
        "east": {"dpids": [0x21], "capacity_mbps": 1000},
    },
    "users": {
        user: {"macs": [f"02:00:00:00:00:{number:02x}"]}
        for number, user in enumerate(("anna", "ben", "carla", "reception"))
    },
}


@dataclass(frozen=True)
class Block:
    """One fenced block, and where it begins."""

    page: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page}:{self.line}"


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


@cache
def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """A page without its fenced blocks, in which brackets mean something else."""
    return _FENCE.sub("", text_of(page))


def blocks() -> Iterator[Block]:
    for page in PAGES:
        for found in _FENCE.finditer(text_of(page)):
            line = text_of(page).count("\n", 0, found.start()) + 1
            yield Block(name_of(page), line, found[1], found[2])


def anchors(page: Path) -> set[str]:
    """What headings are called in links, as GitHub makes it of them."""
    headings = re.findall(r"^#+ (.*)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(page: Path) -> list[str]:
    """Links within the repository."""
    return [link for link in _LINK.findall(prose_of(page)) if not re.match(r"[a-z]+:", link)]


def target(page: Path, link: str) -> tuple[Path, str]:
    """The file that a link leads to, and the anchor in it."""
    path, _, anchor = link.partition("#")
    return ((page.parent / path).resolve() if path else page), anchor


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page: Path):
    """A file, and where an anchor is named a heading in it."""
    broken = []
    for link in links(page):
        file, anchor = target(page, link)
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            broken.append(link)
    assert broken == []


def test_every_page_is_found_from_the_index():
    """A page that nothing leads to is read by nobody."""
    reached, ahead = set(), [INDEX]
    while ahead:
        page = ahead.pop()
        if page in reached:
            continue
        reached.add(page)
        linked = (target(page, link)[0] for link in links(page))
        ahead += [file for file in linked if file.suffix == ".md" and file.exists()]
    assert {name_of(page) for page in set(DOCS.rglob("*.md")) - reached} == set()


def fenced_commands() -> list[tuple[str, str]]:
    """Command lines of fenced blocks, and where."""
    found = []
    for block in blocks():
        if block.language in ("yaml", "json", "python", "text", "ini"):
            continue
        for line in block.text.replace("\\\n", " ").splitlines():
            words = line.removeprefix("$ ").strip()
            if re.match(r"(sudo )?(\.venv/bin/)?tidegate ", words):
                found.append((str(block), words[words.index("tidegate ") :]))
    return found


def inline_commands() -> list[tuple[str, str]]:
    """Commands named in sentences and tables, and where."""
    return [
        (name_of(page), code.replace("\\|", "|"))
        for page in PAGES
        for code in _INLINE.findall(prose_of(page))
        if re.match(r"tidegate [a-z]", code)
    ]


def words_of(line: str) -> list[str]:
    """What follows `tidegate` up to a pipe, a redirection or a comment."""
    return shlex.split(re.split(r" [|>&]{1,2} ", line)[0], comments=True)[1:]


def resolved(words: list[str]) -> tuple[click.Command, list[str]]:
    """The sub-command that these words name, and what is left. Raises UsageError."""
    command: Any = typer.main.get_command(app)
    while words and hasattr(command, "commands"):
        if words[0] not in command.commands:
            if command.invoke_without_command:
                break
            raise click.UsageError(f"no command {words[0]!r}")
        command, words = command.commands[words[0]], words[1:]
    return command, words


def unknown_options(command: Any, words: list[str]) -> list[str]:
    known = {name for parameter in command.params for name in parameter.opts} | {"--help"}
    if command.name == "demo":
        # Further arguments go to the demo.
        return []
    # A value may begin with a dash only where it is a number.
    named = [word.partition("=")[0].strip("[].…") for word in words]
    return [word for word in named if re.match(r"--?[a-z]", word) and word not in known]


@pytest.mark.parametrize(("where", "line"), [*fenced_commands(), *inline_commands()])
def test_named_command_exists(where: str, line: str):
    """With every option that is shown."""
    words = words_of(line)
    if words[0].startswith("--"):
        return
    command, left = resolved([word for word in words if not re.fullmatch(r"\[.*|.*\]|\W+", word)])
    assert unknown_options(command, left) == [], where


@pytest.mark.parametrize(
    "line",
    # Without those that have placeholders: FILE is no version.
    [line for _, line in fenced_commands() if not re.search(r"(?<![^ ])[A-Z_:]{3,}(?![^ ])", line)],
)
def test_shown_command_line_is_well_formed(line: str):
    """Arguments are there, and values are of the kind that the command takes."""
    command, left = resolved(words_of(line))
    with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(click.exceptions.Exit):
        command.make_context(command.name, list(left)).close()


@pytest.mark.parametrize("block", [b for b in blocks() if b.language == "yaml"], ids=str)
def test_shown_configuration_is_right(block: Block, tmp_path: Path):
    """Whole files as `tidegate check` reads them, parts laid over a small network."""
    raw = yaml.safe_load(block.text)
    if next(iter(raw)) in _NOT_OURS:
        return
    assert set(raw) <= set(Config.model_fields), f"{block}: not keys of a configuration"
    if {"capacity_mbps", "regions"} <= set(raw):
        file = tmp_path / "network.yaml"
        file.write_text(block.text)
        load(file)
    else:
        parse(_BASE | raw)


def test_worked_example_is_what_the_program_says():
    """The figures of docs/concepts.md come from the code beside them."""
    code, said = re.findall(r"```(?:python|text)\n(.*?)```", text_of(DOCS / "concepts.md"), re.DOTALL)
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, "docs/concepts.md", "exec"), {})
    assert printed.getvalue() == said
