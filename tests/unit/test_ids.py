"""Ids: the same bytes in, the same id out, on every peer."""

from __future__ import annotations

from typing import Any

import pytest

from pantala.errors import InvalidRequest
from pantala.model.ids import (
    DEFAULT_FILTERED_QUERY_PARAMS,
    check_task_id,
    check_url,
    credentials_id,
    host_id,
    normalise_url,
    peer_id,
    persistent_cache_task_id,
    persistent_task_id,
    piece_id,
    task_id,
)
from pantala.model.task import Kind

EXAMPLE = "https://example.com"


@pytest.mark.parametrize(
    ("kind", "url", "options", "expected"),
    [
        pytest.param(kind, url, options, expected, id=f"{number} {kind.name}")
        for number, (kind, url, options, expected) in enumerate(
            [
                # The first eight are known answers of Dragonfly's client.
                (
                    Kind.STANDARD,
                    EXAMPLE,
                    {"tag": "foo", "application": "bar", "revision": "v1.0", "piece_length": 1024},
                    "5844f27a257287e9b734256bb25603d8005422ced8c0377f15063ec11963b25f",
                ),
                (
                    Kind.STANDARD,
                    EXAMPLE,
                    {"tag": "foo", "application": "bar"},
                    "06408fbf247ddaca478f8cb9565fe5591c28efd0994b8fea80a6a87d3203c5ca",
                ),
                (
                    Kind.STANDARD,
                    EXAMPLE,
                    {"tag": "foo"},
                    "3c3f230ef9f191dd2821510346a7bc138e4894bee9aee184ba250a3040701d2a",
                ),
                (
                    Kind.STANDARD,
                    EXAMPLE,
                    {"application": "bar"},
                    "c9f9261b7305c24371244f9f149f5d4589ed601348fdf22d7f6f4b10658fdba2",
                ),
                (
                    Kind.STANDARD,
                    EXAMPLE,
                    {"piece_length": 1024},
                    "9f7c9aafbc6f30f8f41a96ca77eeae80c5b60964b3034b0ee43ccf7b2f9e52b8",
                ),
                (
                    Kind.STANDARD,
                    "https://example.com?foo=foo&bar=bar",
                    {"filtered_query_params": ("foo", "bar")},
                    "457b4328cde278e422c9e243f7bfd1e97f511fec43a80f535cf6b0ef6b086776",
                ),
                (
                    Kind.STANDARD,
                    EXAMPLE,
                    {"revision": "v1.0"},
                    "b171331534b80e0bf91da38ebbfcdbf4d177898f4b9beac44f14733e3f004d4e",
                ),
                (
                    Kind.STANDARD,
                    EXAMPLE,
                    {"content": "This is a test file", "tag": "no matter"},
                    "e2d0fe1585a63ec6009c8016ff8dda8b17719a637405a4e23c0ff81339148249",
                ),
                (
                    Kind.CACHE,
                    "not even a URL",
                    {"content": "This is a test file"},
                    "e2d0fe1585a63ec6009c8016ff8dda8b17719a637405a4e23c0ff81339148249",
                ),
                (
                    Kind.CACHE,
                    EXAMPLE,
                    {"tag": "", "application": ""},
                    "c3217a9f27574a26dff9d232e894a80aff27430f4387ad2bb36e42b16a825d7e",
                ),
                (
                    Kind.CACHE,
                    EXAMPLE,
                    {"tag": "foo", "application": "bar"},
                    "abdbb3d7366b36b71433bfe98d78b641aad4c0c34d4bd93bff0e0e3cb641a1ac",
                ),
                (
                    Kind.CACHE,
                    EXAMPLE,
                    {"piece_length": 1024},
                    "28bb0b1229bc434883436249f6591052210a4b55031cb36d40119907b1c4301a",
                ),
                (
                    Kind.CACHE,
                    "https://example.com/a/b.bin",
                    {},
                    "0771b04f80b47a0f4bbdf3b35c8332917b54f4ab41e77f66d54cd96ffbbb69be",
                ),
                (
                    Kind.STANDARD,
                    "https://example.com/a/b.bin",
                    {},
                    "6298e02aa713cc55fe7cd31c9d050691e5c0ee4866e012e0a897613b2d42ca82",
                ),
                (
                    Kind.CACHE,
                    "https://Example.COM:443/",
                    {},
                    "c3217a9f27574a26dff9d232e894a80aff27430f4387ad2bb36e42b16a825d7e",
                ),
                (
                    Kind.CACHE,
                    "https://example.com/f?b=2&a=1&Signature=x&ns=docker.io",
                    {"filtered_query_params": DEFAULT_FILTERED_QUERY_PARAMS},
                    "200ad372dfc224709795490dce9b407a867d15e589df01c255b4a47a158d364d",
                ),
                (
                    Kind.STANDARD,
                    "https://example.com/f?b=2&a=1&Signature=x&ns=docker.io",
                    {"filtered_query_params": DEFAULT_FILTERED_QUERY_PARAMS},
                    "d5fb627f5710ff9848b216dd87b656a600d83a27a06952d5e30cfd69486e261a",
                ),
                (
                    Kind.CACHE,
                    "https://example.com/f?q=a%20b~&flag",
                    {},
                    "f1bb4e5e25186b60605d1732f803303a13c418d186d77195a7e319551b1c5679",
                ),
                (
                    Kind.STANDARD,
                    "https://example.com/f?q=a%20b~&flag",
                    {},
                    "72c885a8afb2de737ed3ef5d354d0d17e03ce2e163739ba8d96c7d3acade0085",
                ),
                (
                    Kind.CACHE,
                    "http://127.0.0.1:8080/data/100m.bin",
                    {"tag": "t", "application": "a", "piece_length": 4194304},
                    "cfa648f642c59cf7ba48e4cb3e784ab92ce4327f7d1254798a4e2a367d35db98",
                ),
                (
                    Kind.STANDARD,
                    "http://127.0.0.1:8080/data/100m.bin",
                    {"tag": "t", "application": "a", "piece_length": 4194304},
                    "cce1a2f7a232d982a5acbaae17716d746577b9cbf8bd6f07388043b3c09d597f",
                ),
                (
                    Kind.STANDARD,
                    "http://example.com/file",
                    {},
                    "8a5d115675ea5023b6ded4b071a4de6d7d4aed8260fa4e0c00dea91291d56c18",
                ),
                (
                    Kind.STANDARD,
                    "http://example.com/file",
                    {"tag": "t", "application": "a", "piece_length": 4194304},
                    "50d09b2a6787cea0a861e73735455ecaf98ed976493e633859155b3f4b127def",
                ),
                (
                    Kind.CACHE,
                    "http://example.com/file",
                    {"tag": "t", "application": "a", "piece_length": 4194304},
                    "f68bf8e6c4783c710e7694854845a2ecfa35d0451fae5feeb61f8c82a5319ebc",
                ),
            ],
            start=1,
        )
    ],
)
def test_task_id(kind: Kind, url: str, options: dict[str, Any], expected: str) -> None:
    """Known answers."""
    assert task_id(kind, url, **options) == expected


