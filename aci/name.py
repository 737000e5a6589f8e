"""Names: the texts of appc that have rules, and references to images by name and labels.

A check returns the text it was given, or raises BadName with the rule in it. The rules are the
spec's regular expressions, scanned by hand: `re` costs more to import than all else here.
"""

from __future__ import annotations

from rkt_py.aci.errors import BadName
from rkt_py.aci.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LOWER = "abcdefghijklmnopqrstuvwxyz"
_DIGITS = "0123456789"
_ALNUM = _LOWER + _DIGITS
_LETTERS = _LOWER + _LOWER.upper()
_HEX = _DIGITS + "abcdef"
_SEPARATORS = "-._~/"

# The operating systems and architectures an image may be for, in appc's names (appc spec,
# types.ValidOSArch).
OS_ARCH: dict[str, tuple[str, ...]] = {
    "linux": (
        "amd64", "i386", "aarch64", "aarch64_be", "armv6l", "armv7l", "armv7b",
        "ppc64", "ppc64le", "s390x",
    ),
    "freebsd": ("amd64", "i386", "arm"),
    "darwin": ("x86_64", "i386"),
}  # fmt: skip

HASH_PREFIX = "sha512-"
HASH_SIZE = 128


def quoted(text: str) -> str:
    """Return a text for an error message: quoted, escaped, and no longer than a line."""
    return repr(text if len(text) <= 80 else text[:77] + "...")


# appc spec, types: AC Identifier Type, ^[a-z0-9]+([-._~/][a-z0-9]+)*$, and /~ in the place of a
# separator: example.com/~user/app_v1 is an example of the spec, against its own expression.
def check_identifier(text: str) -> str:
    """Check an AC identifier: the name of an image, a label, an annotation, an isolator."""
    return _check_parts(text, _SEPARATORS, "an AC identifier")


# appc spec, types: AC Name Type, ^[a-z0-9]+([-][a-z0-9]+)*$
def check_name(text: str) -> str:
    """Check an AC name: the name of an app, a volume, a mount point, a port."""
    return _check_parts(text, "-", "an AC name")


_TO_DASH = str.maketrans(dict.fromkeys("._~/", "-"))


def _check_parts(text: str, separators: str, what: str) -> str:
    # strip() of all allowed characters leaves something if and only if another one is there.
    if text.strip(_ALNUM + separators) or not text:
        rule = f"has other characters than a-z, 0-9 and {separators}" if text else "is empty"
    elif text[0] in separators or text[-1] in separators:
        rule = "must begin and end with a letter or digit"
    elif "--" in text.replace("/~", "~").translate(_TO_DASH):
        rule = f"has two of {separators} in a row" if len(separators) > 1 else "has two dashes in a row"
    else:
        return text
    raise BadName(f"{quoted(text)} is not {what}: it {rule}")


def sanitize_identifier(text: str) -> str:
    """Make the nearest AC identifier of any text."""
    return _sanitize(text, _SEPARATORS, "an AC identifier")


def sanitize_name(text: str) -> str:
    """Make the nearest AC name of any text."""
    return _sanitize(text, "-", "an AC name")


def _sanitize(text: str, separators: str, what: str) -> str:
    result = ""
    for character in text.lower():
        if character in _ALNUM:
            result += character
        elif result and result[-1] in _ALNUM:
            # Of separators in a row the first one stays: the rule allows no two.
            result += character if character in separators else "-"
        elif character == "~" and result.endswith("/"):
            result += character
    result = result.rstrip(separators)
    if not result:
        raise BadName(f"nothing of {quoted(text)} can be in {what}")
    return result


