"""URLs find their source."""

from __future__ import annotations

import pytest

from pantala.errors import InvalidRequest
from pantala.sources.file import FileSource
from pantala.sources.registry import Registry

HTTP, FILE = FileSource(), FileSource()
REGISTRY = Registry({"http": HTTP, "https": HTTP, "file": FILE})


@pytest.mark.parametrize(
    ("url", "source"),
    [("http://h/x", HTTP), ("HTTPS://h/x", HTTP), ("file:///x", FILE), ("File:/x", FILE)],
)
def test_the_scheme_decides(url: str, source: FileSource) -> None:
    """In any case of letters."""
    assert REGISTRY.for_url(url) is source


@pytest.mark.parametrize(
    ("url", "what"),
    [("ftp://user:secret@h/x", "scheme 'ftp'"), ("/x", "no scheme"), ("", "no scheme")],
)
def test_others_are_refused(url: str, what: str) -> None:
    """Naming what is known, and no more of the URL than its scheme."""
    with pytest.raises(InvalidRequest) as caught:
        REGISTRY.for_url(url)
    assert str(caught.value) == (
        f"the URL has {what}; this daemon can fetch file://, http://, https://"
    )


def test_what_is_off_is_not_named() -> None:
    """It has its own word about that for whoever names it."""
    registry = Registry({"http": HTTP, "file": FILE}, off=("file",))
    with pytest.raises(InvalidRequest, match=r"this daemon can fetch http://$"):
        registry.for_url("ftp://h/x")
    assert registry.for_url("file:///x") is FILE


def test_repr_names_the_schemes() -> None:
    """For logs."""
    assert repr(REGISTRY) == "<Registry file http https>"
