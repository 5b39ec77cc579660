"""model/images.py: what images are called, and what their manifests say."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pantala.errors import InvalidRequest
from pantala.model.images import (
    Challenge,
    Platform,
    blobs,
    choose,
    is_image,
    parse_challenge,
    parse_image,
    parse_manifest_url,
    parse_platform,
    read_manifest,
)

A, B, C = (f"sha256:{letter * 64}" for letter in "abc")


@pytest.mark.parametrize(
    ("url", "manifest"),
    [
        ("oci://r.example/team/app:1.2", "https://r.example/v2/team/app/manifests/1.2"),
        ("oci://r.example:5000/app", "https://r.example:5000/v2/app/manifests/latest"),
        (f"oci://r.example/app:1@{A}", f"https://r.example/v2/app/manifests/{A}"),
        (f"oci+http://127.0.0.1:5000/app@{A}", f"http://127.0.0.1:5000/v2/app/manifests/{A}"),
        (
            "oci://docker.io/debian",
            "https://registry-1.docker.io/v2/library/debian/manifests/latest",
        ),
        ("oci://docker.io/a/b:c", "https://registry-1.docker.io/v2/a/b/manifests/c"),
    ],
)
def test_names(url: str, manifest: str) -> None:
    """Where their manifests are."""
    assert is_image(url)
    assert parse_image(url).manifest_url == manifest
    assert parse_manifest_url(manifest).manifest_url == manifest
    assert not is_image(manifest)


@pytest.mark.parametrize(
    "url",
    [
        "oci://r",
        "oci://r/App",
        "oci://me:pw@r/app",
        "oci://r/app:",
        "oci://r/../app",
        "oci://r/a?b",
    ],
)
def test_names_that_make_no_sense(url: str) -> None:
    """Such as one with a password in it."""
    with pytest.raises(InvalidRequest, match="want oci://registry/repository:tag"):
        parse_image(url)


@pytest.mark.parametrize(
    "path", ["v2/a/tags/list", "v2/manifests/1", "a/manifests/1", "v2/a/manifests/1?x"]
)
def test_urls_that_are_no_manifests(path: str) -> None:
    """They are refused, without their queries."""
    with pytest.raises(InvalidRequest, match="want https://registry/v2/repository/manifests/tag"):
        parse_manifest_url(f"https://r.example/{path}")


def test_blobs() -> None:
    """Of all kinds of manifests; each once, and none that is elsewhere."""
    layers = [{"digest": digest} for digest in (B, C, B)]
    assert blobs({"config": {"digest": A}, "layers": layers}) == [A, B, C]
    assert blobs({"blobs": layers}) == [B, C]
    assert blobs({"fsLayers": [{"blobSum": A}, {"blobSum": B}]}) == [A, B]
    foreign = {"digest": C, "mediaType": "application/vnd.docker.image.rootfs.foreign.diff.tar"}
    assert blobs({"config": {"digest": A}, "layers": [foreign]}) == [A]


@pytest.mark.parametrize(
    "manifest",
    [
        {},
        {"layers": {}},
        {"layers": ["x"]},
        {"config": {"digest": "../../secrets"}},
        {"config": {"digest": f"{A}/../x"}},
        {"fsLayers": [{}]},
    ],
)
def test_manifests_that_make_no_sense(manifest: dict[str, Any]) -> None:
    """Nothing that they say becomes a URL."""
    with pytest.raises(InvalidRequest):
        blobs(manifest)
    with pytest.raises(InvalidRequest, match="is no manifest"):
        read_manifest(json.dumps([manifest]).encode())
    with pytest.raises(InvalidRequest, match="is no manifest"):
        read_manifest(b"\xff")


def index(*platforms: str) -> dict[str, Any]:
    """One with a manifest for each."""
    names = ("os", "architecture", "variant")
    return {
        "manifests": [
            {
                "digest": f"sha256:{number:064}",
                "platform": dict(zip(names, platform.split("/"), strict=False)),
            }
            for number, platform in enumerate(platforms)
        ]
    }


def test_platforms() -> None:
    """The first that suits; a variant counts where both name one."""
    found = index(
        "linux/amd64", "linux/arm/v6", "linux/arm/v7", "linux/arm64/v8", "unknown/unknown"
    )
    wanted = ("linux/amd64", "linux/arm", "linux/arm/v7", "linux/arm64", "linux/arm64/v8")
    chosen = [int(choose(found, parse_platform(each))[-1]) for each in wanted]
    assert chosen == [0, 1, 2, 3, 3]
    with pytest.raises(
        InvalidRequest, match=r"no manifest for linux/s390x; there are: linux/amd64, "
    ):
        choose(found, Platform("linux", "s390x"))
    assert choose({"manifests": [{"digest": A}]}, Platform("linux", "amd64")) == A
    for text in ("linux", "linux/", "a/b/c/d"):
        with pytest.raises(InvalidRequest):
            parse_platform(text)


@pytest.mark.parametrize(
    ("header", "challenge"),
    [
        (
            'Bearer realm="https://a/t",service="r.example",scope="repository:x:pull"',
            Challenge("bearer", "https://a/t", "r.example", "repository:x:pull"),
        ),
        ('Basic realm="x"', Challenge("basic", "x")),
        ('basic realm="x", Bearer realm="https://a/t"', Challenge("bearer", "https://a/t")),
        ("Negotiate", None),
        ("", None),
    ],
)
def test_challenges(header: str, challenge: Challenge | None) -> None:
    """A token is better than a password."""
    assert parse_challenge(header) == challenge
