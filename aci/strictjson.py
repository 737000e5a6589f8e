"""JSON as the manifests want it: bounded, without duplicate keys, and without importing `json`.

`json` imports `re`, which costs more than everything else that reading a manifest does. The C
scanner below it (`_json`) needs neither; where an interpreter lacks it, `json` does the same work.
"""

from __future__ import annotations

from rkt_py.aci.errors import BadManifest, BadName

try:
    from _json import encode_basestring as _quote
except ImportError:
    from json.encoder import encode_basestring as _quote

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

MAX_SIZE = 4 << 20
MAX_DEPTH = 64
# Longer than any 64-bit integer, and than the shortest exact spelling of any double.
MAX_DIGITS = 32

_WHITESPACE = " \t\n\r"


class _Refused(Exception):
    """What the document holds that JSON allows and we do not; the rest of a sentence."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        seen = set()
        for key, _ in pairs:
            if key in seen:
                raise _Refused(f"has the key {_shown(key)} twice in one object")
            seen.add(key)
    return result


def _integer(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise _Refused(f"has a number of {len(digits)} digits")
    return int(digits)


def _float(digits: str) -> float:
    if len(digits) > MAX_DIGITS:
        raise _Refused(f"has a number of {len(digits)} digits")
    number = float(digits)
    if number in (_INFINITY, -_INFINITY):
        raise _Refused(f"has the number {digits}, which is too large")
    return number


def _constant(name: str) -> object:
    raise _Refused(f"has {name}, which is not JSON")


_INFINITY = float("inf")


class _Context:
    """What the scanner reads its settings from."""

    strict = True
    object_hook = None
    object_pairs_hook = staticmethod(_object)
    array_hook = None
    parse_int = staticmethod(_integer)
    parse_float = staticmethod(_float)
    parse_constant = staticmethod(_constant)
    memo: dict[str, str] = {}


def _scanner() -> Callable[[str, int], tuple[object, int]]:
    try:
        from _json import make_scanner
    except ImportError:
        from json import JSONDecoder

        return JSONDecoder(
            object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        ).raw_decode
    return make_scanner(_Context())  # type: ignore[arg-type]


_scan = _scanner()


def _scan_all(text: str, start: int) -> tuple[object, int]:
    try:
        return _scan(text, start)
    except SystemError:
        # Before Python 3.13 the scanner raises json.decoder's error only if somebody imported that, and
        # otherwise fails without an exception.
        import json.decoder  # noqa: F401

        return _scan(text, start)


def loads(data: bytes, *, what: str, max_size: int = MAX_SIZE, max_depth: int = MAX_DEPTH) -> object:
    """Return what a JSON document holds; `what` is its name in errors ("image manifest")."""
    if len(data) > max_size:
        raise BadManifest(f"the {what} is larger than {max_size} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadManifest(f"the {what} is not UTF-8: bad byte at offset {error.start}") from None
    if text[:1] == "\ufeff":
        raise BadManifest(f"the {what} begins with a byte order mark")
    stop = len(text.rstrip(_WHITESPACE))
    if not stop:
        raise BadManifest(f"the {what} is not JSON: it is empty")
    try:
        value, end = _scan_all(text, len(text) - len(text.lstrip(_WHITESPACE)))
        if end < stop:
            end = len(text) - len(text[end:].lstrip(_WHITESPACE))
            raise BadManifest(f"the {what} has data after its end at {_position(text, end)}")
        if text.count("[") + text.count("{") > max_depth or "\\u" in text:
            _check(value, max_depth)
    except _Refused as error:
        raise BadManifest(f"the {what} {error}") from None
    except RecursionError:
        raise BadManifest(f"the {what} is nested deeper than {max_depth} levels") from None
    except StopIteration as error:
        place = _position(text, error.value)
        raise BadManifest(f"the {what} is not JSON: expecting value at {place}") from None
    except ValueError as error:
        # A json.JSONDecodeError; its class is not imported here.
        message: str = getattr(error, "msg", str(error)).removesuffix(" at")
        place = _position(text, getattr(error, "pos", 0))
        raise BadManifest(f"the {what} is not JSON: {message[:1].lower()}{message[1:]} at {place}") from None
    return value


def _position(text: str, offset: int) -> str:
    return f"line {text.count(chr(10), 0, offset) + 1}, column {offset - text.rfind(chr(10), 0, offset)}"


def _check(value: object, max_depth: int) -> None:
    """Refuse what is nested too deep, and strings that no UTF-8 can spell."""
    level = [value]
    for _ in range(max_depth):
        below: list[object] = []
        for item in level:
            if type(item) is dict:
                for key in item:
                    _check_string(key)
                below.extend(item.values())
            elif type(item) is list:
                below.extend(item)
            elif type(item) is str:
                _check_string(item)
        if not below:
            return
        level = below
    if any(type(item) in (dict, list) for item in level):
        raise _Refused(f"is nested deeper than {max_depth} levels")
    for item in level:
        if type(item) is str:
            _check_string(item)


def _check_string(text: str) -> None:
    if not text.isascii():
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            code = ord(text[error.start])
            raise _Refused(f"has a string with half of a surrogate pair, \\u{code:04x}") from None


def dumps(value: object, *, indent: str | None = None) -> str:
    """Return a value as JSON, spelled as Go's encoding/json does: keys stay in their order."""
    pieces: list[str] = []
    _dump(value, pieces.append, "" if indent is None else indent, None if indent is None else "\n")
    return "".join(pieces)


