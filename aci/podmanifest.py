"""Pod manifests: the apps of a pod, and what they share (appc spec 0.8.11, pods)."""

from __future__ import annotations

from rkt_py.aci import imagemanifest, isolator, strictjson
from rkt_py.aci import name as names
from rkt_py.aci.errors import BadManifest, BadName
from rkt_py.aci.imagemanifest import (
    AC_VERSION,
    MAX_ID,
    Annotation,
    App,
    Port,
    check_not_empty,
    dump_app,
    dump_pairs,
    dump_port,
    find_annotation,
    find_isolator,
    parse_annotations,
    parse_app,
    parse_labels,
    parse_port,
    present,
)
from rkt_py.aci.isolator import Isolator
from rkt_py.aci.name import Label
from rkt_py.aci.strictjson import Fields
from rkt_py.aci.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal

KIND = "PodManifest"

EMPTY_VOLUME_MODE = "0755"
_NO_TEXTS: Mapping[str, str] = {}


@value
class Volume:
    """What apps can mount: a directory of the host, or an empty one that lives with the pod.

    What is None was not said: whether a volume is read-only is then up to its mount point, and a
    host volume brings the mounts below it (recursive).
    """

    name: str
    kind: Literal["empty", "host"]
    source: str = ""
    read_only: bool | None = None
    recursive: bool | None = None
    mode: str | None = None
    uid: int | None = None
    gid: int | None = None


@value
class Mount:
    """Where an app has a volume. `app_volume` is a volume of its own, in place of the pod's."""

    volume: str
    path: str
    app_volume: Volume | None = None


@value
class RuntimeImage:
    """The image an app runs from."""

    id: str
    name: str | None = None
    labels: tuple[Label, ...] = ()


@value
class RuntimeApp:
    """An app of a pod. `app` stands in place of the image's own."""

    name: str
    image: RuntimeImage
    app: App | None = None
    read_only_rootfs: bool = False
    mounts: tuple[Mount, ...] = ()
    annotations: tuple[Annotation, ...] = ()

    def annotation(self, name: str) -> str | None:
        """Return the value of an annotation, None when there is none."""
        return find_annotation(self.annotations, name)


@value
class ExposedPort:
    """A port of an app that is a port of the host."""

    name: str
    host_port: int
    host_ip: str | None = None
    pod_port: Port | None = None


@value
class PodManifest:
    """What a pod is made of."""

    ac_version: str = AC_VERSION
    apps: tuple[RuntimeApp, ...] = ()
    volumes: tuple[Volume, ...] = ()
    isolators: tuple[Isolator, ...] = ()
    annotations: tuple[Annotation, ...] = ()
    ports: tuple[ExposedPort, ...] = ()
    user_annotations: Mapping[str, str] = _NO_TEXTS
    user_labels: Mapping[str, str] = _NO_TEXTS

    def app(self, name: str) -> RuntimeApp | None:
        """Return the app of a name, None when there is none."""
        for app in self.apps:
            if app.name == name:
                return app
        return None

    def volume(self, name: str) -> Volume | None:
        """Return the volume of a name, None when there is none."""
        for volume in self.volumes:
            if volume.name == name:
                return volume
        return None

    def isolator(self, name: str) -> Isolator | None:
        """Return the isolator of a name: the last one, as rkt has it."""
        return find_isolator(self.isolators, name)

    def annotation(self, name: str) -> str | None:
        """Return the value of an annotation, None when there is none."""
        return find_annotation(self.annotations, name)


def parse(data: bytes) -> PodManifest:
    """Return the pod manifest that some bytes hold."""
    fields = Fields(strictjson.loads(data, what="pod manifest"))
    imagemanifest.check_kind(fields, KIND)
    return PodManifest(
        fields.text("acVersion", names.check_version),
        _parse_apps(fields),
        _parse_volumes(fields),
        isolator.parse_list(fields.items("isolators")),
        parse_annotations(fields, "annotations"),
        tuple([_parse_exposed_port(item, path) for path, item in fields.items("ports")]),
        fields.mapping("userAnnotations"),
        fields.mapping("userLabels"),
    )


def _parse_apps(fields: Fields) -> tuple[RuntimeApp, ...]:
    apps: dict[str, RuntimeApp] = {}
    for path, item in fields.items("apps"):
        app = _parse_runtime_app(item, path)
        if app.name in apps:
            raise BadManifest(f"there is an app {names.quoted(app.name)} before this one", path)
        apps[app.name] = app
    return tuple(apps.values())


def _parse_runtime_app(obj: object, path: str) -> RuntimeApp:
    fields = Fields(obj, path)
    return RuntimeApp(
        fields.text("name", names.check_name),
        _parse_runtime_image(fields),
        None if (app := fields.get("app")) is None else parse_app(app, fields.at("app")),
        bool(fields.flag("readOnlyRootFS")),
        tuple([_parse_mount(item, at) for at, item in fields.items("mounts")]),
        parse_annotations(fields, "annotations"),
    )


def _check_image_id(text: str) -> str:
    return names.check_hash(text, prefix=True, elided=True)


def _parse_runtime_image(app: Fields) -> RuntimeImage:
    image = app.get("image")
    if image is None:
        raise BadManifest("is missing", app.at("image"))
    fields = Fields(image, app.at("image"))
    return RuntimeImage(
        fields.text("id", _check_image_id),
        None if fields.get("name") is None else fields.text("name", names.check_identifier),
        parse_labels(fields, "labels"),
    )


