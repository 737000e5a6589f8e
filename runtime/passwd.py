"""Users and groups, by number, by a file's owner, or by the image's own /etc/passwd and /etc/group.

The host's users are never asked, nor any library that could ask others (NSS): an image's names are its own.
"""

from __future__ import annotations

from rkt_py.aci.name import quoted
from rkt_py.aci.value import value
from rkt_py.runtime.errors import PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    Read = Callable[[str], "bytes | None"]
    Stat = Callable[[str], "tuple[int, int] | None"]

PASSWD, GROUP = "/etc/passwd", "/etc/group"
MAX_SIZE = 1 << 20

# (uid_t) -1 is "no change" to the kernel: setresuid() of it would leave a process what it was, root.
MAX_ID = 2**32 - 2
_MAX_DIGITS = 20
_NGROUPS_MAX = 65536
_MAX_FIELD = 4095

_HOME, _SHELL = "/", "/bin/sh"


@value
class User:
    """Whom an app runs as, and what the image says of that user."""

    uid: int
    gid: int
    name: str = "root"
    home: str = _HOME
    shell: str = _SHELL


@value
class _Entry:
    """A user of passwd."""

    name: str
    uid: int
    gid: int
    home: str
    shell: str


def resolve(user: str, group: str, *, read: Read, stat: Stat) -> User:
    """Return the user that an app's `user` and `group` mean in its image. Raises PlanError.

    `read` returns the bytes of a regular file of the image and `stat` the uid and gid of its owner, None
    if there is no such file; both resolve links within the image.
    """
    passwd = _passwd(read(PASSWD))
    uid, entry = _uid(user, passwd, stat)
    gid = _gid(group, user, entry, read, stat)
    if entry is None:
        entry = next((item for item in passwd if item.uid == uid), None)
    if entry is None:
        # A user that the image does not know has its number for a name, and root is root without a passwd.
        return User(uid, gid, "root", "/root") if uid == 0 else User(uid, gid, str(uid))
    return User(uid, gid, entry.name, _path(entry.home, _HOME), _path(entry.shell, _SHELL))


def supplementary(gids: Iterable[int]) -> tuple[int, ...]:
    """Return an app's supplementary groups: those of its manifest, whatever passwd or the caller have."""
    groups = tuple(dict.fromkeys(gids))
    for gid in groups:
        if not 0 <= gid <= MAX_ID:
            raise PlanError(f"supplementary group {gid} is not a number from 0 to {MAX_ID}")
    if len(groups) > _NGROUPS_MAX:
        raise PlanError(f"{len(groups)} supplementary groups are more than the {_NGROUPS_MAX} there can be")
    return groups


def _uid(user: str, passwd: list[_Entry], stat: Stat) -> tuple[int, _Entry | None]:
    """Return a user's number, and its entry where it was found by that."""
    kind = _kind("user", user)
    if kind == "number":
        return _number("user", user), None
    if kind == "path":
        return _owner("user", user, stat)[0], None
    entry = next((item for item in passwd if item.name == user), None)
    if entry is None:
        raise PlanError(f"there is no user {quoted(user)} in the image's {PASSWD}")
    return entry.uid, entry


def _gid(group: str, user: str, entry: _Entry | None, read: Read, stat: Stat) -> int:
    kind = _kind("group", group)
    if kind == "number":
        return _number("group", group)
    if kind == "path":
        return _owner("group", group, stat)[1]
    found = _group(read(GROUP), group)
    if found is not None:
        return found
    if group == user and entry is not None:
        # An image of docker's names a user only, and the converter repeats it as the group.
        return entry.gid
    raise PlanError(f"there is no group {quoted(group)} in the image's {GROUP}")


def _kind(what: str, text: str) -> str:
    """Tell whether a text is a number, a path, or a name; refuse what others take for a number."""
    if not text:
        raise PlanError(f"the {what} is empty")
    if not text.isascii() or not text.isprintable() or " " in text:
        raise PlanError(f"{quoted(text)} cannot be a {what}: it has white space, or is not ASCII")
    if text[0] == "/":
        return "path"
    if text.isdigit():
        return "number"
    # -1 is everybody and nobody, +1 and 0x0 are numbers to some: an entry of passwd of that name is a trap.
    if text[0] in "+-" or text[:2].lower() in ("0x", "0o", "0b") or ":" in text or "/" in text:
        raise PlanError(
            f"{quoted(text)} is neither a number from 0 to {MAX_ID}, a path, nor a name of a {what}"
        )
    return "name"


def _number(what: str, text: str) -> int:
    number = int(text) if len(text) <= _MAX_DIGITS else MAX_ID + 1
    if number > MAX_ID:
        raise PlanError(f"{what} {quoted(text)} is not a number from 0 to {MAX_ID}")
    return number


def _owner(what: str, path: str, stat: Stat) -> tuple[int, int]:
    owner = stat(path)
    if owner is None:
        raise PlanError(f"there is no file {quoted(path)} in the image whose owner could be the {what}")
    return owner


def _lines(data: bytes | None, path: str) -> Iterator[list[str]]:
    """Yield the fields of each line that has a name which is one."""
    if data is None:
        return
    if len(data) > MAX_SIZE:
        raise PlanError(f"the image's {path} is larger than {MAX_SIZE >> 20} MiB")
    for line in data.split(b"\n"):
        fields = line.decode("utf-8", "replace").split(":", 7)
        # +name and -name are what yellow pages add and hide.
        if fields[0] and fields[0].isprintable() and fields[0][0] not in "+-#":
            yield fields


def _id(text: str) -> int | None:
    digits = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if digits and int(text) <= MAX_ID else None


def _passwd(data: bytes | None) -> list[_Entry]:
    """Return the users of passwd(5); lines that are none are nobody's."""
    entries = []
    for fields in _lines(data, PASSWD):
        # Home and shell may be missing at the end.
        name, _, uid, gid, _, home, shell = (*fields[:7], "", "", "", "", "", "")[:7]
        numbers = _id(uid), _id(gid)
        if numbers[0] is not None and numbers[1] is not None:
            entries.append(_Entry(name, numbers[0], numbers[1], home, shell))
    return entries


def _group(data: bytes | None, group: str) -> int | None:
    """Return the number of a group of group(5), by its first line with one."""
    for fields in _lines(data, GROUP):
        gid = _id(fields[2]) if len(fields) > 2 else None
        if fields[0] == group and gid is not None:
            return gid
    return None


def _path(text: str, otherwise: str) -> str:
    """Return a path of passwd as it may stand in an environment."""
    return text if text[:1] == "/" and text.isprintable() and len(text) <= _MAX_FIELD else otherwise
