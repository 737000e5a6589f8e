from __future__ import annotations

import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkt_py.aci import name
from rkt_py.aci.errors import BadName
from rkt_py.aci.name import Label, Reference

# The spec's expressions (appc spec 0.8.11, types), against which the scans are held.
# An example of the spec has /~, which its expression has not.
IDENTIFIER = re.compile(r"[a-z0-9]+((?:[-._~/]|/~)[a-z0-9]+)*")
NAME = re.compile(r"[a-z0-9]+([-][a-z0-9]+)*")
ENVIRONMENT = re.compile(r"[A-Za-z_][A-Za-z_0-9.-]*")
SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-((?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*))?"
    r"(?:\+([0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*))?",
    re.ASCII,
)

SHA512 = "sha512-" + "0123456789abcdef" * 8


def is_good(check: object, text: str) -> bool:
    try:
        assert check(text) == text  # type: ignore[operator]
    except BadName as error:
        assert str(error)
        assert "\n" not in str(error)
        return False
    return True


GOOD_IDENTIFIERS = [
    # appc spec, types: AC Identifier Type
    "database",
    "example.com/database",
    "example.com/ourapp",
    "example.com/~user/app_v1",
    "sub-domain.example.com/org/product/release",
    "a",
    "0",
    "1.0",
    "a-b.c_d~e/f",
    "coreos.com/rkt/stage1/run",
    "a" * 10_000,
]
BAD_IDENTIFIERS = [
    "",
    "A",
    "Database",
    "-a",
    "a-",
    "/a",
    "a/",
    ".",
    "a..b",
    "a-_-b",
    "a//b",
    "a/../b",
    "a/./b",
    "a~/b",
    "a/~",
    "/~a",
    "a/~~b",
    "a-/~b",
    "a b",
    " a",
    "a\n",
    "\na",
    "a\x00b",
    "é",
    "a:b",
    "a,b",
    "a=b",
    "a\\b",
    "١",
]


@pytest.mark.parametrize("text", GOOD_IDENTIFIERS, ids=lambda text: text[:40])
def test_identifiers_of_the_spec_pass(text: str) -> None:
    assert is_good(name.check_identifier, text)


@pytest.mark.parametrize("text", BAD_IDENTIFIERS, ids=repr)
def test_other_identifiers_are_refused(text: str) -> None:
    assert not is_good(name.check_identifier, text)


@pytest.mark.parametrize("text", ["database", "product-database", "product-database-release", "0", "a-0"])
def test_names_of_the_spec_pass(text: str) -> None:
    assert is_good(name.check_name, text)


@pytest.mark.parametrize(
    "text",
    ["", "A", "-a", "a-", "a--b", "a.b", "a_b", "a/b", "a~b", "a b", "a\n", "..", "é", "a\x00"],
    ids=repr,
)
def test_other_names_are_refused(text: str) -> None:
    assert not is_good(name.check_name, text)


ALPHABET = st.text(alphabet="aZ09-._~/+ \n\x00é:", max_size=8)


@given(ALPHABET | st.text(max_size=6))
@settings(max_examples=1500, deadline=None)
def test_scans_agree_with_the_expressions(text: str) -> None:
    assert is_good(name.check_identifier, text) == bool(IDENTIFIER.fullmatch(text))
    assert is_good(name.check_name, text) == bool(NAME.fullmatch(text))
    assert is_good(name.check_environment_name, text) == bool(ENVIRONMENT.fullmatch(text))


@given(st.text(alphabet="01a.-+", max_size=12).map(lambda text: "0.1." + text) | ALPHABET)
@settings(max_examples=1000, deadline=None)
def test_versions_agree_with_semantic_versioning(text: str) -> None:
    good = bool(SEMVER.fullmatch(text)) and text.startswith("0.") and not text.startswith("0.0.0")
    assert is_good(name.check_version, text) == good


@pytest.mark.parametrize(
    ("text", "identifier", "ac_name"),
    [
        ("database", "database", "database"),
        ("Example.com/My App", "example.com/my-app", "example-com-my-app"),
        ("foo_bar", "foo_bar", "foo-bar"),
        ("--x--y--", "x-y", "x-y"),
        ("a/../b", "a/b", "a-b"),
        ("a:1.0", "a-1.0", "a-1-0"),
        ("été", "t", "t"),
        ("/usr/bin/top", "usr/bin/top", "usr-bin-top"),
        ("example.com/~User/App", "example.com/~user/app", "example-com-user-app"),
    ],
)
def test_texts_are_made_into_names(text: str, identifier: str, ac_name: str) -> None:
    assert name.sanitize_identifier(text) == identifier
    assert name.sanitize_name(text) == ac_name


@pytest.mark.parametrize("text", ["", "-", "///", "é", "\n"])
def test_a_text_without_letters_makes_no_name(text: str) -> None:
    for sanitize in (name.sanitize_identifier, name.sanitize_name):
        with pytest.raises(BadName, match="nothing of"):
            sanitize(text)


