"""Ids: the same bytes in, the same id out, on every peer."""

from __future__ import annotations

import re
from typing import Any

import pytest

from pantala.errors import InvalidRequest
from pantala.model.ids import (
    DEFAULT_FILTERED_QUERY_PARAMS,
    check_task_id,
    check_url,
    credentials_id,
    host_id,
    identify,
    normalise_url,
    peer_id,
    persistent_cache_task_id,
    persistent_task_id,
    piece_id,
    task_id,
)
from pantala.model.task import Kind

EXAMPLE = "https://example.com"

HEADERS = {"Accept-Encoding": " gzip", "accept": "text/plain", "Authorization": "Bearer x"}


@pytest.mark.parametrize(
    ("kind", "url", "options", "expected"),
    [
        pytest.param(kind, url, options, expected, id=f"{number} {kind.name}")
        for number, (kind, url, options, expected) in enumerate(
            [
                # The first eight are known answers of Dragonfly's client; those of CACHE were
                # computed apart from this code, from docs/adr/0009-identity.md.
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
                    "52256f669c20eb0aa60c8c067ecaf609226d3043f4ed046654fe4fc652895315",
                ),
                (
                    Kind.CACHE,
                    EXAMPLE,
                    {"tag": "", "application": ""},
                    "5ba08a1049fd5c1242357aeda316b6909e467dac6b099d0398e0bece25aef811",
                ),
                (
                    Kind.CACHE,
                    EXAMPLE,
                    {"tag": "foo", "application": "bar"},
                    "80c1c9a24f40bb37ab139c8cb4ddf14503d59d774773a9434a506ada8041ffd1",
                ),
                (
                    Kind.CACHE,
                    EXAMPLE,
                    {"piece_length": 1024},
                    "a162a175d391ae1d7459180cdbc838e8e3872a93a44b996af2b555b827fb2b87",
                ),
                (
                    Kind.CACHE,
                    "https://example.com/a/b.bin",
                    {},
                    "c360f562d4b0d0a841af59319f4062c72ccf3c541c90e27022e67d42b6bd00f0",
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
                    "5ba08a1049fd5c1242357aeda316b6909e467dac6b099d0398e0bece25aef811",
                ),
                (
                    Kind.CACHE,
                    "https://example.com/f?b=2&a=1&Signature=x&ns=docker.io",
                    {"filtered_query_params": DEFAULT_FILTERED_QUERY_PARAMS},
                    "3c3ee6d9b8c803762875bdc826827ba7e69cb868f132c7ccb23c6414596359ec",
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
                    "cb929f14d42420e5510e139f5e539e676ecc7e70255df43ae0918be45de9d52d",
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
                    "0685f294901a4a58f5a71aec64f9b0d7b4a97c0afc11a098fcc0b216d61e5ffe",
                ),
                (
                    Kind.CACHE,
                    "http://u:p@h/f?X=%FF&sig=1&a=b&ns=x#part",
                    {"filtered_query_params": ("sig", "X", "ns"), "request_header": HEADERS},
                    "747ef364402761347bc2ccd6045da61e41d8925fb47d0b3e71945f68d39e9885",
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
                    "c53cf84bd091aafebb539e3b68a32435259da0fcac77eda01bae5fbdcaaa9f28",
                ),
            ],
            start=1,
        )
    ],
)
def test_task_id(kind: Kind, url: str, options: dict[str, Any], expected: str) -> None:
    """Known answers."""
    assert task_id(kind, url, **options) == expected


GOOD = "http://good/file"

#: One identity a line, which must have nothing to do with each other.
DISTINCT: list[dict[str, Any]] = [
    {"url": GOOD},
    {"url": GOOD, "content": "http://good/fileCACHE"},
    {"url": GOOD, "content": GOOD},
    {"url": GOOD, "content": ""},
    {"url": GOOD, "content": "", "request_header": {"Accept-Encoding": "gzip"}},
    {"url": "http://good/x/pub", "tag": "lic"},
    {"url": "http://good/x/public"},
    {"url": "http://good/x/pub", "application": "lic"},
    {"url": "http://good/x/pub", "tag": "l", "application": "ic"},
    {"url": "http://good/x/pub", "tag": "li", "application": "c"},
    {"url": "http://good/x/pub", "revision": "lic"},
    {"url": GOOD, "tag": "4194304"},
    {"url": GOOD, "piece_length": 4194304},
    # What an origin can tell apart
    {"url": GOOD + "?q=%FF"},
    {"url": GOOD + "?q=%FE"},
    {"url": GOOD + "?q=a+b"},
    {"url": GOOD + "?q=a%20b"},
    {"url": GOOD + "?flag"},
    {"url": GOOD + "?flag="},
    {"url": GOOD + "?a=1&b=2"},
    {"url": GOOD + "?b=2&a=1"},
    {"url": "http://u:p@good/file"},
    # What the caller's filter took away
    {"url": GOOD + "?versionId=1", "filtered_query_params": ["versionId"]},
    {"url": GOOD + "?to=evil", "filtered_query_params": ["to", "versionId"]},
    {"url": GOOD + "?to=1&versionId=1", "filtered_query_params": ["to", "versionId"]},
    # Representations
    {"url": GOOD, "request_header": {"Accept-Encoding": "gzip"}},
    {"url": GOOD, "request_header": {"Accept-Encoding": "br"}},
    {"url": GOOD, "request_header": {"Accept": "gzip"}},
    {"url": GOOD, "request_header": {"accept-language": "de"}},
    {"url": GOOD, "request_header": {"A-IM": "feed"}},
    {"url": GOOD, "request_header": {"Sec-CH-UA-Mobile": "?1"}},
    {"url": GOOD, "tag": "accept-encodinggzip"},
]


