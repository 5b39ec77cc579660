"""``python -m pantala.sim SCENARIO``: run a scenario, and print what came of it."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import gc
import inspect
import json
import re
import sys
from pathlib import Path
from typing import Any, Final

from pantala.errors import ConfigError

from .plot import svg
from .report import lines, report
from .run import run
from .scenario import SCENARIOS, Scenario, read
from .swarm import written

#: Over several lines, each of which begins and ends where it does.
_TEXT: Final = re.DOTALL | re.MULTILINE


def main(words: list[str] | None = None) -> int:
    """Run what the command line says. Returns the exit status.

    That is 1 when an invariant did not hold, or somebody has not finished, and 2 when the scenario
    makes no sense.
    """
    options = vars(_parser().parse_args(words))
    name, as_json = options.pop("scenario"), options.pop("json")
    drawing, transcript = options.pop("svg"), options.pop("transcript")
    changes = {key: value for key, value in options.items() if value is not None}
    try:
        scenario = read(name, changes)
        with _file(transcript) as file:
            gc.disable()  # nothing in it is garbage before its end, and there is much of it
            outcome = run(scenario, None if file is None else lambda line: file.write(f"{line}\n"))
    except ConfigError as error:
        sys.stderr.write(f"sim: {error}\n")
        return 2
    found = report(outcome)
    if drawing is not None:
        drawing.write_text(svg(outcome.swarm, found))
    text = json.dumps(found.as_dict(), indent=2) if as_json else "\n".join(lines(found))
    sys.stdout.write(f"{text}\n")
    if not outcome.broken:
        return 0
    sys.stderr.write(f"sim: {outcome.broken}\n")
    sys.stderr.write(f"sim: again with {_again(name, changes, scenario)}; the last of it:\n")
    sys.stderr.writelines(f"{written(line)}\n" for line in outcome.swarm.lines)
    return 1


def _again(name: str, changes: dict[str, Any], scenario: Scenario) -> str:
    """The command that repeats a run."""
    said = {**changes, "seed": scenario.seed}
    flags = " ".join(f"--{key.replace('_', '-')} {value}" for key, value in said.items())
    return f"python -m pantala.sim {name} {flags}"


def _parser() -> argparse.ArgumentParser:
    names = ", ".join(sorted(path.stem for path in SCENARIOS.glob("*.json")))
    parser = argparse.ArgumentParser(
        prog="python -m pantala.sim",
        description="Runs a swarm on a virtual clock, by the code that decides in production.",
        epilog="The flags from --hosts on change fields of the scenario.",
    )
    parser.add_argument("scenario", help=f"{names}, or a JSON file")
    parser.add_argument("--json", action="store_true", help="print the figures as JSON")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="write a drawing of them")
    parser.add_argument("--transcript", type=Path, metavar="FILE", help="write what happened")
    for field, text in fields().items():
        flag = f"--{field.replace('_', '-')}"
        parser.add_argument(flag, metavar=field.upper(), help=text.replace("%", "%%"))
    return parser


def fields() -> dict[str, str]:
    """The fields of a scenario that have a flag, and what its docstring says of each."""
    said = re.findall(
        r"^    (\w[\w, ]*): (.+?)$(?=\n    \w|\Z)", inspect.getdoc(Scenario) or "", _TEXT
    )
    words = {name: " ".join(text.split()) for names, text in said for name in names.split(", ")}
    return {
        field.name: words.get(field.name, "")
        for field in dataclasses.fields(Scenario)
        if field.name not in ("name", "why", "mixed")
    }


def _file(path: Path | None) -> Any:
    """The file to write to, or None, in a ``with``."""
    if path is None:
        return contextlib.nullcontext()
    return path.open("w", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
