"""What answers mean."""

from __future__ import annotations

import pytest
from urllib3 import HTTPHeaderDict

from pantala.errors import OriginError, RangeNotSatisfiable
from pantala.ports import SourceRequest
from pantala.sources.http_answer import Answer, Head, describe, version

WHOLE = SourceRequest("http://h/x")


def head(status: int, *headers: tuple[str, str], chunked: bool = False) -> Head:
    """A response's head."""
    return Head("http://h/x", status, HTTPHeaderDict(headers), chunked)


def part(content_range: str, *headers: tuple[str, str], chunked: bool = False) -> Head:
    """A 206."""
    return head(206, ("Content-Range", content_range), *headers, chunked=chunked)


def asked(start: int, length: int | None) -> SourceRequest:
    """A request with a range."""
    return SourceRequest("http://h/x", start=start, length=length)


class TestWhole:
    """A 200 is the whole content."""

    @pytest.mark.parametrize("request_", [WHOLE, asked(5, 5), asked(0, None)])
    def test_whatever_was_asked(self, request_: SourceRequest) -> None:
        """A range that was ignored shows."""
        got = head(200, ("Content-Length", "10"), ("ETag", '"a"')).accept(request_)
        assert got == Answer(
            total=10,
            start=0,
            length=10,
            ranged=False,
            version='etag:"a"',
            header={"ETag": '"a"', "Content-Length": "10"},
        )

    def test_without_a_length(self) -> None:
        """It ends when it ends."""
        got = head(200).accept(WHOLE)
        assert (got.total, got.length, got.header) == (None, None, {})

    def test_chunked(self) -> None:
        """Overrides a Content-Length, as RFC 9112 has it."""
        headers = [("Content-Length", "10"), ("Transfer-Encoding", "chunked")]
        got = head(200, *headers, chunked=True).accept(WHOLE)
        assert (got.total, got.length, got.header) == (None, None, {})

    @pytest.mark.parametrize("length", ["-5", "+5", "5_0", "0x5", "five", "5, 6", "5,"])
    def test_malformed_lengths(self, length: str) -> None:
        """Fail."""
        with pytest.raises(OriginError, match="Content-Length that is no number") as caught:
            head(200, ("Content-Length", length)).accept(WHOLE)
        assert not caught.value.transient

    @pytest.mark.parametrize("length", [str(2**62), "9" * 5000])
    def test_lengths_that_nothing_can_have(self, length: str) -> None:
        """Are numbers all the same, and the message is no longer than a line."""
        with pytest.raises(OriginError, match=r"that nothing can have, [0-9]{19,40}$"):
            head(200, ("Content-Length", length)).accept(WHOLE)

    def test_a_length_said_twice(self) -> None:
        """Is one length if it is the same."""
        twice = [("Content-Length", "5"), ("Content-Length", "5")]
        assert head(200, *twice).accept(WHOLE).total == 5

    def test_other_transfer_encodings(self) -> None:
        """Nobody asked for them."""
        with pytest.raises(OriginError, match="Transfer-Encoding"):
            head(200, ("Transfer-Encoding", "gzip, chunked")).accept(WHOLE)


class TestPart:
    """A 206 must be what was asked for."""

    @pytest.mark.parametrize(
        ("content_range", "start", "length", "total"),
        [
            ("bytes 5-9/100", 5, 5, 100),
            ("bytes 5-9/*", 5, 5, None),
            ("bytes 95-99/100", 95, 50, 100),
            ("bytes 95-99/100", 95, None, 100),
            ("bytes 0-0/1", 0, 1, 1),
        ],
    )
    def test_exactly_or_clipped_at_the_end(
        self, content_range: str, start: int, length: int | None, total: int | None
    ) -> None:
        """It carries start, length and total."""
        got = part(content_range).accept(asked(start, length))
        assert (got.start, got.total, got.ranged) == (start, total, True)
        assert got.header == ({} if total is None else {"Content-Length": str(total)})

    @pytest.mark.parametrize(
        ("content_range", "start", "length"),
        [
            ("bytes 4-9/100", 5, 5),
            ("bytes 5-8/100", 5, 5),
            ("bytes 5-10/100", 5, 5),
            ("bytes 5-8/*", 5, 5),
            ("bytes 5-99/*", 5, None),
            ("bytes 5-98/100", 5, None),
            ("bytes 5-10/11", 5, 5),
        ],
    )
    def test_anything_else(self, content_range: str, start: int, length: int | None) -> None:
        """Fails, saying what was asked and what came."""
        with pytest.raises(OriginError, match=r"answered with bytes \d+-\d+ to a request for 5-"):
            part(content_range).accept(asked(start, length))

    @pytest.mark.parametrize("content_range", ["", "bytes", "items 5-9/100", "bytes 9-5/100"])
    def test_malformed(self, content_range: str) -> None:
        """Fails."""
        with pytest.raises(OriginError, match="answered with a part, but: Content-Range"):
            part(content_range).accept(asked(5, 5))

    def test_a_body_of_another_length(self) -> None:
        """Two statements that disagree."""
        with pytest.raises(OriginError, match="another length than its Content-Range, 5"):
            part("bytes 5-9/100", ("Content-Length", "6")).accept(asked(5, 5))

    def test_chunked(self) -> None:
        """The range says how long it is."""
        assert part("bytes 5-9/100", chunked=True).accept(asked(5, 5)).length == 5

    def test_several_parts(self) -> None:
        """Nobody asked for them."""
        with pytest.raises(OriginError, match="several parts"):
            head(206, ("Content-Type", "multipart/byteranges; boundary=x")).accept(asked(5, 5))

    def test_unasked(self) -> None:
        """A part of what was to come whole."""
        with pytest.raises(OriginError, match="request for the whole"):
            part("bytes 0-9/10").accept(WHOLE)


