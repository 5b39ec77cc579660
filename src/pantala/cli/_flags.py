"""What flags of several programs have in common: their types, and the environment behind them."""

from __future__ import annotations

import argparse
import sys

from pantala import BUILD_VERSION
from pantala.client.connection import socket_path
from pantala.errors import InvalidRequest

TYPE_CHECKING = False  # dfget has no time to import typing
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any, Final

_MAX_TIMEOUT: Final = 7 * 86400.0

_FALSE: Final = frozenset({"0", "false", "no", "off", "n", "f"})
_TRUE: Final = frozenset({"1", "true", "yes", "on", "y", "t"})


def truth(text: str) -> bool:
    """A word for true or false."""
    if text.lower() not in _FALSE | _TRUE:
        raise argparse.ArgumentTypeError(f"want true or false, not {text.lower()!r}")
    return text.lower() in _TRUE


class _Variable:
    """What the environment gives for a flag; looked at only where that is absent."""

    def __init__(self, name: str, text: str, type: Callable[[str], object]) -> None:
        self._name = name
        self._text = text
        self._type = type

    def read(self, parser: argparse.ArgumentParser) -> object:
        """The value; one that makes no sense is wrong usage."""
        try:
            return self._type(self._text)
        except argparse.ArgumentTypeError as error:
            parser.error(f"{self._name}: {error}")


class Flags:
    """Adds flags whose defaults may come from the environment. A flag beats a variable.

    Args:
        parser: To which they are added.
        environ: Environment variables. An empty one counts as unset.
        prefix: Of the variables: ``"DFGET_"``.
    """

    def __init__(
        self, parser: argparse.ArgumentParser, environ: Mapping[str, str], prefix: str
    ) -> None:
        self._parser = parser
        self._environ = {name: value for name, value in environ.items() if value}
        self._prefix = prefix

    def value(
        self,
        *flags: str,
        help: str,
        env: str | None = None,
        type: Callable[[str], object] = str,
        default: object = None,
        meta: str | None = None,
        required: bool = False,
    ) -> None:
        """A flag with a value; *env* is its variable's name without the prefix."""
        name = f"{self._prefix}{env}"
        if env and name in self._environ:
            default, required = _Variable(name, self._environ[name], type), False
        self._parser.add_argument(
            *flags, type=type, default=default, metavar=meta, help=help, required=required
        )

    def switch(self, flag: str, help: str, *, env: bool = True) -> None:
        """A flag without a value."""
        name = self._prefix + flag.removeprefix("--").replace("-", "_").upper()
        default: object = False
        if env and name in self._environ:
            default = _Variable(name, self._environ[name], truth)
        self._parser.add_argument(flag, action="store_true", default=default, help=help)

    def endpoint(self, default: str) -> None:
        """``--endpoint``, and its two variables."""
        self.value(
            "-e",
            "--endpoint",
            env=(
                "DFDAEMON_ENDPOINT"
                if f"{self._prefix}DFDAEMON_ENDPOINT" in self._environ
                else "ENDPOINT"
            ),
            type=endpoint,
            meta="SOCKET",
            help=f"the daemon's gRPC socket, default {default}",
        )

    def scheduler(self) -> None:
        """``--scheduler-endpoint``, and its variable."""
        self.value(
            "--scheduler-endpoint",
            env="SCHEDULER_ENDPOINT",
            type=_schedulers,
            meta="ADDRESS",
            required=True,
            help="host:port of a scheduler, or host:8002-8005 for those at each of these ports; "
            "several with commas; http:// before it is left out",
        )


def read_variables(parser: argparse.ArgumentParser, options: argparse.Namespace) -> None:
    """Put the values of variables into *options* where no flag was given."""
    for name, value in list(vars(options).items()):
        if isinstance(value, _Variable):
            setattr(options, name, value.read(parser))


