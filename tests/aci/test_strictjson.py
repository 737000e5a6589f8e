from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rkt_py.aci.errors import BadManifest
from rkt_py.aci.strictjson import Fields, dumps, loads, texts_by_key, whole

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)

ACCEPTED: list[tuple[bytes, object]] = [
    (b"{}", {}),
    (b" \t\r\n[] \t\r\n", []),
    (b"null", None),
    (
        b'{"a": [1, -2, 0.5, 1e3, true, false, null, "x"]}',
        {"a": [1, -2, 0.5, 1000.0, True, False, None, "x"]},
    ),
    (b'"\\u00e9\\ud83d\\ude00\\n"', "\u00e9\U0001f600\n"),
    ('"é😀"'.encode(), "é😀"),
    (b'{"a": {"x": 1}, "b": {"x": 1}}', {"a": {"x": 1}, "b": {"x": 1}}),
    (b'{"a": 1, "A": 2}', {"a": 1, "A": 2}),
    (b"[" * 64 + b"]" * 64, None),
    (b"9" * 32, int("9" * 32)),
]

REFUSED: list[tuple[bytes, str]] = [
    (b"", "the thing is not JSON: it is empty"),
    (b" \n", "the thing is not JSON: it is empty"),
    (b'\xef\xbb\xbf{"a": 1}', "the thing begins with a byte order mark"),
    (b'\xff\xfe{\x00}\x00', "the thing is not UTF-8: bad byte at offset 0"),
    (b'{"a": "\xed\xa0\x80"}', "the thing is not UTF-8: bad byte at offset 7"),
    (b'"\xc0\xaf"', "the thing is not UTF-8: bad byte at offset 1"),
    (b"\x00", "the thing is not JSON: expecting value at line 1, column 1"),
    (b"nope", "the thing is not JSON: expecting value at line 1, column 1"),
    (b"-", "the thing is not JSON: expecting value at line 1, column 1"),
    (b'{"a":\n  nope}', "the thing is not JSON: expecting value at line 2, column 3"),
    (b'{"a" 1}', "the thing is not JSON: expecting ':' delimiter at line 1, column 6"),
    (b'{"a": 1\n\n"b": 2}', "the thing is not JSON: expecting ',' delimiter at line 3, column 1"),
    (
        b"{'a': 1}",
        "the thing is not JSON: expecting property name enclosed in double quotes at line 1, column 2",
    ),
    (b'["a', "the thing is not JSON: unterminated string starting at line 1, column 2"),
    (b'"a\nb"', "the thing is not JSON: invalid control character at line 1, column 3"),
    (b'{"a": 1} x', "the thing has data after its end at line 1, column 10"),
    (b"{}{}", "the thing has data after its end at line 1, column 3"),
    (b"{}\x00", "the thing has data after its end at line 1, column 3"),
    (b"01", "the thing has data after its end at line 1, column 2"),
    (b'{"a": 1, "b": 2, "a": 3}', "the thing has the key 'a' twice in one object"),
    (b'[{"x": {"a": 1, "\\u0061": 1}}]', "the thing has the key 'a' twice in one object"),
    (b'{"a": NaN}', "the thing has NaN, which is not JSON"),
    (b"[Infinity]", "the thing has Infinity, which is not JSON"),
    (b"-Infinity", "the thing has -Infinity, which is not JSON"),
    (b"9" * 33, "the thing has a number of 33 digits"),
    (b"9" * 1_000_000, "the thing has a number of 1000000 digits"),
    (b"0." + b"1" * 40, "the thing has a number of 42 digits"),
    (b"[1e999]", "the thing has the number 1e999, which is too large"),
    (b"-1e999", "the thing has the number -1e999, which is too large"),
    (b'{"a": "\\ud800"}', "the thing has a string with half of a surrogate pair, \\ud800"),
    (b'{"\\uDFFF": 1}', "the thing has a string with half of a surrogate pair, \\udfff"),
    (b'["\\ude00\\ud83d"]', "the thing has a string with half of a surrogate pair, \\ude00"),
    (b'"\\ud800"', "the thing has a string with half of a surrogate pair, \\ud800"),
    (b"[" * 65 + b"]" * 65, "the thing is nested deeper than 64 levels"),
    (b'{"a":' * 65 + b"1" + b"}" * 65, "the thing is nested deeper than 64 levels"),
    (b"[" * 100_000 + b"]" * 100_000, "the thing is nested deeper than 64 levels"),
    (b"[" * 100_000, "the thing is nested deeper than 64 levels"),
    (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "the thing is nested deeper than 64 levels"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "value"), ACCEPTED)
