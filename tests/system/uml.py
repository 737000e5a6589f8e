"""A machine with cgroup v2 and its controllers alone: User-Mode Linux on this machine's files, read-only.

Here and in most CI all controllers are v1's, and a controller is in one hierarchy only. Linux as a program
(Debian's user-mode-linux) boots in two seconds, needs no KVM and sees what is installed: its root is ours
by hostfs. What it writes goes to a tmpfs of its own; it has no network and no disk.

    Machine ── JSON lines, tty1 ──> pid 1: run the script, answer ── reaps whatever its scripts leave
            <── kernel's messages, tty0, to a file
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import signal
import subprocess
import sys
import time
import tty
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.rkt import Result

PROGRAM = Path("/usr/bin/linux.uml")
MODULES = Path("/usr/lib/uml/modules")
PATIENCE = 40.0
READY = "ready"
RUN = Path("/run")
TOP = Path(__file__).parents[2]


class Guest:
    """A booted machine: scripts go in, what they wrote comes out."""

    def __init__(self, directory: Path, environment: dict[str, str]) -> None:
        self._log = directory / "boot.log"
        self._pending = b""
        to_guest, self._input = os.pipe()
        self._output, from_guest = os.pipe()
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
        settings = [path, "HOME=/", *(f"{name}={value}" for name, value in environment.items())]
        start = shlex.join(["exec", "env", "-i", *settings, sys.executable, "-m", __spec__.name])
        init = directory / "init"
        init.write_text(f"#!/bin/sh\ncd {shlex.quote(str(TOP))}\n{start}\n")
        init.chmod(0o755)
        with self._log.open("wb") as log:
            # A pid namespace: its processes are many, each traced by the first; with that one all are gone.
            self._process = subprocess.Popen(
                ["unshare", "--net", "--mount-proc", "--pid", "--fork", "--kill-child", "--", PROGRAM,
                 "mem=512M", "root=none", "rootfstype=hostfs", "rootflags=/", "ro", f"init={init}",
                 "con=null", "con0=null,fd:1", f"con1=fd:{to_guest},fd:{from_guest}",
                 f"uml_dir={directory}/", "umid=uml"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=(to_guest, from_guest),
                env={"PATH": path.partition("=")[2], "HOME": str(directory), "TMPDIR": str(directory)},
            )  # fmt: skip
        os.close(to_guest)
        os.close(from_guest)
        try:
            assert self._read() == READY
        except BaseException:
            self._process.kill()
            self.close()
            raise

    def __call__(self, script: str, timeout: float = 60) -> Result:
        """Run a shell script to its end; what it starts in the background must not hold its output."""
        os.write(self._input, json.dumps([script, timeout]).encode() + b"\n")
        return Result(*self._read())

    def ok(self, script: str) -> str:
        """Run a script that must succeed; return its standard output."""
        result = self(script)
        assert result.code == 0, f"{script}: {result}"
        return result.stdout

    def _read(self) -> Any:
        deadline = time.monotonic() + PATIENCE
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self._output], [], [], max(0, deadline - time.monotonic()))
            block = os.read(self._output, 65536) if ready else b""
            assert block, f"the machine does not answer:\n{self._log.read_text(errors='replace')[-4000:]}"
            self._pending += block
        line, _, self._pending = self._pending.partition(b"\n")
        return json.loads(line)

    def close(self) -> None:
        """Power it off; kill it when it does not."""
        os.close(self._input)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._output)


def mount(kind: str, target: str | Path, options: str = "rw") -> None:
    subprocess.run(["mount", "-t", kind, "-o", options, kind, target], check=True)


def set_up() -> None:
    """Mount what an init mounts, v2 as systemd does."""
    mount("proc", "/proc")
    mount("sysfs", "/sys")
    mount("cgroup2", "/sys/fs/cgroup", "nsdelegate")
    mount("tmpfs", RUN)
    Path("/dev/pts").mkdir()
    mount("devpts", "/dev/pts", "ptmxmode=666")
    Path("/dev/shm").mkdir()
    mount("tmpfs", "/dev/shm")
    overlay = next(MODULES.glob("*/kernel/fs/overlayfs/overlay.ko"))
    subprocess.run(["busybox", "insmod", overlay], check=True)


def answer(script: str, timeout: float) -> Sequence[object]:
    """Run a script in a session of its own, as a child that is waited for along with all orphans."""
    out, err = RUN / "stdout", RUN / "stderr"
    with out.open("wb") as stdout, err.open("wb") as stderr:
        child = subprocess.Popen(
            ["sh", "-c", script],
            cwd=RUN,
            stdin=subprocess.DEVNULL,
            stdout=stdout,
            stderr=stderr,
            start_new_session=True,
        )
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child.pid, signal.SIGKILL))
    signal.setitimer(signal.ITIMER_REAL, timeout)
    pid, status = os.waitpid(-1, 0)
    while pid != child.pid:
        pid, status = os.waitpid(-1, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    code = os.waitstatus_to_exitcode(status)
    child.returncode = code
    return code, out.read_text(errors="replace"), err.read_text(errors="replace")


def main() -> None:
    """Be pid 1 of the machine."""
    set_up()
    with open("/dev/tty1", "r+b", buffering=0) as terminal:
        tty.setraw(terminal.fileno())
        terminal.write(json.dumps(READY).encode() + b"\n")
        pending = b""
        while block := terminal.read(4096):
            pending += block
            while b"\n" in pending:
                line, _, pending = pending.partition(b"\n")
                terminal.write(json.dumps(answer(*json.loads(line))).encode() + b"\n")


if __name__ == "__main__":
    try:
        main()
    finally:
        with contextlib.suppress(OSError):
            sys.stdout.flush()
        subprocess.run(["busybox", "poweroff", "-f"], check=False)
