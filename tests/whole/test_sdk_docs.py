"""docs/sdk.md and the README: the Python that they show is run, in its order, as one program."""

from __future__ import annotations

import hashlib
import json
import os
import random
import re
import subprocess
import sys
import zipfile
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from pantala.testing.cluster import Cluster
from pantala.testing.origin import Origin

ROOT = Path(__file__).parents[2]
MODEL = random.Random(5).randbytes(2 * 1024 * 1024)


def snippets(document: str) -> str:
    """All of a document's Python, each line where it stands there."""
    lines, inside = [], False
    for line in (ROOT / document).read_text("utf-8").splitlines():
        fence = line.startswith("```")
        lines.append(line if inside and not fence else "")
        inside = not inside and line == "```python" if fence else inside
    return "\n".join(lines)


@pytest.mark.parametrize("document", ["docs/sdk.md", "README.md"])
def test_snippets(document: str, cluster: Cluster, origin: Origin, tmp_path: Path) -> None:
    """In a program that has nothing but a daemon."""
    archive = BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        packed.writestr("a", MODEL)
    origin.put("/model.bin", MODEL)
    origin.put("/data.zip", archive.getvalue())
    names = ("model.layers.3.up", "lm_head.weight", "model.norm.weight")
    tensors = {name: np.arange(9, dtype=np.float32) for name in names}
    index = {"weight_map": dict.fromkeys(names, "model.safetensors")}
    origin.put("/model.safetensors", save(tensors, {"format": "np"}))
    origin.put("/model.safetensors.index.json", json.dumps(index).encode())
    node = cluster.daemon("a")
    program = snippets(document)
    assert program.count("pantala.") > (20 if document == "docs/sdk.md" else 0)
    for shown, real in (
        ("https://host", origin.url("")),
        ("/run/dragonfly/dfdaemon.sock", str(node.socket)),
        ("DIGEST", hashlib.sha256(MODEL).hexdigest()),
    ):
        program = program.replace(shown, real)
    path = tmp_path / "program.py"
    path.write_text(program)
    ran = subprocess.run(
        [sys.executable, "-W", "error", str(path)],
        env={**os.environ, "PANTALA_ENDPOINT": str(node.socket)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    where = re.sub(r'".*program.py"', document, ran.stderr)
    assert ran.returncode == 0, f"{where}\n{ran.stdout}"
    assert not ran.stderr
    if document == "docs/sdk.md":
        assert f"{len(MODEL)}" in ran.stdout
        assert "404 False" in ran.stdout
        assert (tmp_path / "model.bin").read_bytes() == MODEL
