"""`rkt-py run`, `prepare`, `run-prepared`."""

from __future__ import annotations

import os

from rkt_py.aci import imagemanifest, podmanifest
from rkt_py.aci.errors import BadManifest, RktError
from rkt_py.runtime import fetch, generate, network, start
from rkt_py.runtime import pod as pods
from rkt_py.runtime import prepare as preparation
from rkt_py.runtime.cli.main import complain
from rkt_py.runtime.errors import PrepareError, UsageError
from rkt_py.runtime.generate import PodRequest
from rkt_py.runtime.imagestore import ImageStore
from rkt_py.runtime.pod import RuntimeConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt_py.aci.imagemanifest import ImageManifest
    from rkt_py.aci.podmanifest import PodManifest
    from rkt_py.runtime.cli.options import Invocation
    from rkt_py.runtime.imagestore import Image
    from rkt_py.runtime.paths import Paths
    from rkt_py.runtime.pod import Pod

# What goes with --pod-manifest, as rkt has it.
WITH_POD_MANIFEST = frozenset(("net", "no-overlay", "interactive", "pod-manifest"))


def run(invocation: Invocation) -> int:
    """Prepare a pod and become its supervisor."""
    paths = invocation.paths
    config = _config(invocation)
    network.parse(config.net)
    pod, manifest, images = _prepare(invocation, paths, config)
    with pod:
        pod.to_run()
        _save_uuid(invocation, pod)
        start.start(pod, manifest, config, images, ImageStore(paths), _request(invocation))
    raise AssertionError("start() does not return")


def prepare(invocation: Invocation) -> int:
    """Prepare a pod and print its UUID."""
    pod, _, _ = _prepare(invocation, invocation.paths, _config(invocation))
    with pod:
        pod.to_prepared()
        print(pod.uuid)
    return 0


def run_prepared(invocation: Invocation) -> int:
    """Run a prepared pod."""
    paths = invocation.paths
    store = ImageStore(paths)
    with pods.find(paths, invocation.args[0]) as pod:
        if pod.directory != pods.PREPARED:
            raise PrepareError(f'pod "{pod.uuid}" is not prepared')
        manifest = pod.manifest()
        config = _merge(pod.runtime_config(), _config(invocation))
        network.parse(config.net)
        _check_interactive(manifest, config)
        images = {app.name: store.resolve(app.image.id) for app in manifest.apps}
        preparation.check_volumes(manifest)
        # Before the pod is used up by moving: this may fail, on a full disk say.
        pod.claim()
        pod.write("runtime-config", config.json())
        pod.to_run()
        start.start(pod, manifest, config, images, store, _request(invocation))
    raise AssertionError("start() does not return")


def _request(invocation: Invocation) -> start.StartRequest:
    return start.StartRequest(
        verb=invocation.command.path[-1],
        dns=invocation.strings("dns"),
        dns_domain=invocation.string("dns-domain"),
        dns_search=invocation.strings("dns-search"),
        dns_options=invocation.strings("dns-opt"),
        hosts_entries=invocation.strings("hosts-entry"),
        debug=invocation.flag("debug"),
    )


def _config(invocation: Invocation) -> RuntimeConfig:
    """Gather what is told of a pod's run; `prepare` is told only half of it."""
    answers = invocation.answers
    insecure = invocation.insecure
    if answers.get("private-users"):
        raise UsageError("--private-users: user namespaces are not supported yet", invocation.command.path)
    if answers.get("mds-register"):
        raise UsageError("--mds-register: there is no metadata service yet", invocation.command.path)
    runs = "net" in answers
    if runs:
        _check_hostname(invocation.string("hostname"))
    return RuntimeConfig(
        hostname=invocation.string("hostname") if runs else "",
        net=invocation.strings("net") if runs else ("default",),
        interactive=invocation.flag("interactive") if runs else False,
        debug=invocation.flag("debug"),
        overlay=not answers.get("no-overlay", False),
        disable_paths="paths" in insecure,
        disable_capabilities="capabilities" in insecure,
        disable_seccomp="seccomp" in insecure,
        ipc_mode=invocation.string("ipc") if runs else "",
    )


def _check_hostname(name: str) -> None:
    """Refuse what sethostname(2) would, and what is more than one word of /etc/hosts."""
    if len(name) > 64 or not name.isascii() or not name.isprintable() or " " in name:
        raise PrepareError(f'--hostname: "{name}" is not a host name of at most 64 ASCII characters')


def _merge(prepared: RuntimeConfig, now: RuntimeConfig) -> RuntimeConfig:
    """Return what a prepared pod is run with: how it was laid out is prepare's, all else run-prepared's."""
    fields = {**now.__dict__, "overlay": prepared.overlay}
    for name in ("disable_paths", "disable_capabilities", "disable_seccomp"):
        fields[name] = fields[name] or getattr(prepared, name)
    return RuntimeConfig(**fields)