def test_persistent_task_id() -> None:
    """A known answer of Dragonfly's client."""
    found = persistent_task_id("my-object-key", "us-west-1", "https://s3.us-west-1.amazonaws.com")
    assert found == "b51f4f44921bb585277a5cbac13e7f6e2858238e98546f3ee6bfeb56369979c0"


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            {"tag": "tag1", "application": "app1", "piece_length": 1024},
            "7160a071a9acea5ac341e770c14d0211c38a4b15b3bbe2c5f848a706fd47419e",
        ),
        (
            {"application": "app1"},
            "0d0f8536f51227fda07141308f5ae8149b561b51b61c6517125f25dfa27acf5b",
        ),
        (
            {"tag": "tag1"},
            "a98b76813681e30cf83733fe055792b86393bba6f18e3d89fd8c18253922d992",
        ),
        (
            {"piece_length": 1024},
            "e894374a39e39cfa78c409cac02f2cdbb5605a24f5ff55c7bc2b624877556c03",
        ),
    ],
)
def test_persistent_cache_task_id(options: dict[str, Any], expected: str) -> None:
    """Known answers of Dragonfly's client, however the file is read."""
    content = b"This is a test file"

    assert persistent_cache_task_id([content], **options) == expected
    assert persistent_cache_task_id([content[:5], b"", content[5:]], **options) == expected


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("HTTP://H:80/", "http://h"),
        ("http://h/a/../b/./c", "http://h/b/c"),
        ("http://h/a b", "http://h/a%20b"),
        ("http://bücher.example/ü", "http://xn--bcher-kva.example/%C3%BC"),
        ("http://h?", "http://h"),
        ("http://h/?&&", "http://h"),
        ("http://h/?a", "http://h/?a="),
        ("http://h/a/", "http://h/a/"),
        ("http://h/#x", "http://h/#x"),
        ("http://[::1]:8080/x", "http://[::1]:8080/x"),
        ("https://u:p@h/x?y=1;2#f", "https://u:p@h/x?y=1%3B2#f"),
        ("http://h/x?q=*-._~ +%2B%C3%A9", "http://h/x?q=*-._%7E++%2B%C3%A9"),
        ("http://h/x?q=%ff%zz", "http://h/x?q=%EF%BF%BD%25zz"),
        ("http://h/x?b=1&a=1&b=2", "http://h/x?b=1&a=1&b=2"),
        ("s3://Bucket/Key", "s3://Bucket/Key"),
        ("s3://Bucket/", "s3://Bucket"),
        ("hf://Org/Model/file?revision=v1", "hf://Org/Model/file?revision=v1"),
    ],
)
def test_urls_are_written_one_way(url: str, expected: str) -> None:
    """By the WHATWG rules, then with the query form-encoded anew; and that is stable."""
    assert normalise_url(url) == expected
    assert normalise_url(expected) == expected