def test_nothing_collides() -> None:
    """However the fields are chosen: the ids of CACHE are as many as the tasks."""
    found = [identify(Kind.CACHE, **fields) for fields in DISTINCT]
    assert len({each.task_id for each in found}) == len(DISTINCT)
    assert all(each.task_id == each.fingerprint for each in found)


def test_the_contracts_ids_collide_and_the_fingerprints_do_not() -> None:
    """That is how a node can tell."""
    pub = identify(Kind.STANDARD, "http://good/x/pub", tag="lic")
    public = identify(Kind.STANDARD, "http://good/x/public")
    forged = identify(Kind.STANDARD, "http://evil/", content="http://good/x/publicSTANDARD")
    zipped = identify(
        Kind.STANDARD, "http://good/x/public", request_header={"Accept-Encoding": "gzip"}
    )
    all_of_them = (pub, public, forged, zipped)
    assert len({each.task_id for each in all_of_them}) == 1
    assert len({each.fingerprint for each in all_of_them}) == 4


@pytest.mark.parametrize("kind", [Kind.CACHE, Kind.STANDARD])
@pytest.mark.parametrize(
    "other",
    [
        {"url": "HTTP://GOOD:80/a/../file"},
        {"url": GOOD, "tag": "", "application": None, "revision": ""},
        {"url": GOOD, "request_header": {"Authorization": "x", "Accept-Encoding": "identity"}},
        {"url": GOOD + "?Signature=1&Expires=2", "filtered_query_params": ["Signature", "Expires"]},
        {"url": GOOD, "filtered_query_params": ["versionId"]},
    ],
)
def test_what_makes_no_difference(kind: Kind, other: dict[str, Any]) -> None:
    """Spelling, credentials, what origins are asked for anyway, and the usual signatures."""
    assert identify(kind, **other) == identify(kind, GOOD)


def test_those_who_leave_out_the_same_share() -> None:
    """A signature of another name than the usual ones is nobody's identity either."""
    ids = {
        task_id(Kind.CACHE, f"{GOOD}?sig={n}&b=1", filtered_query_params=["sig"]) for n in range(3)
    }
    assert len(ids) == 1


@pytest.mark.parametrize("kind", [Kind.CACHE, Kind.STANDARD])
@pytest.mark.parametrize("name", ["url", "tag", "application", "content"])
def test_text_that_is_none(kind: Kind, name: str) -> None:
    """Half a surrogate pair, as JSON can bring it, has no bytes."""
    with pytest.raises(InvalidRequest):
        task_id(kind, **{"url": GOOD, name: "http://h/\ud800"})


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


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("//h/x", "it has no scheme"),
        ("http:///x", "it names no host"),
        ("http://u:secret@h:99999/x", "its port is above 65535"),
        ("http://u:secret@h:secret/x", "its port is not a number"),
        ("http://[::1/x", "the [ of its IPv6 address is not closed"),
    ],
)
def test_what_is_wrong_with_a_url(url: str, fault: str) -> None:
    """Is said where we know."""
    with pytest.raises(InvalidRequest, match=re.escape(f"cannot be parsed: {fault}; want")):
        normalise_url(url)


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


BLOB = "https://registry.example.com:5000/v2/library/busybox/blobs/sha256:" + "a1" * 32


@pytest.mark.parametrize("url", [BLOB, BLOB + "?ns=docker.io"])
def test_a_blob_of_an_image_is_its_digest(url: str) -> None:
    """Wherever it comes from, if the caller says so; but not for what it is not."""
    elsewhere = url.replace("registry", "mirror")
    assert task_id(Kind.STANDARD, url, blob_digest=True, tag="x") == "a1" * 32
    assert identify(Kind.STANDARD, url, blob_digest=True) == identify(
        Kind.STANDARD, elsewhere, blob_digest=True, application="y"
    )
    assert task_id(Kind.STANDARD, url) != "a1" * 32
    assert task_id(Kind.STANDARD, url, blob_digest=True, content="c") == task_id(
        Kind.STANDARD, url, content="c"
    )
    manifest = url.replace("/blobs/", "/manifests/")
    assert task_id(Kind.STANDARD, manifest, blob_digest=True) == task_id(Kind.STANDARD, manifest)


@pytest.mark.parametrize(
    ("digest", "why"),
    [
        ("sha512:" + "a" * 128, "only a sha256 digest makes a task's id"),
        ("crc32:1", "only a sha256 digest makes a task's id"),
        ("sha256:short", "digest"),
    ],
)
def test_a_blob_whose_digest_makes_no_id(digest: str, why: str) -> None:
    """Pieces are asked for by 64 digits."""
    with pytest.raises(InvalidRequest, match=why):
        identify(Kind.STANDARD, f"http://r/v2/n/blobs/{digest}", blob_digest=True)


def test_credentials_of_special_origins() -> None:
    """They, too, are one caller's own."""
    keys = [{"object_storage": {"access_key_id": name}} for name in ("a", "b")]
    names = [credentials_id("s3://b/f", (), {}, access) for access in (*keys, keys[0], {})]
    assert len(set(names)) == 3
    assert names[0] == names[2]
    assert names[3] == ""