def _parse_mount(obj: object, path: str) -> Mount:
    fields = Fields(obj, path)
    volume = fields.get("appVolume")
    return Mount(
        fields.text("volume", names.check_name),
        fields.text("path", check_not_empty),
        None if volume is None else parse_volume(volume, fields.at("appVolume")),
    )


def _parse_volumes(fields: Fields) -> tuple[Volume, ...]:
    volumes: dict[str, Volume] = {}
    for path, item in fields.items("volumes"):
        volume = parse_volume(item, path)
        if volume.name in volumes:
            raise BadManifest(f"there is a volume {names.quoted(volume.name)} before this one", path)
        volumes[volume.name] = volume
    return tuple(volumes.values())


def parse_volume(obj: object, field: str) -> Volume:
    """Return the volume that a JSON object holds; an empty volume gets its defaults."""
    fields = Fields(obj, field)
    name = fields.text("name", names.check_name)
    kind = fields.text("kind")
    if kind == "host":
        _refuse(fields, "host", "mode", "uid", "gid")
        source = fields.text("source", _check_source)
        return Volume(name, "host", source, fields.flag("readOnly"), fields.flag("recursive"))
    if kind == "empty":
        if fields.text("source", default=""):
            raise BadManifest("must not be set for an empty volume", fields.at("source"))
        _refuse(fields, "empty", "recursive")
        return Volume(
            name,
            "empty",
            read_only=fields.flag("readOnly"),
            mode=fields.text("mode", check_mode, default=EMPTY_VOLUME_MODE),
            uid=fields.integer("uid", 0, MAX_ID, default=0),
            gid=fields.integer("gid", 0, MAX_ID, default=0),
        )
    raise BadManifest(f"must be empty or host, not {names.quoted(kind)}", fields.at("kind"))


def _refuse(fields: Fields, kind: str, *keys: str) -> None:
    for key in keys:
        if fields.get(key) is not None:
            article = "an" if kind == "empty" else "a"
            raise BadManifest(f"must not be set for {article} {kind} volume", fields.at(key))


def _check_source(path: str) -> str:
    if not path.startswith("/"):
        raise BadName(f"{names.quoted(path)} is not an absolute path")
    return names.check_c_string(path)


def check_mode(text: str) -> str:
    """Check the mode of an empty volume: octal digits, up to 7777."""
    if not text or len(text) > 5 or text.strip("01234567") or int(text, 8) > 0o7777:
        raise BadName(f"{names.quoted(text)} is not a mode such as 0755")
    return text


def _parse_exposed_port(obj: object, path: str) -> ExposedPort:
    fields = Fields(obj, path)
    address = fields.text("hostIP", _check_address, default="")
    port = fields.get("podPort")
    return ExposedPort(
        fields.text("name", names.check_name),
        fields.integer("hostPort", 1, 65535),
        address or None,
        None if port is None else parse_port(port, fields.at("podPort")),
    )


def _check_address(text: str) -> str:
    # Imported here because hardly any pod has one, and it loads a library.
    from _socket import AF_INET, AF_INET6, inet_pton

    if text:
        try:
            inet_pton(AF_INET6 if ":" in text else AF_INET, text)
        except (OSError, ValueError):
            raise BadName(f"{names.quoted(text)} is not an IP address") from None
    return text


def dump(manifest: PodManifest, *, indent: str | None = None) -> str:
    """Return a manifest as JSON, as rkt writes it: what is empty is null, but ports are []."""
    return strictjson.dumps(
        {
            "acVersion": manifest.ac_version,
            "acKind": KIND,
            "apps": [_dump_runtime_app(app) for app in manifest.apps],
            "volumes": [dump_volume(volume) for volume in manifest.volumes] or None,
            "isolators": [isolator.dump(item) for item in manifest.isolators] or None,
            "annotations": dump_pairs(manifest.annotations) or None,
            "ports": [_dump_exposed_port(port) for port in manifest.ports],
            **present(userAnnotations=dict(manifest.user_annotations), userLabels=dict(manifest.user_labels)),
        },
        indent=indent,
    )


def _dump_runtime_app(app: RuntimeApp) -> dict[str, object]:
    image = app.image
    return {
        "name": app.name,
        "image": {
            **present(name=image.name),
            "id": image.id,
            **present(labels=dump_pairs(image.labels)),
        },
        **present(
            app=None if app.app is None else dump_app(app.app),
            readOnlyRootFS=app.read_only_rootfs,
            mounts=[_dump_mount(mount) for mount in app.mounts],
            annotations=dump_pairs(app.annotations),
        ),
    }


def _dump_mount(mount: Mount) -> dict[str, object]:
    volume = None if mount.app_volume is None else dump_volume(mount.app_volume)
    return {"volume": mount.volume, "path": mount.path, **present(appVolume=volume)}


def dump_volume(volume: Volume) -> dict[str, object]:
    """Return the JSON of a volume."""
    said = {
        "readOnly": volume.read_only,
        "recursive": volume.recursive,
        "mode": volume.mode,
        "uid": volume.uid,
        "gid": volume.gid,
    }
    return {
        "name": volume.name,
        "kind": volume.kind,
        **present(source=volume.source),
        **{key: item for key, item in said.items() if item is not None},
    }


def _dump_exposed_port(port: ExposedPort) -> dict[str, object]:
    pod_port = None if port.pod_port is None else dump_port(port.pod_port)
    return {"name": port.name, "hostPort": port.host_port, **present(hostIP=port.host_ip, podPort=pod_port)}