# appc spec, types: Image ID Type
def check_hash(text: str, *, prefix: bool = False, elided: bool = False) -> str:
    """Check an image ID: sha512- and 128 hexadecimal digits, or with `prefix` the first few of them.

    With `elided` it may end in "...", as the IDs in the spec's own examples do; no image has such
    an ID.
    """
    digits = text[len(HASH_PREFIX) :] if text.startswith(HASH_PREFIX) else ""
    if elided and digits.endswith("..."):
        digits = digits[:-3] + "0"
        prefix = True
    if not digits:
        rule = "it must begin with sha512-" if not text.startswith(HASH_PREFIX) else "it has no digits"
    elif digits.strip(_HEX):
        rule = "it has other characters than 0-9 and a-f after sha512-"
    elif len(digits) > HASH_SIZE or (len(digits) < HASH_SIZE and not prefix):
        rule = f"it has {len(digits)} digits, not {HASH_SIZE}"
    else:
        return text
    raise BadName(f"{quoted(text)} is not an image ID: {rule}")


def check_version(text: str) -> str:
    """Check an acVersion: semantic versioning 2.0.0, of the 0.x series, not 0.0.0."""
    core, plus, build = text.partition("+")
    core, dash, pre = core.partition("-")
    numbers = core.split(".")
    if (
        len(numbers) != 3
        or not all(_is_number(number) for number in numbers)
        or (dash and not all(_is_prerelease(part) for part in pre.split(".")))
        or (plus and not all(part and not part.strip(_LETTERS + _DIGITS + "-") for part in build.split(".")))
    ):
        raise BadName(f"{quoted(text)} is not a version of the form 0.8.11")
    # appc spec, types: AC Version Type: compatible is the same major version, and 0.8.11 is the last.
    if numbers[0] != "0":
        raise BadName(f"{quoted(text)} is not a version of the appc spec that this program knows (0.x)")
    if numbers == ["0", "0", "0"]:
        raise BadName(f"{quoted(text)} is not a version of the appc spec")
    return text


def _is_number(text: str) -> bool:
    return bool(text) and not text.strip(_DIGITS) and (text == "0" or text[0] != "0")


def _is_prerelease(text: str) -> bool:
    if not text or text.strip(_LETTERS + _DIGITS + "-"):
        return False
    return bool(text.strip(_DIGITS)) or _is_number(text)


_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


# appc spec, types: Timestamps Type; RFC 3339 section 5.6, with the T.
def check_date(text: str) -> str:
    """Check a time as RFC 3339 has it: 2014-10-27T19:32:27.67021798Z."""
    if not _is_date(text):
        raise BadName(f"{quoted(text)} is not a time of the form 2014-10-27T19:32:27Z")
    return text


def _is_date(text: str) -> bool:
    if not text.isascii() or len(text) < 20:
        return False
    fields = (text[0:4], text[5:7], text[8:10], text[11:13], text[14:16], text[17:19])
    if text[4] + text[7] + text[10] + text[13] + text[16] != "--T::" or "".join(fields).strip(_DIGITS):
        return False
    year, month, day, hour, minute, second = map(int, fields)
    if not 1 <= month <= 12:
        return False
    leap = month == 2 and (year % 4 == 0 and year % 100 != 0 or year % 400 == 0)
    # A leap second is 23:59:60 in UTC, which is some other hour elsewhere.
    if not 1 <= day <= _MONTH_DAYS[month - 1] + leap or hour > 23 or minute > 59 or second > 60:
        return False
    rest = text[19:]
    if rest[0] == ".":
        zone = rest[1:].lstrip(_DIGITS)
        if len(zone) == len(rest) - 1:
            return False
        rest = zone
    if rest == "Z":
        return True
    if len(rest) != 6 or rest[0] not in "+-" or rest[3] != ":":
        return False
    digits = rest[1:3] + rest[4:6]
    return not digits.strip(_DIGITS) and int(rest[1:3]) <= 23 and int(rest[4:6]) <= 59