def test_json_is_read(data: bytes, value: object) -> None:
    found = loads(data, what="thing")
    assert found == (json.loads(data) if value is None else value)


@pytest.mark.parametrize(("data", "message"), REFUSED, ids=range(len(REFUSED)))
def test_what_is_not_good_json_is_refused_in_a_sentence(data: bytes, message: str) -> None:
    with pytest.raises(BadManifest) as caught:
        loads(data, what="thing")
    assert str(caught.value) == message


def test_the_tables_hold_without_the_c_scanner() -> None:
    program = """
import sys
sys.modules["_json"] = None
from rkt_py.aci import strictjson
assert strictjson._scan.__name__ == "raw_decode"
from rkt_py.aci.errors import BadManifest
accepted, refused = eval(sys.stdin.read())
for data, value in accepted:
    found = strictjson.loads(data, what="thing")
    assert value is None or found == value, data
    assert strictjson.loads(strictjson.dumps(found).encode(), what="thing") == found
for data, message in refused:
    try:
        strictjson.loads(data, what="thing")
    except BadManifest as error:
        # Places may differ by a character, and what is shown of one.
        assert str(error).startswith(message.split(" at ")[0]), (data[:50], str(error))
    else:
        raise AssertionError(data[:50])
"""
    done = subprocess.run(
        [sys.executable, "-c", program],
        input=repr((ACCEPTED, REFUSED)),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_syntax_errors_are_told_where_nothing_imported_json() -> None:
    """As in the installed command: a bare interpreter, in which nobody else imported json.decoder."""
    program = """
import sys
sys.path.append(".")
from rkt_py.aci import strictjson
from rkt_py.aci.errors import BadManifest
assert "json.decoder" not in sys.modules
for text in sys.argv[1:]:
    for module in [name for name in sys.modules if name.startswith("json")]:
        del sys.modules[module]
    try:
        strictjson.loads(text.encode(), what="thing")
    except BadManifest as error:
        print(error)
"""
    texts = ['{"a": 1', "{'a': 1}", '["a', '"\\x"', "[1 2]", "nope"]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", program, *texts], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(texts)
    assert all(line.startswith("the thing is not JSON: ") for line in done.stdout.splitlines()), done.stdout


def test_a_large_document_is_refused_before_it_is_read() -> None:
    with pytest.raises(BadManifest, match="the thing is larger than 4194304 bytes"):
        loads(b"[" * (4 << 20) + b"]", what="thing")
    with pytest.raises(BadManifest, match="larger than 3 bytes"):
        loads(b'"ab"', what="thing", max_size=3)
    assert loads(b'"ab"', what="thing", max_size=4) == "ab"


def test_deep_nesting_is_refused_quickly() -> None:
    start = time.process_time()
    for data in (b"[" * 2_000_000, b"[" * 2_000_000 + b"]" * 2_000_000):
        with pytest.raises(BadManifest, match="nested deeper"):
            loads(data, what="thing")
    assert time.process_time() - start < 1


@pytest.mark.parametrize(
    ("depth", "accepted"), [(1, True), (2, True), (3, True), (4, False)], ids=["1", "2", "3", "4"]
)
def test_depth_counts_containers(depth: int, accepted: bool) -> None:
    # Siblings do not count; the escape makes every document be looked through.
    data = b'["\\u0061",[],' + b"[" * (depth - 1) + b"]" * (depth - 1) + (b"" if depth > 1 else b"1") + b"]"
    if accepted:
        loads(data, what="thing", max_depth=3)
    else:
        with pytest.raises(BadManifest, match="nested deeper than 3 levels"):
            loads(data, what="thing", max_depth=3)


@given(st.binary())
@settings(max_examples=300, deadline=None)
def test_arbitrary_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        loads(data, what="thing")
    except BadManifest:
        pass


@given(JSON)
@settings(max_examples=200, deadline=None)
def test_what_is_written_is_read_again(value: object) -> None:
    for indent in (None, "\t", "  "):
        text = dumps(value, indent=indent)
        assert json.loads(text) == value
        assert loads(text.encode(), what="thing") == value


@pytest.mark.parametrize(
    ("value", "compact", "indented"),
    [
        ({}, "{}", "{}"),
        ([], "[]", "[]"),
        ((), "[]", "[]"),
        (None, "null", "null"),
        ([True, False, 1, -1, 0.5], "[true,false,1,-1,0.5]", "[\n\ttrue,\n\tfalse,\n\t1,\n\t-1,\n\t0.5\n]"),
        ({"b": 1, "a": [2]}, '{"b":1,"a":[2]}', '{\n\t"b": 1,\n\t"a": [\n\t\t2\n\t]\n}'),
        ({"a": {}, "b": []}, '{"a":{},"b":[]}', '{\n\t"a": {},\n\t"b": []\n}'),
        ('é😀"\\/\n\x00\x7f', '"é😀\\"\\\\/\\n\\u0000\x7f"', None),
        # Go writes these so that JSON can stand in HTML and JavaScript.
        ("<a@b>&\u2028\u2029", '"\\u003ca@b\\u003e\\u0026\\u2028\\u2029"', None),
        ({"<": 1}, '{"\\u003c":1}', '{\n\t"\\u003c": 1\n}'),
    ],
)
def test_json_is_written_as_go_writes_it(value: object, compact: str, indented: str | None) -> None:
    assert dumps(value) == compact
    assert dumps(value, indent="\t") == (compact if indented is None else indented)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_number_json_has_not_is_not_written(value: float) -> None:
    with pytest.raises(ValueError, match="JSON has no"):
        dumps([value])


def test_what_is_not_json_is_not_written() -> None:
    with pytest.raises(TypeError, match="a set is not a JSON value"):
        dumps({"a": set()})


def test_keys_match_in_any_case() -> None:
    fields = Fields({"NAME": "a", "readonly": True, "Unknown": 1}, "app")
    assert fields.text("name") == "a"
    assert fields.flag("readOnly") is True


def test_keys_that_differ_only_in_case_are_refused() -> None:
    with pytest.raises(BadManifest, match=r"^app: has both 'name' and 'Name'$"):
        Fields({"name": "a", "Name": "a"}, "app")


def test_null_is_the_same_as_absent() -> None:
    fields = Fields({"a": None})
    assert fields.get("a") is None
    assert fields.text("a", default="x") == "x"
    assert fields.integer("a", 0, 9, default=3) == 3
    assert fields.flag("a") is None
    assert list(fields.items("a")) == []
    assert fields.texts("a") == ()
    assert fields.mapping("a") == {}
    for read in (fields.text, lambda key: fields.integer(key, 0, 9)):
        with pytest.raises(BadManifest, match=r"^a: is missing$"):
            read("a")


@pytest.mark.parametrize("value", [None, True, 1, 1.5, "x", [], {}], ids=repr)
def test_a_value_of_another_kind_is_refused_by_its_path(value: Any) -> None:
    fields = Fields({"a": value}, "app.ports[0]")

    def refused(read: Any) -> bool:
        try:
            read("a")
        except BadManifest as error:
            assert error.field == "app.ports[0].a"
            return True
        return False

    assert refused(fields.text) == (type(value) is not str)
    assert refused(lambda key: fields.integer(key, 0, 9)) == (type(value) is not int)
    assert refused(fields.flag) == (value is not None and type(value) is not bool)
    assert refused(fields.texts) == (value is not None and type(value) is not list)
    assert refused(fields.mapping) == (value is not None and type(value) is not dict)


def test_items_have_their_index_in_the_path() -> None:
    fields = Fields({"a": ["x", 1]}, "app")
    assert list(fields.items("a")) == [("app.a[0]", "x"), ("app.a[1]", 1)]
    with pytest.raises(BadManifest, match=r"^app\.a\[1\]: must be a string, not a number$"):
        fields.texts("a")


@pytest.mark.parametrize(
    ("value", "good"), [(1, True), (5, True), (0, False), (6, False), (True, False), (1.0, False)]
)
def test_whole_numbers_have_bounds(value: object, good: bool) -> None:
    if good:
        assert whole(value, 1, 5, "a") == value
    else:
        with pytest.raises(BadManifest, match=r"^a: must be "):
            whole(value, 1, 5, "a")


def test_objects_of_strings_hold_only_strings() -> None:
    assert texts_by_key({"a": "1", "A": "2"}, "x") == {"a": "1", "A": "2"}
    with pytest.raises(BadManifest, match=r"^x\['b'\]: must be a string, not null$"):
        texts_by_key({"a": "1", "b": None}, "x")
