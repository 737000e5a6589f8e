"""Logs: what the apps of a pod wrote, read and followed.

    rkt/log/APP      2026-11-20T14:00:00.123456789Z stdout F text
    rkt/log/APP.1    the same, from before APP was begun

The supervisor writes them, a line at a time, in the format of Kubernetes' CRI; F ends a line, P says that
the rest of it comes next. When APP is long enough it becomes APP.1 and a new one begins.
"""

from __future__ import annotations

import heapq
import os
import time
from collections import deque
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from rkt_py.aci.value import value
from rkt_py.runtime.errors import PodError
from rkt_py.runtime.pod import Pod

_PAUSE = 0.05  # seconds between two looks at files that are followed
_BLOCK = 1 << 16


@value
class LogLine:
    """A line, or with `partial` a piece of one. Bytes that are no UTF-8 are surrogate escapes in `text`."""

    time: int  # ns since the epoch
    app: str
    stream: str
    text: str
    partial: bool

    @property
    def stamp(self) -> str:
        """The time as RFC 3339 has it."""
        seconds, nanoseconds = divmod(self.time, 10**9)
        return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{nanoseconds:09d}Z"


def read(
    pod: Pod, app: str | None = None, *, follow: bool = False, tail: int | None = None
) -> Iterator[LogLine]:
    """Yield what one app or all of them wrote, by time; `follow` goes on until the pod has ended.

    `tail` skips all but that many lines of what is there at first.
    """
    if app is not None and app not in _apps(pod) and app not in pod.app_names():
        raise PodError(f'pod "{pod.uuid}" has no app "{app}"')
    logs: dict[str, _Log] = {}
    try:
        # The end is asked for before the last look, so that nothing written before it is missed.
        ended = not follow or not _goes_on(pod)
        _open_new(logs, pod, app)
        yield from _last(_merged(logs.values(), whole=ended), tail)
        while not ended:
            time.sleep(_PAUSE)
            ended = not _goes_on(pod)
            _open_new(logs, pod, app)
            yield from _merged(logs.values(), whole=ended)
    finally:
        for log in logs.values():
            log.close()


def _goes_on(pod: Pod) -> bool:
    return pod.state in ("preparing", "running")


def _apps(pod: Pod) -> set[str]:
    # An app's name has no dot.
    return {name.removesuffix(".1") for name in pod.names("rkt/log") if not name.startswith(".")}


def _open_new(logs: dict[str, _Log], pod: Pod, app: str | None) -> None:
    for name in sorted(_apps(pod) - logs.keys()):
        if app in (None, name):
            logs[name] = _Log(pod, name)


def _merged(logs: Iterable[_Log], *, whole: bool) -> Iterator[LogLine]:
    return heapq.merge(*[log.lines(whole=whole) for log in logs], key=lambda line: line.time)


def _last(lines: Iterator[LogLine], count: int | None) -> Iterator[LogLine]:
    """Keep the last `count` lines, however many pieces each is in."""
    if count is None:
        yield from lines
        return
    kept: deque[LogLine] = deque()
    ends = 0
    for line in lines:
        kept.append(line)
        ends += not line.partial
        while ends > count:
            ends -= not kept.popleft().partial
    if count > 0:
        yield from kept


class _Log:
    """One app's log, read from the older file through the newer one and all that follow."""

    def __init__(self, pod: Pod, app: str) -> None:
        self.pod = pod
        self.app = app
        self.fd: int | None = None
        self.following: int | None = None
        self.rest = b""
        self.time = 0

    def close(self) -> None:
        for fd in (self.fd, self.following):
            self._dismiss(fd)
        self.fd = self.following = None

    def lines(self, *, whole: bool) -> Iterator[LogLine]:
        """Yield what is there and was not yielded yet; `whole` if nobody will finish the last line."""
        if self.fd is None:
            self.fd = self._open(f"{self.app}.1")
            if self.fd is None:
                self.fd = self._open(self.app)
        while self.fd is not None:
            # The writer ends one file before it begins the next, so what the old one has after the new
            # one was seen is all it will ever have.
            self.following = self._following()
            while block := os.read(self.fd, _BLOCK):
                yield from self._parsed(block)
            if self.following is None:
                break
            os.close(self.fd)
            self.fd, self.following = self.following, None
        if whole and self.rest:
            yield from self._parsed(b"\n")

    def _open(self, name: str) -> int | None:
        try:
            return self.pod.open(f"rkt/log/{name}")
        except FileNotFoundError:
            return None

    def _following(self) -> int | None:
        """Open the file after the one we are in."""
        newer = self._open(self.app)
        if newer is None or self._is_ours(newer):
            self._dismiss(newer)
            return None
        # If we are not in the older one, there was a file between them, which is the older one now.
        older = self._open(f"{self.app}.1")
        if older is None or self._is_ours(older):
            self._dismiss(older)
            return newer
        self._dismiss(newer)
        return older

    def _is_ours(self, fd: int) -> bool:
        assert self.fd is not None
        return os.path.samestat(os.fstat(fd), os.fstat(self.fd))

    def _dismiss(self, fd: int | None) -> None:
        if fd is not None:
            os.close(fd)

    def _parsed(self, block: bytes) -> Iterator[LogLine]:
        *lines, self.rest = (self.rest + block).split(b"\n")
        for data in lines:
            line = _parse(data, self.app, self.time)
            self.time = line.time
            yield line


def _parse(data: bytes, app: str, previous: int) -> LogLine:
    text = data.decode("utf-8", "surrogateescape")
    stamp, _, rest = text.partition(" ")
    stream, _, rest = rest.partition(" ")
    tag, separator, content = rest.partition(" ")
    if stream in ("stdout", "stderr") and tag in ("F", "P") and separator:
        try:
            return LogLine(_time(stamp), app, stream, content, tag == "P")
        except ValueError:
            pass
    # A full disk may cut a line anywhere; what is left of it is still what the app wrote.
    return LogLine(previous, app, "stdout", text, False)


def _time(stamp: str) -> int:
    seconds, _, fraction = stamp.removesuffix("Z").partition(".")
    if not stamp.endswith("Z") or len(seconds) != 19 or len(fraction) > 9:
        raise ValueError(stamp)
    moment = datetime.fromisoformat(seconds).replace(tzinfo=UTC)
    return int(moment.timestamp()) * 10**9 + int(f"{fraction:0<9}")