def test_filtered_parameters_are_matched_decoded_and_exactly() -> None:
    """Case matters, escapes do not."""
    assert normalise_url("http://h/x?n%73=1&NS=2&nsx=3&a=4", ["ns"]) == "http://h/x?NS=2&nsx=3&a=4"
    assert normalise_url("http://h/x?ns=1", ["ns"]) == "http://h/x"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "no-scheme/path",
        "//h/x",
        "http://",
        "http://u:secret@h:99999/x?key=secret",
        "http://a b",
    ],
)
def test_a_url_that_cannot_be_parsed(url: str) -> None:
    """Is refused in words that do not repeat it."""
    with pytest.raises(InvalidRequest, match="want scheme://host/path") as caught:
        normalise_url(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__cause__ is None


def test_names_of_hosts_peers_and_pieces() -> None:
    """A seed says so at the end."""
    assert host_id("10.0.0.1", "a", seed=False) == "10.0.0.1-a"
    assert host_id("10.0.0.1", "a", seed=True) == "10.0.0.1-a-seed"
    assert peer_id("::1", "a", "u", seed=False) == "::1-a-u"
    assert peer_id("::1", "a", "u", seed=True) == "::1-a-u-seed"
    assert piece_id("t", 7) == "t-7"


def test_a_task_id_is_checked() -> None:
    """And comes back as it was."""
    assert check_task_id("0123456789abcdef" * 4) == "0123456789abcdef" * 4


@pytest.mark.parametrize(
    "text", ["", "0" * 63, "0" * 65, "A" * 64, "g" * 64, "0" * 64 + "\n", "../" * 20 + "etc/"]
)
def test_what_is_no_task_id(text: str) -> None:
    """Ids become keys and names."""
    with pytest.raises(InvalidRequest, match="64 lower-case"):
        check_task_id(text)


@pytest.mark.parametrize("url", ["http:///file", "https://", "http:////host/x", "http:?x"])
def test_no_host_is_no_url(url: str) -> None:
    """The rules would take the next part of the path for it."""
    with pytest.raises(InvalidRequest):
        normalise_url(url)


def test_a_url_at_the_door() -> None:
    """Comes back as it is, or is refused."""
    assert check_url("HTTP://h/x") == "HTTP://h/x"
    for url in ("http://[::1/x", "http://h:x/", "\ud800", "nothing"):
        with pytest.raises(InvalidRequest, match="cannot be parsed"):
            check_url(url)


def test_credentials_have_a_name_that_does_not_give_them_away() -> None:
    """The same for the same, another for others, and none where nobody could be told apart."""
    assert credentials_id("http://h/x?a=1", ("token",), {"Range": "bytes=0-1"}) == ""
    asked: list[tuple[str, tuple[str, ...], dict[str, str]]] = [
        ("http://me:secret@h/x", (), {}),
        ("http://me:other@h/x", (), {}),
        ("http://h/x?token=secret", ("token",), {}),
        ("http://h/x?token=other", ("token",), {}),
        ("http://h/x", (), {"Authorization": "secret"}),
        ("http://h/x", (), {"Authorization": "other"}),
    ]
    names = [credentials_id(*one) for one in asked]
    assert len({*names, ""}) == 7
    assert "secret" not in str(names)
    assert credentials_id("http://h/y", (), {"authorization": "secret"}) == names[4]
