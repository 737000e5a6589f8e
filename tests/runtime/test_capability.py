from __future__ import annotations

from pathlib import Path

import pytest

from rkt_py.aci import isolator
from rkt_py.runtime import capability
from rkt_py.runtime.errors import PlanError

HEADER = Path("/usr/include/linux/capability.h")

# appc spec, "os/linux/capabilities-remove-set"
SPEC_DEFAULT = """
    CAP_AUDIT_WRITE CAP_CHOWN CAP_DAC_OVERRIDE CAP_FSETID CAP_FOWNER CAP_KILL CAP_MKNOD CAP_NET_RAW
    CAP_NET_BIND_SERVICE CAP_SETUID CAP_SETGID CAP_SETPCAP CAP_SETFCAP CAP_SYS_CHROOT
""".split()


def retain(*names: str) -> isolator.Isolator:
    return isolator.make(isolator.CAPABILITIES_RETAIN_SET, {"set": list(names)})


def remove(*names: str) -> isolator.Isolator:
    return isolator.make(isolator.CAPABILITIES_REMOVE_SET, {"set": list(names)})


@pytest.mark.skipif(not HEADER.exists(), reason="no kernel headers")
def test_names_have_the_numbers_of_the_kernels_header() -> None:
    words = [line.split() for line in HEADER.read_text().splitlines() if line.startswith("#define CAP_")]
    header = {line[1]: int(line[2]) for line in words if len(line) >= 3 and line[2].isdigit()}
    assert header.items() >= capability.NUMBERS.items()


def test_default_is_the_specs_fourteen() -> None:
    assert capability.parse_names(SPEC_DEFAULT) == capability.APPC_DEFAULT == 0xA80425FB
    assert len(SPEC_DEFAULT) == 14


@pytest.mark.parametrize(
    "isolators, expected",
    [
        ([], 0xA80425FB),
        ([isolator.make(isolator.CPU_SHARES, 7)], 0xA80425FB),
        ([retain("CAP_CHOWN")], 1),
        ([retain("CAP_NET_ADMIN", "CAP_SYS_ADMIN")], 1 << 12 | 1 << 21),
        ([retain("CAP_CHECKPOINT_RESTORE")], 1 << 40),
        ([retain("CAP_CHOWN"), retain("CAP_KILL")], 1 << 5),
        ([remove("CAP_CHOWN")], 0xA80425FA),
        ([remove("CAP_SYS_ADMIN")], 0xA80425FB),
        ([remove(*SPEC_DEFAULT)], 0),
    ],
)
def test_bounding_set_follows_the_isolators(isolators: list[isolator.Isolator], expected: int) -> None:
    assert capability.bounding(isolators) == expected


@pytest.mark.parametrize(
    "name", ["CAP_NONE", "cap_chown", "CHOWN", "CAP_CHOWN ", "cap_chown,cap_kill", "0", "CAP_41", "all"]
)
@pytest.mark.parametrize("isolator_of", [retain, remove])
def test_unknown_capability_is_refused_by_its_name(name: str, isolator_of: type) -> None:
    with pytest.raises(PlanError, match="there is no capability") as caught:
        capability.bounding([isolator_of("CAP_CHOWN", name)])
    assert name in str(caught.value)


def test_retaining_together_with_removing_is_refused() -> None:
    with pytest.raises(PlanError, match="capabilities-retain-set cannot be together with"):
        capability.bounding([remove("CAP_CHOWN"), retain("CAP_CHOWN")])


@pytest.mark.parametrize(
    "mask, names",
    [
        (0, ()),
        (1, ("CAP_CHOWN",)),
        (1 << 40 | 1 << 21, ("CAP_SYS_ADMIN", "CAP_CHECKPOINT_RESTORE")),
        (1 << 41 | 1, ("CAP_CHOWN", "CAP_41")),
    ],
)
def test_mask_is_shown_by_names(mask: int, names: tuple[str, ...]) -> None:
    assert capability.to_names(mask) == names


def test_names_and_masks_are_the_same_thing() -> None:
    for number, name in enumerate(capability.NAMES):
        assert capability.parse_names([name]) == 1 << number
    every = (1 << len(capability.NAMES)) - 1
    assert capability.parse_names(capability.to_names(every)) == every


@pytest.mark.parametrize("text, mask", [("40\n", 0x1FFFFFFFFFF), ("37\n", 0x3FFFFFFFFF), ("0\n", 1)])
def test_a_kernels_capabilities_end_with_its_last(text: str, mask: int) -> None:
    assert capability.all_of(text) == mask


def test_running_kernel_has_the_default_capabilities() -> None:
    assert capability.every() & capability.APPC_DEFAULT == capability.APPC_DEFAULT
