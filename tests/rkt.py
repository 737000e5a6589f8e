"""The installed command, as a user starts it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

PROGRAM = Path(sys.prefix, "bin", "rkt-py")


class Result(NamedTuple):
    """How a command ended and what it wrote."""

    code: int
    stdout: str
    stderr: str


class Rkt:
    """`rkt-py --dir=DATA`, with a data directory of its own."""

    def __init__(self, data: Path, program: Path = PROGRAM) -> None:
        self.data = data
        self.program = program
        self.started: list[subprocess.Popen[str]] = []

    def command(self, *args: str | Path) -> list[str]:
        return [str(self.program), f"--dir={self.data}", *(os.fspath(arg) for arg in args)]

    def __call__(
        self,
        *args: str | Path,
        timeout: float = 60,
        stdin: str = "",
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
    ) -> Result:
        """Run a command to its end. One that hangs is killed and fails the test with what it wrote."""
        done = subprocess.run(
            self.command(*args),
            input=stdin,
            env=env,
            cwd=cwd,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )
        return Result(done.returncode, done.stdout, done.stderr)

    def ok(self, *args: str | Path, timeout: float = 60) -> str:
        """Run a command that must succeed; return its standard output."""
        result = self(*args, timeout=timeout)
        assert result.code == 0, f"rkt-py {' '.join(map(str, args))}: {result}"
        return result.stdout

    def start(self, *args: str | Path) -> subprocess.Popen[str]:
        """Start a command and return at once; `close` ends it if the test did not."""
        process = subprocess.Popen(
            self.command(*args),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.started.append(process)
        return process

    def close(self) -> None:
        """End what was started, and collect every pod."""
        for process in self.started:
            if process.poll() is None:
                process.terminate()
            try:
                process.communicate(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
        if (self.data / "pods").exists():
            self("gc", "--grace-period=0s", "--expire-prepared=0s")
            self("gc", "--grace-period=0s", "--expire-prepared=0s")
