"""Hash rings: the same choice as Dragonfly's own daemons and schedulers make."""

from __future__ import annotations

import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.core.ring import HashRing, SeedRing, siphash24
from pantala.errors import ConfigError, Unavailable

SCHEDULERS = ["10.0.0.1:8002", "10.0.0.2:8002", "10.0.0.3:8002"]
SEEDS = ["10.0.0.1:4000", "10.0.0.2:4000", "10.0.0.3:4000"]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        # Rust's SipHasher of a string's bytes and 0xff.
        (b"06408\xff", 0xD6B27F30679D0B91),
        (b"3c3f2\xff", 0x0AB2CF5A340B992B),
        (b"9f7c9\xff", 0x3C2104D782D4DA03),
        (b"c9f92\xff", 0xDA5BC50BFA003546),
        # And of socket addresses: 127.0.0.1:8002, [::1]:8002.
        (bytes(8) + bytes([127, 0, 0, 1, 0x42, 0x1F]), 0x2C30CE45AAAF7546),
        (bytes([1]) + bytes(22) + bytes([1, 0x42, 0x1F]) + bytes(8), 0x3F52C1D091552B23),
    ],
)
def test_siphash(data: bytes, expected: int) -> None:
    """Known answers of the Rust standard library."""
    assert siphash24(data) == expected


@given(st.binary(max_size=40))
def test_siphash_fits_64_bits(data: bytes) -> None:
    """Whatever the length, a multiple of eight included."""
    assert 0 <= siphash24(data) < 2**64


def test_addresses_stand_on_the_ring_where_rust_puts_them() -> None:
    """Neighbours by known answers, from just below each one's point."""
    points = {
        "127.0.0.1:8002": 0x2C30CE45AAAF7546,
        "10.0.0.1:8002": 0x9948A09AF7EC8DEE,
        "10.0.0.2:8002": 0x3C5A35DAA4177512,
        "10.0.0.3:8002": 0x3FB2E2C7EE4F0057,
        "[::1]:8002": 0x3F52C1D091552B23,
    }
    around = sorted(points, key=lambda address: points[address])
    # 3c2104d7… stands between the points of 127.0.0.1 and 10.0.0.2.
    start = around.index("10.0.0.2:8002")

    assert HashRing(points).order("9f7c9") == around[start:] + around[:start]


@pytest.mark.parametrize(
    "task_id", ["06408fbf247d", "3c3f230ef9f1", "9f7c9aafbc6f", "c9f9261b7305"]
)
def test_schedulers_are_picked_as_stock_daemons_pick_them(task_id: str) -> None:
    """By five characters of the id, in whatever order the schedulers are listed."""
    assert HashRing(SCHEDULERS).pick(task_id) == "10.0.0.2:8002"
    assert HashRing(reversed(SCHEDULERS)).pick(task_id[:5]) == "10.0.0.2:8002"


@pytest.mark.parametrize(
    ("key", "seed"),
    [("task-a", SEEDS[0]), ("task-b", SEEDS[2]), ("task-c", SEEDS[2]), ("task-d", SEEDS[2])],
)
def test_seeds_are_picked_as_stock_schedulers_pick_them(key: str, seed: str) -> None:
    """Twenty points each, the counter before the address."""
    assert SeedRing(SEEDS).pick(key) == seed


def test_a_key_right_at_a_point_belongs_to_the_next() -> None:
    """The point after a key is strictly after it, and the last is followed by the first."""
    keys = [f"{number}{member}" for member in SEEDS for number in range(20)]
    around = sorted(keys, key=lambda key: zlib.crc32(key.encode()))
    ring = SeedRing(SEEDS)

    for key, following in zip(around, around[1:] + around[:1], strict=True):
        assert following.endswith(ring.pick(key))


@given(st.sets(st.sampled_from(SCHEDULERS + SEEDS), min_size=1), st.text("0123456789abcdef"))
def test_order_names_every_member_once(members: set[str], task_id: str) -> None:
    """The picked one first; and without it, the second would be picked."""
    for make in (HashRing, SeedRing):
        order = make(members).order(task_id)

        assert sorted(order) == sorted(members)
        assert order[0] == make(members).pick(task_id)
        if len(order) > 1:
            assert make(members - {order[0]}).order(task_id) == order[1:]


def test_an_empty_ring_picks_nobody() -> None:
    """And says so."""
    for ring in (HashRing([]), SeedRing([])):
        assert ring.order("x") == []
        with pytest.raises(Unavailable, match="no members"):
            ring.pick("x")


@pytest.mark.parametrize(
    "address",
    [
        "",
        "10.0.0.1",
        "10.0.0.1:",
        ":8002",
        "host:8002",
        "10.0.0.256:8002",
        "::1:8002",
        "[::1]",
        "[10.0.0.1]:8002",
        "[fe80::1%eth0]:8002",
        "10.0.0.1:65536",
        "10.0.0.1:-1",
    ],
)
def test_addresses_are_numbers(address: str) -> None:
    """Names are resolved before they come here."""
    with pytest.raises(ConfigError, match=r"want an IP address and port"):
        HashRing([address])


def test_an_ipv6_scope_is_part_of_the_address() -> None:
    """Two links may use the same address."""
    scoped = ["[fe80::1]:8002", "[fe80::1%1]:8002", "[fe80::1%2]:8002"]
    order = HashRing(scoped).order("06408")

    assert sorted(order) == sorted(scoped)
