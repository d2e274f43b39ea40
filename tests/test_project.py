"""The promises the project makes about itself: versions, commands, and where it fetches things from."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parent.parent
PURE = ("allocation", "forecasting", "telemetry", "topology")


def tracked_files() -> list[Path]:
    """Files of the project: what git knows, or all outside .venv where there is no git."""
    try:
        listed = subprocess.run(
            [
                "git",
                "-c",
                f"safe.directory={ROOT}",
                "ls-files",
                "-z",
                "--cached",
                "--others",
                "--exclude-standard",
            ],
            cwd=ROOT,
            capture_output=True,
            check=True,
            text=True,
        ).stdout.split("\0")
    except (OSError, subprocess.CalledProcessError):
        listed = [str(p.relative_to(ROOT)) for p in ROOT.rglob("*") if ".venv" not in p.parts]
    return [path for name in listed if name and (path := ROOT / name).is_file()]


def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(interpolation=None)
    parser.read(ROOT / "setup.cfg")
    return parser


def requirements() -> list[Requirement]:
    cfg = setup_cfg()
    lines = cfg["options"]["install_requires"] + "\n" + cfg["options.extras_require"]["dev"]
    return [Requirement(line) for line in lines.splitlines() if line and not line.startswith("#")]


def constraints() -> dict[str, Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(pin.name): pin for pin in pins}


def make_targets() -> set[str]:
    return set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def by_name(requirement: Requirement) -> str:
    return requirement.name


def test_no_file_names_a_package_registry():
    """Where packages come from is the machine's business: a mirror must work without editing the project."""
    # Put together here so that this file does not name them either.
    hosts = [
        "py" + "pi.org",
        "python" + "hosted.org",
        "npm" + "js.org",
        "npm" + "js.com",
        "cr" + "ates.io",
        "ana" + "conda.org",
        "jsdel" + "ivr.net",
        "un" + "pkg.com",
    ]
    options = ["--index" + "-url", "--extra-index" + "-url", "--find" + "-links", "--trusted" + "-host"]
    found = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in tracked_files()
        for name in hosts + options
        if name.encode() in path.read_bytes()
    ]
    assert found == []


@pytest.mark.parametrize("requirement", requirements(), ids=by_name)
def test_every_requirement_is_bounded_above(requirement: Requirement):
    """A release made next month does not change an install."""
    operators = {spec.operator for spec in requirement.specifier}
    assert operators & {"<", "<=", "=="}, f"{requirement} has no upper bound"


@pytest.mark.parametrize("requirement", requirements(), ids=by_name)
def test_constraints_pin_every_requirement_within_its_range(requirement: Requirement):
    """What was tested is one of the versions that the metadata allows."""
    pin = constraints().get(canonicalize_name(requirement.name))
    assert pin is not None, f"constraints.txt does not pin {requirement.name}"
    (spec,) = pin.specifier
    assert spec.version in requirement.specifier, f"{pin} is outside {requirement}"


def test_constraints_are_exact_and_sorted():
    """A pin is one version, and a reader finds it where the alphabet says."""
    pins = constraints()
    assert [pin for pin in pins.values() if [s.operator for s in pin.specifier] != ["=="]] == []
    assert list(pins) == sorted(pins)


def test_duckdb_and_its_extensions_are_one_version():
    """An extension loads only into the DuckDB that it was built for."""
    versions = {str(pin.specifier) for name, pin in constraints().items() if name.startswith("duckdb")}
    assert len(versions) == 1


def test_each_library_chosen_is_explained():
    """Whoever wonders why a library is here finds a line about it."""
    page = (ROOT / "docs/design/dependencies.md").read_text()
    named = {canonicalize_name(word) for word in re.findall(r"[A-Za-z][A-Za-z0-9-]+", page)}
    assert {canonicalize_name(r.name) for r in requirements()} - named == set()


def test_changelog_speaks_of_this_version():
    """The newest entry is the version that the metadata states."""
    headings = re.findall(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    version = setup_cfg()["metadata"]["version"]
    assert headings[0] == version
    assert headings == sorted(headings, key=Version, reverse=True)


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/design/dependencies.md"])
def test_commands_in_the_pages_exist(page: str):
    """A newcomer can type every `make` command that a page shows."""
    code = re.findall(r"`([^`\n]+)`|^(?: {4}|\$ )(.+)$|^(make .+)$", (ROOT / page).read_text(), re.MULTILINE)
    commands = [
        part.split("#")[0] for parts in code for part in parts if re.match(r"(sudo )?make [a-z]", part)
    ]
    words = [w for c in commands for w in c.removeprefix("sudo ").split()[1:]]
    targets = {word for word in words if re.fullmatch(r"[a-z-]+", word)}
    assert targets
    assert targets - make_targets() == set()


def test_help_lists_every_target():
    """`make` alone shows all there is to do."""
    shown = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, check=True, text=True).stdout
    assert set(re.findall(r"^  make ([a-z-]+) ", shown, re.MULTILINE)) == make_targets()


@pytest.mark.parametrize(
    "path", [*sorted((ROOT / "scripts").glob("*.sh")), ROOT / ".ci/run"], ids=lambda p: p.name
)
def test_scripts_are_strict_and_runnable(path: Path):
    """A script stops at an unset name, parses, and can be started as it is."""
    assert re.search(r"^set -e?uo pipefail$", path.read_text(), re.MULTILINE)
    assert path.stat().st_mode & 0o111 == 0o111
    subprocess.run(["bash", "-n", str(path)], check=True)


def test_packages_in_the_metadata_are_the_packages_there_are():
    """Nothing that a user imports is left out of an install, and no test goes into one."""
    listed = {line.rstrip("*") for line in setup_cfg()["options.packages.find"]["include"].split()}
    present = {init.parent.name for init in ROOT.glob("*/__init__.py")}
    assert listed == present - {"tests"}
    assert set(setup_cfg()["importlinter"]["root_packages"].split()) == listed


def _clock_readings(tree: ast.AST) -> list[int]:
    clocks = {"now", "utcnow", "today"}
    return [
        node.lineno
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in clocks
        and ast.unparse(node.func.value).split(".")[-1] in {"datetime", "date", "Timestamp"}
    ]


@pytest.mark.parametrize("package", PURE)
def test_pure_packages_read_no_calendar(package: str):
    """`now` is an argument; import contracts see `time`, but not datetime.now()."""
    found = {
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / package).rglob("*.py")
        for line in _clock_readings(ast.parse(path.read_text()))
    }
    assert found == set()
