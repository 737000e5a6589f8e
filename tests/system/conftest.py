"""What system tests share: one installation for most of them, with images that were fetched once."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.rkt import Rkt
from tests.system.pods import BUSYBOX, Pods

PROBE = Path(__file__).with_name("probe.c")


@pytest.fixture(scope="session")
def probe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The static program of probe.c."""
    program = tmp_path_factory.mktemp("probe") / "probe"
    subprocess.run(["gcc", "-static", "-O1", "-Wall", "-Wextra", "-o", program, PROBE], check=True)
    return program


@pytest.fixture(scope="session")
def rootfs(busybox_rootfs: Path, probe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Busybox, the probe, a setuid program, a script without its interpreter, links that lead out."""
    root = tmp_path_factory.mktemp("root") / "rootfs"
    shutil.copytree(busybox_rootfs, root, symlinks=True)
    shutil.copy(probe, root / "bin/probe")
    shutil.copy(probe, root / "bin/setuid")
    (root / "bin/setuid").chmod(0o4755)
    (root / "bin/script").write_text("#!/no/such/sh\n")
    (root / "bin/script").chmod(0o755)
    (root / "data").mkdir()
    (root / "data/file").write_text("of the image\n")
    (root / "outside").symlink_to("../../../../..")
    (root / "link").symlink_to("/data")
    return root


@pytest.fixture(scope="session")
def installation(tmp_path_factory: pytest.TempPathFactory, rootfs: Path) -> Iterator[Rkt]:
    """A data directory with `example.com/busybox` in its store."""
    directory = tmp_path_factory.mktemp("installation")
    rkt = Rkt(directory / "data")
    aci = directory / "busybox.aci"
    rkt.ok("image", "build", f"--name={BUSYBOX}", "--version=1", "--exec=/bin/sh", rootfs, aci)
    rkt.ok("--insecure-options=image", "fetch", aci)
    yield rkt
    rkt.close()


@pytest.fixture
def pods(installation: Rkt, tmp_path: Path) -> Iterator[Pods]:
    """The shared installation; what the test started is ended with it."""
    pods = Pods(installation, tmp_path)
    yield pods
    pods.close()


@pytest.fixture
def own_pods(rkt: Rkt, installation: Rkt, tmp_path: Path) -> Iterator[Pods]:
    """An installation of the test's own, for those that look at all pods."""
    image = installation.data.parent / "busybox.aci"
    rkt.ok("--insecure-options=image", "fetch", image)
    pods = Pods(rkt, tmp_path)
    yield pods
    pods.close()


@pytest.fixture
def build(installation: Rkt, tmp_path: Path) -> Callable[..., str]:
    """Build an image of a directory and a manifest's app section into the shared store; return its ID."""

    def build(rootfs: Path, app: dict[str, object], name: str = "example.com/built") -> str:
        manifest = tmp_path / "manifest.json"
        head = {"acKind": "ImageManifest", "acVersion": "0.8.11", "name": name}
        labels = [{"name": "os", "value": "linux"}, {"name": "arch", "value": "amd64"}]
        manifest.write_text(json.dumps({**head, "labels": labels, "app": app}))
        aci = tmp_path / "built.aci"
        installation.ok(
            "image", "build", f"--manifest={manifest}", "--compression=none", "--overwrite", rootfs, aci
        )
        return installation.ok("--insecure-options=image", "fetch", "--full", aci).strip()

    return build
