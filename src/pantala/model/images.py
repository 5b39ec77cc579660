"""Images and artefacts in registries: what they are called, and what manifests say of them.

    oci://registry/repository:tag      oci://registry/repository@sha256:…
    https://registry/v2/repository/manifests/tag, or a digest

A manifest lists blobs; an index lists manifests, for one platform each. ``oci+http:`` is for a
registry without TLS.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from pantala.errors import InvalidRequest

_SCHEMES: Final = {"oci": "https", "oci+http": "http"}

#: What a name on a command line stands for, as docker has it.
_HUB: Final = "docker.io"
_HUB_REGISTRY: Final = "registry-1.docker.io"
_HUB_OWNER: Final = "library/"

_DIGEST: Final = r"[a-z0-9]+(?:[.+_-][a-z0-9]+)*:[0-9a-zA-Z=_-]{32,}"
_TAG: Final = r"[0-9A-Za-z_][0-9A-Za-z._-]{0,127}"
_NAME: Final = r"[a-z0-9]+(?:[._/-]+[a-z0-9]+)*"
_IMAGE: Final = rf"(oci|oci\+http)://([^/@?#]+)/({_NAME})(?::({_TAG}))?(?:@({_DIGEST}))?"
_MANIFEST: Final = rf"(https?)://([^/@?#]+)/v2/({_NAME})/manifests/({_TAG}|{_DIGEST})"

_MANIFESTS: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
    "application/vnd.oci.artifact.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v1+prettyjws",
    "application/vnd.docker.distribution.manifest.v1+json",
)
_INDEXES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
#: What a registry is asked for.
ACCEPT: Final = ", ".join((*_INDEXES, *_MANIFESTS))

#: What an image lists without having it.
_ELSEWHERE: Final = ("nondistributable", "foreign")


@dataclass(frozen=True, slots=True)
class Reference:
    """A manifest in a registry.

    Attributes:
        scheme: ``https``, or ``http``.
        registry: ``host`` or ``host:port``.
        repository: Such as ``library/debian``.
        name: A tag, or a digest.
    """

    scheme: str
    registry: str
    repository: str
    name: str

    @property
    def base(self) -> str:
        """What all URLs of the repository begin with."""
        return f"{self.scheme}://{self.registry}/v2/{self.repository}"

    @property
    def manifest_url(self) -> str:
        """Where the manifest is."""
        return f"{self.base}/manifests/{self.name}"

    def blob_url(self, digest: str) -> str:
        """Where a blob of the repository is."""
        return f"{self.base}/blobs/{digest}"

    @property
    def digest(self) -> str | None:
        """What the manifest must be, if the name says that."""
        return self.name if ":" in self.name else None


def is_image(url: str) -> bool:
    """Whether *url* names an image, and not a file."""
    return url.startswith(tuple(f"{scheme}://" for scheme in _SCHEMES))


def parse_image(url: str) -> Reference:
    """What an ``oci:`` URL means. Raises InvalidRequest."""
    found = re.fullmatch(_IMAGE, url)
    if found is None:
        raise InvalidRequest(
            f"image {url[:200]!r}: want oci://registry/repository:tag, or @sha256:… after it"
        )
    scheme, registry, repository, tag, digest = found.groups()
    if registry == _HUB:
        registry = _HUB_REGISTRY
        repository = repository if "/" in repository else _HUB_OWNER + repository
    return Reference(_SCHEMES[scheme], registry, repository, digest or tag or "latest")


def parse_manifest_url(url: str) -> Reference:
    """What the contract names an image by. Raises InvalidRequest."""
    found = re.fullmatch(_MANIFEST, url)
    if found is None:
        raise InvalidRequest(
            f"image {url.partition('?')[0][:200]!r}: "
            "want https://registry/v2/repository/manifests/tag, or a digest"
        )
    return Reference(*found.groups())


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on. *variant* ``""``: any."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(filter(None, (self.os, self.architecture, self.variant)))


def parse_platform(text: str) -> Platform:
    """``os/architecture``, or with ``/variant``. Raises InvalidRequest."""
    parts = text.split("/")
    if not 2 <= len(parts) <= 3 or not all(parts):
        raise InvalidRequest(f"platform {text[:100]!r}: want os/architecture, such as linux/amd64")
    return Platform(*parts)


def local_platform(system: str, machine: str) -> Platform:
    """That of a machine, by what ``uname`` says.

    >>> str(local_platform("Linux", "x86_64")), str(local_platform("Linux", "armv7l"))
    ('linux/amd64', 'linux/arm/v7')
    """
    known = {
        "x86_64": ("amd64", ""),
        "aarch64": ("arm64", ""),
        "armv7l": ("arm", "v7"),
        "armv6l": ("arm", "v6"),
        "i686": ("386", ""),
    }
    architecture, variant = known.get(machine, (machine, ""))
    return Platform(system.lower(), architecture, variant)


def read_manifest(data: bytes) -> Mapping[str, Any]:
    """A manifest, or an index. Raises InvalidRequest."""
    try:
        found = json.loads(data)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise InvalidRequest("what the registry sent is no manifest")
    return found


def is_index(manifest: Mapping[str, Any]) -> bool:
    """Whether it lists manifests."""
    return isinstance(manifest.get("manifests"), list)


def choose(manifest: Mapping[str, Any], wanted: Platform) -> str:
    """The digest of the manifest for a platform; of the only one there is, if that names none.

    Raises:
        InvalidRequest: There is none for it; the message says which there are.
    """
    listed = [each for each in manifest["manifests"] if isinstance(each, dict)]
    platforms = [_platform(each) for each in listed]
    for each, platform in zip(listed, platforms, strict=True):
        if platform is not None and _suits(platform, wanted):
            return _digest(each)
    if len(listed) == 1 and platforms == [None]:
        return _digest(listed[0])
    there = ", ".join(str(each) for each in platforms if each is not None and each.os != "unknown")
    raise InvalidRequest(f"no manifest for {wanted}; there are: {there or 'none with a platform'}")


def blobs(manifest: Mapping[str, Any]) -> list[str]:
    """Digests of all that belongs to an image, each once: its configuration, and its layers.

    Raises:
        InvalidRequest: There is none, or one makes no sense.
    """
    described: list[Any] = [manifest.get("config"), *_list(manifest, "layers", "blobs")]
    found = [_digest(each) for each in described if each and not _is_elsewhere(each)]
    found += [_checked(each.get("blobSum")) for each in _list(manifest, "fsLayers")]
    if not found:
        raise InvalidRequest("the manifest names no blobs")
    return list(dict.fromkeys(found))


def _list(manifest: Mapping[str, Any], *names: str) -> Iterable[Any]:
    for name in names:
        value = manifest.get(name) or []
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise InvalidRequest(f"the manifest's {name} are no list of descriptors")
        yield from value


def _digest(described: Any) -> str:
    return _checked(described.get("digest") if isinstance(described, dict) else None)


def _checked(digest: object) -> str:
    """*digest*, which becomes a part of URLs."""
    if not isinstance(digest, str) or re.fullmatch(_DIGEST, digest) is None:
        raise InvalidRequest(f"the manifest names {str(digest)[:100]!r}, which is no digest")
    return digest


def _is_elsewhere(described: Any) -> bool:
    kind = str(described.get("mediaType", "")) if isinstance(described, dict) else ""
    return any(word in kind for word in _ELSEWHERE)


def _platform(described: Mapping[str, Any]) -> Platform | None:
    found = described.get("platform")
    if not isinstance(found, dict):
        return None
    names = ("os", "architecture", "variant")
    return Platform(*(str(found.get(name) or "") for name in names))


def _suits(there: Platform, wanted: Platform) -> bool:
    same = (there.os, there.architecture) == (wanted.os, wanted.architecture)
    return same and (not wanted.variant or not there.variant or there.variant == wanted.variant)


@dataclass(frozen=True, slots=True)
class Challenge:
    """What a registry wants to see, by its ``WWW-Authenticate``.

    Attributes:
        scheme: ``bearer`` or ``basic``.
        realm: Of the former, where to ask for a token.
    """

    scheme: str
    realm: str = ""
    service: str = ""
    scope: str = ""


def parse_challenge(header: str) -> Challenge | None:
    """The best of those in *header* that we can meet; None: there is none.

    >>> parse_challenge('Bearer realm="https://a/t",service="r",scope="repository:x:pull,push"')
    Challenge(scheme='bearer', realm='https://a/t', service='r', scope='repository:x:pull,push')
    """
    found = {}
    for scheme, rest in re.findall(r'(?i)\b(bearer|basic)\s+((?:\w+="[^"]*"[\s,]*)*)', header):
        values = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        names = ("realm", "service", "scope")
        told = {name: values.get(name, "") for name in names}
        found[scheme.lower()] = Challenge(scheme.lower(), **told)
    return found.get("bearer") or found.get("basic")
