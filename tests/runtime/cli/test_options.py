"""The command line: what is read out of it, and what is said when it cannot be."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkt_py.runtime import paths
from rkt_py.runtime.apprequest import AppRequest
from rkt_py.runtime.cli import commands
from rkt_py.runtime.cli import help as help_
from rkt_py.runtime.cli.options import (
    INSECURE,
    Command,
    Invocation,
    Option,
    format_duration,
    parse,
    parse_bool,
    parse_duration,
    parse_int,
)
from rkt_py.runtime.errors import UsageError

SECOND = 10**9
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE


def read(line: str, environ: dict[str, str] | None = None) -> Invocation:
    return parse(line.split(), environ=environ or {})


def refusal(line: str, environ: dict[str, str] | None = None) -> UsageError:
    with pytest.raises(UsageError) as caught:
        read(line, environ)
    return caught.value


# --- verbs


@pytest.mark.parametrize(
    ("line", "verb"),
    [
        ("list", "list"),
        ("li", "list"),
        ("run a", "run"),  # a whole name goes before run-prepared
        ("run-p u", "run-prepared"),
        ("prep a", "prepare"),
        ("im li", "image list"),
        ("image list", "image list"),
        ("i r id", "image rm"),
        ("im cat i", "image cat-manifest"),
        ("--debug list", "list"),
        ("--dir /x list", "list"),
        ("--dir=/x --debug image --debug list", "image list"),
        ("--dir list list", "list"),  # the flag's value is no verb
        ("h", "help"),
        ("help run", "help"),
        ("version", "version"),
    ],
)
def test_verb_is_found_by_its_name_or_a_unique_beginning(line: str, verb: str) -> None:
    assert read(line).command.name == verb


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("frobnicate", 'unknown command "frobnicate" for "rkt-py"'),
        ("image frob", 'unknown command "frob" for "rkt-py image"'),
        ("lst", 'unknown command "lst" for "rkt-py" (did you mean list?)'),
        ("imagee list", 'unknown command "imagee" for "rkt-py" (did you mean image?)'),
        ("l u", 'ambiguous command "l" for "rkt-py": list, logs'),
        ("image  ex", None),
        ("s u", 'ambiguous command "s" for "rkt-py": status, stop'),
        ("LIST", 'unknown command "LIST" for "rkt-py"'),
    ],
)
def test_unknown_or_ambiguous_verb_is_refused(line: str, message: str | None) -> None:
    error = refusal(line)
    if message is not None:
        assert str(error) == message
    assert error.exit_code == 254


@pytest.mark.parametrize("line", ["", "--debug", "--dir=/x", "--", "-- list"])
def test_no_verb_ends_with_rkts_code_2(line: str) -> None:
    error = refusal(line)
    assert (str(error), error.exit_code, error.command) == ("missing command", 2, ())


@pytest.mark.parametrize(
    ("line", "about"),
    [
        ("--help", ()),
        ("-h", ()),
        ("--debug --help", ()),
        ("image", ("image",)),
        ("image --help", ("image",)),
        ("run --help", ("run",)),
        ("run a.aci --net=host -h", ("run",)),
        ("run a -- x --- --help", ("run",)),
        ("--help run", ("run",)),
        ("gc --grace-period=5m --help", ("gc",)),
        ("enter --help", ("enter",)),
        ("image build --help", ("image", "build")),
    ],
)
def test_help_flag_becomes_the_verb_help(line: str, about: tuple[str, ...]) -> None:
    invocation = read(line)
    assert invocation.command.name == "help"
    assert invocation.args == about


@pytest.mark.parametrize(
    ("line", "verb"),
    [
        ("run a -- --help", "run"),
        ("enter u ls --help", "enter"),
        ("enter u -- ls -h", "enter"),
        ("run a --exec --help", "run"),  # pflag takes the next argument, whatever it looks like
        ("image build --exec /bin/ls --exec --help r o", "image build"),
    ],
)
def test_help_for_somebody_else_is_left_alone(line: str, verb: str) -> None:
    assert read(line).command.name == verb


# --- flags


@pytest.mark.parametrize(
    ("line", "name", "answer"),
    [
        ("list", "full", False),
        ("list --full", "full", True),
        ("list --full=true", "full", True),
        ("list --full=false", "full", False),
        ("list --full --full=0", "full", False),
        ("list", "format", ""),
        ("list --format=json", "format", "json"),
        ("list --format json", "format", "json"),
        ("cat-manifest u", "pretty-print", True),
        ("cat-manifest u --pretty-print=false", "pretty-print", False),
        ("cat-manifest --pretty-print=F u", "pretty-print", False),
        ("gc", "grace-period", 30 * MINUTE),
        ("gc", "expire-prepared", 24 * HOUR),
        ("gc --grace-period=0", "grace-period", 0),
        ("gc --grace-period 1h30m", "grace-period", 90 * MINUTE),
        ("gc --grace-period=1s --grace-period=2s", "grace-period", 2 * SECOND),
        ("status u", "wait", 0),
        ("status u --wait", "wait", -1),
        ("status --wait u", "wait", -1),  # a bare flag takes no next argument
        ("status u --wait=false", "wait", 0),
        ("status u --wait=5s", "wait", 5 * SECOND),
        ("status u --wait-ready=true", "wait-ready", -1),
        ("logs u", "follow", False),
        ("logs -f u", "follow", True),
        ("logs u -f=false", "follow", False),
        ("logs u --app web", "app", "web"),
        ("run a", "net", ("default",)),
        ("run --net a", "net", ("default",)),
        ("run --net=host a", "net", ("host",)),
        ("run --net=n1:IP=1.2.3.4;K=V,n2 a", "net", ("n1:IP=1.2.3.4;K=V", "n2")),
        ("run a --net=n1 --net=n2", "net", ("n1", "n2")),
        ("run --dns 8.8.8.8 a --dns=host", "dns", ("8.8.8.8", "host")),
        ("run --volume v,kind=empty a --volume w,kind=empty", "volume", ("v,kind=empty", "w,kind=empty")),
        ("run --set-env A=b=c --set-env D= a", "set-env", (("A", "b=c"), ("D", ""))),
        ("run a", "pull-policy", "new"),
        ("fetch a", "pull-policy", "update"),
        ("fetch a --pull-policy=never", "pull-policy", "never"),
        ("run a", "ipc", "auto"),
        ("image list", "fields", ("id", "name", "size", "importtime", "lastused")),
        ("image list --fields=name,id", "fields", ("name", "id")),
        ("image list", "sort", ("importtime",)),
        ("image list --order=desc", "order", "desc"),
        ("image build r o", "compression", "gzip"),
        ("image build r o --level 3", "level", 3),
        ("image build r o", "level", None),
        ("image build r o --exec /bin/sh --exec -c --exec id", "exec", ("/bin/sh", "-c", "id")),
        ("image build r o --label a=b --label c=d", "label", (("a", "b"), ("c", "d"))),
        ("image build r o --supplementary-gids 1,2 --supplementary-gids=3", "supplementary-gids", (1, 2, 3)),
        ("list", "dir", paths.DATA),
        ("list --dir=/srv/x/../y", "dir", "/srv/y"),
        ("--dir /srv/x list", "dir", "/srv/x"),
        ("--debug list", "debug", True),
        ("list --debug", "debug", True),
        ("--net=host run a", "net", ("host",)),  # cobra takes a verb's flags before the verb too
        ("list --trust-keys-from-https", "trust-keys-from-https", True),
    ],
)
def test_flag_has_its_value(line: str, name: str, answer: object) -> None:
    got = read(line).answers[name]
    assert got == answer
    assert type(got) is type(answer)


def test_given_holds_what_was_on_the_command_line_and_nothing_else() -> None:
    assert read("--debug gc --mark-only=false").given == {"debug", "mark-only"}
    assert read("run --mount volume=v,target=/t a --user 1").given == {"mount", "user"}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("list --x", "unknown flag: --x"),
        ("list --x=1", "unknown flag: --x"),
        ("--x list", "unknown flag: --x"),
        ("--x", "unknown flag: --x"),
        ("list --fulll", "unknown flag: --fulll (did you mean --full?)"),
        ("gc --grce-period=0", "unknown flag: --grce-period (did you mean --grace-period?)"),
        ("list --app x", "unknown flag: --app"),
        ("list -x", "unknown shorthand flag: 'x' in -x"),
        ("list -debug", "unknown shorthand flag: 'd' in -debug"),
        ("logs -fx u", "unknown shorthand flag: 'x' in -fx"),
        ("list --=x", "bad flag syntax: --=x"),
        ("list ---full", "bad flag syntax: ---full"),
        ("list --format", "flag needs an argument: --format"),
        ("run a --exec", "flag needs an argument: --exec"),
        ("list --dir", "flag needs an argument: --dir"),
        ("list --full=maybe", 'invalid argument "maybe" for --full: not true or false'),
        ("list --full= ", 'invalid argument "" for --full: not true or false'),
        ("list --format=xml", 'invalid argument "xml" for --format: not one of json, json-pretty'),
        (
            "gc --grace-period=soon",
            'invalid argument "soon" for --grace-period: not a duration such as "30m", "1h30m" or "0"',
        ),
        ("gc --grace-period=30", None),
        ("status u --wait=5", None),
        ("image build r o --level=two", 'invalid argument "two" for --level: not a number'),
        ("image list --fields=id,colour", None),
        ("image list --fields=", None),
        ("run --set-env FOO a", 'invalid argument "FOO" for --set-env: not of the form NAME=VALUE'),
        ("run --set-env =x a", None),
        ("run --pull-policy=always a", None),
        ("run --dir= a", 'invalid argument "" for --dir: not a directory'),
        ("--insecure-options=imge list", None),
    ],
)
def test_bad_flag_is_refused(line: str, message: str | None) -> None:
    error = refusal(line)
    if message is not None:
        assert str(error) == message
    assert error.exit_code == 254
    assert "\n" not in str(error)


def test_refusal_says_whose_help_applies() -> None:
    assert refusal("image list --x").command == ("image", "list")
    assert refusal("image frob").command == ("image",)
    assert refusal("frob").command == ()


@pytest.mark.parametrize(
    ("line", "insecure"),
    [
        ("list", set()),
        ("list --insecure-options=none", set()),
        ("--insecure-options=image list", {"image"}),
        ("--insecure-options image,tls list --insecure-options=seccomp", {"image", "tls", "seccomp"}),
        ("list --insecure-options=all", set(INSECURE)),
        ("list --insecure-options=all-run", {"capabilities", "paths", "seccomp"}),
        ("list --insecure-options=all-fetch,paths", {"image", "tls", "http", "pubkey", "paths"}),
    ],
)
def test_insecure_options_are_a_set(line: str, insecure: set[str]) -> None:
    assert read(line).insecure == insecure


def test_global_options_default_to_the_environment() -> None:
    environ = {"RKT_PY_DIR": "/srv/a", "RKT_PY_INSECURE_OPTIONS": "image", "RKT_PY_DEBUG": ""}
    invocation = read("list", environ)
    assert invocation.paths.data == "/srv/a"
    assert invocation.insecure == {"image"}
    assert not invocation.flag("debug")
    assert invocation.given == frozenset()


def test_command_line_goes_before_the_environment() -> None:
    environ = {"RKT_PY_DIR": "/srv/a", "RKT_PY_INSECURE_OPTIONS": "all"}
    invocation = read("list --dir=/srv/b --insecure-options=none", environ)
    assert invocation.paths.data == "/srv/b"
    assert invocation.insecure == frozenset()


def test_bad_value_in_the_environment_is_named() -> None:
    assert str(refusal("list", {"RKT_PY_DEBUG": "perhaps"})) == (
        'invalid argument "perhaps" for RKT_PY_DEBUG: not true or false'
    )


def test_paths_are_those_of_the_global_options() -> None:
    assert read("list").paths == paths.Paths()
    got = read("list --dir=/d --local-config=/l --system-config=/s").paths
    assert (got.data, got.local_config, got.system_config) == ("/d", "/l", "/s")


# --- arguments


@pytest.mark.parametrize(
    ("line", "args"),
    [
        ("status u", ("u",)),
        ("status --wait=1s u", ("u",)),
        ("status u --wait=1s", ("u",)),
        ("stop a b c --force", ("a", "b", "c")),
        ("stop --force -- --a -b", ("--a", "-b")),
        ("image export i -", ("i", "-")),
        ("image build rootfs/ hello.aci --name=example.com/hello", ("rootfs/", "hello.aci")),
        ("rm --uuid-file=f", ()),
        ("enter u", ("u",)),
        ("enter u ls -l --app=x", ("u", "ls", "-l", "--app=x")),
        ("enter --app=x u ls", ("u", "ls")),
        ("enter u --app x ls -h", ("u", "ls", "-h")),
        ("enter u -- ls --app x", ("u", "ls", "--app", "x")),
        ("enter u ls -- x", ("u", "ls", "--", "x")),
        ("help image build", ("image", "build")),
    ],
)
def test_arguments_are_what_is_no_flag(line: str, args: tuple[str, ...]) -> None:
    assert read(line).args == args


def test_enter_takes_the_app_after_the_pod() -> None:
    assert read("enter u --app web ps").string("app") == "web"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("status", '"rkt-py status" needs UUID or --uuid-file'),
        ("status a b", '"rkt-py status" does not take so many arguments: "b"'),
        ("status --uuid-file=f a", "--uuid-file stands in for the arguments, and there are 1"),
        ("stop", '"rkt-py stop" needs UUID... or --uuid-file'),
        ("rm", '"rkt-py rm" needs UUID... or --uuid-file'),
        ("list x", '"rkt-py list" does not take so many arguments: "x"'),
        ("image build rootfs", '"rkt-py image build" needs ROOTFS OUTPUT'),
        ("image build a b c", '"rkt-py image build" does not take so many arguments: "c"'),
        ("enter", '"rkt-py enter" needs UUID [--app=NAME] [COMMAND...]'),
        ("gc -- x", '"rkt-py gc" does not take so many arguments: "x"'),
        ("version 1", '"rkt-py version" does not take so many arguments: "1"'),
    ],
)
def test_wrong_number_of_arguments_is_refused(line: str, message: str) -> None:
    assert str(refusal(line)) == message


# --- images and what belongs to them


@pytest.mark.parametrize("verb", ["run", "prepare"])
@pytest.mark.parametrize(
    ("line", "apps"),
    [
        ("", ()),
        ("a.aci", (AppRequest("a.aci"),)),
        ("a b", (AppRequest("a"), AppRequest("b"))),
        ("a a", (AppRequest("a"), AppRequest("a"))),
        ("a --exec /bin/sh", (AppRequest("a", exec="/bin/sh"),)),
        ("a --exec=/bin/sh -- -c id", (AppRequest("a", exec="/bin/sh", args=("-c", "id")),)),
        ("a -- x --- b -- y z", (AppRequest("a", args=("x",)), AppRequest("b", args=("y", "z")))),
        ("a -- --exec /x -- --- b", (AppRequest("a", args=("--exec", "/x", "--")), AppRequest("b"))),
        ("a -- x --- --user 5 b", (AppRequest("a", args=("x",), user="5"), AppRequest("b"))),
        ("a --- b", (AppRequest("a"), AppRequest("b"))),
        ("a --", (AppRequest("a"),)),
        ("a -- --- b --", (AppRequest("a"), AppRequest("b"))),
        ("--no-overlay a --name=x b --name=y", (AppRequest("a", name="x"), AppRequest("b", name="y"))),
        ("a --user root --user=5", (AppRequest("a", user="5"),)),
        (
            "a --environment A=1 --environment B=x=y",
            (AppRequest("a", environment=(("A", "1"), ("B", "x=y"))),),
        ),
        ("a --readonly-rootfs b", (AppRequest("a", readonly_rootfs=True), AppRequest("b"))),
        ("a --readonly-rootfs=false", (AppRequest("a", readonly_rootfs=False),)),
        ("a --cpu-shares 512 --oom-score-adj -500", (AppRequest("a", cpu_shares=512, oom_score_adj=-500),)),
        (
            "a --caps-retain=CAP_A,CAP_B --caps-retain CAP_C",
            (AppRequest("a", caps_retain=("CAP_A", "CAP_B", "CAP_C")),),
        ),
        ("a --caps-remove CAP_A", (AppRequest("a", caps_remove=("CAP_A",)),)),
        (
            "a --seccomp mode=retain,errno=EPERM,chmod",
            (AppRequest("a", seccomp="mode=retain,errno=EPERM,chmod"),),
        ),
        ("a --memory 16M --cpu=500m", (AppRequest("a", memory="16M", cpu="500m"),)),
        ("a --supplementary-gids 1,2", (AppRequest("a", supplementary_gids=(1, 2)),)),
        ("a --annotation x=y", (AppRequest("a", annotations=(("x", "y"),)),)),
        ("a --user-annotation x=y", (AppRequest("a", user_annotations=(("x", "y"),)),)),
        ("a --user-label x=y", (AppRequest("a", user_labels=(("x", "y"),)),)),
        ("a --working-dir=/w --group=/etc/x", (AppRequest("a", working_dir="/w", group="/etc/x"),)),
        ("a --signature=a.asc", (AppRequest("a", signature="a.asc"),)),
        (
            "a --stdin=tty --stdout log --stderr=null",
            (AppRequest("a", stdin="tty", stdout="log", stderr="null"),),
        ),
        (
            "--mount volume=v,target=/t a b --mount volume=w,target=/t b2 --mount target=/u,volume=w",
            (
                AppRequest("a", mounts=(("v", "/t"),)),
                AppRequest("b", mounts=(("w", "/t"),)),
                AppRequest("b2", mounts=(("v", "/t"), ("w", "/u"))),
            ),
        ),
        ("- b", (AppRequest("-"), AppRequest("b"))),
    ],
)
def test_per_app_flags_and_arguments_go_to_the_image_before_them(
    verb: str, line: str, apps: tuple[AppRequest, ...]
) -> None:
    invocation = read(f"{verb} {line}")
    assert invocation.apps == apps
    assert invocation.args == ()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run --exec=/x a", "--exec must follow an image"),
        ("--user=5 run a", "--user must follow an image"),
        ("run --readonly-rootfs a", "--readonly-rootfs must follow an image"),
        ("run -- x", "an image is required before any app arguments"),
        ("run a -- x --- -- y", "only one set of app arguments allowed per image"),
        ("run a --exec x --exec y", "--exec specified multiple times for the same image"),
        ("run a --signature x --signature y", "--signature specified multiple times for the same image"),
        ("run a --cpu-shares many", 'invalid argument "many" for --cpu-shares: not a number'),
        ("run a --supplementary-gids 1,,2", None),
        ("run a --environment X", 'invalid argument "X" for --environment: not of the form NAME=VALUE'),
        ("run a --mount volume=v,path=/t", None),
        ("run a --mount volume=v", None),
        ("run a --mount target=/t", None),
        ("run a --mount volume=v,target=/t,target=/u", None),
        ("run a --stdin=log", None),
        ("run a --stdout=file", None),
        ("prepare a --hostname x", "unknown flag: --hostname"),
        ("prepare a --interactive", None),
        ("run a --quiet", None),
        ("run-prepared u --exec x", None),
        ("run-prepared u --volume x", None),
    ],
)
def test_bad_per_app_flag_is_refused(line: str, message: str | None) -> None:
    error = refusal(line)
    if message is not None:
        assert str(error) == message


def test_exec_may_be_given_once_for_each_image() -> None:
    assert [app.exec for app in read("run a --exec x b --exec y").apps] == ["x", "y"]


# --- values


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0", 0),
        ("-0", 0),
        ("0s", 0),
        ("30m", 30 * MINUTE),
        ("24h", 24 * HOUR),
        ("1h30m", 90 * MINUTE),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("1.s", SECOND),
        ("100ms", 100_000_000),
        ("1us", 1000),
        ("1µs", 1000),
        ("1μs", 1000),
        ("7ns", 7),
        ("-1m", -MINUTE),
        ("+1m", MINUTE),
        ("1h1m1s1ms1us1ns", HOUR + MINUTE + SECOND + 1_001_001),
        ("0.000000001s", 1),
        ("0.3333333333333333333h", 1200 * SECOND - 1),
    ],
)
def test_duration_is_read_as_go_reads_it(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    "text",
    [
        *("", "-", "+", "3", "m", "1d", "1 s", "1s ", "1hm", "--1s", "+-1s", ".s", "1.2.3s", "1e3s", "٣s"),
        *("1S", "h1", "99999999999999h", "9" * 5000 + "s", "-0.s.", "."),
    ],
)
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0s"),
        (1, "1ns"),
        (1100, "1.1µs"),
        (2_200_000, "2.2ms"),
        (100_000_000, "100ms"),
        (3_300_000_000, "3.3s"),
        (4 * MINUTE + 5 * SECOND, "4m5s"),
        (4 * MINUTE + 5 * SECOND + 1_000_000, "4m5.001s"),
        (30 * MINUTE, "30m0s"),
        (24 * HOUR, "24h0m0s"),
        (5 * HOUR + 6 * MINUTE + 7 * SECOND + 1, "5h6m7.000000001s"),
        (-SECOND, "-1s"),
    ],
)
def test_duration_is_written_as_go_writes_it(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text


@given(st.integers(-(2**63) + 1, 2**63 - 1))
def test_duration_survives_writing_and_reading(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@given(st.text())
def test_any_text_is_a_value_or_a_refusal(text: str) -> None:
    for read_value in (parse_duration, parse_bool, parse_int):
        try:
            read_value(text)
        except ValueError:
            pass


WORDS = st.sampled_from(
    "run prepare enter list image build status -- --- - -f -h --help --exec --exec=/x --net --net= a.aci "
    "--mount volume=v,target=/t --dir --debug --debug=x --user -= --= --wait --insecure-options all "
    "é\udcff".split(" ")
)


@given(st.lists(WORDS | st.text(max_size=6), max_size=8))
def test_any_command_line_is_understood_or_refused_in_one_line(argv: list[str]) -> None:
    try:
        invocation = parse(argv, environ={})
    except UsageError as error:
        assert str(error)
    else:
        assert invocation.command.run


@pytest.mark.parametrize("text", ["", " 1", "1_000", "٣", "0x10", "1.0", "--1", "9" * 5000])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_int(text)


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("-5", -5), ("+5", 5), ("007", 7)])
def test_number_is_decimal(text: str, number: int) -> None:
    assert parse_int(text) == number


# --- the table of commands


LEAVES = [command for command in commands.COMMANDS if command.run]


def test_commands_are_those_of_rkt_that_there_are_and_each_once() -> None:
    names = [command.name for command in commands.COMMANDS]
    assert names == sorted(set(names))
    verbs = "cat-manifest enter fetch gc help image list logs prepare rm run run-prepared status stop version"
    image_verbs = ("build", "cat-manifest", "export", "list", "rm")
    assert set(names) == {*verbs.split(), *(f"image {verb}" for verb in image_verbs)}


def test_root_is_needed_for_what_rkt_needs_it_for() -> None:
    assert {command.name for command in commands.COMMANDS if command.needs_root} == {
        "run", "run-prepared", "prepare", "enter", "stop", "rm", "gc",
    }  # fmt: skip


@pytest.mark.parametrize("command", LEAVES, ids=lambda command: command.name)
def test_flags_of_a_command_are_sound(command: Command) -> None:
    options = (*command.options(), *commands.global_options())
    names = [option.name for option in options]
    assert len(names) == len(set(names))
    shorts = [option.short for option in options if option.short]
    assert len(shorts) == len(set(shorts)) and "h" not in shorts
    for option in options:
        assert option.help
        assert bool(option.metavar) == (option.kind != "bool"), option.name
        assert command.apps or not option.per_app
        if option.choices and option.default is not None:
            given = option.default if isinstance(option.default, tuple) else (option.default,)
            assert set(given) <= set(option.choices)


def test_per_app_flags_are_the_fields_of_an_app() -> None:
    run = next(command for command in LEAVES if command.name == "run")
    values = {
        "bool": "", "string": "=null", "int": "=5", "words": "=a,b", "ints": "=1", "pairs": "=a=b",
        "mounts": "=volume=v,target=/t",
    }  # fmt: skip
    line = " ".join(f"--{option.name}{values[option.kind]}" for option in run.options() if option.per_app)
    (app,) = read(f"run image {line} -- x").apps
    empty = AppRequest("")
    same = [name for name in vars(empty) if getattr(app, name) == getattr(empty, name)]
    assert same == [], "no flag sets these"


def test_a_verb_of_one_program_can_be_parsed_by_a_table_of_ones_own() -> None:
    table = (
        Command(("help",), "", run="x:y"),
        Command(("go",), "", options=lambda: (Option("n", kind="int"),), run="x:y"),
    )
    invocation = parse(["go", "--n", "3"], table=table, global_options=(), environ={})
    assert invocation.number("n") == 3


def test_parsing_a_run_imports_nothing_heavy() -> None:
    heavy = (
        "re json typing dataclasses enum logging argparse pathlib functools collections contextlib "
        "subprocess struct signal hashlib difflib"
    ).split()
    code = (
        "import sys; from rkt_py.runtime.cli.options import parse;"
        "parse(['run', 'a', '--exec=/x', '--', 'y']); print(*[m for m in sys.argv[1:] if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, *heavy], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.split() == []


# --- help


@pytest.mark.parametrize(
    "command", [None, *commands.COMMANDS], ids=lambda command: command.name if command else "-"
)
def test_help_fits_in_80_columns_and_shows_every_flag(command: Command | None) -> None:
    text = help_.render(command)
    lines = text.split("\n")
    assert max(len(line) for line in lines) <= 80
    assert all(line == line.rstrip() for line in lines)
    assert "\n\n\n" not in text and text.endswith("\n")
    for option in (*(command.options() if command else ()), *commands.global_options()):
        flag = f"--{option.name}"
        shown = [line for line in lines if line[6:].startswith(flag) and line[6:][len(flag) :][:1] in " =["]
        assert len(shown) == (0 if option.hidden else 1), option.name


def test_help_groups_flags() -> None:
    text = help_.render(help_.find(("run",)))
    order = [
        "NAME:",
        "USAGE:",
        "DESCRIPTION:",
        "\nOPTIONS:",
        "--net",
        "APP OPTIONS:",
        "--exec",
        "GLOBAL OPTIONS:",
        "--dir",
    ]
    places = [text.index(word) for word in order]
    assert places == sorted(places)


def test_help_shows_defaults() -> None:
    text = help_.render(help_.find(("gc",)))
    assert "(default 30m0s)" in text and "(default 24h0m0s)" in text
    assert "(default true)" in help_.render(help_.find(("cat-manifest",)))


def test_help_of_the_program_lists_the_verbs() -> None:
    text = help_.render(None)
    for command in commands.COMMANDS:
        assert f"\n  {command.path[0]}  " in text


def test_help_is_found_by_abbreviations(capsys: pytest.CaptureFixture[str]) -> None:
    assert help_.help(read("help im bu")) == 0
    assert "rkt-py image build - " in capsys.readouterr().out


@pytest.mark.parametrize("line", ["help frob", "help run frob", "help image frob"])
def test_help_about_nothing_there_is_refused(line: str) -> None:
    with pytest.raises(UsageError, match="frob"):
        help_.help(read(line))
