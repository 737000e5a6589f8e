from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rkt_py.runtime import passwd
from rkt_py.runtime.errors import PlanError
from rkt_py.runtime.passwd import User

PASSWD = b"""\
root:x:0:0:root:/root:/bin/bash
daemon:x:1:1:daemon:/usr/sbin:/usr/sbin/nologin
app:x:1000:1001:An App,,,:/home/app:/bin/sh
twice:x:2000:2000::/first:/bin/sh
twice:x:2001:2001::/second:/bin/sh
3proxy:x:3000:3000::/:/bin/sh
max:x:4294967294:4294967294::/:/bin/sh
name.with-all_of$:x:3001:3001::/:/bin/sh
"""
GROUP = b"""\
root:x:0:
app:x:1002:
wheel:x:10:root,app
max:x:4294967294:
"""
OWNERS = {"/srv/data": (1000, 2000), "/": (0, 0), "/strange": (77, 78)}


def resolve(
    user: str, group: str = "0", passwd_file: bytes | None = PASSWD, group_file: bytes | None = GROUP
) -> User:
    files = {"/etc/passwd": passwd_file, "/etc/group": group_file}
    return passwd.resolve(user, group, read=files.__getitem__, stat=OWNERS.get)


@pytest.mark.parametrize(
    "user, group, expected",
    [
        ("0", "0", User(0, 0, "root", "/root", "/bin/bash")),
        ("root", "root", User(0, 0, "root", "/root", "/bin/bash")),
        ("app", "app", User(1000, 1002, "app", "/home/app", "/bin/sh")),
        ("1000", "wheel", User(1000, 10, "app", "/home/app", "/bin/sh")),
        ("app", "4711", User(1000, 4711, "app", "/home/app", "/bin/sh")),
        ("1", "1", User(1, 1, "daemon", "/usr/sbin", "/usr/sbin/nologin")),
        # rkt: a path is the owner of that file
        ("/srv/data", "/srv/data", User(1000, 2000, "app", "/home/app", "/bin/sh")),
        ("/strange", "/", User(77, 0, "77", "/", "/bin/sh")),
        ("/srv/data", "wheel", User(1000, 10, "app", "/home/app", "/bin/sh")),
        # the first entry of a name counts
        ("twice", "0", User(2000, 0, "twice", "/first", "/bin/sh")),
        ("3proxy", "0", User(3000, 0, "3proxy", "/", "/bin/sh")),
        ("name.with-all_of$", "0", User(3001, 0, "name.with-all_of$", "/", "/bin/sh")),
        # numbers need no entry
        ("4711", "4712", User(4711, 4712, "4711", "/", "/bin/sh")),
        ("4294967294", "4294967294", User(4294967294, 4294967294, "max", "/", "/bin/sh")),
        ("max", "max", User(4294967294, 4294967294, "max", "/", "/bin/sh")),
        ("007", "00", User(7, 0, "7", "/", "/bin/sh")),
        # a user of docker's, repeated as the group: no such group, so the user's own
        ("daemon", "daemon", User(1, 1, "daemon", "/usr/sbin", "/usr/sbin/nologin")),
        ("twice", "twice", User(2000, 2000, "twice", "/first", "/bin/sh")),
    ],
)
def test_user_and_group_resolve(user: str, group: str, expected: User) -> None:
    assert resolve(user, group) == expected


@pytest.mark.parametrize("number", ["0", "65534"])
def test_image_without_passwd_has_numbers(number: str) -> None:
    expected = {"0": User(0, 5, "root", "/root", "/bin/sh"), "65534": User(65534, 5, "65534", "/", "/bin/sh")}
    assert resolve(number, "5", None, None) == expected[number]


