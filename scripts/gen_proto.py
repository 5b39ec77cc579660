"""Write src/pantala/pb from proto/, or check that it is what proto/ would give.

    python scripts/gen_proto.py            write
    python scripts/gen_proto.py --check    exit 1, naming the files, where they differ

Needs the ``proto`` dependency group, whose pins decide what the generated code runs on.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = Path("pantala/pb")
TARGET = ROOT / "src" / PACKAGE


def generate() -> dict[str, bytes]:
    """The generated files, by name.

    Raises:
        subprocess.CalledProcessError: The compiler refused; it has said why.
    """
    protos = sorted((ROOT / "proto" / PACKAGE).glob("*.proto"))
    # The compiler looks for its plugins on the PATH, and they are installed beside Python.
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    with tempfile.TemporaryDirectory() as out:
        outputs = ("python_out", "grpc_python_out", "mypy_out", "mypy_grpc_out")
        subprocess.run(
            [
                sys.executable,
                *("-m", "grpc_tools.protoc", "-Iproto"),
                *(f"--{name}={out}" for name in outputs),
                *(str(proto.relative_to(ROOT)) for proto in protos),
            ],
            cwd=ROOT,
            env=os.environ | {"PATH": path},
            check=True,
        )
        empty = {f"{proto.stem}_pb2_grpc" for proto in protos if not _has_service(proto)}
        return {
            file.name: file.read_bytes()
            for file in (Path(out) / PACKAGE).iterdir()
            if file.stem not in empty
        }


def _has_service(proto: Path) -> bool:
    return any(line.startswith("service ") for line in proto.read_text().splitlines())


def present() -> dict[str, bytes]:
    """The generated files that are in the tree, by name."""
    return {file.name: file.read_bytes() for file in TARGET.glob("*_pb2*.py*")}


def write(wanted: dict[str, bytes]) -> None:
    """Make the tree hold *wanted* and nothing else that is generated."""
    for name in present().keys() - wanted.keys():
        (TARGET / name).unlink()
    for name, content in wanted.items():
        (TARGET / name).write_bytes(content)


def main() -> int:
    """Run as the module's docstring says."""
    parser = argparse.ArgumentParser(description="Generate src/pantala/pb from proto/.")
    parser.add_argument("--check", action="store_true", help="compare only; exit 1 on a difference")
    check: bool = parser.parse_args().check
    wanted, found = generate(), present()
    stale = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    done = "differs from proto/" if check else "brought up to date"
    for name in stale:
        print(f"{done}: {TARGET.relative_to(ROOT) / name}")
    if not check:
        write(wanted)
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main())
