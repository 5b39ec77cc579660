"""cli/_targets.py and model/names.py: which URL goes to which file, before anything is asked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pantala.cli._arguments import Options, parse
from pantala.model.names import file_name


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://me:pw@host/models/a.bin?token=s3cret#x", "a.bin"),
        ("http://host/a%20b%2B.bin", "a b+.bin"),
        ("http://host/%C3%A4", "ä"),
        ("http://host/100%", "100%"),
        ("http://host/%zz%4", "%zz%4"),
        ("http://host/dir/%", "%"),
        ("http://host\\a\\b.bin", "b.bin"),
        ("file:///etc/hostname", "hostname"),
        (f"http://host/{'x' * 255}", "x" * 255),
        ("s3://bucket/a;v=1,2", "a;v=1,2"),
    ],
)
def test_a_name(url: str, name: str) -> None:
    """The last segment of the path, decoded."""
    assert file_name(url) == name


@pytest.mark.parametrize(
    "last",
    [
        *("", "%2e%2E", ".", "..", "a%2Fb", "%2Fetc%2Fpasswd", "..%2f..%2fx", "a%00b", "%0a"),
        *("a%1b[2J", "%7f", "%c2%9b", "%ff", "a%E2%80%AEfdp.exe", "x" * 256, "%C3%A4" * 128),
    ],
)
def test_what_is_no_name(last: str) -> None:
    """A place elsewhere, what steers terminals, what no file system takes."""
    with pytest.raises(ValueError, match=r"path|name|shown") as caught:
        file_name(f"http://me:s3cret@host/dir/{last}?s3cret")
    assert str(caught.value).isprintable()
    assert "s3cret" not in str(caught.value)


def test_a_host_is_no_name() -> None:
    """Nor is what follows it in a query."""
    for url in ("http://host", "http://host/", "http://host?a/b", "http://host/dir/"):
        with pytest.raises(ValueError, match="its path ends with no name"):
            file_name(url)


def _parsed(*arguments: str) -> Options:
    return parse(arguments, {})


def test_one_url_and_a_directory(tmp_path: Path) -> None:
    """Goes there by its name; to another place as it was named."""
    options = _parsed("http://h/a%20b?x", "-O", str(tmp_path))
    assert (options.targets, options.output) == (None, str(tmp_path / "a b"))
    assert options.directory is None
    new = f"{tmp_path}/new/"
    options = _parsed("http://h/a", "-O", new)
    assert (options.targets, options.output, options.directory) == (None, f"{new}a", new)
    assert not (tmp_path / "new").exists()
    options = _parsed("http://h/", "-O", str(tmp_path / "new"))
    assert options.output == str(tmp_path / "new")


def test_several(tmp_path: Path) -> None:
    """From wherever they come, also from behind flags; in their order."""
    listed = tmp_path / "list"
    listed.write_bytes(b"\xef\xbb\xbf# mine\n\nhttp://h/c \r\n  # more\n\thttp://h/d")
    options = _parsed("http://h/a", "-O", str(tmp_path), "http://h/b", "-i", str(listed))
    assert options.targets == [(f"http://h/{name}", str(tmp_path / name)) for name in "abcd"]
    assert options.url == "http://h/a"
    assert options.jobs == 4
    only = _parsed("-i", str(listed), "-O", f"{tmp_path}/new/", "-j", "64")
    assert [target.url for target in only.targets or ()] == ["http://h/c", "http://h/d"]
    assert (only.jobs, only.directory) == (64, f"{tmp_path}/new/")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "the following arguments are required: URL"),
        (["http://h/a", "-O", "x", "--no-such"], "unrecognized arguments: --no-such"),
        (["http://h/a", "-j", "2", "b"], "argument URL: no URL with a scheme"),
        (["http://h/a", "http://h/b"], "there is no directory {out}: end it with / to have it"),
        (["http://h/a", "http://h/b", "-O", "{file}"], "to a directory, and {file} is none"),
        (["http://h/a", "http://h/b", "-O", "{file}/"], "to a directory, and {file}/ is none"),
        (["http://h/a", "http://h/b", "-O", "-"], "-O - cannot go with several URLs"),
        (["http://h/a", "http://h/b", "--digest", "crc32:1"], "--digest cannot go with several"),
        (
            ["http://h/a", "http://h/b", "--content-for-calculating-task-id", "x"],
            "--content-for-calculating-task-id cannot go with several URLs, or -i: all would be",
        ),
        (["http://u:s3cret@h/", "-O", "{dir}"], "http://h/: its path ends with no name: fetch it"),
        (["http://h/%2e%2e?s3cret", "-O", "{dir}"], "http://h/%2e%2e: '..' is no name of a file"),
        (
            ["http://u:s3cret@h/x/a?1", "http://h/y/a?s3cret", "-O", "{dir}"],
            "http://h/x/a and http://h/y/a would both be {dir}/a",
        ),
        (["http://h/a", "http://h/a", "-O", "{dir}"], "http://h/a and http://h/a would both be"),
        (["-i", "{list}", "-O", "{dir}"], "{list}, line 3: no URL with a scheme"),
        (["-i", "{file}", "-O", "{dir}"], "{file} has no URL"),
        (["-i", "{dir}", "-O", "{dir}"], "cannot read {dir}: Is a directory"),
        (["-i", "{out}", "-O", "{dir}"], "cannot read {out}: No such file"),
        (["-i", "{long}", "-O", "{dir}"], "{long}, line 1: "),
        (["-i", "{raw}", "-O", "{dir}"], "{raw}, line 1: "),
        (["http://h/a", "-j", "0"], "-j/--jobs: '0': want 1 to 64"),
        (["http://h/a", "-j", "00000000199"], "-j/--jobs: '00000000199': want 1 to 64"),
        (["http://h/a", "-j", "x"], "-j/--jobs: 'x': want 1 to 64"),
    ],
)
def test_what_makes_no_sense(
    tmp_path: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Status 2, a line that says why, nothing secret in it, and nothing was made."""
    places = {name: str(tmp_path / name) for name in ("out", "file", "dir", "list", "long", "raw")}
    (tmp_path / "dir").mkdir()
    (tmp_path / "file").write_text("#\n")
    (tmp_path / "list").write_text("http://h/a\n\ns3cret\n")
    (tmp_path / "long").write_text(f"http://h/a?{'x' * 70_000}\n")
    (tmp_path / "raw").write_bytes(b"http://h/\xff\n")
    there = sorted(tmp_path.iterdir())
    if "-O" not in arguments:
        arguments = [*arguments, "-O", "{out}"]
    with pytest.raises(SystemExit) as caught:
        _parsed(*(text.format(**places) for text in arguments))
    assert caught.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage == "usage: dfget URL [URL...] -O FILE|DIR [options]"
    assert words.format(**places) in error
    assert "s3cret" not in error
    assert sorted(tmp_path.iterdir()) == there


def test_a_list_from_standard_input(tmp_path: Path) -> None:
    """Like that of a file."""
    program = [sys.executable, "-m", "pantala.cli.dfget", "-i", "-", "-O", str(tmp_path)]
    done = subprocess.run(
        program, input=b"http://h/a\nx\n", capture_output=True, check=False, env=os.environ
    )
    assert done.returncode == 2
    assert b"standard input, line 2: no URL with a scheme" in done.stderr