@pytest.mark.parametrize(
    "text",
    [
        # CVE-2016-3697, CVE-2026-30892: what is no number becomes root
        "-1", "-0", "-2", "4294967295", "4294967296", "18446744073709551615", "18446744073709551616",
        "1" * 21, "1" * 5000, "+1", "+0", "0x0", "0x10", "0X10", "0b1", "0o7", "", " ", " 0", "0 ", "0\n",
        "\t0", "0\0", "\0", "1 000", "٠", "१", "²", "\uff10", "0:0", "app:app", "app/x", "nonesuch", "1.0",
        "1e3", "1_000", "nobody", "App", "app ", "roo", "root\n", "rööt", "-", "+", "./app", "~app",
    ],
)  # fmt: skip
@pytest.mark.parametrize("what", ["user", "group"])
def test_what_is_no_user_or_group_is_refused_by_name(text: str, what: str) -> None:
    with pytest.raises(PlanError) as caught:
        resolve(text, "0") if what == "user" else resolve("0", text)
    message = str(caught.value)
    assert what in message
    assert repr(text)[1:-1][:50] in message or not text
    assert "\n" not in message and len(message) < 250


@pytest.mark.parametrize(
    "user, group, message",
    [
        ("nonesuch", "0", "there is no user 'nonesuch' in the image's /etc/passwd"),
        ("0", "nonesuch", "there is no group 'nonesuch' in the image's /etc/group"),
        ("nonesuch", "nonesuch", "there is no user 'nonesuch' in the image's /etc/passwd"),
        ("1000", "1000x", "there is no group '1000x' in the image's /etc/group"),
        ("4294967295", "0", "user '4294967295' is not a number from 0 to 4294967294"),
        ("0", "4294967296", "group '4294967296' is not a number from 0 to 4294967294"),
        ("-1", "0", "'-1' is neither a number from 0 to 4294967294, a path, nor a name of a user"),
        ("/none", "0", "there is no file '/none' in the image whose owner could be the user"),
        ("0", "/none", "there is no file '/none' in the image whose owner could be the group"),
        ("", "0", "the user is empty"),
        ("0", "", "the group is empty"),
    ],
)
def test_refusal_says_why(user: str, group: str, message: str) -> None:
    with pytest.raises(PlanError) as caught:
        resolve(user, group)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "line",
    [
        b"evil:x:0",
        b"evil",
        b"evil:",
        b"evil:x::0::/:/bin/sh",
        b"evil:x:0x0:0::/:/bin/sh",
        b"evil:x:-1:0::/:/bin/sh",
        b"evil:x:+0:0::/:/bin/sh",
        b"evil:x: 0:0::/:/bin/sh",
        b"evil:x:4294967295:0::/:/bin/sh",
        b"evil:x:4294967296:0::/:/bin/sh",
        b"evil:x:0:4294967296::/:/bin/sh",
        b"evil:x:" + b"0" * 5000 + b":0::/:/bin/sh",
        b"evil:x:\xd9\xa0:0::/:/bin/sh",
        b"+evil:x:0:0::/:/bin/sh",
        b"#evil:x:0:0::/:/bin/sh",
        b" evil:x:0:0::/:/bin/sh",
        b"evil\0:x:0:0::/:/bin/sh",
        b"evil\r:x:0:0::/:/bin/sh",
        b"\xff\xfe",
        b":::::::::",
        b":x:0:0::/:/bin/sh",
        b"",
    ],
)
def test_bad_line_is_nobodys_and_does_not_hide_the_next(line: bytes) -> None:
    with pytest.raises(PlanError, match="there is no user 'evil'"):
        resolve("evil", "0", PASSWD + line + b"\n")
    assert resolve("app", "0", line + b"\n" + PASSWD) == resolve("app", "0")


@pytest.mark.parametrize(
    "line",
    [
        b"evil",
        b"evil:x",
        b"evil:x:",
        b"evil:x:-1:",
        b"evil:x:4294967295:",
        b"+evil:x:0:",
        b"\0:x:0:",
        b"evil:x:x:0",
    ],
)
def test_bad_line_of_group_is_nobodys(line: bytes) -> None:
    with pytest.raises(PlanError, match="there is no group 'evil'"):
        resolve("0", "evil", group_file=line + b"\n" + GROUP)
    assert resolve("0", "wheel", group_file=line + b"\n" + GROUP).gid == 10
    assert resolve("0", "evil", group_file=line + b"\nevil:x:9\n").gid == 9


