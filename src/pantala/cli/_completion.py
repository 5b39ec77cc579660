"""What shells need to complete a command line, made from its parser: ``--print-completion``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Final, NamedTuple

_Commands: Final = argparse._SubParsersAction  # noqa: SLF001  it has no public name

#: What flags and arguments are called whose values are files.
_FILES: Final = frozenset({"FILE", "FILE|DIR", "DIR", "PATH", "SOCKET"})


class Command(NamedTuple):
    """A program, or one of its commands.

    Attributes:
        path: The words that name it, without the program's.
        parser: Its own.
        about: What it does, in a line.
    """

    path: tuple[str, ...]
    parser: argparse.ArgumentParser
    about: str

    @property
    def flags(self) -> list[argparse.Action]:
        """Those that it takes."""
        return [a for a in _actions(self.parser) if a.option_strings]

    @property
    def arguments(self) -> list[argparse.Action]:
        """What stands in its place, but for commands."""
        return [
            action
            for action in _actions(self.parser)
            if not action.option_strings and not isinstance(action, _Commands)
        ]

    @property
    def below(self) -> list[Command]:
        """The commands that it has itself."""
        all_below = commands(self.parser, self.path)
        return [each for each in all_below if len(each.path) == len(self.path) + 1]


def commands(
    parser: argparse.ArgumentParser, path: tuple[str, ...] = (), about: str = ""
) -> Iterator[Command]:
    """A program, and all that is below it."""
    yield Command(path, parser, about or parser.description or "")
    for action in _actions(parser):
        if isinstance(action, _Commands):
            helps = {each.dest: each.help or "" for each in action._choices_actions}  # noqa: SLF001  argparse shows them nowhere else
            for name, below in action.choices.items():
                yield from commands(below, (*path, name), helps.get(name, ""))


def script(parser: argparse.ArgumentParser, shell: str) -> str:
    """What *shell*, ``bash`` or ``zsh``, is to run."""
    return {"bash": _bash, "zsh": _zsh}[shell](parser)


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """All that it takes."""
    return parser._actions  # noqa: SLF001  argparse shows them nowhere else


def _takes_value(action: argparse.Action) -> bool:
    return action.nargs != 0


def _is_file(action: argparse.Action) -> bool:
    return action.metavar in _FILES


# -- bash --------------------------------------------------------------------------------------


def _bash(parser: argparse.ArgumentParser) -> str:
    found = list(commands(parser))
    paths = "|".join("/" + "/".join(each.path) for each in found if each.path)
    follow = (
        f'        case "$path/${{COMP_WORDS[i]}}" in {paths}) path+="/${{COMP_WORDS[i]}}" ;; esac\n'
        if paths
        else "        :\n"
    )
    return (
        f"# bash completion for {parser.prog}; made by: {parser.prog} --print-completion bash\n"
        f"_{parser.prog}() {{\n"
        '    local cur="${COMP_WORDS[COMP_CWORD]}" prev="${COMP_WORDS[COMP_CWORD-1]}"\n'
        '    local path="" words="" files="" i\n'
        "    COMPREPLY=()\n"
        "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
        f"{follow}"
        "    done\n"
        '    case "$path" in\n'
        f"{''.join(map(_bash_command, found))}"
        "    esac\n"
        "    if [[ -n $files && $cur != -* ]]; then\n"
        "        compopt -o filenames 2>/dev/null\n"
        '        mapfile -t COMPREPLY < <(compgen -f -- "$cur")\n'
        "    else\n"
        '        mapfile -t COMPREPLY < <(compgen -W "$words" -- "$cur")\n'
        "    fi\n"
        "}\n"
        f"complete -F _{parser.prog} {parser.prog}\n"
    )


def _bash_command(command: Command) -> str:
    """What is known of a command: its words, and the values of its flags."""
    below = command.below
    words = [
        *(each.path[-1] for each in below),
        *(o for flag in command.flags for o in flag.option_strings),
    ]
    files = "1" if any(map(_is_file, command.arguments)) else ""
    lines = [f'            words="{" ".join(words)}" files="{files}"']
    cases: dict[str, list[str]] = {}
    for flag in filter(_takes_value, command.flags):
        choices = " ".join(map(str, flag.choices or ()))
        value = f'words="{choices}" files="{"1" if _is_file(flag) else ""}"'
        cases.setdefault(value, []).extend(flag.option_strings)
    if cases:
        lines.append('            case "$prev" in')
        lines += (
            f"                {'|'.join(names)}) {value} ;;" for value, names in cases.items()
        )
        lines.append("            esac")
    place = "/" + "/".join(command.path) if command.path else ""
    return "\n".join([f'        "{place}")', *lines, "            ;;", ""])


# -- zsh ---------------------------------------------------------------------------------------


def _zsh(parser: argparse.ArgumentParser) -> str:
    functions = "".join(_zsh_function(parser.prog, each) for each in commands(parser))
    return (
        f"#compdef {parser.prog}\n"
        f"# made by: {parser.prog} --print-completion zsh\n"
        f'{functions}_{parser.prog} "$@"\n'
    )


def _zsh_function(prog: str, command: Command) -> str:
    name = "_".join((f"_{prog}", *command.path))
    specs = [spec for flag in command.flags for spec in _zsh_flag(flag)]
    specs += [_zsh_argument(each) for each in command.arguments]
    direct = command.below
    if not direct:
        body = " \\\n        ".join(["_arguments -s -S", *specs])
        return f"{name}() {{\n    {body}\n}}\n"
    specs += ["'1: :->command'", "'*:: :->rest'"]
    body = " \\\n        ".join(["_arguments -C -s -S", *specs])
    told = " ".join(_quoted(f"{each.path[-1]}:{_escaped(each.about)}") for each in direct)
    cases = "".join(
        f"            {each.path[-1]}) {'_'.join((f'_{prog}', *each.path))} ;;\n" for each in direct
    )
    return (
        f"{name}() {{\n    local state line\n    {body}\n"
        f'    case "$state" in\n'
        f"        command) local -a found; found=({told}); _describe command found ;;\n"
        f'        rest) case "$line[1]" in\n{cases}        esac ;;\n    esac\n}}\n'
    )


def _zsh_flag(flag: argparse.Action) -> Iterator[str]:
    """A specification for each of its spellings."""
    repeated = "*" if isinstance(flag, argparse._AppendAction) else ""  # noqa: SLF001  it has no public name
    others = (
        "" if repeated or len(flag.option_strings) < 2 else f"({' '.join(flag.option_strings)})"
    )
    about = _escaped((flag.help or "").replace("%%", "%"))
    value = (
        f":{_escaped(str(flag.metavar or 'VALUE'))}:{_values(flag)}" if _takes_value(flag) else ""
    )
    for option in flag.option_strings:
        yield _quoted(f"{others}{repeated}{option}[{about}]{value}")


def _zsh_argument(argument: argparse.Action) -> str:
    many = "*" if argument.nargs in ("*", "+") else ""
    return _quoted(f"{many}:{_escaped(str(argument.metavar))}:{_values(argument)}")


def _values(action: argparse.Action) -> str:
    if action.choices:
        return f"({' '.join(map(str, action.choices))})"
    return "_files" if _is_file(action) else ""


def _escaped(text: str) -> str:
    """*text* as it may stand within a specification."""
    return "".join(f"\\{c}" if c in "\\:[]" else c for c in text)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "'\\''") + "'"