@given(st.text())
@settings(max_examples=500, deadline=None)
def test_made_names_are_names(text: str) -> None:
    for sanitize, check in (
        (name.sanitize_identifier, name.check_identifier),
        (name.sanitize_name, name.check_name),
    ):
        try:
            made = sanitize(text)
        except BadName:
            continue
        assert check(made) == made
        assert sanitize(made) == made


@pytest.mark.parametrize(
    ("text", "full", "prefix", "elided"),
    [
        (SHA512, True, True, True),
        (SHA512[:-1], False, True, True),
        ("sha512-a", False, True, True),
        ("sha512-...", False, False, True),
        ("sha512-277205b3ae3eb...", False, False, True),
        (SHA512 + "0", False, False, False),
        (SHA512 + "...", False, False, False),
        ("sha512-", False, False, False),
        ("sha512-..", False, False, False),
        ("sha512-../...", False, False, False),
        ("sha512-" + "A" * 128, False, False, False),
        ("sha512-" + "g" * 128, False, False, False),
        ("sha256-" + "a" * 64, False, False, False),
        ("a" * 128, False, False, False),
        (SHA512 + "\n", False, False, False),
        (" " + SHA512, False, False, False),
        ("sha512-١", False, False, False),
        ("", False, False, False),
    ],
)
def test_image_ids(text: str, full: bool, prefix: bool, elided: bool) -> None:
    assert is_good(name.check_hash, text) == full
    assert is_good(lambda text: name.check_hash(text, prefix=True), text) == prefix
    assert is_good(lambda text: name.check_hash(text, prefix=True, elided=True), text) == elided


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("0.8.11", True),
        ("0.8.10", True),
        ("0.5.2", True),
        ("0.0.1", True),
        ("0.8.11+git", True),
        ("0.8.11-rc.1+git.5", True),
        ("0.9.0", True),
        ("0.0.0", False),
        ("0.0.0-a", False),
        ("1.0.0", False),
        ("0.8", False),
        ("0.8.11.1", False),
        ("v0.8.11", False),
        ("0.08.11", False),
        ("0.8.11-", False),
        ("0.8.11-01", False),
        ("0.8.11+", False),
        ("0.8.11-a..b", False),
        (" 0.8.11", False),
        ("0.8.11\n", False),
        ("0.8.x", False),
        ("-0.8.11", False),
        ("", False),
    ],
)
def test_versions(text: str, good: bool) -> None:
    assert is_good(name.check_version, text) == good


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("2014-10-27T19:32:27.67021798Z", True),
        ("2015-05-18T13:49:28.351729952-04:00", True),
        ("2014-10-27T19:32:27Z", True),
        ("2016-02-29T00:00:00Z", True),
        ("2000-02-29T00:00:00+23:59", True),
        ("2016-12-31T23:59:60Z", True),
        ("2015-02-29T00:00:00Z", False),
        ("1900-02-29T00:00:00Z", False),
        ("2014-13-01T00:00:00Z", False),
        ("2014-00-01T00:00:00Z", False),
        ("2014-04-31T00:00:00Z", False),
        ("2014-04-00T00:00:00Z", False),
        ("2014-10-27T24:00:00Z", False),
        ("2014-10-27T00:60:00Z", False),
        ("2014-10-27T00:00:61Z", False),
        ("2014-10-27 19:32:27Z", False),
        ("2014-10-27t19:32:27z", False),
        ("2014-10-27T19:32:27", False),
        ("2014-10-27T19:32:27.Z", False),
        ("2014-10-27T19:32:27,5Z", False),
        ("2014-10-27T19:32:27+24:00", False),
        ("2014-10-27T19:32:27+00:60", False),
        ("2014-10-27T19:32:27+0000", False),
        ("2014-10-27T19:32:27Z\n", False),
        ("2014-10-27T19:32:27+-1:00", False),
        ("14-10-27T19:32:27Z", False),
        ("2014-1-027T19:32:27Z", False),
        ("+014-10-27T19:32:27Z", False),
        ("2014-10-27", False),
        ("", False),
    ],
)
def test_dates(text: str, good: bool) -> None:
    assert is_good(name.check_date, text) == good


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("https://example.com", True),
        ("https://example.com/docs", True),
        ("http://example.com:8080/a?b=c#d", True),
        ("HTTP://example.com", True),
        ("http://user:secret@example.com/", True),
        ("http://[2001:db8::1]:80/", True),
        ("http://example.com/%C3%A9", True),
        ("http://example.com/é", True),
        ("ftp://example.com", False),
        ("example.com", False),
        ("//example.com", False),
        ("http:example.com", False),
        ("http://", False),
        ("http:///path", False),
        ("http://?query", False),
        ("http://example.com:port/", False),
        ("http://[::1/", False),
        ("http://[abc]/", False),
        ("http://[::1]80/", False),
        ("http://exa mple.com", False),
        ("http://exa<mple.com", False),
        ("http://example.com/a b", False),
        ("http://example.com/\n", False),
        ("http://example.com/%zz", False),
        ("http://example.com/%a", False),
        ("mailto:user@example.com", False),
        ("", False),
    ],
)
def test_urls(text: str, good: bool) -> None:
    assert is_good(name.check_url, text) == good


