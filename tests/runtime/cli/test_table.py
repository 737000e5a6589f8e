"""Tables, times and sizes as rkt prints them."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkt_py.runtime.cli import table

SECOND = table.SECOND
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
MONTH = 30 * DAY
YEAR = 12 * MONTH


# What text/tabwriter writes with minimum width 0, tab width 8, padding 1 and tabs as padding.
@pytest.mark.parametrize(
    ("rows", "text"),
    [
        ([], ""),
        ([[]], "\n"),
        ([["a"]], "a\n"),
        ([["a", "b"]], "a\tb\n"),
        ([["1234567", "b"]], "1234567\tb\n"),
        ([["12345678", "b"]], "12345678\tb\n"),
        ([["12345678", "x"], ["a", "y"]], "12345678\tx\na\t\ty\n"),
        ([["1234567", "x"], ["a", "y"]], "1234567\tx\na\ty\n"),
        ([["", "x"], ["a", "y"]], "\tx\na\ty\n"),
        ([["", "", "x"]], "\t\tx\n"),
        # The last cell is not part of its column.
        ([["a", "long last cell"], ["b", "c"]], "a\tlong last cell\nb\tc\n"),
        # A line without the cell ends the column: the blocks above and below have widths of their own.
        ([["0123456789", "x"], ["alone"], ["a", "y"]], "0123456789\tx\nalone\na\ty\n"),
        ([["a", "b", "c"], ["longer than 8", "d"]], "a\t\tb\tc\nlonger than 8\td\n"),
        ([["a", "", ""], ["0123456789", "x", "y"]], "a\t\t\t\n0123456789\tx\ty\n"),
        # Runes, not bytes.
        ([["ééééééé", "x"], ["1234567", "y"]], "ééééééé\tx\n1234567\ty\n"),
        (
            [
                ["UUID", "APP", "IMAGE NAME", "STATE", "CREATED", "STARTED", "NETWORKS"],
                [
                    "2cd2c3f1",
                    "etcd",
                    "coreos.com/etcd:v2",
                    "running",
                    "now",
                    "now",
                    "default:ip4=172.16.28.2",
                ],
                ["", "web", "example.com/web", "", "", "", ""],
                ["7bb1e1c4", "-", "-", "prepared", "4 seconds ago", "", ""],
            ],
            "UUID\t\tAPP\tIMAGE NAME\t\tSTATE\t\tCREATED\t\tSTARTED\tNETWORKS\n"
            "2cd2c3f1\tetcd\tcoreos.com/etcd:v2\trunning\t\tnow\t\tnow\tdefault:ip4=172.16.28.2\n"
            "\t\tweb\texample.com/web\t\t\t\t\t\t\t\n"
            "7bb1e1c4\t-\t-\t\t\tprepared\t4 seconds ago\t\t\n",
        ),
    ],
)
def test_columns_are_those_of_gos_tabwriter(rows: list[list[str]], text: str) -> None:
    assert table.render(rows) == text


@given(st.lists(st.lists(st.text("abé ", max_size=20), min_size=3, max_size=3), min_size=1, max_size=8))
def test_columns_begin_at_the_same_tab_stop_on_every_line(rows: list[list[str]]) -> None:
    starts = set()
    for line, row in zip(table.render(rows).split("\n"), rows):
        first = line.expandtabs(8)
        assert first.startswith(row[0])
        where = len(first) - len(row[2])
        assert first[where:] == row[2]
        starts.add(where)
    assert len(starts) == 1


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("a\tb", r"a\tb"),
        ("a\nb", r"a\nb"),
        ("\x1b[31m", r"\x1b[31m"),
        ("\x9b", r"\x9b"),
        ("\udcff", r"\udcff"),
    ],
)
def test_cell_can_neither_break_the_table_nor_speak_to_the_terminal(cell: str, shown: str) -> None:
    assert table.render([[cell, "x"]]).startswith(f"{shown}\t")


@pytest.mark.parametrize(
    ("distance", "text"),
    [
        (0, "now"),
        (SECOND - 1, "now"),
        (SECOND, "1 second ago"),
        (2 * SECOND, "2 seconds ago"),
        (4 * SECOND + 1, "4 seconds ago"),
        (MINUTE - 1, "59 seconds ago"),
        (MINUTE, "1 minute ago"),
        (2 * MINUTE - 1, "1 minute ago"),
        (2 * MINUTE, "2 minutes ago"),
        (HOUR - 1, "59 minutes ago"),
        (HOUR, "1 hour ago"),
        (2 * HOUR, "2 hours ago"),
        (DAY - 1, "23 hours ago"),
        (DAY, "1 day ago"),
        (2 * DAY, "2 days ago"),
        (7 * DAY, "1 week ago"),
        (14 * DAY, "2 weeks ago"),
        (30 * DAY - 1, "4 weeks ago"),
        (MONTH, "1 month ago"),
        (2 * MONTH, "2 months ago"),
        (YEAR - 1, "11 months ago"),
        (YEAR, "1 year ago"),
        (18 * MONTH - 1, "1 year ago"),
        (18 * MONTH, "2 years ago"),
        (2 * YEAR, "2 years ago"),
        (3 * YEAR, "3 years ago"),
        (37 * YEAR, "a long while ago"),
        (-1, "now"),
        (-SECOND, "1 second from now"),
        (-3 * HOUR, "3 hours from now"),
        (-40 * YEAR, "a long while from now"),
    ],
)
def test_distance_is_in_the_words_of_go_humanize(distance: int, text: str) -> None:
    now = 1_700_000_000 * SECOND
    assert table.ago(now - distance, now) == text


def test_distance_is_from_now_when_not_said() -> None:
    assert table.ago(time.time_ns() - 90 * SECOND) == "1 minute ago"


@pytest.fixture
def zone(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[None]:
    monkeypatch.setenv("TZ", request.param)
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "nanoseconds", "text"),
    [
        ("UTC", 0, "1970-01-01 00:00:00 +0000 UTC"),
        ("UTC", 1_468_505_478_290_000_000, "2016-07-14 14:11:18.29 +0000 UTC"),
        ("UTC", 1_468_505_478_100_999_999, "2016-07-14 14:11:18.1 +0000 UTC"),
        ("UTC", 1_468_505_478_007_000_000, "2016-07-14 14:11:18.007 +0000 UTC"),
        ("UTC", 1_468_505_478_000_999_999, "2016-07-14 14:11:18 +0000 UTC"),
        ("UTC", 1_468_505_478_999_999_999, "2016-07-14 14:11:18.999 +0000 UTC"),
        ("UTC", -1, "1969-12-31 23:59:59.999 +0000 UTC"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 1_468_505_478_290_000_000, "2016-07-14 16:11:18.29 +0200 CEST"),
        ("CET-1CEST,M3.5.0,M10.5.0/3", 1_450_000_000_000_000_000, "2015-12-13 10:46:40 +0100 CET"),
        ("<-0330>3:30", 0, "1969-12-31 20:30:00 -0330 -0330"),
    ],
    indirect=["zone"],
)
def test_absolute_time_is_in_rkts_layout(zone: None, nanoseconds: int, text: str) -> None:
    assert table.absolute(nanoseconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (9, "9B"),
        (10, "10B"),
        (1023, "1023B"),
        (1024, "1.0KiB"),
        (1536, "1.5KiB"),
        (10 * 1024, "10KiB"),
        (10 * 1024 - 1, "10KiB"),
        (12800, "12KiB"),  # 12.5: halves go to the even number
        (13824, "14KiB"),  # 13.5
        (2 * 1024**2, "2.0MiB"),
        (2 * 1024**2 + 52428, "2.0MiB"),
        (2 * 1024**2 + 52429, "2.1MiB"),
        (1024**2 - 1, "1024KiB"),
        (82854982, "79MiB"),
        (5 * 1024**3, "5.0GiB"),
        (2**40, "1.0TiB"),
        (2**60, "1.0EiB"),
        (2**63 - 1, "8.0EiB"),
    ],
)
def test_size_is_in_the_words_of_go_humanize(count: int, text: str) -> None:
    assert table.size(count) == text