@pytest.mark.parametrize(
    "fields, home, shell",
    [
        (b"::/home/u:/bin/zsh", "/home/u", "/bin/zsh"),
        (b"", "/", "/bin/sh"),
        (b"::", "/", "/bin/sh"),
        (b":::", "/", "/bin/sh"),
        (b"::relative:sh", "/", "/bin/sh"),
        (b"::/a\x1b[2J:/b\x07", "/", "/bin/sh"),
        (b"::/a\0b:/b\0c", "/", "/bin/sh"),
        (b"::/" + b"a" * 5000 + b":/bin/sh", "/", "/bin/sh"),
        (b"::/a:/bin/sh:more:and more", "/a", "/bin/sh"),
        ("::/häuser/ü:/bin/sh".encode(), "/häuser/ü", "/bin/sh"),
    ],
)
def test_home_and_shell_are_fit_for_an_environment(fields: bytes, home: str, shell: str) -> None:
    found = resolve("u", "0", b"u:x:5:5" + fields + b"\n")
    assert (found.home, found.shell) == (home, shell)


def test_passwd_is_read_when_it_ends_without_a_newline() -> None:
    assert resolve("u", "g", b"u:x:5:6::/:/bin/sh", b"g:x:7:").gid == 7


@pytest.mark.parametrize("which", ["passwd", "group"])
def test_endless_file_is_refused(which: str) -> None:
    big = b"a" * (passwd.MAX_SIZE + 1)
    files = {"passwd_file" if which == "passwd" else "group_file": big}
    with pytest.raises(PlanError, match=f"the image's /etc/{which} is larger than 1 MiB"):
        resolve("0", "wheel", **files)


@pytest.mark.parametrize("filler", [b"\n", b":", b":\n", b"a:b:1:1\n", b"\0", b"\xff"])
def test_largest_file_is_read_in_good_time(filler: bytes) -> None:
    data = filler * (passwd.MAX_SIZE // len(filler))
    with pytest.raises(PlanError, match="there is no user 'app'"):
        resolve("app", "0", data)


def test_group_file_is_not_read_for_a_number() -> None:
    def read(path: str) -> bytes | None:
        assert path == "/etc/passwd"
        return None

    assert passwd.resolve("1", "2", read=read, stat=OWNERS.get) == User(1, 2, "1", "/", "/bin/sh")


@given(st.binary(max_size=300), st.binary(max_size=300), st.text(max_size=20), st.text(max_size=20))
def test_anything_resolves_or_is_refused(users: bytes, groups: bytes, user: str, group: str) -> None:
    try:
        found = resolve(user, group, users, groups)
    except PlanError as error:
        assert "\n" not in str(error)
    else:
        assert 0 <= found.uid <= passwd.MAX_ID
        assert 0 <= found.gid <= passwd.MAX_ID
        assert (found.name + found.home + found.shell).isprintable()


@pytest.mark.parametrize(
    "gids, expected", [((), ()), ((5, 6), (5, 6)), ((6, 5, 6), (6, 5)), ((0, 4294967294), (0, 4294967294))]
)
def test_supplementary_groups_are_the_manifests(gids: tuple[int, ...], expected: tuple[int, ...]) -> None:
    assert passwd.supplementary(gids) == expected


@pytest.mark.parametrize(
    "gids, message",
    [
        ((-1,), "supplementary group -1 is not a number from 0 to 4294967294"),
        ((1, 4294967295), "supplementary group 4294967295 is not"),
        (tuple(range(65537)), "65537 supplementary groups are more than the 65536"),
    ],
)
def test_supplementary_group_that_cannot_be_is_refused(gids: tuple[int, ...], message: str) -> None:
    with pytest.raises(PlanError, match=message):
        passwd.supplementary(gids)
