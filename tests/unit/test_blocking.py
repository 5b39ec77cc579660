"""core/blocking.py: what an operator has blocked, in either spelling, and what matches it."""

from __future__ import annotations

from typing import Any

import pytest

from pantala.core.blocking import LONGEST_URL, BlockLists, Deed, Subject, read
from pantala.model.task import Kind

KINDS = ("task", "persistent_task", "persistent_cache_task", "cache_task")


def blocking(kind: str = "task", deed: str = "download", **parts: object) -> BlockLists:
    """One list."""
    return read({"block_list": {kind: {deed: parts}}})


@pytest.mark.parametrize(
    ("parts", "subject", "expected"),
    [
        ({"applications": ["a"]}, Subject(application="a"), "applications"),
        ({"applications": ["a"]}, Subject(application="ab"), None),
        ({"applications": [""]}, Subject(), None),
        ({"tags": ["t"]}, Subject(tag="t"), "tags"),
        ({"tags": ["t"]}, Subject(application="t"), None),
        ({"priorities": [0, 3]}, Subject(priority=3), "priorities"),
        ({"priorities": ["LEVEL3"]}, Subject(priority=3), "priorities"),
        ({"priorities": [0]}, Subject(priority=0), "priorities"),
        ({"priorities": [0]}, Subject(), None),
        ({"urls": [r"\.iso$"]}, Subject("http://h/a.iso"), "urls"),
        ({"urls": [r"\.iso$"]}, Subject("http://h/a.iso?x"), None),
        ({"urls": ["x", "/b/"]}, Subject("http://h/b/c"), "urls"),
        ({"urls": ["zzz"]}, Subject("h" * LONGEST_URL), None),
        ({"urls": ["zzz"]}, Subject("h" * (LONGEST_URL + 1)), "urls"),
        ({"tags": ["t"]}, Subject("h" * (LONGEST_URL + 1)), None),
        ({}, Subject("u", "a", "t", 1), None),
    ],
)
def test_any_match_blocks(parts: dict[str, Any], subject: Subject, expected: str | None) -> None:
    """And it is said which part of the list it was."""
    found = blocking(**parts).match(Kind.STANDARD, Deed.DOWNLOAD, subject)
    assert found == (expected and f"block_list.task.download.{expected}")


@pytest.mark.parametrize(
    ("names", "kind", "deed"),
    [
        (("block_list", "task", "download"), Kind.STANDARD, Deed.DOWNLOAD),
        (("blockList", "cacheTask", "download"), Kind.CACHE, Deed.DOWNLOAD),
        (("block_list", "cache_task", "download"), Kind.CACHE, Deed.DOWNLOAD),
        (("blockList", "persistentCacheTask", "upload"), Kind.PERSISTENT_CACHE, Deed.UPLOAD),
        (("block_list", "persistent_cache_task", "download"), Kind.PERSISTENT_CACHE, Deed.DOWNLOAD),
        (("block_list", "persistent_task", "upload"), Kind.PERSISTENT, Deed.UPLOAD),
    ],
)
def test_both_spellings(names: tuple[str, str, str], kind: Kind, deed: Deed) -> None:
    """Each list is for one kind and one deed."""
    outer, middle, inner = names
    lists = read({outer: {middle: {inner: {"tags": ["t"]}}}, "load_limit": 3})
    assert lists.problems == ()
    blocked = {
        (k, d) for k in Kind for d in Deed if lists.match(k, d, Subject(tag="t")) is not None
    }
    assert blocked == {(kind, deed)}


@pytest.mark.parametrize(
    "config",
    [
        *(None, {}, {"block_list": None}, {"block_list": {"task": None}}),
        {"block_list": {"task": {"download": None}}},
        {"blockList": {"task": {"download": {"tags": None, "urls": None, "priorities": None}}}},
    ],
)
def test_nothing_blocked(config: object) -> None:
    """A manager writes null for what nobody has set."""
    lists = read(config)
    subject = Subject("u", "a", "t", 1)
    assert lists.match(Kind.STANDARD, Deed.DOWNLOAD, subject) is None
    assert lists.problems == ()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ([], "the configuration: expected keys"),
        ({"block_list": 3}, r"block_list: expected keys"),
        ({"block_list": {"task": {"download": []}}}, r"block_list\.task\.download: expected keys"),
        ({"block_list": {}, "blockList": {}}, "block_list appears twice"),
        ({"block_list": {"task": {"download": {"tags": "t"}}}}, r"download\.tags: expected a list"),
        ({"block_list": {"task": {"download": {"tags": [3]}}}}, r"expected texts, not 3"),
        ({"block_list": {"task": {"download": {"priorities": [7]}}}}, r"0 to 6, not 7"),
        ({"block_list": {"task": {"download": {"priorities": [True]}}}}, r"0 to 6, not True"),
        ({"block_list": {"task": {"download": {"tags": ["a"] * 1001}}}}, r"1001 entries"),
        (
            {"block_list": {"task": {"download": {"urls": ["a"] * 257}}}},
            "257 entries",
        ),
    ],
)
def test_what_makes_no_sense(config: object, words: str) -> None:
    """It is said where, so that what was known can hold."""
    with pytest.raises(ValueError, match=words):
        read(config)


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("(", "missing )"),
        ("((a{50}){50}){50}", "repetition"),
        (r"(a)\1", "invalid escape"),
    ],
)
def test_bad_patterns_are_left_out(pattern: str, why: str) -> None:
    """The others count; and it is said which one does not."""
    lists = blocking(urls=[pattern, "good"])
    (problem,) = lists.problems
    assert problem.startswith("block_list.task.download.urls: ")
    assert why in problem
    assert lists.match(Kind.STANDARD, Deed.DOWNLOAD, Subject("http://h/good")) is not None
    assert lists.match(Kind.STANDARD, Deed.DOWNLOAD, Subject("http://h/aaaa")) is None


def test_lists_of_nothing_are_told() -> None:
    """One that would never block anything is no list that its author should rely on."""
    config = {
        "block_list": {
            "tasks": {"download": {"tags": ["t"]}},
            "task": {"upload": {"tags": ["t"]}, "down": {}, "download": {"tag": ["t"]}},
            "persistent_cache_task": {"upload": {"priorities": [1]}},
        }
    }
    assert read(config).problems == (
        f"block_list.tasks: no such kind of task; want one of {', '.join(KINDS)}",
        "block_list.task.upload: there is nothing of that kind to upload",
        "block_list.task.down: want download or upload",
        "block_list.task.download.tag: unknown",
        "block_list.persistent_cache_task.upload.priorities: unknown",
    )


def test_equal_when_they_say_the_same() -> None:
    """So that a refresh that changes nothing is none."""
    assert blocking(urls=["x"], tags=["b", "a"]) == blocking(urls=["x"], tags=["a", "b"])
    assert blocking(urls=["x"]) != blocking(urls=["y"])
