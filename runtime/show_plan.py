"""A plan as text, for `--debug`."""

from __future__ import annotations

from rkt_py.runtime.plan import Op, Plan, Process


def _op(op: Op) -> str:
    default = Op(op.kind, op.target)
    shown = [f"{name}={value!r}" for name, value in op.__dict__.items() if value != getattr(default, name)]
    return f"    {op.kind.lower():<10} {op.target} {' '.join(shown)}".rstrip()


def _process(process: Process) -> str:
    fields = dict(process.__dict__)
    fields["seccomp"] = f"{len(process.seccomp) // 8} instructions"
    fields["capabilities"] = f"{process.capabilities:#x}"
    fields["umask"] = f"{process.umask:#o}"
    lines = [f"    process {fields.pop('role').lower()}"]
    return "\n".join([*lines, *(f"        {name} = {value!r}" for name, value in fields.items())])


def text(plan: Plan) -> str:
    """Return all of a plan, a line a step."""
    lines = [f"plan: {plan.mode.lower()}, hostname {plan.hostname}, {', '.join(plan.flags)}"]
    for directory in plan.cgroups:
        lines.append(f"  cgroup {directory.path}{' (attach)' if directory.attach else ''}")
        lines.extend(f"    {file} = {value}" for file, value, _ in directory.settings)
    lines.extend(["  pod", *map(_op, plan.pod_ops)] if plan.pod_ops else [])
    for app in plan.apps:
        lines += [f"  app {app.name} in {app.root}", *map(_op, app.ops), *map(_process, app.processes)]
    return "\n".join(lines) + "\n"
