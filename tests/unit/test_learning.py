"""scheduler/learning.py and wishes_file.py: what is wanted changes while the scheduler runs."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from structlog.testing import capture_logs

from pantala.background import Loops
from pantala.core.sched.choose import Parents, Wait
from pantala.core.sched.priorities import Priorities
from pantala.core.sched.rules import Limits
from pantala.errors import ConfigError, DragonflyError, Unavailable
from pantala.model.cluster import Application, ClusterWishes, UrlPriority
from pantala.model.task import DownloadRequest, Kind
from pantala.pb import scheduler_pb2
from pantala.rpc.transport import channel_options
from pantala.scheduler.app import Scheduler
from pantala.scheduler.config import load
from pantala.scheduler.learning import Learning
from pantala.scheduler.wishes_file import WishesFile
from pantala.testing.announce import Swarm, refusal, until
from pantala.testing.stage import Stage

FORBIDDEN = ClusterWishes(
    applications=(
        Application("app", urls=(UrlPriority("(", 1), UrlPriority("/private/", 1))),
        Application("near", priority=2),
    ),
    candidate_parent_limit=1,
    filter_parent_limit=20,
    job_rate_limit=1,
    load_limit=1,
    seed_load_limit=3,
)


class Manager:
    """Somebody who is asked, and says what he is told to say."""

    def __init__(self, wishes: ClusterWishes | DragonflyError) -> None:
        self.says = wishes
        self.asked = 0

    async def is_asked(self, times: int) -> None:
        """Wait until it has been asked so often."""

        async def asked() -> bool:
            return self.asked >= times

        await until(asked)

    async def read(self) -> ClusterWishes:
        """What is wanted, or why that is not known."""
        self.asked += 1
        if isinstance(self.says, DragonflyError):
            raise self.says
        return self.says


class Play:
    """A world that learns from a manager; what others were told."""

    def __init__(self, source: Manager | WishesFile, limits: Limits | None = None) -> None:
        self.stage = Stage(limits)
        self.rates: list[int | None] = []
        self.learning = Learning(
            source,
            self.stage.world,
            0.02,
            on_job_rate=self.rates.append,
        )


async def test_limits_change_and_change_back() -> None:
    """For hosts that are known, too; those that have more children keep them."""
    manager = Manager(ClusterWishes())
    play = Play(manager, Limits(uploads=2, partners=0))
    stage, world = play.stage, play.stage.world
    await play.learning.start()
    stage.host("seed", type=1)
    holder = stage.holder("a")
    stage.child("b")
    manager.says = FORBIDDEN
    await play.learning.refresh()
    priorities = [world.priorities]
    assert (world.limits.candidates, world.limits.sample) == (1, 20)
    assert (world.hosts["a"].upload_limit, world.hosts["seed"].upload_limit) == (1, 3)
    assert stage.host("new").upload_limit == 1
    late = stage.register("c")
    assert isinstance(stage.decide(late), Wait | Parents)
    assert holder.host.uploads == 1
    manager.says = ClusterWishes()
    await play.learning.refresh()
    priorities.append(world.priorities)
    assert world.limits == Limits(uploads=2, partners=0)
    assert {host.upload_limit for host in world.hosts.values() if not host.is_seed} == {2}
    assert play.rates == [1, None]
    assert [len(each.skipped) for each in priorities] == [1, 0]
    stage.check()


def test_partners_have_the_new_limit() -> None:
    """It follows from that of parents. Who has more keeps them, and is given to nobody else."""
    stage = Stage(Limits(candidates=1, partners=3))
    stage.holder("seed")
    peers = [stage.child(f"h{n}") for n in range(8)]
    before = {peer: len(peer.partners) for peer in peers}
    assert max(before.values()) > 4
    stage.world.adopt(Limits(candidates=1, partners=1))
    late = [stage.child(f"l{n}") for n in range(8)]
    assert max(len(peer.partners) for peer in late) <= 4
    assert all(len(peer.partners) <= max(4, before[peer]) for peer in peers)
    assert {peer: n for peer, n in before.items() if n > 4}.items() <= {
        peer: len(peer.partners) for peer in peers
    }.items()
    stage.world.adopt(Limits(candidates=1, partners=3))
    stage.check()


async def test_a_failure_is_told_once_and_changes_nothing() -> None:
    """Nor does it end the reading."""
    manager = Manager(FORBIDDEN)
    play = Play(manager)
    with capture_logs() as logs:
        await play.learning.start()
        manager.says = Unavailable("manager m:65003: not there")
        loops = Loops()
        play.learning.keep_reading(loops)
        await manager.is_asked(5)
        assert play.stage.world.limits.candidates == 1
        manager.says = FORBIDDEN
        await manager.is_asked(8)
        await loops.close()
    warned = [log for log in logs if log["event"].endswith("cannot be read")]
    assert [log["why"] for log in warned] == ["manager m:65003: not there"]
    events = [log["event"] for log in logs]
    assert events.count("what is wanted of the cluster can be read again") == 1
    assert events.count("what is wanted of the cluster") == 1
    (skipped,) = (log for log in logs if log["event"] == "URL patterns are skipped")
    assert skipped["patterns"] == ["application app: '(': missing ): ("]
    assert play.rates == [1]


async def test_the_first_reading_must_go_well() -> None:
    """Else the scheduler does not start."""
    with pytest.raises(Unavailable):
        await Play(Manager(Unavailable("away"))).learning.start()


async def test_a_file_that_need_not_be_there(tmp_path: Path) -> None:
    """It may come; from then on it is expected, and what it said last holds."""
    path = tmp_path / "dynconfig.yaml"
    play = Play(WishesFile(path, asked_for=False))
    await play.learning.start()
    limits = play.stage.world.limits
    path.write_text("schedulerClusterConfig: {candidateParentLimit: 7}\nscheduler: {addr: x}\nz: 1")
    with capture_logs() as logs:
        await play.learning.refresh()
        await play.learning.refresh()
        assert play.stage.world.limits.candidates == 7
        path.write_text("schedulerClusterConfig: {candidateParentLimit: 70}")
        await play.learning.refresh()
        await play.learning.refresh()
        path.unlink()
        await play.learning.refresh()
    assert play.stage.world.limits.candidates == 7
    assert limits.candidates == 3
    most = "expected less than or equal to 20"
    told = [(log["event"], log.get("keys") or log.get("why")) for log in logs]
    assert ("dynconfig keys without effect", ["scheduler"]) in told
    assert ("unknown dynconfig keys", ["z"]) in told
    assert len(told) == 5
    assert [why for event, why in told if event.endswith("cannot be read")] == [
        f"{path}: schedulerClusterConfig.candidateParentLimit = 70: {most}",
        f"{path}: cannot be read: No such file or directory",
    ]


async def test_a_file_that_was_asked_for(tmp_path: Path) -> None:
    """It must be there."""
    with pytest.raises(ConfigError, match=r"none\.yaml: cannot be read"):
        await WishesFile(tmp_path / "none.yaml", asked_for=True).read()


def test_priorities_are_judged_anew() -> None:
    """What was found by those before counts no more."""
    request = DownloadRequest(Kind.CACHE, "http://o/private/x", application="app")
    assert Priorities(FORBIDDEN.applications).judge(request).priority == 1
    assert Priorities().judge(request) is request


async def test_a_whole_scheduler() -> None:
    """Registrations, questions and jobs go by it; what it shows is what it went by."""
    config = load(None, {"server.port": 0, "server.listenIP": "127.0.0.1"})
    scheduler = Scheduler(config, source=Manager(FORBIDDEN))
    await scheduler.start()
    target = f"127.0.0.1:{scheduler.port}"
    try:
        async with grpc.aio.insecure_channel(target, channel_options(target)) as channel:
            await _go_by_it(Swarm(scheduler, channel))
    finally:
        await scheduler.stop(grace=0)


async def _go_by_it(s: Swarm) -> None:
    await s.hosts("a")
    forbidden = s.peer("a", "p")
    await forbidden.register(url="http://o/private/x", application="app")
    assert "LEVEL1" in await forbidden.ends(grpc.StatusCode.FAILED_PRECONDITION)
    other = s.peer("a", "o")
    await other.register(url="http://o/x", application="app")
    await other.to_source()
    near = s.peer("a", "n")
    await near.register(url="http://o/private/x", application="near")
    assert "LEVEL2" in await near.ends(grpc.StatusCode.NOT_FOUND)
    own = s.peer("a", "n")
    await own.register(url="http://o/private/x", application="near", priority=3)
    await own.to_source()
    near = s.peer("a", "n")
    await own.source_started()
    await s.hosts("b")
    near = s.peer("b", "n")
    await near.register(url="http://o/private/x", application="near")
    assert await near.parents() == {own.id}
    assert (await s.stat_peer(near.id, "n")).priority == 2

    def job(url: str) -> scheduler_pb2.PreheatFileRequest:
        return scheduler_pb2.PreheatFileRequest(
            url=url, application="app", scope="single_seed_peer"
        )

    refused = await refusal(s.stub.PreheatFile(job("http://127.0.0.1:9/private/x")))
    assert refused is grpc.StatusCode.FAILED_PRECONDITION
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await s.stub.PreheatFile(job("http://127.0.0.1:9/x"))
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert "jobRateLimit" in (caught.value.details() or "")
