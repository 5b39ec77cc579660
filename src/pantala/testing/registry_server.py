"""A registry of a test's own: Debian's docker-registry, and what is pushed to it over its API."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import pytest

from .cluster import PATIENCE

#: Where this is set, the program must be there; else tests that need it are skipped.
MUST_BE_THERE: Final = "PANTALA_TEST_REGISTRY"

#: Who may do everything, where a registry lets not everybody in.
USER, PASSWORD = "me", "s3cret"
_HTPASSWD: Final = "me:$2y$05$i8a05/cIbZdNvsQsUGVtSujP578Dt5FMCB.YLONY/MASOl5r1byaW\n"

MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
INDEX: Final = "application/vnd.oci.image.index.v1+json"


def registry_or_skip() -> str:
    """The program's path; without it the test is skipped, which says why."""
    program = shutil.which("docker-registry")
    if program is None:
        why = "needs docker-registry (Debian package docker-registry)"
        if os.environ.get(MUST_BE_THERE):
            pytest.fail(why)
        pytest.skip(why)
    return program


class RegistryServer:
    """A context manager.

    Args:
        directory: For its files.
        private: It wants :data:`USER` and :data:`PASSWORD`.
        tls: Certificate and key, in PEM.
        trusted: Who vouches for that.
    """

    def __init__(
        self,
        directory: Path,
        *,
        private: bool = False,
        tls: tuple[Path, Path] | None = None,
        trusted: Path | None = None,
    ) -> None:
        self._program = registry_or_skip()
        self._directory = directory
        self._private = private
        self._tls = tls
        self._process: subprocess.Popen[bytes] | None = None
        self._context = ssl.create_default_context(cafile=trusted)
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port: int = probe.getsockname()[1]

    def __enter__(self) -> Self:
        http: dict[str, Any] = {"addr": self.address}
        if self._tls:
            http["tls"] = {"certificate": str(self._tls[0]), "key": str(self._tls[1])}
        config: dict[str, Any] = {
            "version": 0.1,
            "log": {"level": "error", "accesslog": {"disabled": True}},
            "storage": {"filesystem": {"rootdirectory": str(self._directory / "blobs")}},
            "http": http,
        }
        if self._private:
            users = self._directory / "htpasswd"
            users.write_text(_HTPASSWD)
            config["auth"] = {"htpasswd": {"realm": "tests", "path": str(users)}}
        path = self._directory / "registry.yml"
        path.write_text(json.dumps(config))  # JSON is YAML
        log = self._directory / "registry.log"
        with log.open("wb") as file:
            command = [self._program, "serve", str(path)]
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=file, stderr=file
            )
        deadline = time.monotonic() + PATIENCE
        while not self._listens():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(log.read_text())
            time.sleep(0.02)  # another program: nothing tells when it listens
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(PATIENCE)

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._tls else 'http'}://{self.address}"

    def push_blob(self, repository: str, data: bytes) -> str:
        """Put a blob there; its digest."""
        digest = digest_of(data)
        place, _ = self._call("POST", f"{self.url}/v2/{repository}/blobs/uploads/")
        mark = "&" if "?" in place else "?"
        headers = {"Content-Type": "application/octet-stream"}
        self._call("PUT", f"{place}{mark}digest={digest}", data, headers)
        return digest

    def push(self, repository: str, layers: Sequence[bytes], tag: str | None = None) -> str:
        """Put an image there; the digest of its manifest."""
        config = json.dumps({"layers": [digest_of(layer) for layer in layers]}).encode()
        described = [_descriptor(self, repository, data) for data in (config, *layers)]
        manifest = {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": described[0],
            "layers": described[1:],
        }
        return self.put(repository, manifest, tag)

    def put(self, repository: str, manifest: Mapping[str, Any], tag: str | None = None) -> str:
        """Put a manifest, or an index, there; its digest."""
        data = json.dumps(manifest).encode()
        name = tag or digest_of(data)
        headers = {"Content-Type": manifest["mediaType"]}
        self._call("PUT", f"{self.url}/v2/{repository}/manifests/{name}", data, headers)
        return digest_of(data)

    def _call(
        self,
        method: str,
        url: str,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[str, bytes]:
        """Where it points to, and what it says."""
        sent = dict(headers or {})
        if self._private:
            pair = base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
            sent["Authorization"] = f"Basic {pair}"
        request = urllib.request.Request(url, data, sent, method=method)  # noqa: S310  our own
        opener = urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=self._context)
        )
        with opener.open(request, timeout=PATIENCE) as answer:
            return answer.headers.get("Location", ""), answer.read()

    def _listens(self) -> bool:
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=1.0).close()
        except OSError:
            return False
        return True


def _descriptor(server: RegistryServer, repository: str, data: bytes) -> dict[str, Any]:
    digest = server.push_blob(repository, data)
    kind = "application/vnd.oci.image.layer.v1.tar"
    return {"mediaType": kind, "digest": digest, "size": len(data)}


def index_of(manifests: Mapping[str, str]) -> dict[str, Any]:
    """An index of manifests, by ``os/architecture``."""
    return {
        "schemaVersion": 2,
        "mediaType": INDEX,
        "manifests": [
            {
                "mediaType": MANIFEST,
                "digest": digest,
                "size": 1,
                "platform": dict(zip(("os", "architecture"), platform.split("/"), strict=True)),
            }
            for platform, digest in manifests.items()
        ],
    }


def digest_of(data: bytes) -> str:
    """As registries name it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"
