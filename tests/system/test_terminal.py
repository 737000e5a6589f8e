"""`run --interactive` and `enter` at a terminal."""

from __future__ import annotations

import re
import shlex
import signal
import termios
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.system.pods import BUSYBOX, Pods
from tests.system.terminal import Terminal

pytestmark = pytest.mark.root

Open = Callable[..., Terminal]
INTERACTIVE = ("run", "--net=none", "--interactive", BUSYBOX, "--exec=/bin/sh")


@pytest.fixture
def open_terminal(pods: Pods) -> Iterator[Open]:
    """Start a command in a terminal of its own."""
    opened: list[Terminal] = []

    def start(*args: str, rows: int = 24, columns: int = 80) -> Terminal:
        terminal = Terminal(pods.rkt.command(*args), rows=rows, columns=columns)
        opened.append(terminal)
        return terminal

    yield start
    for terminal in opened:
        terminal.close()


@pytest.fixture(params=["run", "enter"])
def shell(request: pytest.FixtureRequest, pods: Pods, open_terminal: Open) -> Callable[..., Terminal]:
    """A script in an app's terminal, by `run --interactive` and by `enter`."""

    def start(script: str, **size: int) -> Terminal:
        if request.param == "run":
            return open_terminal(*INTERACTIVE, "--", "-c", script, **size)
        running = pods.start_sh("echo ready; exec sleep 1000")
        return open_terminal("enter", running.uuid, "/bin/sh", "-c", script, **size)

    return start


def test_app_has_a_terminal_of_the_pods_own(shell: Open, pods: Pods) -> None:
    script = (
        "tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && echo all; stat -c %u:%g $(tty); echo x >/dev/tty && echo $?"
    )
    terminal = shell(script)
    assert terminal.end() == 0
    lines = terminal.shown.split("\r\n")
    assert lines == [lines[0], "all", "0:5", "x", "0", ""]
    assert lines[0].startswith("/dev/pts/")


def test_console_is_the_terminal_of_the_app(open_terminal: Open) -> None:
    terminal = open_terminal(*INTERACTIVE, "--", "-c", "echo seen > /dev/console; stat -c %t /dev/console")
    assert terminal.end() == 0
    assert terminal.shown.split() == ["seen", "88"]


def test_size_is_the_callers(shell: Open) -> None:
    terminal = shell("stty size", rows=37, columns=101)
    assert terminal.end() == 0
    assert terminal.shown == "37 101\r\n"


def test_size_follows_the_callers(shell: Open) -> None:
    terminal = shell("trap 'stty size; exit 0' WINCH; echo ready; while :; do sleep 100 & wait $!; done")
    terminal.until("ready")
    terminal.resize(50, 132)
    terminal.until("50 132\r\n")
    assert terminal.end() == 0


def test_what_is_typed_arrives_and_is_echoed_once(shell: Open) -> None:
    terminal = shell("echo ready; read line; echo got $line")
    terminal.until("ready\r\n")
    terminal.type("some text\r")
    terminal.until("some text\r\n")
    assert terminal.until("got some text\r\n") == ""
    assert terminal.end() == 0


def test_control_c_reaches_the_app_and_not_us(shell: Open) -> None:
    terminal = shell("trap 'echo interrupted; exit 9' INT; echo ready; while :; do sleep 100 & wait $!; done")
    terminal.until("ready")
    terminal.type("\x03")
    terminal.until("interrupted")
    assert terminal.end() == 9


def test_control_d_is_the_end_of_input(shell: Open) -> None:
    terminal = shell("echo ready; cat; echo end")
    terminal.until("ready\r\n")
    terminal.type("x\r\x04")
    terminal.until("end\r\n")
    assert terminal.end() == 0


def test_jobs_can_be_controlled(shell: Open) -> None:
    terminal = shell("exec sh -i")
    terminal.until("# ")
    # The shell's line editor has the terminal until the job has it.
    terminal.type("sh -c 'echo job; exec sleep 1000'\r")
    terminal.until("\r\njob\r\n")
    terminal.type("\x1a")
    terminal.until("Stopped")
    terminal.type("exit 4\rexit 4\r")
    assert terminal.end() == 4


