"""The README's tour works, line by line, and what it says is there is there."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from tests.rkt import Rkt

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def commands(heading: str) -> str:
    """Return the code of a section: its indented lines."""
    section = README.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    return "".join(line[4:] + "\n" for line in section.splitlines() if line.startswith("    "))


@pytest.mark.root
def test_the_tour(rkt: Rkt, tmp_path: Path) -> None:
    wrapper = tmp_path / "bin/rkt-py"
    wrapper.parent.mkdir()
    wrapper.write_text(f'#!/bin/sh\nexec {rkt.program} --dir={rkt.data} "$@"\n')
    wrapper.chmod(0o755)
    (tmp_path / "tour").mkdir()
    done = subprocess.run(
        ["bash", "-euxo", "pipefail", "-c", commands("Five minutes")],
        cwd=tmp_path / "tour",
        env={**os.environ, "PATH": f"{wrapper.parent}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    for shown in (
        "uid=0(root) gid=0(root)",
        "CapBnd:\t00000000a80425fb",
        "hello.aci\nrootfs",
        "state=running",
    ):
        assert shown in done.stdout
    assert "app-hello=143" in done.stdout.split("state=exited")[1]
    assert not any(path.name for path in rkt.data.glob("pods/*/*"))


@pytest.mark.parametrize(
    "name", ["README.md", "SECURITY.md", *(f"docs/{path.name}" for path in ROOT.glob("docs/*.md"))]
)
def test_links_lead_somewhere(name: str) -> None:
    page = ROOT / name
    targets = re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text())
    missing = [target for target in targets if "://" not in target and not (page.parent / target).exists()]
    assert missing == []
