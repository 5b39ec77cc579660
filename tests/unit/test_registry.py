"""scheduler/registry.py and scheduler/web.py, against a registry played by hand."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import threading
import time
from collections.abc import Iterator
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import pytest

from pantala.errors import DragonflyError, Forbidden, InvalidRequest, OriginError
from pantala.model.images import parse_image
from pantala.scheduler import guard, web
from pantala.scheduler.guard import Guard
from pantala.scheduler.orders import ImageAccess
from pantala.scheduler.registry import Image, resolve
from pantala.testing.registry_server import PASSWORD, digest_of

LAYER = f"sha256:{'a' * 64}"
MANIFEST = json.dumps({"layers": [{"digest": LAYER}]}).encode()
OPEN = Guard(["169.254.0.0/16"], "job.blockedNetworks")


class Registry(ThreadingHTTPServer):
    """Answers as it is told to, and notes with what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        #: By path: status, headers, body.
        self.answers: dict[str, tuple[int, dict[str, str], bytes]] = {}
        #: What a path wants in Authorization, and the challenge of who lacks it.
        self.wants: dict[str, tuple[str, str]] = {}
        self.asked: list[tuple[str, str | None]] = []
        self.headers: list[Message] = []
        #: Where this is, an answer is not sent to its end.
        self.hangs: threading.Event | None = None

    @property
    def address(self) -> str:
        """``host:port``."""
        return f"127.0.0.1:{self.server_address[1]}"

    def put(self, path: str, body: bytes, status: int = 200, **headers: str) -> None:
        """What is at *path*."""
        self.answers[path] = status, headers, body


class _Handler(BaseHTTPRequestHandler):
    server: Registry
    protocol_version: ClassVar[str] = "HTTP/1.1"  # type: ignore[misc]  # the base's is no ClassVar

    def do_GET(self) -> None:
        """Answer."""
        path = self.path.partition("?")[0]
        sent = self.headers.get("Authorization")
        self.server.asked.append((self.path, sent))
        self.server.headers.append(self.headers)
        status, headers, body = self.server.answers.get(path, (404, {}, b""))
        wanted = self.server.wants.get(path)
        if wanted is not None and sent != wanted[0]:
            status, headers, body = 401, {"WWW-Authenticate": wanted[1]}, b"{}"
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if headers.get("Transfer-Encoding") != "chunked":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
        if self.server.hangs is not None:
            self.server.hangs.wait(20)

    def log_message(self, *_: Any) -> None:
        """Nobody reads it."""


@pytest.fixture
def registry() -> Iterator[Registry]:
    """One that runs, with an image."""
    with Registry() as server:
        server.put("/v2/app/manifests/1", MANIFEST)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


async def image(registry: Registry, name: str = "app:1", **access: Any) -> Image:
    """What an image of it is."""
    reference = parse_image(f"oci+http://{registry.address}/{name}")
    headers = access.pop("headers", {})
    return await resolve(OPEN, reference, ImageAccess(**access), headers)


async def fault(registry: Registry, name: str = "app:1", **access: Any) -> DragonflyError:
    """What is wrong with it."""
    with pytest.raises(DragonflyError) as caught:
        await image(registry, name, **access)
    return caught.value


async def test_an_open_registry(registry: Registry) -> None:
    """Nothing but the manifest is asked for."""
    found = await image(registry)
    assert found.urls == (f"http://{registry.address}/v2/app/blobs/{LAYER}",)
    assert found.headers == {}
    assert registry.asked == [("/v2/app/manifests/1", None)]


@pytest.mark.parametrize("scope", ["", "repository:app:pull,push"])
async def test_a_token(registry: Registry, scope: str) -> None:
    """It is asked for with user and password, and is what hosts are given."""
    challenge = f'Bearer realm="http://{registry.address}/token?x=1",service="s"'
    challenge += f',scope="{scope}"' if scope else ""
    registry.wants["/v2/app/manifests/1"] = "Bearer t0ken", challenge
    registry.put("/token", b'{"token": "t0ken"}')
    found = await image(registry, username="me", password=PASSWORD)
    assert found.headers == {"Authorization": "Bearer t0ken"}
    (path, sent) = registry.asked[1]
    assert path.startswith("/token?x=1&service=s&scope=repository%3Aapp%3Apull")
    assert path.endswith("%2Cpush") is bool(scope)
    assert sent == "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    registry.put("/token", b"[]")
    assert "it gives no token" in str(await fault(registry))


async def test_user_and_password(registry: Registry) -> None:
    """Where the registry wants no token; without them, or with wrong ones, it refuses."""
    basic = "Basic " + base64.b64encode(f"me:{PASSWORD}".encode()).decode()
    registry.wants["/v2/app/manifests/1"] = basic, 'Basic realm="r"'
    assert (await image(registry, username="me", password=PASSWORD)).headers == {
        "Authorization": basic
    }
    assert "it wants a user name and a password" in str(await fault(registry))
    wrong = await fault(registry, username="me", password=PASSWORD[::-1])
    assert str(wrong).endswith("/v2/app/manifests/1: the registry answers 401")
    assert isinstance(wrong, InvalidRequest)


async def test_a_header_of_the_callers_own(registry: Registry) -> None:
    """It is used as it is, and nothing is negotiated."""
    registry.wants["/v2/app/manifests/1"] = "Bearer mine", 'Basic realm="r"'
    found = await image(registry, headers={"authorization": "Bearer mine", "accept": "x"})
    assert found.headers == {}
    registry.wants["/v2/app/manifests/1"] = "Bearer other", 'Basic realm="r"'
    assert "answers 401" in str(await fault(registry, headers={"authorization": "Bearer mine"}))