def _dump(value: object, write: Callable[[str], None], indent: str, line: str | None) -> None:
    kind = type(value)
    if kind is str:
        write(_string(value))  # type: ignore[arg-type]
    elif value is None:
        write("null")
    elif kind is bool:
        write("true" if value else "false")
    elif kind is int:
        write(str(value))
    elif kind is float:
        if value in (_INFINITY, -_INFINITY) or value != value:
            raise ValueError(f"JSON has no {value}")
        write(repr(value))
    elif kind is dict:
        _dump_items(value.items(), "{}", write, indent, line)  # type: ignore[attr-defined]
    elif kind is list or kind is tuple:
        _dump_items([(None, item) for item in value], "[]", write, indent, line)  # type: ignore[attr-defined]
    else:
        raise TypeError(f"a {kind.__name__} is not a JSON value")


def _dump_items(
    items: list[tuple[str | None, object]],
    brackets: str,
    write: Callable[[str], None],
    indent: str,
    line: str | None,
) -> None:
    if not items:
        write(brackets)
        return
    inner = None if line is None else line + indent
    colon = ":" if line is None else ": "
    before = brackets[0] + (inner or "")
    between = "," + (inner or "")
    for key, item in items:
        write(before)
        if key is not None:
            write(_string(key) + colon)
        _dump(item, write, indent, inner)
        before = between
    write((line or "") + brackets[1])


def _string(text: str) -> str:
    quoted = _quote(text)
    # Go escapes these so that JSON can stand inside HTML and JavaScript.
    if "<" in quoted or ">" in quoted or "&" in quoted:
        quoted = quoted.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    if not quoted.isascii():
        quoted = quoted.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029")
    return quoted


_KINDS = {
    "dict": "an object",
    "list": "a list",
    "str": "a string",
    "int": "a number",
    "float": "a number with a fraction or exponent",
    "bool": "true or false",
    "NoneType": "null",
}


def kind_of(value: object) -> str:
    """Name the kind of a JSON value for a sentence."""
    return _KINDS[type(value).__name__]


def _shown(text: str) -> str:
    return repr(text if len(text) <= 80 else text[:77] + "...")


