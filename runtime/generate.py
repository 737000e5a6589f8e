"""Pod manifests: generated from images and what was asked for them.

Pure: images are their manifests, what was asked is values. The rules are rkt's: names, the order of
environments, implicit volumes.
"""

from __future__ import annotations

from rkt_py.aci import isolator, podmanifest
from rkt_py.aci import name as names
from rkt_py.aci.errors import BadManifest, BadName
from rkt_py.aci.imagemanifest import Annotation, App, EnvironmentVariable
from rkt_py.aci.podmanifest import Mount, PodManifest, RuntimeApp, RuntimeImage, Volume
from rkt_py.aci.value import replace, value
from rkt_py.runtime.errors import PrepareError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rkt_py.aci.imagemanifest import ImageManifest
    from rkt_py.aci.isolator import Isolator
    from rkt_py.runtime.apprequest import AppRequest


@value
class PodRequest:
    """What is asked of a pod, beyond its apps."""

    volumes: tuple[Volume, ...] = ()
    inherited: Mapping[str, str] = {}  # noqa: RUF012  (a value: nobody changes it)
    from_files: tuple[tuple[str, str], ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


@value
class Generated:
    """A pod manifest, and what the user should be told about it."""

    manifest: PodManifest
    warnings: tuple[str, ...] = ()


def parse_volume(text: str) -> Volume:
    """Parse rkt's `NAME,kind=host,source=/srv/data,readOnly=true`. Raises PrepareError."""
    name, _, rest = text.partition(",")
    fields: dict[str, object] = {"name": name}
    for item in rest.split(",") if rest else ():
        key, equals, given = item.partition("=")
        if not equals or key not in ("kind", "source", "readOnly", "recursive", "mode", "uid", "gid"):
            raise PrepareError(
                f'volume "{text}": "{item}" is not kind, source, readOnly, recursive, mode, uid or gid'
            )
        if key in ("readOnly", "recursive"):
            if given not in ("true", "false"):
                raise PrepareError(f'volume "{text}": {key} is true or false, not "{given}"')
            fields[key] = given == "true"
        elif key in ("uid", "gid"):
            if not given.isdecimal() or not given.isascii() or len(given) > 10:
                raise PrepareError(f'volume "{text}": {key} is a number, not "{given}"')
            fields[key] = int(given)
        else:
            fields[key] = given
    try:
        return podmanifest.parse_volume(fields, "")
    except BadManifest as error:
        raise PrepareError(f'volume "{text}": {error}') from None


def _check_platform(image: ImageManifest, machine: str) -> None:
    # appc's names of architectures are Go's, except for the arms (spec, "Image Manifest Schema").
    ours = {"x86_64": ("amd64",), "aarch64": ("aarch64",), "i686": ("i386",)}.get(machine, (machine,))
    system, arch = image.label("os"), image.label("arch")
    if system is not None and system != "linux":
        raise PrepareError(f'image "{image.name}" is for the operating system {system}, this is linux')
    if arch is not None and arch not in ours:
        raise PrepareError(f'image "{image.name}" is for the architecture {arch}, this machine is {ours[0]}')


def _app_name(request: AppRequest, image: ImageManifest) -> str:
    try:
        if request.name:
            return names.check_name(request.name)
        return names.sanitize_name(image.name.rpartition("/")[2])
    except BadName as error:
        raise PrepareError(f'app name for the image "{image.name}": {error}') from None


def _isolators(request: AppRequest, app: App) -> tuple[Isolator, ...]:
    if request.caps_retain and request.caps_remove:
        raise PrepareError(
            f'image "{request.image}": --caps-retain and --caps-remove cannot be given together'
        )
    asked: dict[str, tuple[str, object]] = {}
    if request.caps_retain:
        asked[isolator.CAPABILITIES_RETAIN_SET] = ("--caps-retain", {"set": list(request.caps_retain)})
    if request.caps_remove:
        asked[isolator.CAPABILITIES_REMOVE_SET] = ("--caps-remove", {"set": list(request.caps_remove)})
    if request.seccomp:
        name, shape = _seccomp(request.seccomp)
        asked[name] = ("--seccomp", shape)
    if request.memory:
        asked[isolator.MEMORY] = ("--memory", {"limit": request.memory})
    if request.cpu:
        asked[isolator.CPU] = ("--cpu", {"limit": request.cpu})
    if request.cpu_shares is not None:
        asked[isolator.CPU_SHARES] = ("--cpu-shares", request.cpu_shares)
    if request.oom_score_adj is not None:
        asked[isolator.OOM_SCORE_ADJ] = ("--oom-score-adj", request.oom_score_adj)
    replaced = set(asked)
    for pair in (
        {isolator.CAPABILITIES_RETAIN_SET, isolator.CAPABILITIES_REMOVE_SET},
        {isolator.SECCOMP_RETAIN_SET, isolator.SECCOMP_REMOVE_SET},
    ):
        if pair & replaced:
            replaced |= pair
    result = [item for item in app.isolators if item.name not in replaced]
    for name, (flag, shape) in asked.items():
        try:
            result.append(isolator.make(name, shape))
        except BadManifest as error:
            raise PrepareError(f"{flag}: {error}") from None
    return tuple(result)


def _seccomp(text: str) -> tuple[str, object]:
    mode, errno, calls = "", "", []
    for word in text.split(","):
        key, equals, given = word.partition("=")
        if equals and key == "mode":
            mode = given
        elif equals and key == "errno":
            errno = given
        else:
            calls.append(word)
    if mode not in ("retain", "remove"):
        raise PrepareError(f'--seccomp={text}: mode is retain or remove, not "{mode}"')
    name = isolator.SECCOMP_RETAIN_SET if mode == "retain" else isolator.SECCOMP_REMOVE_SET
    return name, {"set": calls, **({"errno": errno} if errno else {})}


def _environment(app: App, request: AppRequest, pod: PodRequest) -> tuple[EnvironmentVariable, ...]:
    """Lowest first: the caller's, the image's, files', the pod's, the app's own."""
    variables = {name: text for name, text in pod.inherited.items() if _is_environment_name(name)}
    variables.update((variable.name, variable.value) for variable in app.environment)
    variables.update(pod.from_files)
    variables.update(pod.environment)
    variables.update(request.environment)
    for name, text in variables.items():
        try:
            names.check_environment_name(name)
            names.check_c_string(text)
        except BadName as error:
            raise PrepareError(f"environment: {error}") from None
    return tuple(EnvironmentVariable(name, text) for name, text in variables.items())


def _is_environment_name(name: str) -> bool:
    try:
        names.check_environment_name(name)
    except BadName:
        return False  # "BASH_FUNC_x%%": a shell's own business
    return True


def _executable(app: App, request: AppRequest) -> tuple[str, ...]:
    argv = ((request.exec,) if request.exec else app.exec) + request.args
    if not argv:
        raise PrepareError(f'image "{request.image}" has nothing to execute: give --exec')
    return argv


def _app(request: AppRequest, image: ImageManifest, pod: PodRequest) -> App:
    if image.app is None and not request.exec:
        raise PrepareError(f'image "{request.image}" has no app section: give --exec')
    app = image.app or App(exec=(), user="0", group="0")
    return replace(
        app,
        exec=_executable(app, request),
        user=request.user or app.user,
        group=request.group or app.group,
        supplementary_gids=request.supplementary_gids or app.supplementary_gids,
        working_directory=request.working_dir or app.working_directory,
        environment=_environment(app, request, pod),
        isolators=_isolators(request, app),
        user_annotations={**app.user_annotations, **dict(request.user_annotations)},
        user_labels={**app.user_labels, **dict(request.user_labels)},
    )


def _mounts(
    name: str, app: App, request: AppRequest, volumes: dict[str, Volume], warnings: list[str]
) -> tuple[Mount, ...]:
    mounts = []
    for volume, target in request.mounts:
        if volume not in volumes:
            raise PrepareError(f'dangling mount point "{target}": volume "{volume}" not found')
        mounts.append(Mount(volume, target))
    taken = {mount.path.rstrip("/") for mount in mounts}
    for point in app.mount_points:
        if point.path.rstrip("/") in taken:
            continue
        if point.name not in volumes:
            # rkt: an app that wants a volume gets an empty one of its own when nobody gives one.
            implicit = Volume(f"{name}-{point.name}", "empty", mode="0755", uid=0, gid=0)
            volumes.setdefault(implicit.name, implicit)
            mounts.append(Mount(implicit.name, point.path))
            warnings.append(
                f'warning: no volume specified for mount point "{point.name}", implicitly creating an '
                '"empty" volume. This volume will be removed when the pod is garbage-collected.'
            )
        else:
            mounts.append(Mount(point.name, point.path))
    return tuple(mounts)


def generate(
    apps: Sequence[tuple[AppRequest, ImageManifest, str]], pod: PodRequest, *, machine: str
) -> Generated:
    """Return the manifest of a pod of these apps, each a request with its image's manifest and ID.

    Raises PrepareError.
    """
    warnings: list[str] = []
    volumes: dict[str, Volume] = {}
    for volume in pod.volumes:
        if volume.name in volumes:
            raise PrepareError(f'two volumes have the name "{volume.name}"')
        volumes[volume.name] = volume
    result: dict[str, RuntimeApp] = {}
    for request, image, image_id in apps:
        _check_platform(image, machine)
        name = _app_name(request, image)
        if name in result:
            raise PrepareError(f'two apps have the name "{name}": give one another with --name')
        app = _app(request, image, pod)
        result[name] = RuntimeApp(
            name,
            RuntimeImage(image_id, image.name, image.labels),
            app,
            read_only_rootfs=request.readonly_rootfs,
            mounts=_mounts(name, app, request, volumes, warnings),
            annotations=_annotations(image.annotations, request.annotations),
        )
    for name in result:
        # The pod keeps what it knows of an app in files of these names (docs/on-disk.md), as rkt does.
        for suffix in ("-created", "-started", "-pid"):
            if name + suffix in result:
                raise PrepareError(f'apps of the names "{name}" and "{name}{suffix}" cannot be in one pod')
    manifest = PodManifest(apps=tuple(result.values()), volumes=tuple(volumes.values()))
    return Generated(manifest, tuple(warnings))


def _annotations(own: Iterable[Annotation], given: Iterable[tuple[str, str]]) -> tuple[Annotation, ...]:
    merged = {annotation.name: annotation.value for annotation in own}
    for name, text in given:
        try:
            merged[names.check_identifier(name)] = text
        except BadName as error:
            raise PrepareError(f"--annotation: {error}") from None
    return tuple(Annotation(name, text) for name, text in merged.items())


def parse_environment_file(text: str, path: str) -> tuple[tuple[str, str], ...]:
    """Parse a file of NAME=VALUE lines; blank lines and those starting with # or ; count for nothing."""
    pairs = []
    for number, line in enumerate(text.splitlines(), 1):
        line = line.strip()
        if not line or line[0] in "#;":
            continue
        name, equals, given = line.partition("=")
        if not equals or not name:
            raise PrepareError(f'{path}, line {number}: "{line}" is not NAME=VALUE')
        pairs.append((name, given))
    return tuple(pairs)
