"""Tables, times and sizes, as rkt prints them.

Columns are laid out as Go's text/tabwriter does with minimum width 0, tab width 8, padding 1 and tabs,
so that what cuts rkt's output at tabs (`cut -f1`, `awk -F'\\t+'`) cuts ours.
"""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

TAB = 8
PADDING = 1

SECOND = 1_000_000_000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR
WEEK = 7 * DAY
MONTH = 30 * DAY
YEAR = 12 * MONTH
LONG_TIME = 37 * YEAR

# Below this distance, these words: go-humanize's, which rkt uses.
DISTANCES = (
    (SECOND, "now", 0),
    (2 * SECOND, "1 second %s", 0),
    (MINUTE, "%d seconds %s", SECOND),
    (2 * MINUTE, "1 minute %s", 0),
    (HOUR, "%d minutes %s", MINUTE),
    (2 * HOUR, "1 hour %s", 0),
    (DAY, "%d hours %s", HOUR),
    (2 * DAY, "1 day %s", 0),
    (WEEK, "%d days %s", DAY),
    (2 * WEEK, "1 week %s", 0),
    (MONTH, "%d weeks %s", WEEK),
    (2 * MONTH, "1 month %s", 0),
    (YEAR, "%d months %s", MONTH),
    (18 * MONTH, "1 year %s", 0),
    (2 * YEAR, "2 years %s", 0),
    (LONG_TIME, "%d years %s", YEAR),
)


def render(rows: Iterable[Sequence[str]]) -> str:
    """Lay rows out in columns. The last cell of a row is not part of a column and is not padded."""
    lines = [[_one_line(cell) for cell in row] for row in rows]
    widths: list[list[int]] = [[0] * max(len(line) - 1, 0) for line in lines]
    for column in range(max((len(row) for row in widths), default=0)):
        # A column is a block of adjoining lines that all have it, and is as wide as its widest cell.
        start = 0
        while start < len(lines):
            end = start
            while end < len(lines) and column < len(widths[end]):
                end += 1
            if end > start:
                width = max(len(line[column]) for line in lines[start:end]) + PADDING
                width = -(-width // TAB) * TAB
                for row in widths[start:end]:
                    row[column] = width
            start = end + 1
    return "".join(
        "".join(
            [cell + "\t" * -(-(width - len(cell)) // TAB) for cell, width in zip(line, row, strict=False)]
            + line[-1:]
        )
        + "\n"
        for line, row in zip(lines, widths, strict=True)
    )


def _one_line(cell: str) -> str:
    """A cell cannot break the table, nor speak to the terminal: control characters are shown as in repr()."""
    return cell if cell.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in cell)


def ago(then: int, now: int | None = None) -> str:
    """Say how long ago a time was, both in nanoseconds since the epoch: "now", "4 seconds ago"."""
    distance = (time.time_ns() if now is None else now) - then
    word = "ago" if distance >= 0 else "from now"
    distance = abs(distance)
    for limit, words, unit in DISTANCES:
        if distance < limit:
            if unit:
                return words % (distance // unit, word)
            return words % word if "%" in words else words
    return f"a long while {word}"


def absolute(nanoseconds: int) -> str:
    """Write a time in the local zone: "2006-01-02 15:04:05.999 -0700 MST", no trailing zeros."""
    seconds, rest = divmod(nanoseconds, SECOND)
    local = time.localtime(seconds)
    fraction = f".{rest // 1_000_000:03}".rstrip("0").rstrip(".")
    return f"{time.strftime('%Y-%m-%d %H:%M:%S', local)}{fraction}{time.strftime(' %z %Z', local)}"


def size(count: int) -> str:
    """Write a number of bytes: "5B", "2.0MiB", "17GiB"."""
    if count < 10:
        return f"{count}B"
    power = (count.bit_length() - 1) // 10
    # Go rounds halves away from zero, where round() goes to the even one.
    tenths = (count * 10 * 2 + (1 << (10 * power))) >> (10 * power + 1)
    unit = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")[power]
    return f"{tenths // 10}.{tenths % 10}{unit}" if tenths < 100 else f"{_whole(tenths)}{unit}"


def _whole(tenths: int) -> int:
    """Round tenths as Go's %.0f does: halves to the even number."""
    whole, rest = divmod(tenths, 10)
    return whole + (rest > 5 or (rest == 5 and whole % 2 == 1))