def check_url(text: str) -> str:
    """Check a URL of http or https with a host."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise BadName(f"{quoted(text)} is not a URL of http or https")
    end = min([at for at in map(rest.find, "/?#") if at >= 0], default=len(rest))
    host = rest[:end].rpartition("@")[2]
    if any(character <= " " or character == "\x7f" for character in text):
        raise BadName(f"{quoted(text)} is not a URL: it has a space or control character")
    if not _is_host(host):
        raise BadName(f"{quoted(text)} is not a URL: {quoted(host)} is not a host")
    at = text.find("%")
    while at >= 0:
        if len(text) < at + 3 or text[at + 1 : at + 3].lower().strip(_HEX):
            raise BadName(f"{quoted(text)} is not a URL: {quoted(text[at : at + 3])} is not an escape")
        at = text.find("%", at + 1)
    return text


def _is_host(text: str) -> bool:
    if text.startswith("["):
        address, bracket, port = text[1:].partition("]")
        if not bracket or address.lower().strip(_HEX + ":.") or ":" not in address:
            return False
        if port and port[0] != ":":
            return False
        return not port[1:].strip(_DIGITS)
    host, _, port = text.partition(":")
    return bool(host) and not port.strip(_DIGITS) and not any(c in '<>"\\^`{|}[]' for c in host)


def check_environment_name(text: str) -> str:
    """Check the name of an environment variable."""
    if not text or text.strip(_LETTERS + _DIGITS + "_.-") or text[0] not in _LETTERS + "_":
        raise BadName(
            f"{quoted(text)} is not the name of an environment variable: it must be of letters, digits,"
            " _, . and -, and begin with a letter or _"
        )
    return text


def check_c_string(text: str) -> str:
    """Check a text that the kernel will see: NUL would cut it short."""
    if "\0" in text:
        raise BadName(f"{quoted(text)} has a NUL character")
    return text


@value
class Label:
    """What an image is besides its name: its version, os, arch or anything else."""

    name: str
    value: str


def check_labels(labels: Iterable[Label]) -> None:
    """Check labels together: their names, no two of one name, and a known os and arch."""
    seen: dict[str, str] = {}
    for label in labels:
        check_identifier(label.name)
        if label.name == "name":
            raise BadName("a label may not be named 'name'")
        if label.name in seen:
            raise BadName(f"there are two labels of the name {quoted(label.name)}")
        seen[label.name] = label.value
    system = seen.get("os")
    if system is None:
        # appc spec, aci: arch is meaningful only if os is provided.
        return
    if system not in OS_ARCH:
        raise BadName(f"the os {quoted(system)} is none of {', '.join(OS_ARCH)}")
    if seen.get("arch", OS_ARCH[system][0]) not in OS_ARCH[system]:
        known = ", ".join(OS_ARCH[system])
        raise BadName(f"the arch {quoted(seen['arch'])} is none that {system} has ({known})")


@value
class Reference:
    """An image by name and labels, as people and dependencies name it."""

    name: str
    labels: tuple[Label, ...] = ()

    def label(self, name: str) -> str | None:
        """Return the value of a label, None when it is not said."""
        for label in self.labels:
            if label.name == name:
                return label.value
        return None

    def __str__(self) -> str:
        version = self.label("version")
        text = self.name if version is None else f"{self.name}:{version}"
        return text + "".join(
            [f",{label.name}={label.value}" for label in self.labels if label.name != "version"]
        )


def parse(text: str) -> Reference:
    """Return the Reference that "example.com/app:1.0,os=linux,arch=amd64" spells."""
    first, *rest = text.split(",")
    name, colon, version = first.partition(":")
    check_identifier(name)
    labels = []
    if colon:
        if not version:
            raise BadName(f"{quoted(text)} has no version after the colon")
        labels.append(Label("version", version))
    for item in rest:
        key, equals, content = item.partition("=")
        if not equals or not content:
            raise BadName(f"{quoted(item)} in {quoted(text)} is not a label of the form name=value")
        labels.append(Label(_in(text, check_identifier, key), content))
    if text.count(":") > bool(colon):
        raise BadName(f"{quoted(text)} may have one colon, right after the name")
    seen = set()
    for label in labels:
        if label.name == "name":
            raise BadName(f"a label may not be named 'name', in {quoted(text)}")
        if label.name in seen:
            raise BadName(f"{quoted(text)} has two labels of the name {quoted(label.name)}")
        seen.add(label.name)
    return Reference(name, tuple(labels))


def _in(whole: str, check: Callable[[str], str], part: str) -> str:
    try:
        return check(part)
    except BadName as error:
        raise BadName(f"{error}, in {quoted(whole)}") from None
