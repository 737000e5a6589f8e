"""What is built, our own extractor gives back."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest

from rkt_py.aci.build import build
from rkt_py.aci.compressor import Compression
from rkt_py.runtime.unpack import Limits, unpack
from tests.aci.test_build import COMPRESSIONS, MANIFEST, MANIFEST_BYTES, make_tree, snapshot


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tree(tmp_path_factory.mktemp("roundtrip") / "rootfs")


@pytest.mark.root
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_what_is_built_is_extracted_the_same(tree: Path, tmp_path: Path, compression: Compression) -> None:
    built = build(tree, MANIFEST, tmp_path / "o", compression=compression)
    (tmp_path / "out").mkdir()
    with ExitStack() as stack:
        fds = [os.open(tmp_path / name, os.O_RDONLY) for name in ("o", "out")]
        for fd in fds:
            stack.callback(os.close, fd)
        # The tree has a file of a tebibyte of zeros.
        unpacked = unpack(*fds, sync=False, limits=Limits(size=2 << 40))
    assert (unpacked.sha512, unpacked.size) == (built.sha512, built.size)
    assert (unpacked.compression, unpacked.compressed_size) == (compression, built.compressed_size)
    assert (tmp_path / "out" / "manifest").read_bytes() == MANIFEST_BYTES
    expected, got = snapshot(tree), snapshot(tmp_path / "out" / "rootfs")
    assert got.keys() == expected.keys()
    assert {path: got[path] for path in got if got[path] != expected[path]} == {}
