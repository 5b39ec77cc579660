"""Flags that ``dfdaemon`` and ``dfscheduler`` share, and how they say that one is wrong."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from pantala import BUILD_VERSION
from pantala.errors import DragonflyError, UsageError

Port = Annotated[int | None, typer.Option(metavar="PORT", help="0 lets the system choose.")]
Check = Annotated[
    bool, typer.Option("--check", help="Print the settings as JSON, and stop; strictly.")
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Refuse keys that are not known, instead of a warning.")
]


def version_flag(program: str) -> Any:
    """The flag that prints the version of *program* and ends it, whatever else was given."""

    def print_version(wanted: bool) -> None:  # noqa: FBT001  the signature of an option's callback
        if wanted:
            typer.echo(f"{program} {BUILD_VERSION}")
            raise typer.Exit

    return typer.Option(
        "--version", "-V", callback=print_version, is_eager=True, help="Print it, and stop."
    )


def tell_why(program: str, error: DragonflyError) -> int:
    """Say on standard error why *program* cannot run; the exit status that belongs to that."""
    for line in str(error).splitlines():
        typer.echo(f"{program}: {line}", err=True)
    return 2 if isinstance(error, UsageError) else 1
