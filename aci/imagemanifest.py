"""Image manifests: what an image is, and how its app is run (appc spec 0.8.11, aci)."""

from __future__ import annotations

from rkt_py.aci import isolator, strictjson
from rkt_py.aci import name as names
from rkt_py.aci.errors import BadManifest, BadName
from rkt_py.aci.isolator import Isolator
from rkt_py.aci.name import Label
from rkt_py.aci.strictjson import Fields
from rkt_py.aci.value import value

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

KIND = "ImageManifest"
AC_VERSION = "0.8.11"

# 2**32 - 1 is -1 to the kernel: "leave it as it is".
MAX_ID = 2**32 - 2
_MAX_SIZE = 2**63 - 1
_NO_TEXTS: Mapping[str, str] = {}


@value
class Annotation:
    """Metadata beyond the spec's fields: a name and any text."""

    name: str
    value: str


@value
class EventHandler:
    """What runs at an event of the app's life: `pre-start` or `post-stop`."""

    name: str
    exec: tuple[str, ...] = ()


@value
class EnvironmentVariable:
    """A variable of the app's environment."""

    name: str
    value: str


@value
class MountPoint:
    """Where an app expects a volume."""

    name: str
    path: str
    read_only: bool = False


@value
class Port:
    """Ports an app listens on: `count` of them from `port` on."""

    name: str
    protocol: str
    port: int
    count: int = 1
    socket_activated: bool = False


@value
class App:
    """How an image is executed."""

    exec: tuple[str, ...]
    user: str
    group: str
    supplementary_gids: tuple[int, ...] = ()
    event_handlers: tuple[EventHandler, ...] = ()
    working_directory: str = ""
    environment: tuple[EnvironmentVariable, ...] = ()
    mount_points: tuple[MountPoint, ...] = ()
    ports: tuple[Port, ...] = ()
    isolators: tuple[Isolator, ...] = ()
    user_annotations: Mapping[str, str] = _NO_TEXTS
    user_labels: Mapping[str, str] = _NO_TEXTS

    def isolator(self, name: str) -> Isolator | None:
        """Return the isolator of a name: the last one, as rkt has it."""
        return find_isolator(self.isolators, name)


@value
class Dependency:
    """An image whose files come before this image's own."""

    image_name: str
    image_id: str | None = None
    labels: tuple[Label, ...] = ()
    size: int = 0


@value
class ImageManifest:
    """What an image says of itself."""

    name: str
    ac_version: str = AC_VERSION
    labels: tuple[Label, ...] = ()
    app: App | None = None
    annotations: tuple[Annotation, ...] = ()
    dependencies: tuple[Dependency, ...] = ()
    path_whitelist: tuple[str, ...] = ()

    def label(self, name: str) -> str | None:
        """Return the value of a label, None when there is none."""
        for label in self.labels:
            if label.name == name:
                return label.value
        return None

    def annotation(self, name: str) -> str | None:
        """Return the value of an annotation, None when there is none."""
        return find_annotation(self.annotations, name)


def find_isolator(isolators: Iterable[Isolator], name: str) -> Isolator | None:
    """Return the last isolator of a name."""
    result = None
    for item in isolators:
        if item.name == name:
            result = item
    return result


def find_annotation(annotations: Iterable[Annotation], name: str) -> str | None:
    """Return the value of the annotation of a name."""
    for annotation in annotations:
        if annotation.name == name:
            return annotation.value
    return None


def parse(data: bytes) -> ImageManifest:
    """Return the image manifest that the bytes of a `manifest` file hold."""
    fields = Fields(strictjson.loads(data, what="image manifest"))
    check_kind(fields, KIND)
    return ImageManifest(
        fields.text("name", names.check_identifier),
        fields.text("acVersion", names.check_version),
        parse_labels(fields, "labels"),
        None if (app := fields.get("app")) is None else parse_app(app, "app"),
        parse_annotations(fields, "annotations"),
        tuple([_parse_dependency(item, path) for path, item in fields.items("dependencies")]),
        fields.texts("pathWhitelist", _check_absolute),
    )


