"""cli/dfget.py and cli/_arguments.py: the program, with a daemon played from a script."""

from __future__ import annotations

import contextlib
import json
import os
import pty
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pantala import BUILD_VERSION
from pantala.cli import dfget
from pantala.cli._arguments import Options, parse
from pantala.cli._outcome import advice
from pantala.cli._text import one_line
from pantala.client import personal
from pantala.client.arrival import Arrival
from pantala.errors import DragonflyError, InvalidRequest
from pantala.model.filtered import DEFAULT_FILTERED_QUERY_PARAMS
from pantala.model.notation import parse_digest
from pantala.testing.handoff_daemon import Conversation, HandoffDaemon, Segment, serve, started

CONTENT = random.Random(7).randbytes(200_000)
URL = "https://me:pw@origin.example/model.bin?token=secret"
PROGRAM = [sys.executable, "-m", "pantala.cli.dfget"]

Script = Callable[[Conversation], None]


def _refuse(talk: Conversation) -> None:
    talk.send(event="error", code="INTERNAL", message="403 Forbidden", status_code=403)


def _hang(talk: Conversation) -> None:
    with contextlib.closing(Segment(CONTENT, 5000)) as segment:
        talk.start(segment)
        talk.send(event="pieces", pieces=[segment.fill(0)])
        talk.wait_closed()


@pytest.fixture
def runtime() -> Iterator[Path]:
    """A directory whose path leaves room for that of a socket."""
    with tempfile.TemporaryDirectory(prefix="pd-") as directory:
        yield Path(directory)


def _run(
    directory: Path, script: Script, *arguments: str, output: str | None = None, cache: bool = True
) -> tuple[int, list[dict[str, Any]]]:
    """The exit status of ``dfget``, and what the daemon was asked for."""
    where = str(directory / "out") if output is None else output
    kind = ["--cache"] if cache else []
    with HandoffDaemon(directory, script) as daemon:
        status = dfget.run([*kind, URL, "-O", where, "-e", daemon.endpoint, *arguments])
    return status, daemon.requests