class Fields:
    """The fields of one JSON object, read as Go reads them into a struct.

    Keys match whatever their case, null is the same as absent, and unknown keys are ignored. Every
    method raises BadManifest with the path of the field.
    """

    __slots__ = ("_values", "path")

    def __init__(self, value: object, path: str = "") -> None:
        if type(value) is not dict:
            subject = "" if path else "the manifest "
            raise BadManifest(f"{subject}must be an object, not {kind_of(value)}", path)
        self.path = path
        self._values = {key.lower(): item for key, item in value.items()}
        if len(self._values) != len(value):
            seen: dict[str, str] = {}
            for key in value:
                other = seen.setdefault(key.lower(), key)
                if other != key:
                    subject = "" if path else "the manifest "
                    raise BadManifest(f"{subject}has both {_shown(other)} and {_shown(key)}", path)

    def at(self, key: str) -> str:
        """Return the path of a field."""
        return f"{self.path}.{key}" if self.path else key

    def get(self, key: str) -> object:
        """Return a field of any kind, None when there is none."""
        return self._values.get(key.lower())

    def text(self, key: str, check: Callable[[str], str] | None = None, *, default: str | None = None) -> str:
        """Return a string that passes `check`; it must be there, unless there is a default."""
        value = self._values.get(key.lower())
        if value is None:
            if default is None:
                raise BadManifest("is missing", self.at(key))
            return default
        if type(value) is not str:
            raise BadManifest(f"must be a string, not {kind_of(value)}", self.at(key))
        if check is not None:
            try:
                return check(value)
            except BadName as error:
                raise BadManifest(str(error), self.at(key)) from None
        return value

    def integer(self, key: str, low: int, high: int, *, default: int | None = None) -> int:
        """Return a whole number from low to high; it must be there, unless there is a default."""
        value = self._values.get(key.lower())
        if value is None:
            if default is None:
                raise BadManifest("is missing", self.at(key))
            return default
        return whole(value, low, high, self.at(key))

    def flag(self, key: str) -> bool | None:
        """Return true or false, None when it is not said."""
        value = self._values.get(key.lower())
        if value is not None and type(value) is not bool:
            raise BadManifest(f"must be true or false, not {kind_of(value)}", self.at(key))
        return value

    def items(self, key: str) -> Iterator[tuple[str, object]]:
        """Yield the path and the value of each item of a list."""
        value = self._values.get(key.lower())
        if value is None:
            return
        path = self.at(key)
        if type(value) is not list:
            raise BadManifest(f"must be a list, not {kind_of(value)}", path)
        for index, item in enumerate(value):
            yield f"{path}[{index}]", item

    def texts(self, key: str, check: Callable[[str], str] | None = None) -> tuple[str, ...]:
        """Return a list of strings that pass `check`."""
        result = []
        for path, item in self.items(key):
            if type(item) is not str:
                raise BadManifest(f"must be a string, not {kind_of(item)}", path)
            if check is not None:
                try:
                    item = check(item)
                except BadName as error:
                    raise BadManifest(str(error), path) from None
            result.append(item)
        return tuple(result)

    def mapping(self, key: str) -> dict[str, str]:
        """Return an object of strings."""
        value = self._values.get(key.lower())
        return {} if value is None else texts_by_key(value, self.at(key))


def whole(value: object, low: int, high: int, path: str) -> int:
    """Return a JSON value that is a whole number from low to high."""
    if type(value) is not int:
        raise BadManifest(f"must be a whole number, not {kind_of(value)}", path)
    if not low <= value <= high:
        raise BadManifest(f"must be from {low} to {high}, not {value}", path)
    return value


def texts_by_key(value: object, path: str) -> dict[str, str]:
    """Return a JSON value that is an object of strings."""
    if type(value) is not dict:
        raise BadManifest(f"must be an object, not {kind_of(value)}", path)
    for key, item in value.items():
        if type(item) is not str:
            raise BadManifest(f"must be a string, not {kind_of(item)}", f"{path}[{_shown(key)}]")
    return dict(value)
