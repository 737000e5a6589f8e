from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkt_py.aci import quantity
from rkt_py.aci.errors import BadManifest
from rkt_py.aci.quantity import MAX_INT64, Quantity

D, B, E = "DecimalSI", "BinarySI", "DecimalExponent"

# text, amount as a fraction, kind of suffix, canonical spelling
QUANTITIES: list[tuple[str, Fraction | str | int, str, str]] = [
    # appc spec, ace: Resource Isolators: the first three are the same.
    ("128974848", 128974848, D, "128974848"),
    ("125952Ki", 128974848, B, "123Mi"),
    ("123Mi", 128974848, B, "123Mi"),
    ("0.3", "0.3", D, "300m"),
    ("300m", "0.3", D, "300m"),
    ("250m", "0.25", D, "250m"),
    ("1G", 10**9, D, "1G"),
    ("2M", 2 * 10**6, D, "2M"),
    ("1K", 1000, D, "1k"),
    # zero
    ("0", 0, D, "0"),
    ("00", 0, D, "0"),
    ("0n", 0, D, "0"),
    ("0m", 0, D, "0"),
    ("0Ki", 0, B, "0"),
    ("0Ti", 0, B, "0"),
    ("0e9", 0, E, "0"),
    ("0.0", 0, D, "0"),
    # binary
    ("1Ki", 1024, B, "1Ki"),
    ("8Ki", 8 * 1024, B, "8Ki"),
    ("7Mi", 7 << 20, B, "7Mi"),
    ("6Gi", 6 << 30, B, "6Gi"),
    ("5Ti", 5 << 40, B, "5Ti"),
    ("4Pi", 4 << 50, B, "4Pi"),
    ("3Ei", 3 << 60, B, "3Ei"),
    ("1024Mi", 1 << 30, B, "1Gi"),
    ("307200Ki", 300 << 20, B, "300Mi"),
    ("1025024Mi", 1001 << 30, B, "1001Gi"),
    ("1024Gi", 1 << 40, B, "1Ti"),
    ("100.035Ki", "102435.84", B, "102435840m"),
    ("0.5Mi", 1 << 19, B, "512Ki"),
    ("0.05Gi", "53687091.2", B, "53687091200m"),
    ("1.5Gi", 1536 << 20, B, "1536Mi"),
    ("0.5Ki", 512, B, "512"),
    (".001Ki", "1.024", B, "1024m"),
    (".000001Ki", "0.001024", D, "1024u"),
    (".000000001Ki", "0.000001024", D, "1024n"),
    ("0.000000000001Ki", "0.000000002", D, "2n"),
    # decimal
    ("5n", "0.000000005", D, "5n"),
    ("4u", "0.000004", D, "4u"),
    ("3m", "0.003", D, "3m"),
    ("9", 9, D, "9"),
    ("8k", 8000, D, "8k"),
    ("50k", 50_000, D, "50k"),
    ("7M", 7 * 10**6, D, "7M"),
    ("6G", 6 * 10**9, D, "6G"),
    ("300T", 3 * 10**14, D, "300T"),
    ("2P", 2 * 10**15, D, "2P"),
    ("1E", 10**18, D, "1E"),
    ("12E", 12 * 10**18, D, "12E"),
    ("1000E", 10**21, D, "1e21"),
    ("1000m", 1, D, "1"),
    ("1000u", "0.001", D, "1m"),
    ("1000M", 10**9, D, "1G"),
    ("0.001T", 10**9, D, "1G"),
    ("1024M", 1024 * 10**6, D, "1024M"),
    ("1.08", "1.08", D, "1080m"),
    ("1080000000n", "1.08", D, "1080m"),
    ("100.035k", 100035, D, "100035"),
    ("0.0005k", "0.5", D, "500m"),
    ("0.00500", "0.005", D, "5m"),
    ("9.01", "9.01", D, "9010m"),
    ("7.123456M", 7123456, D, "7123456"),
    ("1.01E", 101 * 10**16, D, "1010P"),
    # exponents
    ("1E-3", "0.001", E, "1e-3"),
    ("1e3", 1000, E, "1e3"),
    ("1E6", 10**6, E, "1e6"),
    ("1e+3", 1000, E, "1e3"),
    ("1e14", 10**14, E, "100e12"),
    ("0.5e0", "0.5", E, "500e-3"),
    ("0.5e-1", "0.05", E, "50e-3"),
    ("1.2e3", 1200, E, "1200"),
    ("1.3E+6", 13 * 10**5, E, "1300e3"),
    ("1.7E18", 17 * 10**17, E, "1700e15"),
    (".001e12", 10**9, E, "1e9"),
    ("1000e-12", "0.000000001", E, "1e-9"),
    ("1e100", 10**100, E, "10e99"),
    ("1e999", 10**999, E, "1e999"),
    # finer than a billionth is rounded away from zero, binary is held to 2**63-1
    ("3.001n", "0.000000004", D, "4n"),
    ("1.1E-9", "0.000000002", E, "2e-9"),
    ("0.0000000001", "0.000000001", D, "1n"),
    ("0.9n", "0.000000001", D, "1n"),
    ("1e-999", "0.000000001", E, "1e-9"),
    ("0.00000012345", "0.000000124", D, "124n"),
    ("9Ei", MAX_INT64, B, "9223372036854775807"),
    ("9223372036854775807Ki", MAX_INT64, B, "9223372036854775807"),
    # spellings that Kubernetes takes, too
    (".001", "0.001", D, "1m"),
    ("1.", 1, D, "1"),
    ("1.G", 10**9, D, "1G"),
    ("007", 7, D, "7"),
]