class TestEncoding:
    """Content is encoded only for those who ask for that, by a header that names the task."""

    @pytest.mark.parametrize(
        ("accepted", "encoding"),
        [
            (None, ""),
            (None, "identity"),
            ("gzip", "gzip"),
            ("gzip", "x-gzip"),
            ("GZIP;q=0.5, br", "Br"),
            ("gzip, br", "gzip, br"),
            ("*", "zstd"),
            ("gzip", ""),
        ],
    )
    def test_asked_for(self, accepted: str | None, encoding: str) -> None:
        """Then it is what the origin says."""
        headers = {} if accepted is None else {"accept-Encoding": accepted}
        request = SourceRequest("http://h/x", headers)
        got = head(200, ("Content-Length", "5"), ("content-encoding", encoding)).accept(request)
        assert got.header["content-encoding"] == encoding

    @pytest.mark.parametrize(
        ("accepted", "encoding"),
        [
            (None, "gzip"),
            (None, "identity, gzip"),
            ("identity", "gzip"),
            ("br", "gzip"),
            ("gzip", "gzip, br"),
            ("gzip;q=0, br", "gzip"),
            ("gzip; Q=0.000", "gzip"),
        ],
    )
    @pytest.mark.parametrize("start", [None, 5])
    def test_not_asked_for(self, accepted: str | None, encoding: str, start: int | None) -> None:
        """Is refused, and the words say how to ask for it."""
        headers = {} if accepted is None else {"Accept-Encoding": accepted}
        length = None if start is None else 5
        request = SourceRequest("http://h/x", headers, start, length)
        answer = (
            head(200, ("Content-Encoding", encoding))
            if start is None
            else part("bytes 5-9/100", ("Content-Encoding", encoding))
        )
        with pytest.raises(OriginError, match=r"not asked for.*'Accept-Encoding: ") as caught:
            answer.accept(request)
        assert not caught.value.transient


class TestRefusal:
    """Other statuses mean no."""

    @pytest.mark.parametrize(
        ("status", "words", "transient"),
        [
            (404, "404 Not Found", False),
            (403, "403 Forbidden", False),
            (416, "416 Requested Range Not Satisfiable", False),
            (204, "204 No Content", False),
            (304, "304 Not Modified", False),
            (501, "501 Not Implemented", False),
            (799, "799", False),
            (408, "408 Request Timeout", True),
            (429, "429 Too Many Requests", True),
            (500, "500 Internal Server Error", True),
            (502, "502 Bad Gateway", True),
            (503, "503 Service Unavailable", True),
            (504, "504 Gateway Timeout", True),
        ],
    )
    def test_status(self, status: int, words: str, *, transient: bool) -> None:
        """Carried with its headers, and whether it may pass."""
        with pytest.raises(OriginError) as caught:
            head(status, ("X-Why", "z")).accept(WHOLE)
        error = caught.value
        assert (error.message, error.status, error.transient) == (words, status, transient)
        assert error.header == {"X-Why": "z"}

    def test_no_such_range(self) -> None:
        """Only where a range was asked for."""
        with pytest.raises(RangeNotSatisfiable, match="http://h/x has no bytes at 5"):
            head(416).accept(asked(5, 5))


class TestHeader:
    """Headers are kept as of a 200."""

    def test_what_is_not_kept(self) -> None:
        """What concerns the connection, the part, or one user."""
        got = part(
            "bytes 5-9/100",
            ("content-length", "5"),
            ("Connection", "keep-alive, X-Hop"),
            ("Keep-Alive", "timeout=5"),
            ("X-Hop", "1"),
            ("Set-Cookie", "session=1"),
            ("Location", "/?sig=1"),
            ("Content-Location", "/?sig=1"),
            ("Link", "</?sig=1>; rel=canonical"),
            ("Refresh", "0; url=/?sig=1"),
            ("Content-Language", "de"),
            ("Vary", "A"),
            ("vary", "B"),
        ).accept(asked(5, 5))
        assert got.header == {"Content-Language": "de", "Vary": "A, B", "Content-Length": "100"}

    def test_limits(self) -> None:
        """64 headers and 32 KiB, of which the length is always one."""
        many = head(200, *[(f"X-{i}", "v") for i in range(99)], ("Content-Length", "1"))
        large = head(200, *[(f"X-{i}", "v" * 10_000) for i in range(5)], ("Content-Length", "1"))
        assert len(many.accept(WHOLE).header) == 64
        assert list(large.accept(WHOLE).header) == ["X-0", "X-1", "X-2", "Content-Length"]

    @pytest.mark.parametrize(
        ("headers", "want"),
        [
            ({"ETag": '"a"', "Last-Modified": "then"}, 'etag:"a"'),
            ({"ETag": 'W/"a"', "Last-Modified": "then"}, 'weak:W/"a"'),
            ({"Last-Modified": "then"}, "last-modified:then"),
            ({"ETag": " "}, ""),
            ({}, ""),
        ],
    )
    def test_version(self, headers: dict[str, str], want: str) -> None:
        """Strong tag, weak tag, date, nothing: never equal to each other."""
        assert version(headers) == want

    def test_describe_knows_the_words(self) -> None:
        """The origin's own are not trusted."""
        assert describe(404) == "404 Not Found"
