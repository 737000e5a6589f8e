"""Capabilities: their names and numbers, and the set an app is bounded by."""

from __future__ import annotations

from rkt_py.aci.isolator import CAPABILITIES_REMOVE_SET, CAPABILITIES_RETAIN_SET, CapabilitySet
from rkt_py.aci.name import quoted
from rkt_py.runtime.errors import PlanError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from rkt_py.aci.isolator import Isolator

# linux/capability.h; the number is the index.
NAMES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
NUMBERS = {name: number for number, name in enumerate(NAMES)}

# appc spec, "os/linux/capabilities-remove-set": AUDIT_WRITE CHOWN DAC_OVERRIDE FSETID FOWNER KILL MKNOD
# NET_RAW NET_BIND_SERVICE SETUID SETGID SETPCAP SETFCAP SYS_CHROOT.
APPC_DEFAULT = 0xA80425FB

_CAP_LAST_CAP = "/proc/sys/kernel/cap_last_cap"


def parse_names(names: Iterable[str]) -> int:
    """Return the mask of capabilities named as in the kernel's headers: CAP_, and all capitals."""
    mask = 0
    for name in names:
        number = NUMBERS.get(name)
        if number is None:
            raise PlanError(f"there is no capability {quoted(name)}")
        mask |= 1 << number
    return mask


def to_names(mask: int) -> tuple[str, ...]:
    """Return the names of a mask's capabilities by number; those without a name as the kernel shows them."""
    return tuple(
        NAMES[number] if number < len(NAMES) else f"CAP_{number}"
        for number in range(mask.bit_length())
        if mask >> number & 1
    )


def bounding(isolators: Iterable[Isolator]) -> int:
    """Return the bounding set that an app's isolators ask for; the spec's default if none does."""
    # appc spec, "os/linux/capabilities-retain-set": not together with the other; of two, the last counts.
    last = {isolator.name: isolator.value for isolator in isolators}
    retain, remove = last.get(CAPABILITIES_RETAIN_SET), last.get(CAPABILITIES_REMOVE_SET)
    if retain is not None and remove is not None:
        raise PlanError(f"{CAPABILITIES_RETAIN_SET} cannot be together with {CAPABILITIES_REMOVE_SET}")
    if isinstance(retain, CapabilitySet):
        return parse_names(retain.set)
    if isinstance(remove, CapabilitySet):
        return APPC_DEFAULT & ~parse_names(remove.set)
    return APPC_DEFAULT


def all_of(cap_last_cap: str) -> int:
    """Return the mask of every capability of a kernel, by what it says in /proc/sys/kernel/cap_last_cap."""
    return (1 << int(cap_last_cap) + 1) - 1


def every() -> int:
    """Return the mask of every capability of the running kernel. Raises OSError."""
    with open(_CAP_LAST_CAP, encoding="utf-8") as file:
        return all_of(file.read())
