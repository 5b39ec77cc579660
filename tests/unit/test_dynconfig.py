"""Which schedulers there are, and what becomes of that when something goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from pantala.background import Loops
from pantala.core.blocking import BlockLists, Deed
from pantala.daemon.config import load
from pantala.daemon.telling.dynconfig import Dynconfig
from pantala.errors import ConfigError
from pantala.model.task import Kind

#: Never resolves (RFC 6761).
NOWHERE = "scheduler.invalid:8002"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file will be."""
    return tmp_path / "dynconfig.yaml"


def write(path: Path, text: str) -> None:
    """Put a whole file in place at once, as a reader that may look at any moment needs it."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


def remove(path: Path) -> None:
    """Take the file away."""
    path.unlink()


def reading(
    path: Path, on_change: Callable[[tuple[str, ...]], None] | None = None, **more: object
) -> Dynconfig:
    """One that reads *path*."""
    keys = {f"dynconfig.{key}": value for key, value in more.items()}
    return Dynconfig(load(None, {"dynconfig.path": str(path)} | keys), on_change=on_change)


async def started(path: Path) -> Dynconfig:
    """One that has read *path*."""
    dynconfig = reading(path)
    await dynconfig.start()
    return dynconfig


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scheduler: {addr: '10.0.0.1:8002'}", ("10.0.0.1:8002",)),
        ("scheduler: {addr: 'localhost:1'}", ("127.0.0.1:1",)),
        ("scheduler: {addr: '10.0.0.9:1', addrs: ['10.0.0.2:2']}", ("10.0.0.2:2",)),
        (
            "scheduler: {addrs: ['10.0.0.2:1', '10.0.0.1:1', '10.0.0.2:1']}",
            ("10.0.0.1:1", "10.0.0.2:1"),
        ),
        ("scheduler: {addrs: ['[FE80:0::1]:1', '10.0.0.1:1']}", ("10.0.0.1:1", "[fe80::1]:1")),
        ("scheduler: {addr: '10.0.0.1:8002-8003'}", ("10.0.0.1:8002", "10.0.0.1:8003")),
        (
            "scheduler: {addrs: ['10.0.0.1:8002-8003', '10.0.0.1:8003-8004']}",
            ("10.0.0.1:8002", "10.0.0.1:8003", "10.0.0.1:8004"),
        ),
        ("scheduler:", ()),
        ("", ()),
    ],
)
async def test_what_the_file_says(path: Path, text: str, expected: tuple[str, ...]) -> None:
    """A list wins over an address; both are sorted, resolved, and without repeats."""
    write(path, text)
    assert (await started(path)).current() == expected


@pytest.mark.parametrize("seed", [False, True])
async def test_block_lists(path: Path, *, seed: bool) -> None:
    """Hosts follow the one part, seeds the other; what makes no sense changes nothing."""
    told: list[tuple[BlockLists, str]] = []
    text = (
        "scheduler: {addr: '10.0.0.1:1'}\n"
        "clientConfig: {blockList: {task: {download: {tags: [a]}}}}\n"
        "seedClientConfig: {block_list: {cache_task: {download: {tags: [b]}}}}\n"
    )
    write(path, text)
    config = load(None, {"dynconfig.path": str(path), "seedPeer.enable": seed})
    dynconfig = Dynconfig(config, on_lists=lambda lists, source: told.append((lists, source)))
    await dynconfig.start()
    part, kind = ("seedClientConfig", Kind.CACHE) if seed else ("clientConfig", Kind.STANDARD)
    (lists, source) = told.pop()
    assert source == f"{part} of {path}"
    assert set(lists.lists) == {(kind, Deed.DOWNLOAD)}
    write(path, text.replace("tags: [a]", "tags: a").replace("tags: [b]", "tags: b"))
    with capture_logs() as logs:
        await dynconfig.refresh()
        await dynconfig.refresh()
    assert told == []
    (log,) = logs
    assert f"{path}: {part}: block_list." in log["problem"]
    assert "tags: expected a list" in log["problem"]
    write(path, "scheduler: {addr: '10.0.0.1:1'}")
    await dynconfig.refresh()
    assert told == [(BlockLists(), f"{part} of {path}")]


async def test_block_lists_of_a_file_count_whoever_names_the_schedulers(path: Path) -> None:
    """The list of schedulers that wins over the file's is not about what is blocked."""
    told: list[BlockLists] = []
    write(path, "clientConfig: {blockList: {task: {download: {tags: [a]}}}}")
    config = load(None, {"dynconfig.path": str(path), "scheduler.addrs": ["10.0.0.2:1"]})
    dynconfig = Dynconfig(config, on_lists=lambda lists, _source: told.append(lists))
    await dynconfig.start()
    assert dynconfig.current() == ("10.0.0.2:1",)
    assert len(told[0].lists) == 1


async def test_malformed_block_lists_at_start(path: Path) -> None:
    """They stop the daemon, like all else in the file that makes no sense."""
    write(path, "clientConfig: {blockList: {task: 3}}")
    with pytest.raises(ConfigError, match=r"clientConfig: block_list\.task: expected keys"):
        await started(path)


async def test_keys_of_schedulers(path: Path) -> None:
    """Their file may be the same; nobody is told of them."""
    write(
        path,
        "scheduler: {addr: '10.0.0.1:1'}\napplications: [{name: a}]\n"
        "schedulerClusterConfig: {candidateParentLimit: 3}\n"
        "schedulerClusterClientConfig: {loadLimit: 3}\nseedPeerClusterConfig: {loadLimit: 3}\n",
    )
    with capture_logs() as logs:
        assert (await started(path)).current() == ("10.0.0.1:1",)
    assert [log["event"] for log in logs] == ["schedulers"]


