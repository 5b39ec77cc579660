"""model/urls.py."""

from __future__ import annotations

import re

import ada_url
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pantala.model.urls import fault_of, public_url


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("https://origin.example/model.bin?sig=secret", "https://origin.example/model.bin"),
        ("https://u:secret@h:8443/a/b#secret", "https://h:8443/a/b"),
        ("http://h/@scope/x#secret", "http://h/@scope/x"),
        ("http://h?secret=b@c/d", "http://h"),
        ("http://u:secret@v:secret@h/", "http://h/"),
        ("http:u:secret@h/x", "http:h/x"),
        ("http:/u:secret@h/x", "http:/h/x"),
        ("http:///u:secret@h/x", "http:///h/x"),
        ("https:\\\\u:secret@h\\x@y", "https:\\\\h\\x@y"),
        ("ht\ttp://u:secret\n@h/x", "http://h/x"),
        (" http://u:secret@h/x?secret", "http://h/x"),
        ("s3://secret@bucket/key", "s3://bucket/key"),
        ("s3://u\\x:secret@bucket/key", "s3://bucket/key"),
        ("file:///a@b/c", "file:///a@b/c"),
        ("file://u:secret@h/c", "file://h/c"),
        ("http://u[secret@host/x", "http://host/x"),
        ("u:secret@h", "u:h"),
        ("secret@h/x", "h/x"),
        ("", ""),
        ("http://[::1]:80/x", "http://[::1]:80/x"),
        ("http://h?q=@", "http://h"),
        ("no url at all?secret", "no url at all"),
    ],
)
def test_public_url(url: str, shown: str) -> None:
    """Whatever is read as user, password, query or fragment is left out, and nothing fails."""
    assert "secret" not in shown
    assert public_url(url) == shown
    assert public_url(shown) == shown


@pytest.mark.parametrize("scheme", ["http", "HTTPS", "file", "s3"])
@pytest.mark.parametrize("slashes", ["", "/", "//", "///", "\\\\", "/\\"])
@pytest.mark.parametrize("user", ["u:secret", "secret", ":secret", "a@secret", "u%3Asecret"])
def test_what_is_read_as_a_password_is_not_shown(scheme: str, slashes: str, user: str) -> None:
    """As the parser reads a URL that we are given."""
    url = f"{scheme}:{slashes}{user}@h/x"
    parsed = ada_url.URL(url) if ada_url.check_url(url) else None
    if parsed is None or "secret" in parsed.username + parsed.password:
        assert "secret" not in public_url(url)
    if parsed is not None:
        assert ada_url.check_url(public_url(url))


@given(st.text(alphabet=st.sampled_from("htp:/[]@?#%\\ u\ud800\x00é"), max_size=30))
def test_whatever_is_held_can_be_told(text: str) -> None:
    """No text at all makes it raise: it stands in a loop that tells of all that is held."""
    for url in (text, f"http://{text}"):
        assert not {"?", "#"} & set(public_url(url))
        authority = re.split(r"[/\\]", public_url(url).partition("://")[2])[0]
        assert "@" not in authority


@given(
    st.text("htps:/@[]?#\\.1a9 \t", max_size=24)
    | st.from_regex(r"https?://[a-z:@0-9\[\]/?]*", fullmatch=True)
)
@settings(max_examples=300)
def test_no_fault_is_found_with_what_can_be_fetched(text: str) -> None:
    """What the rules take for a URL with a host that was written as one has no fault."""
    fault = fault_of(text)
    if fault is None or not text.startswith(("http://", "https://")):
        return
    if fault == "it names no host":
        assert not ada_url.check_url(text) or re.match(r"https?://[\s]*([/\\]|[^/\\?#]*@)", text)
    else:
        assert not ada_url.check_url(text), fault
