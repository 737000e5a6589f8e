"""What a resident process does to itself, seen by the kernel."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

SCRIPT = """
import sys
from rkt_py.runtime import resident
resident.settle("rkt-py test", parent_death_signal=15, capabilities={capabilities!r})
import prctl
print(prctl.get_pdeathsig())
print(open("/proc/self/status").read())
"""


def status(capabilities: tuple[str, ...]) -> dict[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(capabilities=capabilities)],
        capture_output=True,
        text=True,
        check=True,
    )
    signal, _, rest = done.stdout.partition("\n")
    fields = dict(line.split(":\t", 1) for line in rest.splitlines() if ":\t" in line)
    return {**fields, "signal": signal}


@pytest.mark.root
@pytest.mark.parametrize(("capabilities", "mask"), [((), 0), (("chown", "net_admin"), 1 << 0 | 1 << 12)])
def test_a_resident_process_keeps_only_what_it_names(capabilities: tuple[str, ...], mask: int) -> None:
    assert os.geteuid() == 0
    found = status(capabilities)
    assert found["Name"] == "rkt-py test"
    assert found["signal"] == "15"
    assert found["NoNewPrivs"] == "1"
    assert [int(found[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")] == [mask] * 3
    assert int(found["CapInh"], 16) == 0
