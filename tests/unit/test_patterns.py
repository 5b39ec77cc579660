"""Patterns find what Python's find, and take their time from no text."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pantala.core.patterns import Pattern

#: What both languages write alike, over an alphabet in which much is found.
ATOMS = st.sampled_from(
    (
        *("a", "b", "/", ".", "[ab]", "[^a]", r"\d", r"\W", r"\/", "[a-b/]", r"[\d/]", r"[^\w]"),
        *(r"\x61", "^", "$", r"\A", "[b-]", "[]a]", "(?i:A)", "(?s:.)"),
    )
)
PATTERNS = st.recursive(
    ATOMS,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: f"(?:{'|'.join(parts)})"),
        st.builds(
            "(?:{}){}".format,
            inner,
            st.sampled_from(["*", "+", "?", "*?", "+?", "{2}", "{1,}", "{0,2}", "{2,3}?", "{0}"]),
        ),
    ),
    max_leaves=8,
)


@given(PATTERNS, st.text("abAB/1 _é\n", max_size=8))
def test_as_python_has_it(pattern: str, text: str) -> None:
    """But that there ``$`` is before a last newline, too, and characters of all scripts count."""
    theirs = re.compile(re.sub(r"(?<!\\)\$", r"\\Z", pattern), re.ASCII)
    assert Pattern(pattern).found_in(text) is (theirs.search(text) is not None)


@pytest.mark.parametrize(
    ("pattern", "fits", "fits_not"),
    [
        (r"^https?://[^/]+\.example/.*\.(bin|pt)$", "http://a.example/b/c.pt", "http://a/c.pt"),
        ("(?i)/PRIVATE/", "http://x/Private/y", "http://x/privat/y"),
        ("a(?i)b", "aB", "AB"),
        ("a(?i:b)c", "aBc", "aBC"),
        ("(?i)a(?-i)b", "Ab", "AB"),
        ("(?P<year>20[0-9]{2})", "/2031/", "/201/"),
        ("[[:xdigit:]]{4}", "//0fA9", "//0fAg"),
        ("[[:^digit:]]x", "ax", "1x"),
        (r"[^\D]", "a1", "ab"),
        ("x{,2}", "x{,2}", "xx"),
        ("x{1", "x{1", "x"),
        (r"\x{1F600}", "\U0001f600", "a"),
        (r"end\z", "the end", "the end\n"),
        ("a.b", "a-b", "a\nb"),
        ("(?s)a.b", "a\nb", "a"),
        ("^^a", "ab", "ba"),
        ("(^|/)a$$", "b/a", "ba"),
        (r"\t[\]\-]", "\t]", "\tx"),
    ],
)
def test_what_is_written_so(pattern: str, fits: str, fits_not: str) -> None:
    """By the rules of RE2, where Python's are others."""
    assert Pattern(pattern).found_in(fits)
    assert not Pattern(pattern).found_in(fits_not)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(a", "missing ): (a"),
        ("[a", "missing ]: [a"),
        ("*a", "no argument for repetition operator: *"),
        ("(?=a)", "invalid perl operator: (?="),
        (r"(a)\1", r"invalid escape sequence: \1"),
        ("a{1001}", "invalid repetition size: {1001}"),
        ("((a{100}){100}){100}", "invalid repetition size: {100}"),
        ("a" * 200_000, "pattern too large"),
        ("(" * 2000, "missing ): ((((("),
    ],
)
def test_what_is_refused(pattern: str, why: str) -> None:
    """In words, few of them, and at once."""
    with pytest.raises(ValueError, match=re.escape(why)) as caught:
        Pattern(pattern)
    assert len(str(caught.value)) <= 100


@given(st.text(alphabet=st.sampled_from(r"ab(|)*+?{}[]^$\-:,12dPi<=!"), max_size=20))
def test_anything_is_taken_or_refused(pattern: str) -> None:
    """Nothing else comes of it."""
    try:
        found = Pattern(pattern)
    except ValueError:
        return
    found.found_in("ab12-")


@pytest.mark.parametrize("pattern", ["(a+)+$", ".*a.*a.*a.*b", "(a|a)*b", "(a*)*b", "a{0,200}b"])
def test_no_text_takes_long(pattern: str) -> None:
    """Python's own would take longer than anybody lives."""
    text = "a" * 16384 + "c"
    began = time.process_time()
    assert not Pattern(pattern).found_in(text)
    assert time.process_time() - began < 2.0


def test_in_what_is_no_text() -> None:
    """A program of this machine may send anything: no pattern fails of it."""
    assert Pattern("b+$").found_in("a\ud800b")
    assert not Pattern("^b").found_in("a\ud800b")
