"""`rkt-py image build`."""

from __future__ import annotations

from rkt_py.aci import build as building
from rkt_py.aci import imagemanifest
from rkt_py.aci.errors import BadManifest, BuildError
from rkt_py.runtime.cli.main import complain
from rkt_py.runtime.cli.options import Invocation
from rkt_py.runtime.errors import UsageError


def build(invocation: Invocation) -> int:
    """Build an image of a directory and print its ID."""
    rootfs, output = invocation.args
    built = building.build(
        rootfs,
        _manifest(invocation),
        output,
        compression=invocation.string("compression"),  # type: ignore[arg-type]  # one of the choices
        level=invocation.number("level"),
        overwrite=invocation.flag("overwrite"),
        owner=_owner(invocation),
    )
    for warning in built.warnings:
        complain(f"build: warning: {warning}")
    print(built.key)
    return 0


def _manifest(invocation: Invocation) -> imagemanifest.ImageManifest | bytes:
    path = invocation.string("manifest")
    if path:
        others = invocation.given - {"manifest", "compression", "level", "overwrite", "owner"}
        clash = sorted(others & {option.name for option in invocation.command.options()})
        if clash:
            raise UsageError(f"--{clash[0]} cannot be given with --manifest", invocation.command.path)
        with open(path, "rb") as file:
            data = file.read(5 << 20)
        try:
            imagemanifest.parse(data)
        except BadManifest as error:
            raise BuildError(f"{path}: {error}") from None
        return data
    if not invocation.string("name"):
        raise UsageError("an image needs a name: give --name or --manifest", invocation.command.path)
    gids = invocation.answers["supplementary-gids"]
    assert isinstance(gids, tuple)
    return building.manifest_for(
        invocation.string("name"),
        version=invocation.string("version"),
        os=invocation.string("os"),
        arch=invocation.string("arch"),
        exec=invocation.strings("exec"),
        user=invocation.string("user"),
        group=invocation.string("group"),
        supplementary_gids=[int(gid) for gid in gids],  # type: ignore[arg-type]
        working_directory=invocation.string("working-dir"),
        environment=invocation.pairs("environment"),
        mounts=invocation.strings("mount"),
        ports=invocation.strings("port"),
        labels=invocation.pairs("label"),
        annotations=invocation.pairs("annotation"),
        isolators=invocation.pairs("isolator"),
    )


def _owner(invocation: Invocation) -> tuple[int, int] | None:
    text = invocation.string("owner")
    if not text:
        return None
    uid, colon, gid = text.partition(":")
    if not (colon and uid.isascii() and uid.isdigit() and gid.isascii() and gid.isdigit()):
        raise UsageError(f'--owner is UID:GID, not "{text}"', invocation.command.path)
    return int(uid), int(gid)