def check_kind(fields: Fields, kind: str) -> None:
    """Refuse a manifest of another kind."""
    found = fields.text("acKind")
    if found != kind:
        raise BadManifest(f"must be {kind}, not {names.quoted(found)}", "acKind")


def _check_absolute(path: str) -> str:
    if not path.startswith("/"):
        raise BadName(f"{names.quoted(path)} is not an absolute path")
    return names.check_c_string(path)


def check_not_empty(text: str) -> str:
    """Check a text that the kernel will see and that must say something."""
    if not text:
        raise BadName("must not be empty")
    return names.check_c_string(text)


def _check_working_directory(path: str) -> str:
    return _check_absolute(path) if path else path


def parse_labels(fields: Fields, key: str) -> tuple[Label, ...]:
    """Return the labels that a field holds."""
    labels = []
    for path, item in fields.items(key):
        label = Fields(item, path)
        labels.append(Label(label.text("name", names.check_identifier), label.text("value", default="")))
    try:
        names.check_labels(labels)
    except BadName as error:
        raise BadManifest(str(error), fields.at(key)) from None
    return tuple(labels)


_ANNOTATION_RULES = {
    "created": names.check_date,
    "homepage": names.check_url,
    "documentation": names.check_url,
}


def parse_annotations(fields: Fields, key: str) -> tuple[Annotation, ...]:
    """Return the annotations that a field holds."""
    annotations: dict[str, Annotation] = {}
    for path, item in fields.items(key):
        annotation = Fields(item, path)
        name = annotation.text("name", names.check_identifier)
        if name in annotations:
            raise BadManifest(f"there is an annotation {names.quoted(name)} before this one", path)
        text = annotation.text("value", _ANNOTATION_RULES.get(name), default="")
        if not text and name in _ANNOTATION_RULES:
            raise BadManifest("must not be empty", annotation.at("value"))
        annotations[name] = Annotation(name, text)
    return tuple(annotations.values())


def parse_app(obj: object, field: str) -> App:
    """Return the app that a JSON object holds; `field` is its path in errors."""
    fields = Fields(obj, field)
    return App(
        _parse_exec(fields),
        fields.text("user", check_not_empty),
        fields.text("group", check_not_empty),
        tuple([strictjson.whole(i, 0, MAX_ID, path) for path, i in fields.items("supplementaryGIDs")]),
        _parse_event_handlers(fields),
        fields.text("workingDirectory", _check_working_directory, default=""),
        _parse_environment(fields),
        tuple([_parse_mount_point(item, path) for path, item in fields.items("mountPoints")]),
        tuple([parse_port(item, path) for path, item in fields.items("ports")]),
        isolator.parse_list(fields.items("isolators")),
        fields.mapping("userAnnotations"),
        fields.mapping("userLabels"),
    )


def _parse_exec(fields: Fields) -> tuple[str, ...]:
    # It may be empty: an image to which `run` gives a command.
    arguments = fields.texts("exec", names.check_c_string)
    if arguments and not arguments[0]:
        raise BadManifest("must not be empty", fields.at("exec") + "[0]")
    return arguments


def _parse_event_handlers(fields: Fields) -> tuple[EventHandler, ...]:
    handlers: dict[str, EventHandler] = {}
    for path, item in fields.items("eventHandlers"):
        handler = Fields(item, path)
        name = handler.text("name")
        if name not in ("pre-start", "post-stop"):
            raise BadManifest(f"must be pre-start or post-stop, not {names.quoted(name)}", handler.at("name"))
        if name in handlers:
            raise BadManifest(f"there is a {name} handler before this one", path)
        handlers[name] = EventHandler(name, _parse_exec(handler))
    return tuple(handlers.values())


