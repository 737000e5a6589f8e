"""Stage 1: a Plan carried out, by becoming the C supervisor or by starting one.

`run()` does not return: Python is gone from memory, and what `rkt-py run` was is the supervisor.
`spawn()` is for callers in Python, who go on.
"""

from __future__ import annotations

import os

from rkt_py.runtime import kernel
from rkt_py.runtime.errors import KernelError
from rkt_py.runtime.kernel import constant

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from rkt_py.runtime.cgroup import CgroupDirectory
    from rkt_py.runtime.plan import Op, Plan, PlanApp, Process


def _op(memory: kernel.PlanMemory, op: Op) -> dict[str, int]:
    flags = 0
    for flag in op.flags:
        flags |= constant(f"RKT_OP_{flag}")
    return {
        "kind": constant(f"RKT_OP_{op.kind}"),
        "flags": flags,
        "source": memory.text(op.source),
        "target": memory.text(op.target),
        "fstype": memory.text(op.fstype),
        "options": memory.text(op.options),
        "mode": op.mode,
        "uid": op.uid,
        "gid": op.gid,
        "device_major": op.device[0],
        "device_minor": op.device[1],
        "attributes": op.attributes,
    }


def _process(memory: kernel.PlanMemory, process: Process) -> dict[str, object]:
    return {
        "role": constant(f"RKT_ROLE_{process.role}"),
        "stdio": constant(f"RKT_STDIO_{process.stdio}"),
        "uid": process.uid,
        "gid": process.gid,
        "groups": memory.array("uint32_t", list(process.groups)),
        "argv": memory.array("uint32_t", [memory.text(text) for text in process.argv]),
        "env": memory.array("uint32_t", [memory.text(text) for text in process.env]),
        "rlimits": memory.array(
            "struct rkt_rlimit",
            [{"resource": kind, "soft": soft, "hard": hard} for kind, soft, hard in process.rlimits],
        ),
        "seccomp": memory.block(process.seccomp, len(process.seccomp) // 8),
        "directory": memory.text(process.directory),
        "search_path": memory.text(process.search_path),
        "umask": process.umask,
        "oom_score_adj": process.oom_score_adj or 0,
        "set_oom_score_adj": process.oom_score_adj is not None,
        "no_new_privs": process.no_new_privs,
        "capabilities": process.capabilities,
    }


def _app(memory: kernel.PlanMemory, app: PlanApp) -> dict[str, object]:
    return {
        "name": memory.text(app.name),
        "root": memory.text(app.root),
        "ops": memory.array("struct rkt_op", [_op(memory, op) for op in app.ops]),
        "processes": memory.array("struct rkt_process", [_process(memory, item) for item in app.processes]),
    }


def _cgroup(memory: kernel.PlanMemory, directory: CgroupDirectory, apps: dict[str, int]) -> dict[str, object]:
    settings = [
        {"file": memory.text(file), "value": memory.text(text), "required": required}
        for file, text, required in directory.settings
    ]
    return {
        "path": memory.text(directory.path),
        "app": -1 if directory.app is None else apps[directory.app],
        "attach": directory.attach,
        "unified": directory.unified,
        "settings": memory.array("struct rkt_setting", settings),
    }


def pack(plan: Plan, *, pod_fd: int, netns_fd: int = -1, target_fd: int = -1) -> bytearray:
    """Lay out a plan as C reads it, with the fds that go along."""
    memory = kernel.PlanMemory()
    indices = {app.name: index for index, app in enumerate(plan.apps)}
    flags = 0
    for flag in plan.flags:
        flags |= constant(f"RKT_{flag}")
    try:
        return memory.finish(
            mode=constant(f"RKT_MODE_{plan.mode}"),
            flags=flags,
            verb=memory.text(plan.verb),
            hostname=memory.text(plan.hostname),
            pod_fd=pod_fd,
            netns_fd=netns_fd,
            target_fd=target_fd,
            stop_timeout_ms=int(plan.stop_timeout * 1000),
            log_max_kib=plan.log_max_kib,
            apps=memory.array("struct rkt_app", [_app(memory, app) for app in plan.apps]),
            cgroups=memory.array(
                "struct rkt_cgroup", [_cgroup(memory, item, indices) for item in plan.cgroups]
            ),
            pod_ops=memory.array("struct rkt_op", [_op(memory, op) for op in plan.pod_ops]),
        )
    except ValueError as error:
        raise KernelError(f"{plan.verb}: {error}") from None


def run(
    plan: Plan, *, pod_fd: int, netns_fd: int = -1, target_fd: int = -1, keep: Sequence[int] = ()
) -> None:
    """Become the supervisor of this plan. Raises KernelError when that cannot be."""
    packed = pack(plan, pod_fd=pod_fd, netns_fd=netns_fd, target_fd=target_fd)
    fds = [fd for fd in (pod_fd, netns_fd, target_fd, *keep) if fd >= 0]
    try:
        kernel.exec_supervisor(packed, fds)
    except OSError as error:
        raise KernelError(f"cannot start {error.filename}: {os.strerror(error.errno or 0)}") from None


def spawn(
    plan: Plan,
    *,
    pod_fd: int,
    netns_fd: int = -1,
    keep: Sequence[int] = (),
    stdin: int = -1,
    stdout: int = -1,
    stderr: int = -1,
) -> tuple[int, int]:
    """Start the supervisor of this plan as a child: (pid, pidfd). Raises KernelError."""
    packed = pack(plan, pod_fd=pod_fd, netns_fd=netns_fd)
    fds = [fd for fd in (pod_fd, netns_fd, *keep) if fd >= 0]
    try:
        return kernel.spawn_supervisor(packed, fds, stdin=stdin, stdout=stdout, stderr=stderr)
    except OSError as error:
        raise KernelError(f"cannot start {error.filename}: {os.strerror(error.errno or 0)}") from None
