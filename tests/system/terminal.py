"""A terminal with a program in it: what is shown, what is typed, its size."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Sequence

PATIENCE = 20.0


class Terminal:
    """A pseudo terminal whose user is a test, with a session of its own on the other side."""

    def __init__(self, command: Sequence[str], *, rows: int = 24, columns: int = 80) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.mode = termios.tcgetattr(self.slave)
        self.shown = ""
        self._at = 0
        slave = self.slave

        def take() -> None:
            fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True, preexec_fn=take
        )

    def resize(self, rows: int, columns: int) -> None:
        """The kernel tells the terminal's foreground processes by SIGWINCH."""
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("4H", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def until(self, text: str) -> str:
        """Wait until a text is shown that was not waited for yet; return what came before it."""
        deadline = time.monotonic() + PATIENCE
        while (found := self.shown.find(text, self._at)) < 0:
            self._read(deadline, f"no {text!r}")
        before = self.shown[self._at : found]
        self._at = found + len(text)
        return before

    def _read(self, deadline: float, otherwise: str) -> None:
        ready, _, _ = select.select([self.master], [], [], max(0, deadline - time.monotonic()))
        assert ready, f"{otherwise} in {self.shown!r}"
        self.shown += os.read(self.master, 65536).decode(errors="replace")

    def end(self) -> int:
        """Wait until the program has ended, reading what it shows."""
        deadline = time.monotonic() + PATIENCE
        while self.process.poll() is None:
            if select.select([self.master], [], [], 0.005)[0]:
                self._read(deadline, "")
            assert time.monotonic() < deadline, f"has not ended: {self.shown!r}"
        while select.select([self.master], [], [], 0)[0]:
            self._read(deadline, "")
        return self.process.returncode

    def is_raw(self) -> bool:
        return not termios.tcgetattr(self.slave)[3] & termios.ICANON

    def close(self) -> None:
        if self.process.poll() is None:
            for _ in range(2):
                self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        os.close(self.master)
        os.close(self.slave)
