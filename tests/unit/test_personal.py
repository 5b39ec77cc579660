"""client/personal.py: a daemon of one's own is started once, by whoever comes first."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pantala.client import personal
from pantala.client.personal import connect_personal
from pantala.errors import TimedOut, Unavailable

# Stands for the daemon: notes that it was started, and listens.
_DAEMON = """\
import os, socket, sys, time
from pantala.paths import handoff_path_for
endpoint = sys.argv[1]
with open(endpoint + ".pids", "a") as pids:
    print(os.getpid(), os.getcwd(), os.getsid(0) == os.getpid(), file=pids)
listener = socket.socket(socket.AF_UNIX)
listener.bind(handoff_path_for(endpoint))
listener.listen()
listener.settimeout(60)
held = []
while True:
    held.append(listener.accept())
"""

_CLIENT = """\
import sys
from pantala.client import personal
personal._COMMAND = (sys.executable, "-c", sys.argv[1])
connection, pid = personal.connect_personal()
with connection:
    print(pid)
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The personal daemon's directory; what was started is ended."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    home = tmp_path / "pantala"
    yield home
    for pid, *_ in _started(home):
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            os.kill(int(pid), signal.SIGKILL)
            os.waitpid(int(pid), 0)


def _started(home: Path) -> list[list[str]]:
    pids = home / "dfdaemon.sock.pids"
    return [line.split() for line in pids.read_text().splitlines()] if pids.exists() else []


def _daemon_is(monkeypatch: pytest.MonkeyPatch, program: str) -> None:
    monkeypatch.setattr(personal, "_COMMAND", (sys.executable, "-c", program))


def test_started_then_found(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Apart from our session and directory; the second call finds it."""
    _daemon_is(monkeypatch, _DAEMON)
    connection, pid = connect_personal()
    with connection:
        assert connection.endpoint == str(home / "dfdaemon.sock")
    again, other = connect_personal()
    with again:
        assert other is None
    assert _started(home) == [[str(pid), "/", "True"]]


def test_many_start_one(home: Path) -> None:
    """Those who wait find the one that the first started."""
    clients = [
        subprocess.Popen(
            [sys.executable, "-c", _CLIENT, _DAEMON], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    answers = [client.communicate(timeout=60)[0].strip() for client in clients]
    assert [client.returncode for client in clients] == [0, 0, 0, 0]
    assert answers.count("None") == 3
    assert [pid for pid, *_ in _started(home)] == [each for each in answers if each != "None"]


def test_one_that_ends_at_once(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its last words are passed on."""
    _daemon_is(monkeypatch, "import sys; sys.exit('dfdaemon: no memory\\n\\n')")
    with pytest.raises(Unavailable, match=r"ended at once: dfdaemon: no memory \(more in .*log\)"):
        connect_personal()
    assert (home / "dfdaemon.log").stat().st_mode & 0o777 == 0o600
    _daemon_is(monkeypatch, "")
    with pytest.raises(Unavailable, match="it said nothing"):
        connect_personal()


def test_one_that_never_listens(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait has an end, and says where to look."""
    monkeypatch.setattr(personal, "_START_TIMEOUT", 2.5)
    note = 'open(sys.argv[1] + ".pids", "w").write(f"{os.getpid()} / True\\n")'
    _daemon_is(monkeypatch, f"import os, sys, time; {note}; time.sleep(60)")  # for good
    with pytest.raises(TimedOut, match=r"does not answer after 2.5 s: see .*dfdaemon.log"):
        connect_personal()
    assert len(_started(home)) == 1


def test_variables_for_the_machines_daemon(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Are not for this one, but for the one that names a file; that is seen from here."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DFDAEMON_CONFIG", "mine.yaml")
    for name in ("DYNCONFIG", "LOG_DIR", "LOG_LEVEL", "LOG_MAX_FILES", "CONSOLE"):
        monkeypatch.setenv(f"DFDAEMON_{name}", "nonsense")
    look = (
        "import json, os, sys\n"
        "seen = {k: v for k, v in os.environ.items() if k.startswith('DFDAEMON_')}\n"
        "open(sys.argv[1] + '.seen', 'w').write(json.dumps(seen))\n"
    )
    _daemon_is(monkeypatch, look + _DAEMON)
    connection, _ = connect_personal()
    with connection:
        seen = json.loads((home / "dfdaemon.sock.seen").read_text())
    assert seen == {"DFDAEMON_CONFIG": str(tmp_path / "mine.yaml")}


def test_a_relative_search_path_still_holds(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon starts in another directory than ours."""
    (tmp_path / "extra").mkdir()
    (tmp_path / "extra" / "beside_us.py").touch()
    monkeypatch.chdir(tmp_path)
    here = str(Path(personal.__file__).parents[2])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["extra", here]))
    _daemon_is(monkeypatch, "import beside_us\n" + _DAEMON)
    connection, pid = connect_personal()
    with connection:
        assert [[str(pid), "/", "True"]] == _started(home)