def test_a_directory_is_made(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """For one file as for many, where its name ends like one; not where there is a file."""
    new = tmp_path / "some" / "new"
    assert _run(tmp_path, serve(CONTENT), output=f"{new}/")[0] == 0
    (file,) = new.iterdir()
    assert (file.name, file.read_bytes()) == ("model.bin", CONTENT)
    assert dfget.run([URL, "-O", f"{file}/below/", "-e", "/nowhere.sock"]) == 1
    assert capsys.readouterr().err == f"dfget: cannot make {file}/below/: Not a directory\n"


def test_a_file_arrives(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a word where there is no terminal."""
    status, requests = _run(tmp_path, serve(CONTENT))
    assert status == 0
    assert (tmp_path / "out").read_bytes() == CONTENT
    assert capsys.readouterr() == ("", "")
    (request,) = requests
    assert 0 < request.pop("timeout") <= 7200
    assert request == {
        "again": True,
        "op": "download",
        "kind": "CACHE",
        "url": URL,
        "priority": 6,
        "filtered_query_params": list(DEFAULT_FILTERED_QUERY_PARAMS),
        "request_header": {},
        "disable_back_to_source": False,
        "prefetch": False,
    }


def test_what_is_here_is_to_be_compared(tmp_path: Path) -> None:
    """The daemon is told so; of what is not asked for it hears nothing."""
    status, (request,) = _run(tmp_path, serve(CONTENT), "--refresh")
    assert status == 0
    assert request["refresh"] is True


def test_every_flag_is_passed_on(tmp_path: Path) -> None:
    """Under the names of docs/handoff.md."""
    status, (request,) = _run(
        tmp_path,
        serve(CONTENT),
        *("--range", "5-", "--prefetch", "--tag", "t"),
        *("--application", "a", "-p", "3", "--piece-length", "8MiB", "--timeout", "1m"),
        *("-H", "Accept: */*", "-H", "X-Time: 10:30 ", "--disable-back-to-source"),
        *("--filtered-query-param", "a", "--filtered-query-param", "b"),
        *("--content-for-calculating-task-id", "c", "--console", "-l", "debug"),
    )
    assert status == 0
    assert 0 < request.pop("timeout") <= 60
    assert request == {
        "again": True,
        "op": "download",
        "kind": "CACHE",
        "url": URL,
        "range": "5-",
        "tag": "t",
        "application": "a",
        "priority": 3,
        "filtered_query_params": ["a", "b"],
        "request_header": {"Accept": "*/*", "X-Time": "10:30"},
        "piece_length": 8 << 20,
        "disable_back_to_source": True,
        "prefetch": True,
        "content_for_calculating_task_id": "c",
    }


def test_a_digest_is_passed_on(tmp_path: Path) -> None:
    """It cannot go with all the others."""
    status, (request,) = _run(tmp_path, serve(CONTENT), "--digest", "crc32:1")
    assert status == 0
    assert request["digest"] == "crc32:1"


def test_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for flags that are absent."""
    for name, value in {
        "CACHE": "true",
        "TAG": "env",
        "APPLICATION": "env",
        "PRIORITY": "1",
        "PIECE_LENGTH": "5MiB",
        "TIMEOUT": "30s",
        "DISABLE_BACK_TO_SOURCE": "1",
        "OVERWRITE": "yes",
        "NO_PROGRESS": "no",
        "CONTENT_FOR_CALCULATING_TASK_ID": "",
    }.items():
        monkeypatch.setenv(f"DFGET_{name}", value)
    (tmp_path / "out").write_text("former")
    with HandoffDaemon(tmp_path, serve(CONTENT)) as daemon:
        monkeypatch.setenv("DFGET_ENDPOINT", daemon.endpoint)
        assert dfget.run([URL, "-O", str(tmp_path / "out"), "--tag", "flag"]) == 0
        monkeypatch.setenv("DFGET_DFDAEMON_ENDPOINT", f"unix://{daemon.endpoint}")
        monkeypatch.setenv("DFGET_ENDPOINT", "/nowhere.sock")
        assert dfget.run([URL, "-O", str(tmp_path / "out")]) == 0
    first, second = daemon.requests
    assert (first["tag"], second["tag"]) == ("flag", "env")
    assert first["application"] == "env"
    assert first["priority"] == 1
    assert first["piece_length"] == 5 << 20
    assert first["timeout"] <= 30
    assert first["disable_back_to_source"] is True
    assert "content_for_calculating_task_id" not in first


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["no-scheme/file"], "no URL with a scheme"),
        (["http://host/a b"], "write %20"),
        (["http://"], "no URL with a scheme"),
        (["http:///x"], "URL: it names no host: want a URL such as https://host/file"),
        (["http://u:s3cret@:80/x"], "it names no host"),
        (["https://h:99999/x"], "its port is above 65535"),
        (["https://u:s3cret@h:s3cret/x"], "its port is not a number"),
        (["http://[::1/x"], "the [ of its IPv6 address is not closed"),
        ([URL, "--range", "5"], "'5': want A-B, A- or -N"),
        ([URL, "--range", "-"], "'-': want A-B"),
        ([URL, "--range", "7-3"], "'7-3': ends before it begins"),
        ([URL, "--range", "-0"], "'-0': want A-B"),
        ([URL, "--range", "1-2-3"], "'1-2-3': want A-B"),
        ([URL, "--range", "a-b"], "'a-b': want A-B"),
        ([URL, "--range", f"0-{'9' * 26}"], f"'0-{'9' * 26}': want at most 20 digits"),
        ([URL, "--range", f"{'9' * 5000}-"], "want at most 20 digits"),
        ([URL, "--tag", "\udcff"], "--tag: '\\udcff': want UTF-8"),
        ([URL, "--application", "\udcff"], "--application: '\\udcff': want UTF-8"),
        ([URL, "--filtered-query-param", "\udcff"], "-param: '\\udcff': want UTF-8"),
        ([URL, "--content-for-calculating-task-id", "\udcff"], "-id: '\\udcff': want UTF-8"),
        ([URL, "-H", "X: \udcff"], "header X has a value that is not UTF-8"),
        ([URL, "-H", "Host: x"], "header Host is not sent on to origins"),
        ([URL, "-H", "transfer-encoding: chunked"], "header transfer-encoding is not sent on"),
        ([URL, "-H", "Proxy-Authorization: s3cret"], "header Proxy-Authorization is not sent"),
        (
            [URL, "-H", "Range: bytes=0-1,3-4"],
            "header Range: 'bytes=0-1,3-4': want one range: bytes=A-B, bytes=A- or",
        ),
        ([URL, "-H", "range: 0-1, 3-4"], "header range: '0-1, 3-4': want one range: bytes=A-B"),
        ([URL, "-H", "Range: bytes=7-3"], "header Range: 'bytes=7-3': want one range: bytes=A-B"),
        ([URL, "-H", "Range: lines=1-2"], "header Range: 'lines=1-2': want one range: bytes=A-B"),
        ([URL, "-H", "Range: bytes="], "header Range: 'bytes=': want one range: bytes=A-B"),
        ([URL, "--refresh", "--disable-back-to-source"], "--refresh asks the origin"),
        ([URL, "--prefetch"], "--prefetch fetches the rest after a --range"),
        ([URL, "--piece-length", "1MiB"], "'1MiB': want 4MiB to 64MiB"),
        ([URL, "--piece-length", "x"], "'x' is not a size"),
        ([URL, "--timeout", "5"], "'5' is not a duration"),
        ([URL, "--timeout", "0s"], "want more than 0"),
        ([URL, "--timeout", "8days"], "at most 7days"),
        ([URL, "-p", "7"], "'7': want 0 to 6"),
        ([URL, "--digest", "md5:00"], "--digest: 'md5:00': want crc32:<decimal"),
        ([URL, "--digest", "abc"], "--digest: 'abc': want crc32:<decimal"),
        ([URL, "--digest", ""], "--digest: '': want crc32:<decimal"),
        ([URL, "--digest", "sha256:zz"], "'sha256:zz': want crc32:<decimal"),
        ([URL, "--digest", "crc32:4294967296"], "up to 4294967295>, sha256:<64"),
        ([URL, "--digest", f"sha256:{'A' * 64}"], "sha256:<64 lower-case hex digits>"),
        ([URL, "--digest", "crc32:1", "--range", "0-5"], "--digest is of the whole content"),
        ([URL, "--digest", "crc32:1", "-H", "range: bytes=0-"], "--range or a Range header"),
        ([URL, "-O", ""], "-O/--output: '': want a file's name, or - for stdout"),
        ([URL, "-e", ""], "-e/--endpoint: '': want the path of a socket, such as /var/run/"),
        ([URL, "-e", "unix://"], "-e/--endpoint: 'unix://': want the path of a socket"),
        ([URL, "-H", "Good: yes", "-H", "Bearer s3cret"], "header 2 (Bearer …) has no colon"),
        ([URL, "-H", "s3cret"], "header 1 has no colon"),
        ([URL, "-H", ": s3cret"], "header 1 has no proper name"),
        ([URL, "-H", "X: a\r\nY: s3cret"], "header X has a line break"),
        ([URL, "--json", "-O", "-"], "--json and -O - both want stdout"),
        ([URL, "--recursive"], "unrecognized arguments"),
    ],
)
def test_wrong_usage(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Status 2, a line that says what is wrong, and no secret in it."""
    with pytest.raises(SystemExit) as caught:
        dfget.run(["--cache", "-O", "out", *arguments])
    assert caught.value.code == 2
    usage, error = capsys.readouterr().err.splitlines()
    assert usage.startswith("usage: dfget")
    assert words in error
    assert "s3cret" not in error


@pytest.mark.parametrize(
    "text",
    [
        *("crc32:0", "crc32:0000000007", "crc32:4294967295", "crc32:4294967296", "crc32:-1"),
        *("crc32:", "crc32:00000000001", "crc32:1a", "crc32:\u0661", "CRC32:1", "crc32", "1", ":"),
        *(f"sha256:{'0f' * 32}", f"sha256:{'0f' * 32}\n", f"sha256:{'0F' * 32}", "sha256:"),
        *(f"sha512:{'0f' * 64}", f"sha512:{'0f' * 32}", f"sha256:{'0f' * 64}", "md5:00", ""),
    ],
)
def test_a_digest_is_read_as_the_daemon_reads_it(
    text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """What dfget refuses a daemon would refuse, and the other way round, in the same words."""
    theirs = ours = None
    try:
        parse_digest(text)
    except InvalidRequest as error:
        theirs = str(error)
    try:
        assert parse([URL, "-O", "out", "--digest", text], {}).digest == text
    except SystemExit:
        line = capsys.readouterr().err.splitlines()[-1]
        ours = line.removeprefix("dfget: error: argument --").replace(": ", " ", 1)
    assert ours == theirs


def test_a_file_that_is_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Is no wrong usage: the digest was one."""

    def script(talk: Conversation) -> None:
        talk.send(event="error", code="DATA_LOSS", message="digest mismatch")

    status, _ = _run(tmp_path, script, "--digest", f"sha256:{'0' * 64}")
    assert status == 1
    assert capsys.readouterr().err.endswith(": digest mismatch\n")


def test_a_switch_in_the_environment_that_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Neither yes nor no is an error, not a guess."""
    monkeypatch.setenv("DFGET_OVERWRITE", "maybe")
    with pytest.raises(SystemExit):
        dfget.run(["--cache", URL, "-O", "out"])
    assert "DFGET_OVERWRITE: want true or false, not 'maybe'" in capsys.readouterr().err


def test_an_empty_variable_is_none(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if it were not set; one that has a scheme and no path is wrong usage."""
    arguments = [URL, "-O", "out"]
    names = {*Options.__annotations__, "dfdaemon_endpoint", "log_level", "console"}
    empty = {f"DFGET_{name.upper()}": "" for name in names}
    assert vars(parse(arguments, empty)) == vars(parse(arguments, {}))
    monkeypatch.setenv("DFGET_DFDAEMON_ENDPOINT", "unix://")
    with pytest.raises(SystemExit) as caught:
        dfget.run(arguments)
    assert caught.value.code == 2
    assert "DFGET_DFDAEMON_ENDPOINT: 'unix://': want the path" in capsys.readouterr().err


def test_a_variable_that_makes_no_sense(capsys: pytest.CaptureFixture[str]) -> None:
    """Is named, unless a flag beats it."""
    arguments = [URL, "-O", "out"]
    for name, value, words in (
        ("TIMEOUT", "5", "'5' is not a duration"),
        ("PRIORITY", "9", "'9': want 0 to 6"),
        ("TAG", "\udcff", "want UTF-8"),
    ):
        environ = {f"DFGET_{name}": value}
        with pytest.raises(SystemExit) as caught:
            parse(arguments, environ)
        assert caught.value.code == 2
        line = capsys.readouterr().err.splitlines()[-1]
        assert line.startswith(f"dfget: error: DFGET_{name}: ")
        assert words in line
    assert parse([*arguments, "--timeout", "1s"], {"DFGET_TIMEOUT": "5"}).timeout == 1


def test_help_and_version(capsys: pytest.CaptureFixture[str]) -> None:
    """Both end with status 0."""
    for flag, words in (("--version", f"dfget {BUILD_VERSION}\n"), ("--help", "examples:")):
        with pytest.raises(SystemExit) as caught:
            dfget.run([flag])
        assert caught.value.code == 0
        assert words in capsys.readouterr().out


def test_from_a_file(tmp_path: Path) -> None:
    """Without --cache it is a STANDARD task; the output is a file of its own."""
    stored = tmp_path / "stored"
    status, (request,) = _run(
        tmp_path, serve(CONTENT, path=stored), "--transfer-from-dfdaemon", cache=False
    )
    assert status == 0
    assert request["kind"] == "STANDARD"
    out = tmp_path / "out"
    assert out.read_bytes() == CONTENT
    assert out.stat().st_ino != stored.stat().st_ino
    out.write_bytes(b"mine")
    assert stored.read_bytes() == CONTENT


@pytest.mark.parametrize("early", [True, False])
@pytest.mark.parametrize("there", [None, "other", "same"])
def test_a_hard_link(tmp_path: Path, there: str | None, *, early: bool) -> None:
    """Another name of the daemon's file, in place of what was there; nothing else is left."""
    (tmp_path / "store").mkdir()
    stored, out = tmp_path / "store" / "stored", tmp_path / "out"

    def script(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT, 100_000, stored)) as segment:
            if early:
                talk.start(segment)
            else:
                talk.send(**{**started(segment), "segment": False})
            talk.send(event="pieces", pieces=[segment.fill(0), segment.fill(1)])
            if not early:
                talk.send(segment.descriptor, event="segment")
            talk.send(event="done")
            talk.wait_closed()

    arguments = ["--force-hard-link"]
    if there is not None:
        arguments += ["--overwrite"]
        stored.touch()
        out.hardlink_to(stored) if there == "same" else out.write_bytes(b"another")
    status, _ = _run(tmp_path, script, *arguments, cache=False)
    assert status == 0
    assert out.read_bytes() == CONTENT
    assert out.stat().st_ino == stored.stat().st_ino
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_file()) == ["out"]