def _parse_environment(fields: Fields) -> tuple[EnvironmentVariable, ...]:
    variables: dict[str, EnvironmentVariable] = {}
    for path, item in fields.items("environment"):
        variable = Fields(item, path)
        name = variable.text("name", names.check_environment_name)
        if name in variables:
            raise BadManifest(f"there is a variable {names.quoted(name)} before this one", path)
        variables[name] = EnvironmentVariable(name, variable.text("value", names.check_c_string, default=""))
    return tuple(variables.values())


def _parse_mount_point(obj: object, path: str) -> MountPoint:
    fields = Fields(obj, path)
    return MountPoint(
        fields.text("name", names.check_name),
        fields.text("path", check_not_empty),
        bool(fields.flag("readOnly")),
    )


def parse_port(obj: object, field: str) -> Port:
    """Return the port that a JSON object holds."""
    fields = Fields(obj, field)
    port = fields.integer("port", 1, 65535)
    # 0 is what actool writes for a count that is not set.
    count = fields.integer("count", 0, 65535, default=1) or 1
    if port + count > 65536:
        raise BadManifest(f"{count} ports from {port} on end after 65535", fields.at("count"))
    return Port(
        fields.text("name", names.check_name),
        fields.text("protocol", check_not_empty),
        port,
        count,
        bool(fields.flag("socketActivated")),
    )


def _check_image_id(text: str) -> str:
    return names.check_hash(text, prefix=True, elided=True)


def _parse_dependency(obj: object, path: str) -> Dependency:
    fields = Fields(obj, path)
    return Dependency(
        fields.text("imageName", names.check_identifier),
        fields.text("imageID", _check_image_id, default="") or None,
        parse_labels(fields, "labels"),
        fields.integer("size", 0, _MAX_SIZE, default=0),
    )


def dump(manifest: ImageManifest, *, indent: str | None = None) -> str:
    """Return a manifest as JSON, with the keys in the order rkt and actool write them."""
    return strictjson.dumps(
        {
            "acKind": KIND,
            "acVersion": manifest.ac_version,
            "name": manifest.name,
            **present(
                labels=dump_pairs(manifest.labels),
                app=None if manifest.app is None else dump_app(manifest.app),
                annotations=dump_pairs(manifest.annotations),
                dependencies=[_dump_dependency(item) for item in manifest.dependencies],
                pathWhitelist=list(manifest.path_whitelist),
            ),
        },
        indent=indent,
    )


def present(**fields: object) -> dict[str, object]:
    """Return the fields that say something, as Go's omitempty leaves them."""
    return {
        key: item
        for key, item in fields.items()
        if item not in (None, "", 0, False) and item != [] and item != {}
    }


def dump_pairs(items: Iterable[Label | Annotation | EnvironmentVariable]) -> list[object]:
    """Return the JSON of things that have a name and a value."""
    return [{"name": item.name, "value": item.value} for item in items]


def dump_app(app: App) -> dict[str, object]:
    """Return the JSON of an app."""
    return {
        "exec": list(app.exec),
        **present(
            eventHandlers=[{"name": item.name, "exec": list(item.exec)} for item in app.event_handlers]
        ),
        "user": app.user,
        "group": app.group,
        **present(
            supplementaryGIDs=list(app.supplementary_gids),
            workingDirectory=app.working_directory,
            environment=dump_pairs(app.environment),
            mountPoints=[
                {"name": item.name, "path": item.path, **present(readOnly=item.read_only)}
                for item in app.mount_points
            ],
            ports=[dump_port(item) for item in app.ports],
            isolators=[isolator.dump(item) for item in app.isolators],
            userAnnotations=dict(app.user_annotations),
            userLabels=dict(app.user_labels),
        ),
    }


def dump_port(port: Port) -> dict[str, object]:
    """Return the JSON of a port."""
    return {
        "name": port.name,
        "protocol": port.protocol,
        "port": port.port,
        "count": port.count,
        "socketActivated": port.socket_activated,
    }


def _dump_dependency(dependency: Dependency) -> dict[str, object]:
    return {
        "imageName": dependency.image_name,
        **present(imageID=dependency.image_id, labels=dump_pairs(dependency.labels), size=dependency.size),
    }