@pytest.mark.parametrize("text", ["DEBUG", "_0_DEBUG_0_", "DEBUG.0", "DEBUG-0", "a", "_"])
def test_environment_names_pass(text: str) -> None:
    assert is_good(name.check_environment_name, text)


@pytest.mark.parametrize("text", ["", "0DEBUG", "VERBOSE|DEBUG", ".A", "-A", "A=B", "A B", "A\n", "A\0", "É"])
def test_other_environment_names_are_refused(text: str) -> None:
    assert not is_good(name.check_environment_name, text)


@given(st.text())
@settings(max_examples=300, deadline=None)
def test_any_text_passes_or_is_refused(text: str) -> None:
    for check in (
        name.check_date, name.check_url, name.check_hash, name.check_version, name.check_c_string,
    ):  # fmt: skip
        is_good(check, text)
    try:
        reference = name.parse(text)
    except BadName:
        return
    assert name.parse(str(reference)) == reference


def labels(text: str) -> tuple[Label, ...]:
    return tuple(Label(*item.split("=")) for item in text.split(",") if item)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "version=1.0.0,os=linux,arch=amd64",
        "os=linux",
        "os=",
        "arch=anything",
        "version=",
        "os=freebsd,arch=arm",
        "os=darwin,arch=x86_64",
        *[f"os=linux,arch={arch}" for arch in name.OS_ARCH["linux"]],
    ],
)
def test_labels_that_go_together_pass(text: str) -> None:
    if text == "os=":
        with pytest.raises(BadName, match="the os '' is none of linux, freebsd, darwin"):
            name.check_labels(labels(text))
    else:
        name.check_labels(labels(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name=x", "may not be named 'name'"),
        ("a=1,b=2,a=1", "two labels of the name 'a'"),
        ("os=plan9", "the os 'plan9' is none of linux, freebsd, darwin"),
        ("os=linux,arch=x86_64", "the arch 'x86_64' is none that linux has"),
        ("arch=amd64,os=darwin", "the arch 'amd64' is none that darwin has"),
        ("os=linux,arch=", "the arch '' is none that linux has"),
        ("Version=1", "'Version' is not an AC identifier"),
    ],
)
def test_labels_that_do_not_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadName, match=message):
        name.check_labels(labels(text))


def test_the_architectures_of_the_spec_are_known() -> None:
    assert {system: len(architectures) for system, architectures in name.OS_ARCH.items()} == {
        "linux": 10,
        "freebsd": 3,
        "darwin": 2,
    }


@pytest.mark.parametrize(
    ("text", "reference"),
    [
        ("example.com/app", Reference("example.com/app")),
        ("example.com/app:1.0", Reference("example.com/app", labels("version=1.0"))),
        (
            "example.com/app:1.0,os=linux,arch=amd64",
            Reference("example.com/app", labels("version=1.0,os=linux,arch=amd64")),
        ),
        ("example.com/app,os=linux", Reference("example.com/app", labels("os=linux"))),
        ("example.com/app,channel=a b/c", Reference("example.com/app", labels("channel=a b/c"))),
        ("app,flags=a=b", Reference("app", (Label("flags", "a=b"),))),
    ],
)
def test_references_are_read_and_written(text: str, reference: Reference) -> None:
    assert name.parse(text) == reference
    assert str(reference) == text


def test_a_version_may_be_given_as_a_label() -> None:
    reference = name.parse("example.com/app,os=linux,version=1.0")
    assert reference.label("version") == "1.0"
    assert str(reference) == "example.com/app:1.0,os=linux"


def test_a_label_that_is_not_said_is_none() -> None:
    assert name.parse("app:1").label("os") is None


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'' is not an AC identifier: it is empty"),
        ("Example.com/app", "'Example.com/app' is not an AC identifier"),
        ("app:", "'app:' has no version after the colon"),
        (":1.0", "'' is not an AC identifier"),
        ("app:1:2", "may have one colon"),
        ("app,os=linux:1", "may have one colon"),
        ("app,", "'' in 'app,' is not a label"),
        ("app,os", "'os' in 'app,os' is not a label"),
        ("app,os=", "'os=' in 'app,os=' is not a label"),
        ("app,=linux", "'' is not an AC identifier: it is empty, in 'app,=linux'"),
        ("app,OS=linux", "'OS' is not an AC identifier"),
        ("app,name=other", "a label may not be named 'name'"),
        ("app:1,version=2", "two labels of the name 'version'"),
        ("app,os=linux,os=linux", "two labels of the name 'os'"),
        ("app\n", "is not an AC identifier"),
    ],
)
def test_other_references_are_refused(text: str, message: str) -> None:
    with pytest.raises(BadName) as caught:
        name.parse(text)
    assert message in str(caught.value)


def test_a_long_text_is_cut_in_messages() -> None:
    with pytest.raises(BadName) as caught:
        name.check_identifier("é" * 100_000)
    assert len(str(caught.value)) < 200


def test_the_checks_know_only_ascii() -> None:
    for character in map(chr, range(0x80, 0x3000)):
        assert not is_good(name.check_name, character)
    assert set(string.ascii_lowercase + string.digits) == {
        c for c in map(chr, range(128)) if is_good(name.check_name, c)
    }
