"""Forwarding of IPv4 by the host: on while pods need it, and then as it was.

Turning `ip_forward` on or off overwrites more than itself: forwarding of every interface there is,
and whether redirects are accepted. So all of that is noted down first, and put back after.
"""

from __future__ import annotations

import json
import os

_CONF = "/proc/sys/net/ipv4/conf"
_NEW = ".new"
_SWITCH = "/proc/sys/net/ipv4/ip_forward"


def enable(directory: str) -> None:
    """Turn forwarding on, unless it is, and note down what was in `directory`."""
    if _read(_SWITCH) != "0":
        return
    if not os.path.exists(_note(directory)):
        with open(f"{directory}/{_NEW}", "w") as file:
            json.dump(_state(), file)
        os.rename(f"{directory}/{_NEW}", _note(directory))
    _write(_SWITCH, "1")


def restore(directory: str) -> None:
    """Put back what `enable` found, if it changed anything."""
    try:
        with open(_note(directory)) as file:
            state: dict[str, str] = json.load(file)
    except FileNotFoundError:
        return
    _write(_SWITCH, "0")
    for path, was in state.items():
        # An interface may be gone by now.
        if os.path.exists(path) and _read(path) != was:
            _write(path, was)
    os.unlink(_note(directory))


def _note(directory: str) -> str:
    return f"{directory}/.forwarding"


def _state() -> dict[str, str]:
    state = {f"{_CONF}/all/accept_redirects": _read(f"{_CONF}/all/accept_redirects")}
    for name in os.listdir(_CONF):
        if name != "all":
            state[f"{_CONF}/{name}/forwarding"] = _read(f"{_CONF}/{name}/forwarding")
    return state


def _read(path: str) -> str:
    with open(path) as file:
        return file.read().strip()


def _write(path: str, text: str) -> None:
    with open(path, "w") as file:
        file.write(text)
