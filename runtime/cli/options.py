"""Options: a command line to an Invocation, by the table in commands.py.

argparse takes longer to import than `rkt-py run` has, and cannot say that a flag belongs to the image
before it. The rules are those of rkt's own parser (pflag and cobra), so that people's scripts hold:

    --flag=value  --flag value  --bool  --bool=false  -f      anywhere, before or after the arguments
    --                                                        what follows are arguments
    run IMAGE --exec=/bin/sh -- ARGS... --- IMAGE ...         per-app flags and arguments follow their image
    im li                                                     a verb may be cut short while it is unique
"""

from __future__ import annotations

import os

from rkt_py.aci.value import value
from rkt_py.runtime.apprequest import AppRequest
from rkt_py.runtime.errors import UsageError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Literal

    from rkt_py.runtime.paths import Paths

    Kind = Literal[
        "bool", "string", "int", "duration", "wait", "list", "words", "ints", "pairs", "mounts", "directory"
    ]
    Answer = bool | str | int | tuple[str, ...] | tuple[int, ...] | tuple[tuple[str, str], ...] | None

PROGRAM = "rkt-py"
ENVIRONMENT_PREFIX = "RKT_PY_"

SECOND = 1_000_000_000
# Go's time.ParseDuration; both spellings of mu
UNITS = {
    "h": 3600 * SECOND,
    "m": 60 * SECOND,
    "s": SECOND,
    "ms": 10**6,
    "us": 10**3,
    "µs": 10**3,
    "μs": 10**3,
    "ns": 1,
}
TRUE = frozenset(("1", "t", "T", "TRUE", "true", "True"))
FALSE = frozenset(("0", "f", "F", "FALSE", "false", "False"))

INSECURE = ("image", "tls", "ondisk", "http", "pubkey", "capabilities", "paths", "seccomp")
INSECURE_GROUPS = {
    "none": (),
    "all-fetch": ("image", "tls", "http", "pubkey"),
    "all-run": ("capabilities", "paths", "seccomp"),
    "all": INSECURE,
}


@value
class Option:
    """A flag: `--name=METAVAR`.

    kind        its value in an Invocation
    bool        True or False
    string      str
    int         int, or None
    duration    nanoseconds
    wait        nanoseconds; -1 for ever, 0 not at all (a truth value or a duration on the command line)
    list        each time it is given, in order
    words       the same, each split at commas
    ints        the same, as numbers
    pairs       NAME=VALUE, as pairs
    mounts      volume=NAME,target=PATH, as pairs
    directory   str, made absolute
    """

    name: str
    metavar: str = ""
    help: str = ""
    default: Answer = None
    kind: Kind = "string"
    per_app: bool = False
    short: str = ""
    hidden: bool = False
    bare: str | None = None  # what a flag without a value means: `--net` is `--net=default`
    once: bool = False  # an error when given twice for the same image
    choices: tuple[str, ...] = ()


@value
class Command:
    """A verb. `options` is called only for the verb that was asked for; `run` is "module:function"."""

    path: tuple[str, ...]
    summary: str
    usage: str = ""
    description: str = ""
    options: Callable[[], tuple[Option, ...]] = tuple
    run: str = ""  # nothing: a group of verbs
    needs_root: bool = False
    min_args: int = 0
    max_args: int | None = 0
    instead: str = ""  # the option that may stand in for the arguments
    apps: bool = False  # its arguments are images, with per-app flags and `--`
    passthrough: int = 0  # from this argument on, everything is an argument (0: never)

    @property
    def name(self) -> str:
        return " ".join(self.path)


# Where an AppRequest field is not the flag's name with underscores.
FIELDS = {
    "mount": "mounts",
    "annotation": "annotations",
    "user-annotation": "user_annotations",
    "user-label": "user_labels",
}


