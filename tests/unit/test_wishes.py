"""What is wanted of a cluster is read the same way from a file and from a manager."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from pantala.errors import ConfigError
from pantala.model.cluster import (
    Application,
    ClusterWishes,
    UrlPriority,
)
from pantala.scheduler.wishes import read_wishes

FILE = """
applications:
  - id: 7
    name: training
    url: http://training.example
    bio: models and data
    priority:
      value: 3
      urls:
        - {regex: "/private/", value: 1}
        - {regex: "blobs?$", value: LEVEL6}
  - name: other
schedulerClusterConfig: {candidateParentLimit: 4, filterParentLimit: 20, jobRateLimit: 10}
schedulerClusterClientConfig:
  loadLimit: 50
  blockList:
    task: {download: {applications: [a], urls: [u], tags: [t], priorities: [1, 2]}}
    cacheTask: {download: {tags: [c]}}
    persistentTask: {upload: {urls: [p]}}
    persistentCacheTask: {upload: {tags: [q]}, download: {}}
seedPeerClusterConfig: {loadLimit: 300}
"""

#: The same from a manager: two messages, and JSON within them.
MANAGER = {
    "applications": [
        {
            "id": "7",
            "name": "training",
            "url": "http://training.example",
            "bio": "models and data",
            "priority": {
                "value": 3,
                "urls": [{"regex": "/private/", "value": 1}, {"regex": "blobs?$", "value": 6}],
            },
        },
        {"id": 0, "name": "other", "url": "", "bio": "", "priority": None},
    ],
    "scheduler_cluster_config": json.loads(
        '{"candidate_parent_limit": 4, "filter_parent_limit": 20, "job_rate_limit": 10}'
    ),
    "scheduler_cluster_client_config": json.loads(
        """{"load_limit": 50, "block_list": {
            "task": {"download": {
                "applications": ["a"], "urls": ["u"], "tags": ["t"], "priorities": [1, 2]}},
            "cache_task": {"download": {"tags": ["c"], "urls": null}},
            "persistent_task": {"upload": {"urls": ["p"]}, "download": null},
            "persistent_cache_task": {"upload": {"tags": ["q"]}}}}"""
    ),
    "seed_peer_cluster_config": json.loads('{"load_limit": 300, "block_list": null}'),
}

WANTED = ClusterWishes(
    applications=(
        Application(
            "training",
            7,
            "http://training.example",
            "models and data",
            3,
            (UrlPriority("/private/", 1), UrlPriority("blobs?$", 6)),
        ),
        Application("other"),
    ),
    candidate_parent_limit=4,
    filter_parent_limit=20,
    job_rate_limit=10,
    load_limit=50,
    seed_load_limit=300,
)


@pytest.mark.parametrize("tree", [yaml.safe_load(FILE), MANAGER], ids=["file", "manager"])
def test_both_forms_mean_the_same(tree: dict[str, Any]) -> None:
    """Down to the last key."""
    assert read_wishes(tree, "here") == (WANTED, ())


def test_nothing_is_wanted() -> None:
    """Then the scheduler's own settings count; a limit of 0 is one that nobody has set."""
    assert read_wishes({}, "here") == (ClusterWishes(), ())
    tree = {"schedulerClusterConfig": {"candidateParentLimit": 0, "jobRateLimit": 0}}
    assert read_wishes(tree, "here") == (ClusterWishes(), ())


def test_unknown_keys_are_told_and_left_out() -> None:
    """A daemon's file may be the same one, and a manager may be newer."""
    tree = {
        "scheduler": {"addr": "s:8002"},
        "clientConfig": {"blockList": {}},
        "applications": [{"name": "a", "priority": {"value": 2, "urls": [{"regex": "x", "y": 1}]}}],
        "seedPeerClusterConfig": {"loadLimit": 5, "new": 1},
    }
    wanted, unknown = read_wishes(tree, "here")
    assert wanted.seed_load_limit == 5
    assert wanted.applications == (Application("a", priority=2, urls=(UrlPriority("x", 0),)),)
    assert unknown == (
        "scheduler",
        "clientConfig",
        "applications[0].priority.urls[0].y",
        "seedPeerClusterConfig.new",
    )


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("applications: {a: 1}", "applications: expected a list"),
        ("applications: [3]", "applications[0] = 3: expected a section, that is, keys of its own"),
        ("applications: [{id: 3}]", "applications[0].name: is missing"),
        (
            "applications: [{name: a}, {name: b, priority: {value: 7}}]",
            "applications[1].priority.value = 7: expected less than or equal to 6",
        ),
        (
            "applications: [{name: a, priority: {urls: [{regex: x, value: LEVEL9}]}}]",
            "applications[0].priority.urls[0].value = 'LEVEL9': expected less than or equal to 6",
        ),
        ("schedulerClusterConfig: 5", "schedulerClusterConfig = 5: expected a section"),
        (
            "scheduler_cluster_config: {candidate_parent_limit: 21}",
            "schedulerClusterConfig.candidateParentLimit = 21: expected less than or equal to 20",
        ),
        ("schedulerClusterConfig: {filterParentLimit: 9}", "filterParentLimit = 9"),
        ("schedulerClusterConfig: {candidateParentLimit: false}", "= False: expected a valid"),
        ("schedulerClusterClientConfig: {loadLimit: 2001}", "loadLimit = 2001"),
        ("seedPeerClusterConfig: {loadLimit: 50001}", "loadLimit = 50001"),
        ("seedPeerClusterConfig: {loadLimit: '5'}", "loadLimit = '5': expected a valid integer"),
        (
            "seedPeerClusterConfig: {loadLimit: 5, load_limit: 6}",
            "key seedPeerClusterConfig.loadLimit appears twice, once as load_limit",
        ),
        (
            "seedPeerClusterConfig: {blockList: {task: {download: {priorities: [7]}}}}",
            "block_list.task.download.priorities: expected 0 to 6, not 7",
        ),
    ],
)
def test_what_makes_no_sense(text: str, line: str) -> None:
    """One line names where it is from, the key, and the value."""
    with pytest.raises(ConfigError) as refused:
        read_wishes(yaml.safe_load(text), "here")
    (said,) = str(refused.value).splitlines()
    assert said.startswith("here: ")
    assert line in said
