"""Quantities of a resource: "250m", "1.5", "2Gi", "1e3", exactly as Kubernetes reads them."""

from __future__ import annotations

from rkt_py.aci.errors import BadManifest
from rkt_py.aci.name import quoted
from rkt_py.aci.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Format = Literal["DecimalSI", "BinarySI", "DecimalExponent"]

_DIGITS = "0123456789"
_NANO = 10**9
MAX_INT64 = 2**63 - 1
# Far above any real quantity, and low enough that 10**exponent stays small.
_MAX_LENGTH = 64
_MAX_EXPONENT = 999

_DECIMAL = {
    "n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18,
    # The appc spec writes kilo as K, Kubernetes as k.
    "K": 3,
}  # fmt: skip
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIXES = {-9: "n", -6: "u", -3: "m", 0: "", 3: "k", 6: "M", 9: "G", 12: "T", 15: "P", 18: "E"}
_BINARY_SUFFIXES = ("", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei")


@value
class Quantity:
    """An exact amount, and the kind of suffix it was written with. Equal is what is as much."""

    nano: int
    """The amount in units of 10**-9, the finest there is."""
    format: Format = "DecimalSI"

    def value(self) -> int:
        """Return the amount as a whole number, rounded away from zero."""
        return _divide(self.nano, _NANO)

    def milli(self) -> int:
        """Return the amount in thousandths, rounded away from zero."""
        return _divide(self.nano, 10**6)

    def __eq__(self, other: object) -> bool:
        return self.nano == other.nano if isinstance(other, Quantity) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.nano)

    def __lt__(self, other: Quantity) -> bool:
        return self.nano < other.nano

    def __le__(self, other: Quantity) -> bool:
        return self.nano <= other.nano

    def __gt__(self, other: Quantity) -> bool:
        return self.nano > other.nano

    def __ge__(self, other: Quantity) -> bool:
        return self.nano >= other.nano

    def __str__(self) -> str:
        """Return the canonical spelling: no fraction, and the largest suffix that needs none."""
        if not self.nano:
            return "0"
        whole, fraction = divmod(self.nano, _NANO)
        if self.format == "BinarySI" and not fraction and not -1024 < whole < 1024:
            power = 0
            while power < 6 and whole % 1024 == 0:
                whole //= 1024
                power += 1
            return f"{whole}{_BINARY_SUFFIXES[power]}"
        mantissa, exponent = self.nano, -9
        while mantissa % 1000 == 0:
            mantissa //= 1000
            exponent += 3
        suffix = None if self.format == "DecimalExponent" else _DECIMAL_SUFFIXES.get(exponent)
        if suffix is None:
            suffix = f"e{exponent}" if exponent else ""
        return f"{mantissa}{suffix}"


def _divide(amount: int, unit: int) -> int:
    return -(-amount // unit) if amount >= 0 else amount // unit


def parse(text: str) -> Quantity:
    """Return the quantity a text spells."""
    if len(text) > _MAX_LENGTH:
        raise BadManifest(f"{quoted(text)} is longer than a quantity may be")
    negative = text[:1] == "-"
    body = text[1:] if text[:1] in ("-", "+") else text
    after_whole = body.lstrip(_DIGITS)
    whole = body[: len(body) - len(after_whole)]
    fraction, suffix = "", after_whole
    if after_whole[:1] == ".":
        suffix = after_whole[1:].lstrip(_DIGITS)
        fraction = after_whole[1 : len(after_whole) - len(suffix)]
    if not whole and not fraction:
        raise _bad(text)
    digits = int(whole + fraction)
    kind: Format = "DecimalSI"
    scale = 9 - len(fraction)
    if suffix in _DECIMAL:
        scale += _DECIMAL[suffix]
    elif suffix in _BINARY:
        kind = "BinarySI"
        digits <<= _BINARY[suffix]
    else:
        kind = "DecimalExponent"
        scale += _exponent(text, suffix)
    # What is finer than a billionth is rounded up: who asks for something gets something.
    nano = digits * 10**scale if scale >= 0 else -(-digits // 10**-scale)
    if kind == "BinarySI":
        nano = min(nano, MAX_INT64 * _NANO)
        if 0 < nano < _NANO:
            kind = "DecimalSI"
    return Quantity(-nano if negative else nano, kind)


def _exponent(text: str, suffix: str) -> int:
    sign = -1 if suffix[1:2] == "-" else 1
    digits = suffix[2:] if suffix[1:2] in ("-", "+") else suffix[1:]
    if suffix[0] not in "eE" or not digits or digits.strip(_DIGITS):
        raise _bad(text)
    exponent = sign * int(digits)
    if abs(exponent) > _MAX_EXPONENT:
        raise BadManifest(f"{quoted(text)} has an exponent beyond {_MAX_EXPONENT}")
    return exponent


def _bad(text: str) -> BadManifest:
    return BadManifest(f"{quoted(text)} is not a quantity such as 250m, 1.5, 2Gi or 1e3")