def test_callers_terminal_is_raw_meanwhile_and_as_it_was_afterwards(shell: Open) -> None:
    terminal = shell("echo ready; read line; exit 3")
    terminal.until("ready")
    assert terminal.is_raw()
    terminal.type("\r")
    assert terminal.end() == 3
    assert termios.tcgetattr(terminal.slave) == terminal.mode


def test_callers_terminal_is_as_it_was_after_a_signal(open_terminal: Open) -> None:
    terminal = open_terminal(*INTERACTIVE, "--", "-c", "echo ready; exec sleep 1000")
    terminal.until("ready")
    terminal.process.send_signal(signal.SIGTERM)
    assert terminal.end() == 143
    assert termios.tcgetattr(terminal.slave) == terminal.mode


def test_all_of_a_long_output_is_shown(shell: Open) -> None:
    terminal = shell("seq 1 20000")
    assert terminal.end() == 0
    assert terminal.shown == "".join(f"{number}\r\n" for number in range(1, 20001))


def test_app_of_another_user_owns_its_terminal(open_terminal: Open) -> None:
    script = "exec 3<>$(tty) && stat -c %u:%g:%a $(tty)"
    terminal = open_terminal(*INTERACTIVE, "--user=1000", "--group=1000", "--", "-c", script)
    assert terminal.end() == 0
    assert terminal.shown == "1000:5:620\r\n"


def test_nothing_can_be_typed_into_the_callers_terminal(shell: Open) -> None:
    terminal = shell("probe tiocsti")
    assert terminal.end() == 0
    assert terminal.shown != "tiocsti 0\r\n"


def test_output_of_enter_to_a_file_is_as_it_is(pods: Pods, open_terminal: Open, tmp_path: Path) -> None:
    running = pods.start_sh("echo ready; exec sleep 1000")
    command = shlex.join(
        pods.rkt.command("enter", running.uuid, "/bin/sh", "-c", "tty; echo out; echo err >&2")
    )
    terminal = Terminal(["sh", "-c", f"{command} > {tmp_path}/out"])
    try:
        assert terminal.end() == 0
        assert terminal.shown == "err\r\n"
        assert re.fullmatch(r"/dev/pts/\d+\nout\n", (tmp_path / "out").read_text())
    finally:
        terminal.close()


def test_handlers_of_an_interactive_app_have_its_terminal(
    pods: Pods, build: Callable[..., str], rootfs: Path, open_terminal: Open
) -> None:
    tell = ["/bin/sh", "-c", "tty && echo x > /dev/tty"]
    handlers = [{"name": name, "exec": tell} for name in ("pre-start", "post-stop")]
    image = build(rootfs, {"exec": tell, "user": "0", "group": "0", "eventHandlers": handlers})
    terminal = open_terminal("run", "--net=none", "--interactive", image)
    assert terminal.end() == 0
    assert terminal.shown == "/dev/pts/0\r\nx\r\n" * 3


def test_term_is_the_callers(pods: Pods, open_terminal: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "vt220")
    terminal = open_terminal(*INTERACTIVE, "--", "-c", "echo $TERM")
    assert terminal.end() == 0
    assert terminal.shown == "vt220\r\n"


def test_interactive_without_a_terminal_takes_input_from_a_pipe(pods: Pods) -> None:
    done = pods(*INTERACTIVE, "--", "-c", "stty -echo; echo ready; cat; exit 6", stdin=b"typed\n")
    assert done.code == 6
    assert b"typed\r\n" in done.out


def test_interactive_is_for_one_app(pods: Pods) -> None:
    done = pods("run", "--interactive", BUSYBOX, "--name=a", "--", "---", BUSYBOX, "--name=b")
    assert (done.code, done.errors) == (254, "run: interactive option only supports one image\n")


def test_terminal_that_is_hung_up_ends_the_app(open_terminal: Open) -> None:
    terminal = open_terminal(*INTERACTIVE, "--", "-c", "echo ready; exec sleep 1000")
    terminal.until("ready")
    terminal.process.send_signal(signal.SIGHUP)
    assert terminal.end() == 128 + signal.SIGHUP
