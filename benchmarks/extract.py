"""Extraction: a local image to a verified tree, by us and by what a user would pick instead.

    python benchmarks/extract.py [--runs 5] [--images /var/tmp/rkt-py-benchmark]

Two images are made of this machine's /usr: `large`, 300 MB in files of more than 64 KiB, and `small`,
50,000 files of at most 16 KiB; each as an ACI and as an OCI layout of the same tree. They are kept for the
next time. Runs of all programs are interleaved; each starts from an empty directory, with nothing left to
be written to disk.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import os
import shutil
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, os.fspath(Path(__file__).resolve().parent.parent))

from rkt_py.runtime.unpack import PROGRAM, unpack  # noqa: E402

MANIFEST = b'{"acKind":"ImageManifest","acVersion":"0.8.11","name":"example.com/benchmark"}'
COMPRESSORS = {"gzip": ["gzip", "-6", "-n"], "zstd": ["zstd", "-3", "-q"]}


@dataclass(frozen=True)
class Image:
    name: str
    compression: str
    aci: Path
    oci: Path
    size: int

    def __str__(self) -> str:
        return f"{self.name}, {self.compression}"


@dataclass(frozen=True)
class Method:
    name: str
    run: Callable[[Image, Path], None]
    needs: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        return [program for program in self.needs if not shutil.which(program)]


def source_files(smallest: int, largest: int) -> Iterator[Path]:
    for directory, names, files in os.walk("/usr"):
        names.sort()
        for name in sorted(files):
            path = Path(directory, name)
            if path.is_file() and not path.is_symlink() and smallest <= path.stat().st_size <= largest:
                yield path


def large_files() -> Iterator[tuple[Path, str]]:
    total = 0
    for path in source_files(64 << 10, 32 << 20):
        total += path.stat().st_size
        yield path, os.fspath(path)
        if total > 300_000_000:
            return


def small_files() -> Iterator[tuple[Path, str]]:
    paths = list(source_files(0, 16 << 10))
    for number in range(50_000):
        path = paths[number % len(paths)]
        yield path, f"/{number // len(paths)}{path}"


def write_tar(path: Path, files: Iterator[tuple[Path, str]], *, prefix: str, manifest: bool) -> None:
    """Write a tar with every directory before what is in it, and no hard links, as most images are."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, dereference=True) as tar:
        if manifest:
            info = tar.gettarinfo(os.devnull, "manifest")
            info.type, info.mode, info.size = tarfile.REGTYPE, 0o644, len(MANIFEST)
            tar.addfile(info, io.BytesIO(MANIFEST))
        made: set[str] = set()
        for file, name in files:
            parts = [part for part in f"{prefix}{name}".split("/") if part]
            for depth in range(1, len(parts)):
                directory = "/".join(parts[:depth])
                if directory not in made:
                    made.add(directory)
                    info = tarfile.TarInfo(directory)
                    info.type, info.mode, info.mtime = tarfile.DIRTYPE, 0o755, 1_500_000_000
                    tar.addfile(info)
            info = tar.gettarinfo(file, "/".join(parts))
            info.mtime = int(info.mtime)
            with file.open("rb") as content:
                tar.addfile(info, content)


def compress(path: Path, compression: str) -> Path:
    target = path.with_name(f"{path.name}.{compression}")
    with path.open("rb") as source, target.open("wb") as file:
        subprocess.run([*COMPRESSORS[compression], "-c"], stdin=source, stdout=file, check=True)
    return target


def digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_oci(directory: Path, layer: Path, diff_id: str, compression: str) -> None:
    blobs = directory / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(content: bytes) -> dict[str, object]:
        name = hashlib.sha256(content).hexdigest()
        (blobs / name).write_bytes(content)
        return {"digest": f"sha256:{name}", "size": len(content)}

    rootfs = {"type": "layers", "diff_ids": [diff_id]}
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": rootfs}
    of_layer = {"digest": f"sha256:{digest(layer)}", "size": layer.stat().st_size}
    (blobs / digest(layer)).hardlink_to(layer)
    kind = "application/vnd.oci.image"
    manifest = {
        "schemaVersion": 2,
        "mediaType": f"{kind}.manifest.v1+json",
        "config": {"mediaType": f"{kind}.config.v1+json", **blob(json.dumps(config).encode())},
        "layers": [{"mediaType": f"{kind}.layer.v1.tar+{compression}", **of_layer}],
    }
    index = {
        "schemaVersion": 2,
        "manifests": [
            {
                "mediaType": f"{kind}.manifest.v1+json",
                **blob(json.dumps(manifest).encode()),
                "annotations": {"org.opencontainers.image.ref.name": "latest"},
            }
        ],
    }
    (directory / "index.json").write_text(json.dumps(index))
    (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')


def make_images(directory: Path) -> list[Image]:
    """Make the images, unless a directory of that name is there: it appears when they are complete."""
    ready = directory / "images"
    if not ready.exists():
        directory.mkdir(parents=True, exist_ok=True)
        print(f"making images in {ready} ...", file=sys.stderr)
        making = Path(tempfile.mkdtemp(dir=directory))
        for name, files in (("large", large_files), ("small", small_files)):
            aci, layer = making / f"{name}.aci", making / f"{name}.layer"
            write_tar(aci, files(), prefix="rootfs", manifest=True)
            write_tar(layer, files(), prefix="", manifest=False)
            diff_id = f"sha256:{digest(layer)}"
            for compression in COMPRESSORS:
                compress(aci, compression)
                packed = compress(layer, compression)
                write_oci(making / f"{name}.{compression}.oci", packed, diff_id, compression)
            layer.unlink()
        making.rename(ready)
    return [
        Image(
            name=name,
            compression=compression,
            aci=ready / f"{name}.aci.{compression}",
            oci=ready / f"{name}.{compression}.oci",
            size=(ready / f"{name}.aci").stat().st_size,
        )
        for name in ("large", "small")
        for compression in COMPRESSORS
    ]


def ours(image: Image, directory: Path, *, sync: bool = False, keep: bool = False) -> None:
    source = os.open(image.aci, os.O_RDONLY)
    into = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    kept = os.open(directory / "aci", os.O_WRONLY | os.O_CREAT, 0o644) if keep else None
    try:
        unpack(source, into, keep_fd=kept, sync=sync)
    finally:
        for fd in (source, into, *([] if kept is None else [kept])):
            os.close(fd)


def ours_for_the_store(image: Image, directory: Path) -> None:
    ours(image, directory, sync=True, keep=True)


def tar_and_sha512sum(image: Image, directory: Path) -> None:
    line = '"$1" -dc "$2" | tee >(sha512sum > /dev/null) | tar -x -C "$3"; wait'
    arguments: list[str | Path] = [image.compression, image.aci, directory]
    subprocess.run(["bash", "-o", "pipefail", "-c", line, "bash", *arguments], check=True)


def umoci(image: Image, directory: Path) -> None:
    command: list[str | Path] = ["umoci", "unpack", "--image", f"{image.oci}:latest", directory / "bundle"]
    subprocess.run(command, check=True, stderr=subprocess.DEVNULL)


def podman(image: Image, directory: Path) -> None:
    # It bind-mounts its storage on itself: in a mount namespace of its own nothing of that stays.
    command: list[str | Path] = [
        "unshare", "--mount", "--propagation", "private",
        "podman", "--root", directory / "root", "--runroot", directory / "run", "--storage-driver", "overlay",
        "pull", "--quiet", f"oci:{image.oci}:latest",
    ]  # fmt: skip
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


METHODS = [
    Method("rkt-py", ours),
    Method("rkt-py, archive kept, synced", ours_for_the_store),
    Method("tar and sha512sum", tar_and_sha512sum, ("tar", "sha512sum", "gzip", "zstd")),
    Method("umoci unpack", umoci, ("umoci",)),
    Method("podman pull oci:", podman, ("podman", "unshare")),
]


def can(method: Method, image: Image) -> bool:
    # umoci up to 0.4 knows gzip only.
    return method.run is not umoci or image.compression == "gzip"


def once(method: Method, image: Image, place: Path) -> float:
    """Time one run, whose tree is left to whoever made `place`."""
    directory = Path(tempfile.mkdtemp(dir=place))
    os.sync()
    start = time.perf_counter()
    method.run(image, directory)
    return time.perf_counter() - start


def measure(methods: list[Method], image: Image, place: Path, *, runs: int, keep: bool) -> dict[str, float]:
    able = [method for method in methods if can(method, image)]
    with image.aci.open("rb") as file:  # into the page cache
        hashlib.file_digest(file, "sha1")
    times: dict[str, list[float]] = {method.name: [] for method in able}
    for _ in range(runs):
        for method in able:
            times[method.name].append(once(method, image, place))
            if not keep:
                clear(place)
    return {name: statistics.median(some) for name, some in times.items()}


def clear(place: Path) -> None:
    for path in place.iterdir():
        shutil.rmtree(path)


def print_table(image: Image, where: str, medians: dict[str, float]) -> None:
    print(f"\n{image} ({image.size / 1e6:.0f} MB), {where}: median, rate, time in units of the first")
    first = medians[METHODS[0].name]
    for name, seconds in medians.items():
        rate = image.size / 1e6 / seconds
        print(f"  {name:<30} {seconds:7.3f} s {rate:7.0f} MB/s {seconds / first:6.2f}")


def main() -> int:
    parser = argparse.ArgumentParser(description="Measure extraction beside tar, umoci and podman.")
    parser.add_argument(
        "--images", type=Path, default=Path("/var/tmp/rkt-py-benchmark"), help="where the images are kept"
    )
    parser.add_argument("--memory", type=Path, default=Path("/dev/shm"), help="a directory on tmpfs")
    parser.add_argument("--disk", type=Path, default=Path("/var/tmp"), help="a directory on a disk")
    parser.add_argument("--runs", type=int, default=5, metavar="N")
    parser.add_argument("--only", metavar="TEXT", default="", help="only images whose name has this in it")
    parser.add_argument(
        "--without", metavar="TEXT", action="append", default=[], help="leave out methods by name"
    )
    options = parser.parse_args()
    if os.geteuid() != 0:
        parser.error("only root can extract images")
    if not os.path.exists(PROGRAM):
        parser.error(f"{PROGRAM} is not there: build it first")
    methods = [method for method in METHODS if not any(text in method.name for text in options.without)]
    missing = {program for method in methods for program in method.missing()}
    if missing:
        parser.error(f"not installed: {', '.join(sorted(missing))} (or leave out what needs it: --without)")
    images = [image for image in make_images(options.images) if options.only in str(image)]
    # ext4 takes no inode that was freed in the last minutes, and looks at each of them for every new file:
    # after a tree of 50,000 files is deleted, the next takes ten times as long. Trees on disk go at the end.
    due = sum(image.size for image in images) * len(methods) * options.runs * 3 // 2
    if shutil.disk_usage(options.disk).free < due:
        parser.error(f"{options.disk} has no {due / 1e9:.0f} GB free; --runs, --only or --disk may help")
    with (
        tempfile.TemporaryDirectory(prefix="extract-", dir=options.memory) as memory,
        tempfile.TemporaryDirectory(prefix="extract-", dir=options.disk) as disk,
    ):
        for image in images:
            medians = measure(methods, image, Path(memory), runs=options.runs, keep=False)
            print_table(image, "tmpfs", medians)
            medians = measure(methods, image, Path(disk), runs=options.runs, keep=True)
            print_table(image, "disk", medians)
    return 0


if __name__ == "__main__":
    sys.exit(main())