class _PrintCompletion(argparse.Action):
    """Prints what a shell needs to complete the command line, and ends the program."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        del namespace, option_string
        from ._completion import script  # noqa: PLC0415  this is done once, and not when it matters

        sys.stdout.write(script(parser, values))
        parser.exit()


def program_parser(prog: str, description: str, **more: Any) -> argparse.ArgumentParser:
    """The command line of a program, with ``--version``, ``--print-completion`` and no more."""
    parser = argparse.ArgumentParser(
        prog=prog, description=description, formatter_class=formatter, allow_abbrev=False, **more
    )
    text = f"{prog} {BUILD_VERSION}"
    about = "show the version and exit"
    parser.add_argument("-V", "--version", action="version", version=text, help=about)
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=("bash", "zsh"),
        metavar="SHELL",
        default=argparse.SUPPRESS,
        help="print what bash or zsh needs to complete this command, and exit",
    )
    return parser


def formatter(prog: str) -> argparse.HelpFormatter:
    """How ``--help`` looks: examples stay as they are, and lines as wide on every terminal."""
    # argparse makes one for each flag; to learn the terminal's width it imports shutil, 3 ms.
    return argparse.RawDescriptionHelpFormatter(prog, width=90)


def text(text: str) -> str:
    """Text that can be sent."""
    if not is_utf8(text):
        raise argparse.ArgumentTypeError(f"{text!r}: want UTF-8")
    return text


def is_utf8(text: str) -> bool:
    """Whether *text* was UTF-8 when it was given to us: Python keeps other bytes as surrogates."""
    return not any("\ud800" <= c <= "\udfff" for c in text)


def output(text: str) -> str:
    """A file's name, or - for stdout."""
    if not text:
        raise argparse.ArgumentTypeError("'': want a file's name, or - for stdout")
    return text


def number(most: int) -> Callable[[str], int]:
    """The type of flags that take 1 to *most*, which is below a billion."""

    def number(text: str) -> int:
        # More digits than this are no number that anybody means, however many of them are zeros.
        if not (text.isascii() and text.isdigit() and len(text) < 10 and 1 <= int(text) <= most):
            raise argparse.ArgumentTypeError(f"{text[:50]!r}: want 1 to {most}")
        return int(text)

    return number


def piece_length(text: str) -> int:
    """Bytes of a piece, as the contract allows them."""
    from pantala.model.pieces import (  # noqa: PLC0415  few give it, all would pay
        MAX_PIECE_LENGTH,
        MIN_PIECE_LENGTH,
    )
    from pantala.model.units import parse_size  # noqa: PLC0415  few give it, all would pay

    try:
        length = parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not MIN_PIECE_LENGTH <= length <= MAX_PIECE_LENGTH:
        raise argparse.ArgumentTypeError(f"{text!r}: want 4MiB to 64MiB")
    return length


def duration(text: str) -> float:
    """Seconds, above 0 and at most a week, of a text such as ``90s`` or ``1h30m``.

    Raises:
        argparse.ArgumentTypeError: It is no duration, or out of these bounds.
    """
    from pantala.model.units import parse_duration  # noqa: PLC0415  few give it, all would pay

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    if not 0 < seconds <= _MAX_TIMEOUT:
        raise argparse.ArgumentTypeError(f"{text!r}: want more than 0 and at most 7days")
    return seconds


def endpoint(text: str) -> str:
    """The path of a socket."""
    try:
        return socket_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _schedulers(text: str) -> tuple[str, ...]:
    """The addresses of schedulers, as gRPC wants them."""
    from pantala.model.addresses import spread  # noqa: PLC0415  dfget has no such flag, and shall not wait

    found: list[str] = []
    for each in text.split(","):
        if each.startswith("https://"):
            raise argparse.ArgumentTypeError(f"{each!r}: TLS is not available yet")
        try:
            found += spread(each.strip().removeprefix("http://").removesuffix("/"))
        except ValueError as error:
            raise argparse.ArgumentTypeError(f"{each!r}: {error}") from error
    return tuple(dict.fromkeys(found))


def task_id(text: str) -> str:
    """*text*, if it may be the id of a task.

    Raises:
        argparse.ArgumentTypeError: Not exactly 64 lower-case hexadecimal digits.
    """
    from pantala.model.notation import check_task_id  # noqa: PLC0415  dfget has no such flag, and shall not wait

    try:
        return check_task_id(text)
    except InvalidRequest as error:
        raise argparse.ArgumentTypeError(str(error)) from error
