"""Help: the table of commands as text."""

from __future__ import annotations

from rkt_py.runtime.cli import commands
from rkt_py.runtime.cli.options import PROGRAM, Command, Invocation, Option, format_duration, match
from rkt_py.runtime.errors import UsageError

WIDTH = 80
INDENT = 2
FLAGS_WIDTH = 30  # of the column of flags; a longer flag has its line to itself


def help(invocation: Invocation) -> int:
    """`rkt-py help [COMMAND]`."""
    print(render(find(invocation.args)), end="")
    return 0


def find(words: tuple[str, ...]) -> Command | None:
    """Find the command of these words, as they may be written on a command line; None: of no words."""
    found: Command | None = None
    for word in words:
        if found is not None and found.run:
            raise UsageError(f'"{PROGRAM} {found.name}" has no command "{word}"')
        found = match(word, commands.COMMANDS, found.path if found is not None else ())
    return found


def render(command: Command | None) -> str:
    """Write the help of a command, or with None of the program, for 80 columns."""
    return "\n".join(_program() if command is None else _command(command))


def _program() -> list[str]:
    return [
        *_section("NAME", f"{PROGRAM} - run signed app container images, in pods, without a daemon"),
        *_section("USAGE", f"{PROGRAM} [GLOBAL OPTIONS] COMMAND [OPTIONS] [ARGUMENTS...]"),
        *_commands(()),
        *_options("GLOBAL OPTIONS", commands.global_options()),
        f'Run "{PROGRAM} help COMMAND" for the options of a command.\n',
    ]


def _command(command: Command) -> list[str]:
    options = command.options()
    return [
        *_section("NAME", f"{PROGRAM} {command.name} - {command.summary}"),
        *_section("USAGE", f"{PROGRAM} {command.name} {command.usage}".rstrip()),
        *_section("DESCRIPTION", command.description),
        *([] if command.run else _commands(command.path)),
        *_options("OPTIONS", tuple(option for option in options if not option.per_app)),
        *_options("APP OPTIONS", tuple(option for option in options if option.per_app)),
        *_options("GLOBAL OPTIONS", commands.global_options()),
    ]


def _section(title: str, text: str) -> list[str]:
    if not text:
        return []
    lines = [line for paragraph in text.split("\n\n") for line in (*_wrap(paragraph, WIDTH - INDENT), "")]
    return [f"{title}:", *(" " * INDENT + line if line else "" for line in lines)]


def _commands(path: tuple[str, ...]) -> list[str]:
    children = [command for command in commands.COMMANDS if command.path[:-1] == path]
    width = max(len(command.path[-1]) for command in children) + 2
    lines = [f"{' ' * INDENT}{command.path[-1]:{width}}{command.summary}" for command in children]
    return ["COMMANDS:", *lines, ""]


def _options(title: str, options: tuple[Option, ...]) -> list[str]:
    lines = [
        line
        for option in sorted(options, key=lambda option: option.name)
        if not option.hidden
        for line in _option(option)
    ]
    return [f"{title}:", *lines, ""] if lines else []


def _option(option: Option) -> list[str]:
    short = f"-{option.short}, " if option.short else "    "
    metavar = f"={option.metavar}" if option.metavar else ""
    if metavar and option.bare is not None:
        metavar = f"[{metavar}]"
    flag = f"{' ' * INDENT}{short}--{option.name}{metavar}"
    default = _default(option)
    text = f"{option.help} (default {default})" if default else option.help
    lines = [" " * FLAGS_WIDTH + line for line in _wrap(text, WIDTH - FLAGS_WIDTH)]
    if len(flag) + 2 > FLAGS_WIDTH:
        return [flag, *lines]
    return [flag.ljust(FLAGS_WIDTH) + lines[0].lstrip(), *lines[1:]]


def _default(option: Option) -> str:
    if option.kind == "duration":
        assert type(option.default) is int
        return format_duration(option.default)
    if option.kind == "bool":
        return "true" if option.default else ""
    if isinstance(option.default, tuple):
        return ",".join(str(word) for word in option.default)
    return "" if option.default is None else str(option.default)


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] += f" {word}" if lines[-1] else word
    return lines