def _check_interactive(manifest: PodManifest, config: RuntimeConfig) -> None:
    if config.interactive and len(manifest.apps) > 1:
        raise PrepareError("interactive option only supports one image")


def _prepare(
    invocation: Invocation, paths: Paths, config: RuntimeConfig
) -> tuple[Pod, PodManifest, dict[str, Image]]:
    store = ImageStore(paths)
    manifest, images = _pod_manifest(invocation, store)
    _check_interactive(manifest, config)
    if config.overlay and not preparation.can_overlay(paths):
        config = RuntimeConfig(**{**config.__dict__, "overlay": False})
    return preparation.prepare(paths, manifest, images, store, config), manifest, images


def _pod_manifest(invocation: Invocation, store: ImageStore) -> tuple[PodManifest, dict[str, Image]]:
    path = invocation.string("pod-manifest")
    if path:
        return _given_manifest(invocation, path, store)
    if not invocation.apps:
        raise UsageError("must provide at least one image", invocation.command.path)
    if invocation.strings("port"):
        raise PrepareError(f"--port={invocation.strings('port')[0]}: ports cannot be forwarded yet")
    for app in invocation.apps:
        if app.stdin or app.stdout or app.stderr:
            raise PrepareError(f'image "{app.image}": --stdin, --stdout and --stderr are not supported yet')
    found = []
    for app in invocation.apps:
        image = fetch.image(
            app.image, store, verify="image" not in invocation.insecure, signature=app.signature
        )
        found.append((app, image, imagemanifest.parse(image.manifest_bytes())))
    generated = generate.generate(
        [(app, manifest, image.key) for app, image, manifest in found],
        _pod_request(invocation),
        machine=os.uname().machine,
    )
    for warning in generated.warnings:
        complain(f"{invocation.command.path[-1]}: {warning}")
    names = [app.name for app in generated.manifest.apps]
    return generated.manifest, {name: image for name, (_, image, _) in zip(names, found, strict=True)}


def _pod_request(invocation: Invocation) -> PodRequest:
    files: tuple[tuple[str, str], ...] = ()
    for path in invocation.strings("set-env-file"):
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            files += generate.parse_environment_file(file.read(1 << 20), path)
    return PodRequest(
        volumes=tuple(generate.parse_volume(text) for text in invocation.strings("volume")),
        inherited=_own_environment() if invocation.flag("inherit-env") else {},
        from_files=files,
        environment=invocation.pairs("set-env"),
    )


def _own_environment() -> dict[str, str]:
    """Return the environment we were started with: Python adds LC_CTYPE to its own in a C locale."""
    with open("/proc/self/environ", "rb") as file:
        items = [os.fsdecode(item).partition("=") for item in file.read().split(b"\0") if item]
    return {name: text for name, _, text in items}


def _given_manifest(
    invocation: Invocation, path: str, store: ImageStore
) -> tuple[PodManifest, dict[str, Image]]:
    known = {option.name for option in invocation.command.options()}
    conflicts = sorted((invocation.given & known) - WITH_POD_MANIFEST)
    if invocation.apps or conflicts:
        raise UsageError("conflicting flags set with --pod-manifest (see --help)", invocation.command.path)
    with open(path, "rb") as file:
        data = file.read(5 << 20)
    try:
        manifest = podmanifest.parse(data)
    except BadManifest as error:
        raise PrepareError(f"{path}: {error}") from None
    if not manifest.apps:
        raise PrepareError(f"{path}: a pod manifest without apps")
    images = {}
    apps = []
    for app in manifest.apps:
        image = images[app.name] = store.resolve(app.image.id)
        own: ImageManifest = imagemanifest.parse(image.manifest_bytes())
        if app.app is None and own.app is None:
            raise PrepareError(f'app "{app.name}" has no app section, and its image has none')
        chosen = app.app or own.app
        assert chosen is not None
        if not chosen.exec:
            raise PrepareError(f'app "{app.name}" has nothing to execute')
        apps.append(podmanifest.RuntimeApp(**{**app.__dict__, "app": chosen}))
    return podmanifest.PodManifest(**{**manifest.__dict__, "apps": tuple(apps)}), images


def _save_uuid(invocation: Invocation, pod: Pod) -> None:
    path = invocation.string("uuid-file-save")
    if path:
        try:
            with open(path, "w") as file:
                file.write(f"{pod.uuid}\n")
        except OSError as error:
            raise RktError(f"cannot save the UUID to {path}: {error.strerror}") from None