@value
class Invocation:
    """A command line, understood."""

    command: Command
    answers: Mapping[str, Answer]  # every option of the verb and every global one, defaults filled in
    given: frozenset[str] = frozenset()  # the names of those that were on the command line
    args: tuple[str, ...] = ()
    apps: tuple[AppRequest, ...] = ()

    def flag(self, name: str) -> bool:
        answer = self.answers[name]
        assert isinstance(answer, bool), name
        return answer

    def string(self, name: str) -> str:
        answer = self.answers[name]
        assert isinstance(answer, str), name
        return answer

    def number(self, name: str) -> int | None:
        """An int; a duration or wait in nanoseconds."""
        answer = self.answers[name]
        assert answer is None or type(answer) is int, name
        return answer

    def duration(self, name: str) -> int:
        """Nanoseconds."""
        answer = self.answers[name]
        assert type(answer) is int, name
        return answer

    def strings(self, name: str) -> tuple[str, ...]:
        answer = self.answers[name]
        assert isinstance(answer, tuple), name
        return answer  # type: ignore[return-value]  # by its kind

    def pairs(self, name: str) -> tuple[tuple[str, str], ...]:
        answer = self.answers[name]
        assert isinstance(answer, tuple), name
        return answer  # type: ignore[return-value]  # by its kind

    @property
    def insecure(self) -> frozenset[str]:
        """What --insecure-options switches off, groups taken apart."""
        words = self.strings("insecure-options")
        return frozenset(word for given in words for word in INSECURE_GROUPS.get(given, (given,)))

    @property
    def paths(self) -> Paths:
        from rkt_py.runtime.paths import Paths

        return Paths(
            data=self.string("dir"),
            local_config=self.string("local-config"),
            system_config=self.string("system-config"),
        )