@pytest.mark.parametrize(("text", "amount", "kind", "canonical"), QUANTITIES)
def test_quantities(text: str, amount: Fraction | str | int, kind: str, canonical: str) -> None:
    for sign, spelled in ((1, text), (1, "+" + text), (-1, "-" + text)):
        found = quantity.parse(spelled)
        assert Fraction(found.nano, 10**9) == sign * Fraction(amount)
        assert found.format == kind or not found.nano
        assert str(found) == ("-" if sign < 0 and found.nano else "") + canonical
        again = quantity.parse(str(found))
        assert again == found
        assert str(again) == str(found)


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "-", "+", "-.", "1.1.M", "1+1.0M", "0.1mi", "0.1am", "aoeu", ".5i", "1i", "-3.01i",
        "-3.01e-", "1e", "1e+", "1ee3", "1e3m", "1e1.5", " 1", "1 ", "1 G", "1\n", "--1", "+-1", "1KiB",
        "1mB", "1g", "1ki", "1t", "0x10", "1_000", "1,5", "١", "²", "inf", "nan", "1e1000", "1e-1000",
        "1e" + "9" * 40, "9" * 65, "1" + "0" * 5000, "1e³",
    ],
)  # fmt: skip
def test_what_is_not_a_quantity_is_refused(text: str) -> None:
    with pytest.raises(BadManifest) as caught:
        quantity.parse(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("text", "value", "milli"),
    [
        ("1", 1, 1000),
        ("250m", 1, 250),
        ("1001m", 2, 1001),
        ("1n", 1, 1),
        ("1000001n", 1, 2),
        ("-250m", -1, -250),
        ("-1001m", -2, -1001),
        ("-1u", -1, -1),
        ("2Gi", 2 << 30, 2000 << 30),
        ("0", 0, 0),
        ("30m", 1, 30),
    ],
)
def test_amounts_are_rounded_away_from_zero(text: str, value: int, milli: int) -> None:
    assert quantity.parse(text).value() == value
    assert quantity.parse(text).milli() == milli


@pytest.mark.parametrize(
    ("one", "two", "order"),
    [
        ("0", "0", 0),
        ("100m", "50m", 1),
        ("50m", "100m", -1),
        ("10000T", "100Gi", 1),
        ("1k", "1e3", 0),
        ("1Ki", "1024", 0),
        ("1G", "1Gi", -1),
        ("-1", "1", -1),
    ],
)
def test_quantities_are_compared_by_amount(one: str, two: str, order: int) -> None:
    a, b = quantity.parse(one), quantity.parse(two)
    assert (a < b, a == b, a > b) == (order < 0, order == 0, order > 0)
    assert (a <= b, a != b, a >= b) == (order <= 0, order != 0, order >= 0)
    if order == 0:
        assert hash(a) == hash(b)


def test_a_quantity_is_not_a_number() -> None:
    assert quantity.parse("1") != 1


@given(st.text(alphabet="019.+-eEimKMn ", max_size=9) | st.text())
@settings(max_examples=1000, deadline=None)
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = quantity.parse(text)
    except BadManifest:
        return
    assert quantity.parse(str(found)) == found


@given(st.integers(-(2**63), 2**63 - 1), st.sampled_from([D, B, E]))
@settings(max_examples=500, deadline=None)
def test_the_canonical_spelling_has_the_same_amount(nano: int, kind: quantity.Format) -> None:
    made = Quantity(nano, kind)
    text = str(made)
    assert "." not in text
    assert quantity.parse(text) == made
    # 25000 in binary units has no unit, and is read as decimal: 25k.
    if kind != B or text[-1] == "i":
        assert str(quantity.parse(text)) == text
