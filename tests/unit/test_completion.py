"""cli/_completion.py and scripts/gen_man.py: what is made from the parsers of the programs."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from pantala.cli import _arguments, dfcache, dfctl, dfdaemon, dfget, dfscheduler
from pantala.cli._completion import commands, script

ROOT = Path(__file__).resolve().parents[2]
PARSERS = {
    "dfget": _arguments.make_parser,
    "dfcache": dfcache.make_parser,
    "dfctl": dfctl.make_parser,
    "dfdaemon": dfdaemon.make_parser,
    "dfscheduler": dfscheduler.make_parser,
}
MAN = ROOT / "docs" / "man"


def test_what_is_in_docs_is_true() -> None:
    """It is what the script makes of the programs as they are."""
    command = [sys.executable, str(ROOT / "scripts" / "gen_man.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_it_is_printed(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    """By each command, which needs nothing else for it."""
    runs: dict[str, Callable[[list[str]], int]] = {
        "dfget": dfget.run,
        "dfctl": partial(dfctl.run, environ={}),
        "dfcache": partial(dfcache.run, environ={}),
        "dfdaemon": partial(dfdaemon.run, environ={}),
        "dfscheduler": partial(dfscheduler.run, environ={}),
    }
    for name, run in runs.items():
        for words in (["--print-completion", shell], [f"--print-completion={shell}"]):
            with pytest.raises(SystemExit) as caught:
                run(words)
            assert caught.value.code == 0
            assert capsys.readouterr().out == script(PARSERS[name]({}), shell)
    with pytest.raises(SystemExit) as caught:
        dfctl.run(["--print-completion", "fish"], {})
    assert caught.value.code == 2


@pytest.mark.parametrize("name", PARSERS)
def test_all_commands_and_flags_are_there(name: str) -> None:
    """In both shells, and in the manual."""
    parser = PARSERS[name]({})
    texts = {shell: script(parser, shell) for shell in ("bash", "zsh")}
    page = (MAN / f"{name}.1").read_text()
    for command in commands(parser):
        for word in command.path:
            assert all(word in text for text in texts.values())
            assert word.replace("-", "\\-").upper() in page
        for flag in command.flags:
            for option in flag.option_strings:
                assert all(option in text for text in texts.values())
                assert "\\fB" + option.replace("-", "\\-") + "\\fR" in page
    bash = subprocess.run(["bash", "-n"], input=texts["bash"].encode(), check=False)
    assert bash.returncode == 0
    if zsh := shutil.which("zsh"):
        assert subprocess.run([zsh, "-n"], input=texts["zsh"].encode(), check=False).returncode == 0


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["dfctl", ""], {"task", "cache-task", "persistent-cache-task", "--help"}),
        (["dfctl", "ca"], {"cache-task"}),
        (["dfctl", "cache-task", "r"], {"rm"}),
        (["dfctl", "cache-task", "rm", "--s"], {"--swarm"}),
        (["dfctl", "--print-completion", ""], {"bash", "zsh"}),
        (["dfget", "--ca"], {"--cache"}),
        (["dfget", "http://h/a", "-O", "a"], {"a.bin", "a dir"}),
        (["dfget", "--tag", ""], set()),
        (["dfcache", "import", "a"], {"a.bin", "a dir"}),
        (["dfcache", "import", "--tt"], {"--ttl"}),
        (["dfcache", "export", "--out"], {"--output"}),
    ],
)
def test_bash_completes(tmp_path: Path, words: list[str], found: set[str]) -> None:
    """Commands, their flags, and the files that go with them."""
    (tmp_path / "a.bin").touch()
    (tmp_path / "a dir").mkdir()
    program = (
        f"{script(PARSERS[words[0]]({}), 'bash')}\n"
        'COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); '
        f"_{words[0]}; printf '%s\\n' \"${{COMPREPLY[@]}}\"\n"
    )
    done = subprocess.run(
        ["bash", "-c", program, "bash", *words],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
    )
    shown = {line for line in done.stdout.splitlines() if line}
    assert (found <= shown) if not words[-1] else (found == shown)
    assert done.stderr == ""


@pytest.mark.parametrize("name", PARSERS)
def test_the_manual_is_well_formed(name: str) -> None:
    """As groff reads it, if it is here."""
    groff = shutil.which("groff")
    if groff is None:
        pytest.skip("no groff")
    page = MAN / f"{name}.1"
    done = subprocess.run(
        [groff, "-man", "-Tutf8", "-P-c", "-ww", str(page)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert "EXAMPLES" in re.sub(".\b", "", done.stdout)  # it types twice what is bold
