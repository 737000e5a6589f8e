"""`rkt-py list`, `status`, `cat-manifest`."""

from __future__ import annotations

import time

from rkt_py.aci import podmanifest, strictjson
from rkt_py.aci.errors import RktError
from rkt_py.aci.podmanifest import PodManifest, RuntimeApp
from rkt_py.runtime import pod as pods
from rkt_py.runtime.cli import table
from rkt_py.runtime.cli.main import complain
from rkt_py.runtime.cli.options import Invocation
from rkt_py.runtime.cli.uuids import pod_of
from rkt_py.runtime.errors import PodError
from rkt_py.runtime.plan import resolve_mounts
from rkt_py.runtime.pod import Pod

LEGEND = ("UUID", "APP", "IMAGE NAME", "STATE", "CREATED", "STARTED", "NETWORKS")
FULL_LEGEND = ("UUID", "APP", "IMAGE NAME", "IMAGE ID", "STATE", "CREATED", "STARTED", "NETWORKS")


def list_pods(invocation: Invocation) -> int:
    """Print the pods there are."""
    style = invocation.string("format")
    full = invocation.flag("full")
    rows: list[tuple[str, ...]] = []
    records: list[object] = []
    if not invocation.flag("no-legend"):
        rows.append(FULL_LEGEND if full else LEGEND)
    for pod in pods.walk(invocation.paths):
        try:
            if style:
                records.append(record(pod))
            else:
                rows.extend(_rows(pod, full=full))
        except FileNotFoundError:
            continue  # collected while we looked
        except (RktError, OSError) as error:
            complain(f'list: pod "{pod.uuid}": {error}')
    if style:
        print_json(records or None, style)
    else:
        print(table.render(rows), end="")
    return 0


def print_json(value: object, style: str) -> None:
    """Print JSON as `--format=json` and `json-pretty` want it."""
    print(strictjson.dumps(value, indent="\t" if style == "json-pretty" else None))


def _manifest(pod: Pod) -> PodManifest | None:
    """Return the pod's manifest, or None while there is none: in an embryo or a pod being prepared."""
    try:
        return pod.manifest()
    except FileNotFoundError:
        return None


def _when(nanoseconds: int | None, *, full: bool) -> str:
    if nanoseconds is None:
        return ""
    return table.absolute(nanoseconds) if full else table.ago(nanoseconds)


def _image_name(app: RuntimeApp) -> str:
    version = next((label.value for label in app.image.labels if label.name == "version"), "")
    return f"{app.image.name or ''}:{version}" if version else app.image.name or ""


def _rows(pod: Pod, *, full: bool) -> list[tuple[str, ...]]:
    manifest = _manifest(pod)
    head = (
        pod.state,
        _when(pod.created, full=full),
        _when(pod.started, full=full),
        ",".join(f"{net.get('netName')}:ip4={net.get('ip')}" for net in pod.networks()),
    )
    uuid = pod.uuid if full else pod.uuid[:8]
    rows: list[tuple[str, ...]] = []
    for app in manifest.apps if manifest else ():
        image = (_image_name(app), app.image.id[:19]) if full else (_image_name(app),)
        # What is the pod's is said once, in its first line.
        rows.append((uuid, app.name, *image, *head) if not rows else ("", app.name, *image, "", "", "", ""))
    return rows or [(uuid, "-", *(("-", "-") if full else ("-",)), *head)]


def record(pod: Pod) -> dict[str, object]:
    """Return a pod as rkt's JSON has it: its times in seconds, its apps' in nanoseconds."""
    manifest = _manifest(pod)
    state = pod.state
    created, started = pod.created, pod.started
    result: dict[str, object] = {"name": pod.uuid, "state": state}
    networks = pod.networks()
    if networks:
        result["networks"] = networks
    if manifest is not None:
        result["app_names"] = [app.name for app in manifest.apps]
        result["apps"] = [_app_record(pod, manifest, app, state) for app in manifest.apps]
    if created is not None:
        result["created_at"] = created // 10**9
    if started is not None:
        result["started_at"] = started // 10**9
    return result


def _app_record(pod: Pod, manifest: PodManifest, app: RuntimeApp, state: pods.State) -> dict[str, object]:
    status = pod.app_status(app.name, state=state)
    result: dict[str, object] = {"name": app.name, "state": status.state}
    for key, value in (
        ("created_at", status.created),
        ("started_at", status.started),
        ("finished_at", status.finished),
        ("exit_code", status.exit_code),
    ):
        if value is not None:
            result[key] = value
    result["image_id"] = app.image.id
    mounts = [
        {
            "name": volume.name,
            "container_path": target,
            "host_path": volume.source or f"{pod.path}/sharedVolumes/{volume.name}",
            "read_only": read_only,
        }
        for volume, target, read_only in resolve_mounts(manifest, app)
    ]
    if mounts:
        result["mounts"] = mounts
    if app.app is not None and app.app.user_annotations:
        result["user_annotations"] = dict(app.app.user_annotations)
    if app.app is not None and app.app.user_labels:
        result["user_labels"] = dict(app.app.user_labels)
    return result


def status(invocation: Invocation) -> int:
    """Print the state of a pod, after waiting for it where that was asked for."""
    with pod_of(invocation) as pod:
        wait, wait_ready = invocation.duration("wait"), invocation.duration("wait-ready")
        if wait_ready and not _wait_until_started(pod, wait_ready):
            raise PodError(f'pod "{pod.uuid}" did not become ready in time')
        if wait and not _wait(pod, wait):
            raise PodError(f'pod "{pod.uuid}" did not end in time')
        style = invocation.string("format")
        if style:
            print_json(record(pod), style)
        else:
            print("\n".join(_status_lines(pod)))
    return 0


def _wait(pod: Pod, nanoseconds: int) -> bool:
    if pod.directory not in (pods.RUN, pods.EXITED_GARBAGE, pods.GARBAGE):
        _wait_until_started(pod, nanoseconds)
    return pod.wait(None if nanoseconds < 0 else nanoseconds / 1e9)


def _wait_until_started(pod: Pod, nanoseconds: int) -> bool:
    end = time.monotonic() + nanoseconds / 1e9
    while pod.state in ("embryo", "preparing", "prepared") or (
        pod.state == "running" and pod.started is None
    ):
        if nanoseconds >= 0 and time.monotonic() >= end:
            return False
        time.sleep(0.01)
    return True


def _status_lines(pod: Pod) -> list[str]:
    state = pod.state
    lines = [f"state={state}"]
    if pod.created is not None:
        lines.append(f"created={table.absolute(pod.created)}")
    if pod.started is None:
        return lines
    lines.append(f"started={table.absolute(pod.started)}")
    if state not in ("running", "exited"):
        return lines
    networks = ",".join(f"{net.get('netName')}:ip4={net.get('ip')}" for net in pod.networks())
    if networks:
        lines.append(f"networks={networks}")
    lines.append(f"pid={pod.pid if pod.pid is not None else -1}")
    lines.append(f"exited={'true' if state == 'exited' else 'false'}")
    lines.extend(f"app-{app}={code}" for app, code in sorted(pod.exit_codes().items()))
    return lines


def cat_manifest(invocation: Invocation) -> int:
    """Print a pod's manifest."""
    with pod_of(invocation) as pod:
        manifest = _manifest(pod)
        if manifest is None:
            raise PodError(f'pod "{pod.uuid}" has no manifest yet')
        print(podmanifest.dump(manifest, indent="\t" if invocation.flag("pretty-print") else None))
    return 0
