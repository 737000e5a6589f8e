"""Pods as a user has them: the installed command, an installation with images, and what runs in it."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tests.rkt import Rkt

BUSYBOX = "example.com/busybox"
PATIENCE = 20.0


class Done(NamedTuple):
    """How a command ended and what it wrote, byte for byte."""

    code: int
    out: bytes
    err: bytes

    @property
    def text(self) -> str:
        return self.out.decode()

    @property
    def errors(self) -> str:
        return self.err.decode()

    @property
    def lines(self) -> list[str]:
        return self.text.splitlines()

    @property
    def table(self) -> dict[str, str]:
        """`NAME VALUE` and `NAME: VALUE` lines."""
        pairs = (line.replace("\t", " ").partition(" ") for line in self.lines)
        return {name.rstrip(":"): value.strip() for name, _, value in pairs}


class Running:
    """A command that has not ended: what it wrote so far, and ways to wait for more."""

    def __init__(self, process: subprocess.Popen[bytes], uuid_file: Path) -> None:
        self.process = process
        self.out = b""
        self._uuid_file = uuid_file

    @property
    def uuid(self) -> str:
        return self._uuid_file.read_text().strip()

    def until(self, text: str) -> None:
        """Wait until the text was written to stdout."""
        assert self.process.stdout is not None
        fd = self.process.stdout.fileno()
        deadline = time.monotonic() + PATIENCE
        while text.encode() not in self.out:
            ready, _, _ = select.select([fd], [], [], max(0, deadline - time.monotonic()))
            block = os.read(fd, 65536) if ready else b""
            assert block, f"no {text!r} in {self.out!r} (stderr: {self._errors()!r})"
            self.out += block

    def _errors(self) -> bytes:
        self.process.kill()
        return self.process.communicate(timeout=PATIENCE)[1]

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def end(self, number: int | None = None) -> Done:
        """Wait until it has ended, after a signal if one is given."""
        if number is not None:
            self.signal(number)
        out, err = self.process.communicate(timeout=PATIENCE)
        self.out += out
        return Done(self.process.returncode, self.out, err)

    def close(self) -> None:
        if self.process.poll() is None:
            # The second one kills.
            self.signal(signal.SIGTERM)
            self.signal(signal.SIGTERM)
            self.process.communicate(timeout=PATIENCE)
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()


class Pods:
    """An installation with images in its store, and the pods that a test starts there."""

    def __init__(self, rkt: Rkt, directory: Path) -> None:
        self.rkt = rkt
        self.directory = directory
        self._running: list[Running] = []

    def __call__(
        self,
        *args: str | Path,
        stdin: bytes | int = b"",
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        pass_fds: Sequence[int] = (),
        preexec: Callable[[], object] | None = None,
    ) -> Done:
        """Run a command to its end."""
        given: dict[str, Any] = {"input": stdin} if isinstance(stdin, bytes) else {"stdin": stdin}
        done = subprocess.run(
            self.rkt.command(*args),
            **given,
            env=env,
            cwd=cwd,
            pass_fds=pass_fds,
            preexec_fn=preexec,
            timeout=PATIENCE,
            capture_output=True,
            check=False,
        )
        return Done(done.returncode, done.stdout, done.stderr)

    def ok(self, *args: str | Path) -> str:
        """Run a command that must succeed; return what it wrote to stdout."""
        done = self(*args)
        assert done.code == 0, f"{args}: {done}"
        return done.text

    def sh(self, script: str, *flags: str | Path, image: str = BUSYBOX, **options: Any) -> Done:
        """Run a shell script in a pod of one app without a network."""
        return self(*self.command(script, *flags, image=image), **options)

    def probe(self, *args: str, flags: Sequence[str | Path] = (), **options: Any) -> Done:
        """Run the probe in a pod."""
        command = ["run", "--net=none", BUSYBOX, "--exec=/bin/probe", *flags, "--", *args]
        return self(*command, **options)

    @staticmethod
    def command(script: str, *flags: str | Path, image: str = BUSYBOX) -> list[str | Path]:
        network = [] if any(str(flag).startswith("--net") for flag in flags) else ["--net=none"]
        return ["run", *network, image, "--exec=/bin/sh", *flags, "--", "-c", script]

    def start(self, *args: str | Path, stdin: int = subprocess.DEVNULL) -> Running:
        """Start a command; the fixture ends it when the test does not."""
        uuid_file = self.directory / f"uuid-{len(self._running)}"
        command = list(args)
        if "run" in command:
            command.insert(command.index("run") + 1, f"--uuid-file-save={uuid_file}")
        process = subprocess.Popen(
            self.rkt.command(*command),
            stdin=stdin,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        running = Running(process, uuid_file)
        self._running.append(running)
        return running

    def start_sh(self, script: str, *flags: str | Path, image: str = BUSYBOX) -> Running:
        """Start a shell script in a pod and wait until it says `ready`."""
        running = self.start(*self.command(script, *flags, image=image))
        running.until("ready")
        return running

    def close(self) -> None:
        for running in self._running:
            running.close()
