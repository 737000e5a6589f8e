from __future__ import annotations

from typing import Any, ClassVar

import pytest

from rkt_py.aci.value import replace, value


@value
class Point:
    x: int
    y: int = 0


@value
class Named(Point):
    title: str = "here"
    count: ClassVar[int] = 7


@value
class Checked:
    size: int

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError("negative")


@value
class CaseBlind:
    text: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, CaseBlind) and self.text.lower() == other.text.lower()

    def __hash__(self) -> int:
        return hash(self.text.lower())

    def __repr__(self) -> str:
        return f"<{self.text}>"


@value
class EqualOnly:
    text: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, EqualOnly)


@pytest.mark.parametrize(
    "made",
    [Point(1, 2), Point(1, y=2), Point(x=1, y=2), Point(y=2, x=1)],
)
def test_fields_are_given_by_place_or_by_name(made: Point) -> None:
    assert (made.x, made.y) == (1, 2)
    assert made == Point(1, 2)


def test_a_field_that_is_not_given_has_its_default() -> None:
    assert Point(1).y == 0
    assert Named(1) == Named(1, 0, "here")


def test_fields_of_the_base_come_first() -> None:
    assert Named(1, 2, "there").title == "there"
    assert Named.count == 7
    match Named(1, 2, "there"):
        case Named(x, y, title):
            assert (x, y, title) == (1, 2, "there")


@pytest.mark.parametrize(
    ("args", "named"),
    [
        ((), {}),
        ((), {"y": 1}),
        ((1, 2, 3), {}),
        ((1,), {"x": 1}),
        ((1, 2), {"y": 2}),
        ((1,), {"z": 1}),
        ((1, 2), {"z": 1}),
        ((), {"z": 1}),
        ((), {"y": 1, "z": 1}),
    ],
)
def test_wrong_fields_are_refused(args: tuple[int, ...], named: dict[str, int]) -> None:
    with pytest.raises(TypeError, match=r"Point\(\) takes the fields x, y"):
        Point(*args, **named)


def test_a_value_cannot_be_changed() -> None:
    point: Any = Point(1)
    with pytest.raises(AttributeError, match="cannot set 'x' of a Point"):
        point.x = 2
    with pytest.raises(AttributeError):
        del point.x
    with pytest.raises(AttributeError):
        point.other = 2
    assert point == Point(1)


def test_values_of_different_classes_differ() -> None:
    assert Point(1, 2) != Named(1, 2)
    other: object = (1, 2)
    assert Point(1, 2) != other


def test_equal_values_have_equal_hashes() -> None:
    assert len({Point(1, 2), Point(1, y=2), Point(2, 1)}) == 2


def test_repr_is_the_expression() -> None:
    assert repr(Named(1)) == "Named(x=1, y=0, title='here')"


def test_replace_makes_a_changed_copy() -> None:
    point = Point(1, 2)
    assert replace(point, y=3) == Point(1, 3)
    assert point == Point(1, 2)
    with pytest.raises(TypeError):
        replace(point, z=3)


def test_post_init_is_called() -> None:
    assert Checked(1).size == 1
    with pytest.raises(ValueError, match="negative"):
        Checked(-1)
    with pytest.raises(ValueError, match="negative"):
        replace(Checked(1), size=-1)


def test_methods_of_the_class_are_kept() -> None:
    assert CaseBlind("a") == CaseBlind("A")
    assert len({CaseBlind("a"), CaseBlind("A")}) == 1
    assert repr(CaseBlind("a")) == "<a>"


def test_a_class_with_only_its_own_eq_still_has_a_hash() -> None:
    assert hash(EqualOnly("a")) == hash(EqualOnly("a"))
