"""What is asked for one app of a pod: an image, and the flags that followed it."""

from __future__ import annotations

from rkt_py.aci.value import value


@value
class AppRequest:
    """One image of `run` or `prepare`. Empty or None: not given."""

    image: str
    args: tuple[str, ...] = ()
    exec: str = ""
    name: str = ""
    user: str = ""
    group: str = ""
    working_dir: str = ""
    environment: tuple[tuple[str, str], ...] = ()
    mounts: tuple[tuple[str, str], ...] = ()  # (volume, target); those for all apps are in here
    caps_retain: tuple[str, ...] = ()
    caps_remove: tuple[str, ...] = ()
    seccomp: str = ""
    memory: str = ""
    cpu: str = ""
    cpu_shares: int | None = None
    oom_score_adj: int | None = None
    readonly_rootfs: bool = False
    supplementary_gids: tuple[int, ...] = ()
    signature: str = ""
    annotations: tuple[tuple[str, str], ...] = ()
    user_annotations: tuple[tuple[str, str], ...] = ()
    user_labels: tuple[tuple[str, str], ...] = ()
    stdin: str = ""
    stdout: str = ""
    stderr: str = ""
