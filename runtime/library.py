"""What `import rkt_py` offers: pods from Python, without an interpreter to start.

result = rkt_py.run("sha512-...", ["/bin/true"], net="none")
result.exit_code
"""

from __future__ import annotations

import os

from rkt_py.aci import imagemanifest
from rkt_py.aci.value import value
from rkt_py.runtime import fetch, gc, generate, kernel, start
from rkt_py.runtime import prepare as preparation
from rkt_py.runtime.apprequest import AppRequest
from rkt_py.runtime.errors import PodError
from rkt_py.runtime.generate import PodRequest
from rkt_py.runtime.imagestore import ImageStore
from rkt_py.runtime.paths import Paths
from rkt_py.runtime.pod import RuntimeConfig
from rkt_py.runtime.start import StartRequest

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


@value
class Result:
    """How a pod ended. `exit_code` is 128 + n for an app that signal n ended, 254 for an error of ours."""

    uuid: str
    exit_code: int


def run(
    image: str,
    args: Sequence[str] = (),
    *,
    exec: str = "",
    net: str = "none",
    user: str = "",
    group: str = "",
    working_dir: str = "",
    environment: Mapping[str, str] | None = None,
    memory: str = "",
    cpu: str = "",
    volumes: Mapping[str, str] | None = None,
    readonly_rootfs: bool = False,
    stdin: int = -1,
    stdout: int = -1,
    stderr: int = -1,
    timeout: float | None = None,
    keep: bool = False,
    insecure: bool = False,
    paths: Paths | None = None,
) -> Result:
    """Run one app in a pod of its own, wait for its end, and remove the pod unless it is to be kept.

    `image` is what `rkt-py run` takes; `insecure` means that a file's signature is not verified. `exec` and
    `args` are what to execute, `memory` and `cpu` its limits as `--memory` and `--cpu` spell them, `volumes`
    maps paths in the app to paths of the host. Streams are descriptors; -1 is /dev/null. A pod that runs
    longer than `timeout` seconds is killed.

    Raises RktError when the pod cannot be started, TimeoutError.
    """
    paths = paths or Paths()
    store = ImageStore(paths)
    found = fetch.image(image, store, verify=not insecure)
    named = {f"v{index}": item for index, item in enumerate((volumes or {}).items())}
    request = AppRequest(
        image,
        args=tuple(args),
        exec=exec,
        user=user,
        group=group,
        working_dir=working_dir,
        environment=tuple((environment or {}).items()),
        mounts=tuple((name, target) for name, (target, _) in named.items()),
        memory=memory,
        cpu=cpu,
        readonly_rootfs=readonly_rootfs,
    )
    pod_request = PodRequest(
        volumes=tuple(
            generate.parse_volume(f"{name},kind=host,source={source}") for name, (_, source) in named.items()
        )
    )
    manifest = generate.generate(
        [(request, imagemanifest.parse(found.manifest_bytes()), found.key)],
        pod_request,
        machine=os.uname().machine,
    ).manifest
    config = RuntimeConfig(net=(net,), overlay=preparation.can_overlay(paths))
    images = {manifest.apps[0].name: found}
    with preparation.prepare(paths, manifest, images, store, config) as pod:
        try:
            pod.to_run()
            streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
            _, pidfd = start.spawn(pod, manifest, config, images, store, StartRequest(), **streams)
            try:
                code = _wait(pidfd, timeout)
            finally:
                os.close(pidfd)
        finally:
            if not keep:
                gc.remove(pod)
        if code is None:
            raise TimeoutError(f'pod "{pod.uuid}" ran longer than {timeout} seconds and was killed')
        return Result(pod.uuid, code)


def _wait(pidfd: int, timeout: float | None) -> int | None:
    try:
        code = kernel.wait_pidfd(pidfd, timeout)
    except BaseException:
        _kill(pidfd)
        raise
    if code is None:
        _kill(pidfd)
    return code


def _kill(pidfd: int) -> None:
    """End the supervisor: the second signal means at once, and leaves it the time to tidy up."""
    import signal

    for number in (signal.SIGTERM, signal.SIGINT):  # two of one kind could arrive as one
        signal.pidfd_send_signal(pidfd, number)
    if kernel.wait_pidfd(pidfd, 10) is None:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        if kernel.wait_pidfd(pidfd, 10) is None:
            raise PodError("the supervisor of a pod does not end")