def parse(
    argv: Sequence[str],
    *,
    table: Sequence[Command] | None = None,
    global_options: tuple[Option, ...] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Invocation:
    """Understand a command line (without the program's name); `--help` becomes the verb `help`."""
    from rkt_py.runtime.cli import commands  # which imports this module

    table = commands.COMMANDS if table is None else table
    global_options = commands.global_options() if global_options is None else global_options
    command, tokens = _command(argv, table, {option.name: option for option in global_options})
    try:
        parser = _Parser(command, global_options, os.environ if environ is None else environ)
        invocation = parser.parse(tokens)
    except _Help:
        return _help(table, global_options, command)
    if not command.path:
        raise UsageError("missing command", exit_code=2)  # rkt's
    return invocation if command.run else _help(table, global_options, command)


# What is asked of the program itself, before any verb.
ROOT = Command((), "", max_args=None)


class _Help(Exception):
    """--help is on the command line."""


def _help(table: Sequence[Command], global_options: tuple[Option, ...], command: Command) -> Invocation:
    verb = next(verb for verb in table if verb.path == ("help",))
    return Invocation(verb, _defaults(global_options), args=command.path)


def _command(
    argv: Sequence[str], table: Sequence[Command], known: Mapping[str, Option]
) -> tuple[Command, list[str]]:
    """The verb, and everything but its words, in order."""
    tokens: list[str] = []
    found = ROOT
    index = 0
    while index < len(argv) and not found.run:
        token = argv[index]
        index += 1
        if token == "--":
            index -= 1
            break
        if not token.startswith("-") or token == "-":
            found = match(token, table, found.path)
            continue
        tokens.append(token)
        option = known.get(token[2:]) if token.startswith("--") else None
        if option is not None and _bare(option) is None:
            tokens.extend(argv[index : index + 1])
            index += 1
    tokens.extend(argv[index:])
    return found, tokens


def _children(table: Sequence[Command], path: tuple[str, ...]) -> list[Command]:
    return [command for command in table if command.path[:-1] == path]


def match(word: str, table: Sequence[Command], path: tuple[str, ...]) -> Command:
    """Find the verb a word means below a path: its name, or a beginning no other shares."""
    candidates = _children(table, path)
    for command in candidates:
        if command.path[-1] == word:
            return command
    matches = [command for command in candidates if word and command.path[-1].startswith(word)]
    if len(matches) == 1:
        return matches[0]
    where = " ".join((PROGRAM, *path))
    if matches:
        names = ", ".join(command.path[-1] for command in matches)
        raise UsageError(f'ambiguous command "{word}" for "{where}": {names}', path)
    near = _near(word, [command.path[-1] for command in candidates])
    raise UsageError(f'unknown command "{word}" for "{where}"{near}', path)


def _bare(option: Option) -> str | None:
    return "true" if option.kind == "bool" else option.bare


def _near(word: str, names: Iterable[str], dashes: str = "") -> str:
    import difflib

    close = difflib.get_close_matches(word, list(names), 1, 0.7)
    return f" (did you mean {dashes}{close[0]}?)" if close else ""


def _unknown_flag(name: str, options: Mapping[str, Option], path: tuple[str, ...]) -> UsageError:
    visible = [option.name for option in options.values() if not option.hidden]
    return UsageError(f"unknown flag: --{name}{_near(name, visible, '--')}", path)


_EMPTY: dict[str, Answer] = {
    "bool": False,
    "string": "",
    "int": None,
    "duration": 0,
    "wait": 0,
    "directory": "",
}


def _default(option: Option) -> Answer:
    return _EMPTY.get(option.kind, ()) if option.default is None else option.default


def _defaults(options: Iterable[Option]) -> dict[str, Answer]:
    return {option.name: _default(option) for option in options if not option.per_app}


class _Parser:
    def __init__(
        self, command: Command, global_options: tuple[Option, ...], environ: Mapping[str, str]
    ) -> None:
        self.command = command
        options = command.options()
        self.options = {option.name: option for option in (*options, *global_options)}
        self.shorts = {option.short: option for option in self.options.values() if option.short}
        self.answers = _defaults(self.options.values())
        self.given: set[str] = set()
        self.args: list[str] = []
        self.apps: list[dict[str, Answer]] = []
        self.mounts: tuple[tuple[str, str], ...] = ()
        for option in global_options:
            variable = ENVIRONMENT_PREFIX + option.name.upper().replace("-", "_")
            if environ.get(variable):
                self.answers[option.name] = self.convert(option, environ[variable], variable)

    def parse(self, tokens: Sequence[str]) -> Invocation:
        index = 0
        with_args = -1  # the app that had its `--`
        while index < len(tokens):
            token = tokens[index]
            index += 1
            if token == "--":
                if not self.command.apps:
                    self.args.extend(tokens[index:])
                    break
                if not self.apps:
                    raise self.error("an image is required before any app arguments")
                if with_args == len(self.apps):
                    raise self.error("only one set of app arguments allowed per image")
                with_args = len(self.apps)
                end = tokens.index("---", index) if "---" in tokens[index:] else len(tokens)
                self.apps[-1]["args"] = tuple(tokens[index:end])
                index = end + 1
            elif token == "---" and self.command.apps:
                continue  # as rkt: the end of no arguments
            elif token.startswith("--"):
                index = self.long(token, tokens, index)
            elif token.startswith("-") and token != "-":
                index = self.short(token, tokens, index)
            elif self.command.apps:
                self.apps.append({"image": token})
            else:
                self.args.append(token)
                if self.command.passthrough and len(self.args) >= self.command.passthrough:
                    self.args.extend(tokens[index:])
                    break
        self.check_count()
        return Invocation(
            self.command,
            self.answers,
            frozenset(self.given),
            tuple(self.args),
            tuple(self.app(fields) for fields in self.apps),
        )

    def long(self, token: str, tokens: Sequence[str], index: int) -> int:
        name, equals, text = token[2:].partition("=")
        option = self.options.get(name)
        if not name or name[0] in "-=":
            raise self.error(f"bad flag syntax: {token}")
        if token == "--help":
            raise _Help
        if option is None:
            raise _unknown_flag(name, self.options, self.command.path)
        if equals:
            self.set(option, text)
            return index
        return self.set_next(option, f"--{name}", tokens, index)

    def short(self, token: str, tokens: Sequence[str], index: int) -> int:
        letters = token[1:]
        for place, letter in enumerate(letters):
            option = self.shorts.get(letter)
            if option is None and letter == "h":
                raise _Help
            if option is None:
                raise self.error(f"unknown shorthand flag: '{letter}' in {token}")
            rest = letters[place + 1 :]
            if rest and (_bare(option) is None or rest.startswith("=")):
                self.set(option, rest.removeprefix("="))
                return index
            index = self.set_next(option, f"-{letter}", tokens, index)
        return index

    def set_next(self, option: Option, shown: str, tokens: Sequence[str], index: int) -> int:
        bare = _bare(option)
        if bare is not None:
            self.set(option, bare)
            return index
        if index == len(tokens):
            raise self.error(f"flag needs an argument: {shown}")
        self.set(option, tokens[index])
        return index + 1

    def set(self, option: Option, text: str) -> None:
        answer = self.convert(option, text, f"--{option.name}")
        first = option.name not in self.given
        self.given.add(option.name)
        if not option.per_app:
            before = () if first else self.answers[option.name]
            self.answers[option.name] = before + answer if isinstance(answer, tuple) else answer  # type: ignore[operator]
            return
        if not self.apps:
            if option.kind == "mounts":
                self.mounts += answer  # type: ignore[operator]
                return
            raise self.error(f"--{option.name} must follow an image")
        fields = self.apps[-1]
        name = FIELDS.get(option.name) or option.name.replace("-", "_")
        if option.once and name in fields:
            raise self.error(f"--{option.name} specified multiple times for the same image")
        fields[name] = fields.get(name, ()) + answer if isinstance(answer, tuple) else answer  # type: ignore[operator]

    def app(self, fields: dict[str, Answer]) -> AppRequest:
        own: tuple[tuple[str, str], ...] = fields.get("mounts", ())  # type: ignore[assignment]
        targets = {target for _, target in own}
        # An app's own mount goes before one for all apps at the same path.
        fields["mounts"] = tuple(mount for mount in self.mounts if mount[1] not in targets) + own
        return AppRequest(**fields)  # type: ignore[arg-type]

    def check_count(self) -> None:
        command = self.command
        if command.apps:
            return
        count = len(self.args)
        if command.instead and command.instead in self.given:
            if count:
                raise self.error(f"--{command.instead} stands in for the arguments, and there are {count}")
        elif count < command.min_args:
            also = f" or --{command.instead}" if command.instead else ""
            raise self.error(f'"{PROGRAM} {command.name}" needs {command.usage or "an argument"}{also}')
        elif command.max_args is not None and count > command.max_args:
            extra = self.args[command.max_args]
            raise self.error(f'"{PROGRAM} {command.name}" does not take so many arguments: "{extra}"')

    def error(self, message: str) -> UsageError:
        return UsageError(message, self.command.path)

    def convert(self, option: Option, text: str, shown: str) -> Answer:
        try:
            answer = _convert(option, text)
        except ValueError as why:
            raise self.error(f'invalid argument "{text}" for {shown}: {why}') from None
        if option.choices:
            for word in answer if isinstance(answer, tuple) else (answer,):
                if word not in option.choices:
                    allowed = ", ".join(filter(None, option.choices))
                    raise self.error(f'invalid argument "{word}" for {shown}: not one of {allowed}')
        return answer


def _convert(option: Option, text: str) -> Answer:
    kind = option.kind
    if kind == "string":
        return text
    if kind == "list":
        return (text,)
    if kind == "words":
        return tuple(text.split(","))
    if kind == "bool":
        return parse_bool(text)
    if kind == "int":
        return parse_int(text)
    if kind == "ints":
        return tuple(parse_int(word) for word in text.split(","))
    if kind == "pairs":
        return (_pair(text),)
    if kind == "mounts":
        return (_mount(text),)
    if kind == "duration":
        return parse_duration(text)
    if kind == "wait":
        if text in TRUE or not text:
            return -1
        return 0 if text in FALSE else parse_duration(text)
    assert kind == "directory", kind
    if not text:
        raise ValueError("not a directory")
    return os.path.abspath(text)


def _pair(text: str) -> tuple[str, str]:
    name, equals, what = text.partition("=")
    if not name or not equals:
        raise ValueError("not of the form NAME=VALUE")
    return name, what


def _mount(text: str) -> tuple[str, str]:
    fields: dict[str, str] = {}
    for part in text.split(","):
        key, _, what = part.partition("=")
        if key not in ("volume", "target"):
            raise ValueError(f'unknown mount parameter "{key}"')
        if key in fields:
            raise ValueError(f'"{key}" is there twice')
        fields[key] = what
    if not fields.get("volume") or not fields.get("target"):
        raise ValueError("not of the form volume=NAME,target=PATH")
    return fields["volume"], fields["target"]


def parse_bool(text: str) -> bool:
    """Read a truth value as Go's strconv does."""
    if text in TRUE:
        return True
    if text in FALSE:
        return False
    raise ValueError("not true or false")


def parse_int(text: str) -> int:
    """Read a decimal number: no spaces, underscores or digits of other scripts, which int() takes."""
    digits = text[1:] if text[:1] in ("-", "+") else text
    if not digits.isascii() or not digits.isdigit() or len(digits) > 19:
        raise ValueError("not a number")
    return int(text)


def parse_duration(text: str) -> int:
    """Read Go's durations ("30m", "1h30m", "1.5s", "0") as nanoseconds."""
    rest = text[1:] if text[:1] in ("-", "+") else text
    if rest == "0":
        return 0
    total = 0
    while rest:
        number_end = 0
        while number_end < len(rest) and rest[number_end] in "0123456789.":
            number_end += 1
        unit_end = number_end
        while unit_end < len(rest) and rest[unit_end] not in "0123456789.":
            unit_end += 1
        whole, point, fraction = rest[:number_end].partition(".")
        unit = UNITS.get(rest[number_end:unit_end])
        if unit is None or not (whole or fraction) or "." in fraction or len(whole) > 19:
            break
        total += int(whole or "0") * unit
        if fraction:
            total += int(fraction[:18]) * unit // 10 ** len(fraction[:18])
        rest = rest[unit_end:]
    if rest or not text.lstrip("+-"):
        raise ValueError('not a duration such as "30m", "1h30m" or "0"')
    if total >= 1 << 63:
        raise ValueError("longer than 292 years")
    return -total if text.startswith("-") else total


def format_duration(nanoseconds: int) -> str:
    """Write a duration as Go prints it: "30m0s", "1.5s", "250ms"."""
    sign = "-" if nanoseconds < 0 else ""
    left = abs(nanoseconds)
    if left == 0:
        return "0s"
    if left < SECOND:
        unit = "ms" if left >= 10**6 else "µs" if left >= 10**3 else "ns"
        return f"{sign}{_decimal(left, UNITS[unit])}{unit}"
    hours, left = divmod(left, UNITS["h"])
    minutes, left = divmod(left, UNITS["m"])
    shown = f"{hours}h{minutes}m" if hours else f"{minutes}m" if minutes else ""
    return f"{sign}{shown}{_decimal(left, SECOND)}s"


def _decimal(amount: int, unit: int) -> str:
    whole, fraction = divmod(amount, unit)
    if not fraction:
        return str(whole)
    return f"{whole}.{str(fraction).rjust(len(str(unit)) - 1, '0')}".rstrip("0")