async def test_keys_of_nobody(path: Path) -> None:
    """A misspelt one is named, and so is what comes of it, once."""
    write(path, "scheduler: {adr: 'a:1'}")
    with capture_logs() as logs:
        found = await started(path)
        await found.refresh()
    assert [log["keys"] for log in logs if "keys" in log] == [
        ("unknown key scheduler.adr; did you mean scheduler.addr?",)
    ]
    assert len([log for log in logs if "no scheduler" in log["event"]]) == 1


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("scheduler: {addr: 10.0.0.1}", "scheduler.addr = '10.0.0.1': expected host:port"),
        ("scheduler: {addr: 'a:3-1'}", "scheduler.addr = 'a:3-1': the ports 3-1 are not in order"),
        ("scheduler: 10.0.0.1:8002", "scheduler: expected a section"),
        ("scheduler: {addrs: 'a:1'}", "scheduler.addrs = 'a:1': expected a list"),
        ("- a:1", "expected a mapping"),
    ],
)
async def test_malformed_at_start(path: Path, text: str, expected: str) -> None:
    """A file that makes no sense stops the daemon, and says where."""
    write(path, text)
    with pytest.raises(ConfigError) as caught:
        await started(path)
    assert str(caught.value).startswith(f"{path}: {expected}")


async def test_missing_at_start(path: Path) -> None:
    """A file that was asked for must be there."""
    with pytest.raises(ConfigError, match="No such file"):
        await started(path)


async def test_missing_where_it_may(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In its usual place it may be missing, come later, and is expected from then on."""
    monkeypatch.setattr("pantala.daemon.telling.dynconfig.DEFAULT_PATH", path)
    dynconfig = Dynconfig(load(None))
    await dynconfig.start()
    assert dynconfig.current() == ()
    write(path, "scheduler: {addr: '10.0.0.1:1'}")
    await dynconfig.refresh()
    assert dynconfig.current() == ("10.0.0.1:1",)
    remove(path)
    await dynconfig.refresh()
    assert dynconfig.current() == ("10.0.0.1:1",)


async def test_lists_win_over_the_file(path: Path) -> None:
    """What the configuration lists wins over the file, and an embedded scheduler over both."""
    write(path, "scheduler: {addr: '10.0.0.1:1'}")
    config = load(None, {"dynconfig.path": str(path), "scheduler.addrs": ["10.0.0.2:1"]})
    listed, embedded = Dynconfig(config), Dynconfig(config, addrs=["127.0.0.1:5"])
    await listed.start()
    await embedded.start()
    assert listed.current() == ("10.0.0.2:1",)
    assert embedded.current() == ("127.0.0.1:5",)


async def test_failed_refresh_keeps_what_was(path: Path) -> None:
    """A broken file changes nothing; it is logged once, and once more after it was well."""
    good = "scheduler: {addr: '10.0.0.1:1'}"
    write(path, good)
    dynconfig = await started(path)
    with capture_logs() as logs:
        for text in ("scheduler: [", "scheduler: [", good, "scheduler: ["):
            write(path, text)
            await dynconfig.refresh()
            assert dynconfig.current() == ("10.0.0.1:1",)
    assert [log["log_level"] for log in logs] == ["warning", "warning"]
    assert str(path) in logs[0]["problem"]


async def test_unknown_name(path: Path) -> None:
    """A name that cannot be looked up is no error; those that can be are used."""
    write(path, f"scheduler: {{addr: '{NOWHERE}'}}")
    with capture_logs() as logs:
        dynconfig = await started(path)
    assert dynconfig.current() == ()
    assert NOWHERE in logs[0]["problem"]
    write(path, f"scheduler: {{addrs: ['{NOWHERE}', '10.0.0.1:1']}}")
    await dynconfig.refresh()
    assert dynconfig.current() == ("10.0.0.1:1",)
    write(path, f"scheduler: {{addrs: ['{NOWHERE}']}}")
    await dynconfig.refresh()
    assert dynconfig.current() == ("10.0.0.1:1",)


async def test_changes_are_told(path: Path) -> None:
    """Each change once, the first one included; no change is none."""
    told: list[tuple[str, ...]] = []
    dynconfig = reading(path, told.append)
    write(path, "scheduler: {addr: '10.0.0.1:1'}")
    await dynconfig.start()
    await dynconfig.refresh()
    write(path, "scheduler: {addr: '10.0.0.2:1'}")
    await dynconfig.refresh()
    write(path, "")
    await dynconfig.refresh()
    assert told == [("10.0.0.1:1",), ("10.0.0.2:1",), ()]


async def test_run(path: Path) -> None:
    """It goes on reading the file, without being asked."""
    write(path, "scheduler: {addr: '10.0.0.1:1'}")
    changed: asyncio.Queue[tuple[str, ...]] = asyncio.Queue()
    dynconfig = reading(path, changed.put_nowait, refreshInterval="5ms")
    await dynconfig.start()
    loops = Loops()
    async with asyncio.timeout(30):
        dynconfig.keep_reading(loops)
        assert await changed.get() == ("10.0.0.1:1",)
        write(path, "scheduler: {addr: '10.0.0.2:1'}")
        assert await changed.get() == ("10.0.0.2:1",)
    await loops.close()