def test_what_is_linked_is_not_written_through(tmp_path: Path) -> None:
    """An output that is the daemon's file is replaced by another, and the stored one stays."""
    (tmp_path / "store").mkdir()
    stored, out = tmp_path / "store" / "stored", tmp_path / "out"
    stored.write_bytes(b"precious")
    out.hardlink_to(stored)
    status, _ = _run(tmp_path, serve(CONTENT), "--overwrite", cache=False)
    assert status == 0
    assert out.read_bytes() == CONTENT
    assert stored.read_bytes() == b"precious"


def test_no_hard_link_to_be_had(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Memory, another file system, or bytes instead of a file: it fails, and says why."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as elsewhere:
        status, _ = _run(
            tmp_path,
            serve(CONTENT, path=Path(elsewhere) / "stored"),
            "--force-hard-link",
            cache=False,
        )
    assert status == 1
    expected = f"cannot make {tmp_path / 'out'} a hard link: it is on another file system than the"
    assert expected in capsys.readouterr().err

    def in_frames(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT[:9], 9)) as segment:
            talk.send(**{**started(segment), "segment": False})
            talk.send(event="pieces", pieces=[[0, 0, 9, "REMOTE_PEER"]])
            talk.send(event="content", offset=0, inline=9, content=CONTENT[:9])
            talk.wait_closed()

    (tmp_path / "dfdaemon.handoff.sock").unlink()
    status, _ = _run(tmp_path, in_frames, "--force-hard-link", cache=False)
    assert status == 1
    assert "a hard link: the daemon passed no file" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "other", [["--cache"], ["--range", "0-1"], ["--transfer-from-dfdaemon"], ["-O", "-"]]
)
def test_what_no_hard_link_goes_with(other: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """Said before anything is asked."""
    with pytest.raises(SystemExit) as caught:
        dfget.run([URL, "-O", "out", "--force-hard-link", *other])
    assert caught.value.code == 2
    assert "--force-hard-link cannot go with" in capsys.readouterr().err


def test_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One object on stdout, nothing else anywhere."""
    status, _ = _run(tmp_path, serve(CONTENT), "--json", "--digest", "crc32:1")
    assert status == 0
    out, err = capsys.readouterr()
    result = json.loads(out)
    assert result.pop("seconds") > 0
    assert result == {
        "task_id": "a" * 64,
        "url": "https://origin.example/model.bin",
        "output": str(tmp_path / "out"),
        "content_length": len(CONTENT),
        "start": 0,
        "length": len(CONTENT),
        "bytes_from_peers": len(CONTENT),
        "bytes_from_origin": 0,
        "bytes_from_cache": 0,
        "digest_verified": True,
    }
    assert err == ""


def test_an_error_in_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The object on stdout, the line on stderr, no secret in either."""
    status, _ = _run(tmp_path, _refuse, "--json")
    message = "origin answered 403 Forbidden for https://origin.example/model.bin"
    out, err = capsys.readouterr()
    assert status == 1
    assert err == f"dfget: {message}\n"
    assert json.loads(out) == {
        "error": {"code": "INTERNAL", "message": message, "status_code": 403}
    }
    assert list(tmp_path.glob(".*")) == []


def test_what_is_wrong_with_the_output_comes_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No daemon is asked."""
    (tmp_path / "out").write_text("former")
    status, requests = _run(tmp_path, serve(CONTENT))
    assert (status, requests) == (1, [])
    assert "exists already: use --overwrite" in capsys.readouterr().err
    assert (tmp_path / "out").read_text() == "former"


def test_no_daemon_where_one_was_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Then none is started either."""
    endpoint = tmp_path / "dfdaemon.sock"
    arguments = ["--cache", URL, "-O", str(tmp_path / "out"), "-e", str(endpoint)]
    assert dfget.run(arguments) == 1
    assert f"dfget: no daemon at {endpoint}: no such socket" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_stdout_in_order(tmp_path: Path) -> None:
    """Pieces that come early wait for their turn."""
    order = list(range(40))
    random.Random(1).shuffle(order)
    with HandoffDaemon(tmp_path, serve(CONTENT, 5000, order)) as daemon:
        done = subprocess.run(
            [*PROGRAM, "--cache", URL, "-O", "-", "-e", daemon.endpoint],
            capture_output=True,
            check=True,
        )
    assert done.stdout == CONTENT
    assert done.stderr == b""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_nothing_behind(tmp_path: Path, number: signal.Signals) -> None:
    """The former output stays; the status tells which signal it was."""
    (tmp_path / "out").write_text("former")
    begun = threading.Event()

    def script(talk: Conversation) -> None:
        begun.set()
        talk.wait_closed()

    with HandoffDaemon(tmp_path, script) as daemon:
        out = str(tmp_path / "out")
        client = subprocess.Popen(
            [*PROGRAM, "--cache", URL, "-O", out, "--overwrite", "-e", daemon.endpoint],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert begun.wait(30)
        client.send_signal(number)
        _, error = client.communicate(timeout=30)
    assert client.returncode == 128 + number
    assert error == f"dfget: stopped by {number.name}\n"
    assert (tmp_path / "out").read_text() == "former"
    assert list(tmp_path.glob(".*")) == []


def test_how_to_stop_what_goes_on() -> None:
    """A task by its id, once it has one; of the kind that it has become; nothing that is over."""
    options = parse([URL, "-O", "out", "--cache", "-e", "/a b.sock"], {})
    one, two, three, four = (Arrival("x", "y") for _ in range(4))
    assert advice(options, [one]) == ""
    start = {"event": "started", "content_length": 9, "piece_length": 9, "start": 0, "length": 9}
    two.on({"event": "warning", "message": "no room; it is kept as a STANDARD task instead"})
    for arrival, name in ((one, "1"), (two, "2"), (three, "3"), (four, "4")):
        arrival.on({**start, "task_id": name * 64})
    with contextlib.suppress(DragonflyError):
        four.on({"event": "error", "code": "INTERNAL", "message": "x"})
    assert advice(options, [one, two, three, four]) == (
        "; the daemon goes on with the download: "
        f"dfctl cache-task rm -e '/a b.sock' {'1' * 64} {'3' * 64} and "
        f"dfctl task rm -e '/a b.sock' {'2' * 64} stops that"
    )


def test_nobody_waits_forever(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for a daemon that says nothing, nor for a pipe that nobody reads."""
    monkeypatch.setattr(dfget, "GRACE", 0.05)
    before = signal.getsignal(signal.SIGALRM)
    status, _ = _run(tmp_path, _hang, "--timeout", "100ms")
    assert status == 1
    assert "no answer in time" in capsys.readouterr().err
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "dfdaemon.handoff.sock").unlink()
    status, _ = _run(tmp_path, _hang, "--timeout", "100ms", output=str(tmp_path / "fifo"))
    assert status == 1
    assert "gave up after the time that --timeout allows" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGALRM) is before


def test_the_timeout_is_passed_on_as_it_was_put(tmp_path: Path) -> None:
    """However short: the daemon names it when it is over."""
    for text, seconds in (("1ms", 0.001), ("90s", 90.0)):
        _, (request,) = _run(tmp_path, _refuse, "--timeout", text)
        assert request["timeout"] == seconds
        (tmp_path / "dfdaemon.handoff.sock").unlink()


def test_a_working_directory_that_is_gone(tmp_path: Path) -> None:
    """Said so, of the output that was to be in it."""
    gone = tmp_path / "gone"
    gone.mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir "$PWD" && exec "$@"', "sh", *PROGRAM, "--cache", URL, "-O", "out"],
        capture_output=True,
        text=True,
        check=False,
        cwd=gone,
    )
    line = "dfget: cannot write out: the working directory is gone\n"
    assert (done.returncode, done.stderr) == (1, line)


def test_a_terminal_gets_progress_and_a_summary(tmp_path: Path) -> None:
    """A line while it lasts, and one at the end."""
    go = threading.Event()

    def script(talk: Conversation) -> None:
        with contextlib.closing(Segment(CONTENT, 100_000)) as segment:
            talk.start(segment)
            talk.send(event="pieces", pieces=[segment.fill(0, "BACK_TO_SOURCE")])
            go.wait(30)
            talk.send(event="pieces", pieces=[segment.fill(1)])
            talk.send(event="done")
            talk.wait_closed()

    ours, theirs = pty.openpty()
    shown = b""
    with HandoffDaemon(tmp_path, script) as daemon:
        arguments = ["--cache", URL, "-O", str(tmp_path / "out"), "-e", daemon.endpoint]
        environ = {**os.environ, "NO_COLOR": "1"}
        client = subprocess.Popen([*PROGRAM, *arguments], stderr=theirs, env=environ)
        os.close(theirs)
        with contextlib.suppress(OSError):  # EIO, when the client has gone
            while data := os.read(ours, 1000):
                shown += data
                if b"50 %" in shown:
                    go.set()
        assert client.wait(30) == 0
    os.close(ours)
    assert daemon.requests[0]["progress"] is True  # which nobody asks for without a terminal
    text = shown.decode()
    assert "\r[=====     ]  50 %  97.7 KiB of 195.3 KiB" in text
    assert "origin 100 %" in text
    assert text.endswith(" 50 % from peers, 50 % from the origin\r\n")


def test_a_personal_daemon_where_the_machine_has_none(
    tmp_path: Path,
    runtime: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is used, and told of when it had to be started."""
    monkeypatch.setattr(dfget, "DEFAULT_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    home = runtime / "pantala"
    home.mkdir(mode=0o700)
    with HandoffDaemon(home, serve(CONTENT)):
        assert dfget.run(["--cache", URL, "-O", str(tmp_path / "found")]) == 0
    assert capsys.readouterr().err == ""
    (home / "dfdaemon.handoff.sock").unlink()
    program = (
        "import sys, pathlib\n"
        "from pantala.testing.handoff_daemon import HandoffDaemon, serve\n"
        "daemon = HandoffDaemon(pathlib.Path(sys.argv[1]).parent, serve(b'personal'))\n"
        "daemon._listener.settimeout(60)\n"
        "daemon._run()\n"
    )
    monkeypatch.setattr(personal, "_COMMAND", (sys.executable, "-c", program))
    assert dfget.run(["--cache", URL, "-O", str(tmp_path / "started")]) == 0
    assert (tmp_path / "started").read_bytes() == b"personal"
    words = capsys.readouterr().err
    pid = int(words.partition("(pid ")[2].partition(",")[0])
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    assert words == (
        f"dfget: no daemon is running; started a personal one (pid {pid}, "
        "quits after 5 minutes idle)\n"
    )


def test_a_personal_daemon_that_was_just_quitting(
    tmp_path: Path,
    runtime: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is asked once more, and once only; a machine's daemon is not."""
    monkeypatch.setattr(dfget, "DEFAULT_SOCKET", str(tmp_path / "none.sock"))
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    home = runtime / "pantala"
    home.mkdir(mode=0o700)
    asked: list[int] = []

    def script(talk: Conversation) -> None:
        asked.append(1)
        if len(asked) == 2:
            serve(CONTENT)(talk)

    arguments = ["--cache", URL, "-O", str(tmp_path / "out"), "--overwrite"]
    with HandoffDaemon(home, script) as daemon:
        assert dfget.run(arguments) == 0
        assert (tmp_path / "out").read_bytes() == CONTENT
        assert capsys.readouterr().err == ""
        assert dfget.run(arguments) == 1
        assert len(asked) == 4
        assert dfget.run([*arguments, "-e", daemon.endpoint]) == 1
        assert len(asked) == 5
    assert capsys.readouterr().err.count("closed the connection too early") == 2


def test_a_stock_daemon_of_the_machine_is_not_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It runs, so no other is started; but it cannot serve this."""
    monkeypatch.setattr(dfget, "DEFAULT_SOCKET", str(tmp_path / "dfdaemon.sock"))
    with socket.socket(socket.AF_UNIX) as stock:
        stock.bind(str(tmp_path / "dfdaemon.sock"))
        stock.listen()
        assert dfget.run(["--cache", URL, "-O", str(tmp_path / "out")]) == 1
    assert "is not a pantala daemon" in capsys.readouterr().err


def test_texts() -> None:
    """Fit for a terminal."""
    assert one_line("a\x1b[31m\nb\t c") == "a [31m b c"
