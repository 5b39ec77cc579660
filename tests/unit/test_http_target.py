"""What is sent, and where a redirect leads."""

from __future__ import annotations

import base64
from typing import ClassVar

import pytest

from pantala.errors import InvalidRequest, OriginError
from pantala.sources.http_target import Target, first_target

BASIC = "Basic " + base64.b64encode(b"us er:p:w").decode()


def target(url: str = "https://h/a/b?q=1", **headers: str) -> Target:
    """A first hop."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return first_target(url, named, defaults={})


class TestUrl:
    """A URL is taken apart once."""

    def test_what_is_kept(self) -> None:
        """Messages get neither the query nor credentials; requests no fragment."""
        got = target("HTTPS://us%20er:p%3Aw@EXAMPLE.com:443/a/../b?sig=1#part")
        assert got.url == "https://example.com/b?sig=1"
        assert got.name == "https://example.com/b"
        assert got.host == "example.com"
        assert got.headers == {"Authorization": BASIC}

    def test_the_port_is_part_of_the_host(self) -> None:
        """Unless it is the scheme's."""
        assert target("http://h:8080/").host == "h:8080"
        assert target("http://h:80/").host == "h"

    def test_names_beyond_ascii(self) -> None:
        """Go out as DNS knows them."""
        assert target("http://bücher.example/ä").url == "http://xn--bcher-kva.example/%C3%A4"

    @pytest.mark.parametrize(
        "url", ["http://u:secret@h:99999/", "secret", "http://", "http://[::1"]
    )
    def test_malformed_urls(self, url: str) -> None:
        """Are refused without being repeated."""
        with pytest.raises(InvalidRequest, match="malformed") as caught:
            target(url)
        assert "secret" not in str(caught.value)

    @pytest.mark.parametrize("url", ["http://h/\r\nX: 1", "http://h/\x00", "http://h/\x7f"])
    def test_control_characters(self, url: str) -> None:
        """Never reach a request line."""
        with pytest.raises(InvalidRequest, match="control characters"):
            target(url)


class TestHeaders:
    """The caller's headers go first."""

    def test_some_are_never_forwarded(self) -> None:
        """Whatever their case, and those that Connection names."""
        headers = {
            "rAnGe": "bytes=0-1",
            "Host": "other",
            "Connection": "close, X-Hop",
            "X-Hop": "1",
            "Transfer-Encoding": "chunked",
            "Content-Length": "5",
            "TE": "trailers",
            "Upgrade": "h2c",
            "Proxy-Authorization": "Basic x",
            "Expect": "100-continue",
            "X-Mine": "2",
        }
        assert first_target("http://h/", headers, defaults={}).headers == {"X-Mine": "2"}

    def test_defaults_fill_gaps_only(self) -> None:
        """By name, whatever its case; they too are checked."""
        got = first_target(
            "http://h/", {"user-agent": "mine"}, defaults={"User-Agent": "ours", "X-Y": "1"}
        )
        assert got.headers == {"user-agent": "mine", "X-Y": "1"}
        with pytest.raises(InvalidRequest):
            first_target("http://h/", {}, defaults={"X-Y": "1\n2"})

    def test_an_explicit_authorization_wins(self) -> None:
        """Over the URL's credentials, which win over a default."""
        url = "http://us%20er:p%3Aw@h/"
        assert target(url, authorization="Bearer t").headers == {"authorization": "Bearer t"}
        got = first_target(url, {}, defaults={"Authorization": "Bearer d"})
        assert got.headers == {"Authorization": BASIC}

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("X", "secret\r\nY: 1"),
            ("X", "secret\n"),
            ("X", "secret\x00"),
            ("X", "secret€"),
            ("X\r\nY", "secret"),
            ("X Y", "secret"),
            ("X:", "secret"),
            ("", "secret"),
        ],
    )
    def test_injection(self, name: str, value: str) -> None:
        """Is refused; the value is not repeated."""
        with pytest.raises(InvalidRequest, match="cannot be sent") as caught:
            first_target("http://h/", {name: value}, defaults={})
        assert "secret" not in str(caught.value)

    def test_latin_1_is_fine(self) -> None:
        """Old, but HTTP."""
        assert target(X="é\t").headers == {"X": "é\t"}


class TestRedirects:
    """Credentials stay where they belong."""

    SECRETS = ("Authorization", "Cookie", "Cookie2", "WWW-Authenticate")
    KEYS = ("X-Amz-Security-Token", "X-Api-Key", "Private-Token", "X-Goog-User-Project", "Referer")
    HARMLESS: ClassVar = {
        "Accept": "a/b",
        "accept-encoding": "gzip",
        "Accept-Language": "de",
        "User-Agent": "x",
        "Cache-Control": "no-cache",
    }

    @pytest.mark.parametrize("location", ["/c", "c", "?r=2", "https://h/c", "//h:443/c"])
    def test_within_an_origin(self, location: str) -> None:
        """They go along."""
        headers = dict.fromkeys(self.SECRETS, "s")
        got = first_target("https://h/a/b", headers, defaults={}).redirected(location)
        assert got.headers == headers

    @pytest.mark.parametrize(
        "location", ["https://other/c", "https://h:444/c", "http://h/c", "http://h:443/c", "//o/"]
    )
    def test_to_another(self, location: str) -> None:
        """What may be one stays behind when scheme, host or port differ: all but a few headers."""
        headers = dict.fromkeys([name.lower() for name in (*self.SECRETS, *self.KEYS)], "s")
        first = first_target("https://h/a/b", headers | self.HARMLESS, defaults={"X-Key": "s"})
        assert first.redirected(location).headers == self.HARMLESS

    def test_the_urls_own_credentials(self) -> None:
        """Are treated like a header's: within an origin they go along, to another they do not."""
        first = target("https://us%20er:p%3Aw@h/a")
        assert first.redirected("/b").headers == {"Authorization": BASIC}
        assert first.redirected("https://other/b").headers == {}

    def test_credentials_in_a_location(self) -> None:
        """Replace those we had, and do not stay in the URL."""
        got = target(authorization="Bearer t").redirected("https://us%20er:p%3Aw@other/c")
        assert (got.url, got.headers) == ("https://other/c", {"Authorization": BASIC})

    def test_is_resolved_against_the_url(self) -> None:
        """As browsers do it."""
        assert target("https://h/a/b?q").redirected("../c?d#e").url == "https://h/c?d"

    @pytest.mark.parametrize("location", ["/\xc3\xa4", "/%C3%A4", "/\xe4"])
    def test_beyond_ascii(self, location: str) -> None:
        """Is UTF-8 if it can be, as what HTTP libraries read as Latin-1 mostly was."""
        assert target().redirected(location).url == "https://h/%C3%A4"

    @pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://h/", "http://", "/a\r\nb"])
    def test_to_nowhere(self, location: str) -> None:
        """Is the origin's failure, and names who redirected."""
        with pytest.raises(OriginError) as caught:
            target().redirected(location)
        assert str(caught.value) == "https://h/a/b redirects to what is no http or https URL"
