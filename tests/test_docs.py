"""What the documents say is so: links lead somewhere, commands and names exist."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from functools import cache
from pathlib import Path

import pytest

from pantala.scheduler.config import CATALOGUE

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "pantala"
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
#: Of ``dfctl``: a kind, and what is done with tasks of it; of ``dfcache``: that alone.
COMMANDS = {"import", "export", "task", "cache-task", "persistent-cache-task", "ls", "stat", "rm"}
COMMANDS |= {"preheat", "hosts", "job", "show"}
PROGRAMS = ("dfget", "dfcache", "dfdaemon", "dfscheduler", "dfctl")

#: ``daemon/app.py`` and its like, between backticks.
MODULE = re.compile(r"`([a-z_]+/[a-z_/]+\.py|[a-z_]+\.py)`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
FLAG = re.compile(r"(?<!\S)--?[a-zA-Z][\w-]*")
COMMAND = re.compile(rf"(?<![\w.-])({'|'.join(PROGRAMS)})(?![\w.-])((?: +[^\s`|&;]+)*)")


def text(name: str) -> str:
    """A document, by its path from the root."""
    return (ROOT / name).read_text("utf-8")


def ids(path: Path) -> str:
    """A document's name in the list of tests."""
    return str(path.relative_to(ROOT))


def anchors(markdown: str) -> set[str]:
    """The anchors of a document's headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.+)$", markdown, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@cache
def help_of(*command: str) -> str:
    """What ``--help`` of a program, or of a command of it, prints."""
    program, *below = command
    done = subprocess.run(
        [Path(sys.executable).with_name(program), *below, "--help"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return done.stdout


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_links_lead_somewhere(path: Path) -> None:
    """Those within the repository, to the heading if they name one."""
    broken = []
    for link in LINK.findall(path.read_text("utf-8")):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (path.parent / name).resolve() if name else path
        if not target.exists() or (anchor and anchor not in anchors(target.read_text("utf-8"))):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_modules_exist(path: Path) -> None:
    """Each that a document names, from the package or from the repository."""
    named = set(MODULE.findall(path.read_text("utf-8")))
    assert not {n for n in named if not (PACKAGE / n).is_file() and not (ROOT / n).is_file()}


def test_architecture_knows_every_package() -> None:
    """None was added without a place on the map."""
    found = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
    assert not {name for name in found if f"`{name}" not in text("ARCHITECTURE.md")}


def test_ci_runs_the_readmes_line_for_the_tests() -> None:
    """CI takes it from the README itself, and finds exactly that one."""
    (command,) = re.findall(r"^line=\$\((.+)\)$", text(".ci/run"), re.MULTILINE)
    found = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    (shown,) = re.findall(r"^```sh\n(.*\bpytest\b.*)\n```$", text("README.md"), re.MULTILINE)
    assert found == f"{shown}\n"


def test_every_program_is_installed_and_helps() -> None:
    """All of the package's metadata, each under its own name."""
    scripts = tomllib.loads(text("pyproject.toml"))["project"]["scripts"]
    assert scripts == {name: f"pantala.cli.{name}:main" for name in PROGRAMS}
    for name in PROGRAMS:
        assert f"usage: {name} " in help_of(name).lower()


def flags_of(document: str) -> list[tuple[tuple[str, ...], str]]:
    """Each flag that a document gives to a program, after the program and its command."""
    found: list[tuple[tuple[str, ...], str]] = []
    for program, rest in COMMAND.findall(document.replace("\\\n", " ")):
        below = [word for word in rest.split()[:2] if word in COMMANDS]
        found += (((program, *below), flag) for flag in FLAG.findall(rest))
    return found


def test_flags_are_found() -> None:
    """Lest the next test should pass for want of any."""
    line = "say `dfctl cache-task ls -e /x --json`, or\n bin/dfget --cache URL \\\n  -O f | tar -x"
    assert flags_of(line) == [
        (("dfctl", "cache-task", "ls"), "-e"),
        (("dfctl", "cache-task", "ls"), "--json"),
        (("dfget",), "--cache"),
        (("dfget",), "-O"),
    ]


@pytest.mark.parametrize("path", DOCUMENTS, ids=ids)
def test_flags_exist(path: Path) -> None:
    """Each that a document gives to a program is in its help; one that stands alone, in any."""
    document = path.read_text("utf-8")
    everything = " ".join(help_of(name) for name in PROGRAMS) + " --group "  # pip's
    everything += help_of("python", "-m", "pantala.sim")
    alone = [(everything, flag) for flag in re.findall(r"`(--[a-z][a-z-]*)", document)]
    given = [(help_of(*command), flag) for command, flag in flags_of(document)]
    assert not [f for known, f in given + alone if not re.search(rf"(?<![\w-]){f}(?![\w-])", known)]


def test_every_setting_of_the_scheduler_is_documented() -> None:
    """By its key; and no other key is, in that table."""
    table = text("docs/operate.md").partition("## Settings of the scheduler")[2]
    table = table.partition("\n## ")[0]
    first_cells = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    documented = {key for cell in first_cells for key in re.findall(r"`([^`]+)`", cell)}
    assert documented == CATALOGUE.keys() - CATALOGUE.ignored - CATALOGUE.refused.keys()


def test_log_events_exist() -> None:
    """Each that operate.md explains is logged somewhere, and no error goes unexplained."""
    source = "\n".join(path.read_text("utf-8") for path in PACKAGE.rglob("*.py"))
    logged = re.findall(r"log(?:ger)?\.(\w+)\(\s*\"([^\"]+)\"", source)
    table = text("docs/operate.md").partition("## Log")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (`[^|]+) \|", table, re.MULTILINE)
    explained = {event for row in rows[1:] for event in re.findall(r"`([^`]+)`", row)}
    assert explained <= {event for _, event in logged}
    loud = {event for level, event in logged if level in {"warning", "error"}}
    assert not loud - explained


def test_decisions_are_numbered() -> None:
    """Each has a number of its own, the same in its name and in its title; none is missing."""
    found = sorted((ROOT / "docs" / "adr").glob("*.md"))
    assert [int(path.name[:4]) for path in found] == list(range(1, len(found) + 1))
    for number, path in enumerate(found, 1):
        assert path.read_text().startswith(f"# {number}. "), path