async def test_an_index(registry: Registry) -> None:
    """The manifest of the platform, which must be what its digest says."""
    digest = digest_of(MANIFEST)
    platform = {"os": "linux", "architecture": "arm64"}
    index = {"manifests": [{"digest": digest, "platform": platform}]}
    registry.put("/v2/app/manifests/1", json.dumps(index).encode())
    registry.put(f"/v2/app/manifests/{digest}", MANIFEST)
    assert (await image(registry, platform="linux/arm64")).urls
    assert "no manifest for linux/amd64" in str(await fault(registry, platform="linux/amd64"))
    registry.put(f"/v2/app/manifests/{digest}", MANIFEST + b" ")
    why = await fault(registry, platform="linux/arm64")
    assert str(why) == f"the registry sent something else for {digest}"


async def test_an_index_of_itself(registry: Registry) -> None:
    """It ends."""
    digest = f"sha256:{'0' * 64}"
    registry.put("/v2/app/manifests/1", json.dumps({"manifests": [{"digest": digest}]}).encode())
    assert isinstance(await fault(registry), InvalidRequest)


async def test_where_it_may_not_lead(registry: Registry) -> None:
    """Neither by a redirect, nor to ask for a token."""
    registry.put("/v2/app/manifests/1", b"", 307, Location="http://169.254.169.254/latest")
    assert isinstance(await fault(registry), Forbidden)
    challenge = 'Bearer realm="http://169.254.169.254/token"'
    registry.wants["/v2/app/manifests/1"] = "Bearer x", challenge
    assert isinstance(await fault(registry), Forbidden)


async def test_a_redirect(registry: Registry) -> None:
    """Credentials stay with the host that they are for; a circle ends."""
    other = registry.address.replace("127.0.0.1", "localhost")
    basic = "Basic " + base64.b64encode(b"me:").decode()
    registry.wants["/v2/app/manifests/1"] = basic, 'Basic realm="r"'
    registry.put("/v2/app/manifests/1", b"", 302, Location=f"http://{other}/there")
    registry.put("/there", MANIFEST)
    assert (await image(registry, username="me")).urls
    assert registry.asked[-1] == ("/there", None)
    own = {"X-Token": "s3cret", "Range": "bytes=0-1", "Accept-Language": "de"}
    assert (await image(registry, username="me", headers=own)).urls
    there, here = registry.headers[-1], registry.headers[-2]
    assert (here["X-Token"], here["Accept-Language"], here["Range"]) == ("s3cret", "de", None)
    assert (there["X-Token"], there["Accept-Language"], there["Range"]) == (None, "de", None)
    registry.put("/there", b"", 302, Location="/there")
    assert "more than 5 redirects" in str(await fault(registry, username="me"))


async def test_strange_answers(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """In pieces it is read; too much, cut short, or no HTTP, it is told."""
    chunks: dict[str, Any] = {"Transfer-Encoding": "chunked"}
    half = len(MANIFEST) // 2
    parts = [MANIFEST[:half], MANIFEST[half:], b""]
    body = b"".join(b"%x;a=b\r\n%s\r\n" % (len(part), part) for part in parts)
    registry.put("/v2/app/manifests/1", body, **chunks)
    assert (await image(registry)).urls
    registry.put("/v2/app/manifests/1", b"zz\r\n", **chunks)
    assert "no answer of HTTP" in str(await fault(registry))
    registry.put("/v2/app/manifests/1", b"%x\r\n" % (1 << 40), **chunks)
    assert "want at most" in str(await fault(registry))
    registry.put("/v2/app/manifests/1", MANIFEST, 503)
    down = await fault(registry)
    assert isinstance(down, OriginError)
    assert down.status == 503
    registry.put("/v2/app/manifests/1", b"<html>")
    assert "is no manifest" in str(await fault(registry))
    monkeypatch.setattr(web, "_LIMIT", 0.2)
    registry.put("/v2/app/manifests/1", b"9\r\nabc", **chunks)
    assert "3 bytes read on a total of 11" in str(await fault(registry))
    registry.hangs = threading.Event()
    assert "no answer within 0.2 s" in str(await fault(registry))
    registry.hangs.set()


async def test_nobody_there(registry: Registry) -> None:
    """It is told in words."""
    registry.server_close()
    assert "Connect" in str(await fault(registry)) or "refused" in str(await fault(registry))


async def test_small_chunks_hold_nobody_up() -> None:
    """What each of them costs does not grow with what is here."""

    async def seconds(here: int) -> float:
        reader = asyncio.StreamReader()
        reader.feed_data(b"%x\r\n%s\r\n" % (here, b"a" * here))
        reader.feed_data(b"1\r\na\r\n" * 5000 + b"0\r\n\r\n")
        began = time.perf_counter()
        assert len(await web._body(reader, {"transfer-encoding": "chunked"})) == here + 5000
        return time.perf_counter() - began

    few = min([await seconds(1) for _ in range(3)])
    assert min([await seconds(3 << 20) for _ in range(3)]) < 10 * few


async def test_a_slow_name_server(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """That it was the name is said, and how long that took."""
    answered = threading.Event()
    monkeypatch.setattr(guard, "_RESOLVE", 0.1)
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: answered.wait(20))
    why = str(await fault(registry))
    answered.set()
    assert why.endswith("its name was not found out within 0.1 s")
