"""core/sched/roster.py: hosts by what they are."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pantala.core.sched.roster import Roster
from pantala.model.announce import HostFacts

Hosts = st.builds(
    HostFacts,
    id=st.sampled_from("abcdef"),
    hostname=st.just("h"),
    ip=st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    port=st.just(1),
    type=st.integers(0, 2),
    version=st.sampled_from(["pantala/1", "v2.3.0"]),
)


@given(st.lists(st.tuples(st.booleans(), Hosts)))
def test_it_is_as_all_of_them_sorted(steps: list[tuple[bool, HostFacts]]) -> None:
    """Whatever they become, and whoever goes: by their ids, of each type, at each address."""
    roster, model = Roster(), dict[str, HostFacts]()
    for stays, host in steps:
        if stays:
            roster.put(host)
            model[host.id] = host
        else:
            roster.discard(host.id)
            model.pop(host.id, None)
        for seeds in (True, False):
            those = sorted((h for h in model.values() if h.is_seed is seeds), key=lambda h: h.id)
            assert roster.count(seeds=seeds) == len(those)
            assert list(roster.each(seeds=seeds)) == those
            for first in (True, False):
                wanted = sorted(those, key=lambda host: host.is_ours is not first)
                assert list(roster.each(seeds=seeds, ours_first=first)) == wanted
            for ip in ("10.0.0.1", "10.0.0.2"):
                found = sorted(roster.at(ip, seeds=seeds), key=lambda host: host.id)
                assert found == [host for host in those if host.ip == ip]
