"""Start to exit of a static /bin/true: `rkt-py run`, the library, crun, runc, podman, in one run.

Everything on: mount, pid, net (with loopback), uts, ipc and cgroup namespaces, cgroups with limits,
capabilities, seccomp, masks, an overlay. Runs are interleaved, one of each in turn, and each is preceded by a
pause: moving a process between cgroups of v1 is fifty times as slow after an idle moment, which is what a
person's single run sees. `--pause 0` shows the other end.

    benchmarks/start.py [--runs 50] [--pause 0.1] [--directory /dev/shm]
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

HYBRID = "/sys/fs/cgroup/unified"
TRUE = "int main(void) { return 0; }\n"


def in_a_mount_namespace_of_our_own() -> None:
    """Go where nobody else's mounts change, and where crun 1.8 takes a hybrid host for v1."""
    if os.environ.get("RKT_PY_BENCHMARK") != "1":
        environment = {**os.environ, "RKT_PY_BENCHMARK": "1"}
        argv = ["unshare", "--mount", "--propagation", "private", sys.executable, *sys.argv]
        os.execvpe("unshare", argv, environment)
    if os.path.ismount(HYBRID):
        subprocess.run(["umount", HYBRID], check=True)


def run(*argv: str | Path, **options: object) -> str:
    words = [str(word) for word in argv]
    done = subprocess.run(words, check=True, capture_output=True, text=True, **options)  # type: ignore[call-overload]
    return str(done.stdout)


class Bench:
    """The same root file system for all."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.rootfs = directory / "rootfs"
        for name in ("bin", "proc", "sys", "dev", "etc", "tmp"):
            (self.rootfs / name).mkdir(parents=True)
        source = directory / "true.c"
        source.write_text(TRUE)
        run("gcc", "-static", "-Os", "-s", "-o", self.rootfs / "bin/true", source)
        self.rkt = Path(sys.executable).parent / "rkt-py"
        self.data = directory / "data"
        aci = directory / "true.aci"
        run(self.rkt, "image", "build", "--name", "example.com/true", "--exec", "/bin/true", self.rootfs, aci)
        fetch = ("fetch", "--full", aci)
        self.image = run(self.rkt, f"--dir={self.data}", "--insecure-options=image", *fetch).strip()
        self.count = 0

    def rkt_py(self) -> list[str]:
        flags = ["--net=none", self.image, "--memory=64M", "--cpu=1"]
        return [str(self.rkt), f"--dir={self.data}", "run", *flags]

    def bundle(self) -> Path:
        """Make a bundle of the OCI runtimes' own default configuration, with limits as ours."""
        path = self.directory / "bundle"
        path.mkdir()
        run("runc", "spec", cwd=path)
        shutil.copytree(self.rootfs, path / "rootfs", symlinks=True)
        config = json.loads((path / "config.json").read_text())
        config["process"]["args"] = ["/bin/true"]
        config["process"]["terminal"] = False
        config["linux"]["resources"]["memory"] = {"limit": 64_000_000}
        config["linux"]["resources"]["cpu"] = {"quota": 100_000, "period": 100_000}
        config["linux"]["resources"]["pids"] = {"limit": 4096}
        config["linux"]["namespaces"] = [
            {"type": kind} for kind in ("pid", "network", "ipc", "uts", "mount", "cgroup")
        ]
        config["linux"]["seccomp"] = seccomp()
        (path / "config.json").write_text(json.dumps(config))
        return path

    def podman(self) -> list[str]:
        state = [f"--root={self.directory}/podman", f"--runroot={self.directory}/podman-run"]
        base = ["podman", *state, "--cgroup-manager=cgroupfs", "--events-backend=none"]
        archive = self.directory / "rootfs.tar"
        run("tar", "-C", self.rootfs, "-cf", archive, ".")
        run(*base, "import", archive, "localhost/true")
        limits = ["--memory=64m", "--cpus=1", "--pids-limit=4096"]
        return [
            *base,
            "run",
            "--rm",
            "--network=none",
            "--log-driver=none",
            # podman raises these, which root without CAP_SYS_RESOURCE may not.
            "--ulimit=nofile=1024:1024",
            "--ulimit=nproc=1024:1024",
            *limits,
            "localhost/true",
            "/bin/true",
        ]


def seccomp() -> dict[str, object]:
    """Return the filter that podman gives to its containers, where Debian keeps it; else none."""
    for path in ("/usr/share/containers/seccomp.json", "/etc/containers/seccomp.json"):
        if os.path.exists(path):
            break
    # The file's rules depend on capabilities and architectures, which podman resolves; an allow list of all
    # the names in it is the same size and costs the same.
    names = sorted(
        {name for rule in json.loads(Path(path).read_text())["syscalls"] for name in rule["names"]}
    )
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"],
        "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}],
    }


def timed(argv: list[str]) -> float:
    start = time.perf_counter()
    subprocess.run(
        argv, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    return (time.perf_counter() - start) * 1000


def library(bench: Bench) -> Callable[[], float]:
    import rkt_py

    paths = rkt_py.Paths(data=str(bench.data))

    def once() -> float:
        start = time.perf_counter()
        result = rkt_py.run(bench.image, memory="64M", cpu="1", paths=paths)
        took = (time.perf_counter() - start) * 1000
        assert result.exit_code == 0, result
        return took

    return once


def contenders(bench: Bench, wanted: set[str]) -> dict[str, Callable[[], float]]:
    bundle = bench.bundle()

    def oci(runtime: str) -> Callable[[], float]:
        def once() -> float:
            bench.count += 1
            return timed([runtime, "run", "-b", str(bundle), f"bench-{os.getpid()}-{bench.count}"])

        return once

    result: dict[str, Callable[[], float]] = {}
    ours = bench.rkt_py()
    result["rkt-py run"] = lambda: timed(ours)
    result["rkt_py.run()"] = library(bench)
    for runtime in ("crun", "runc"):
        if shutil.which(runtime):
            result[f"{runtime} run"] = oci(runtime)
    if shutil.which("podman"):
        podman = bench.podman()
        result["podman run"] = lambda: timed(podman)
    python = [sys.executable, "-I", "-S", "-c", "pass"]
    result["python -I -S -c pass"] = lambda: timed(python)
    return {
        name: once for name, once in result.items() if not wanted or name.split()[0].split(".")[0] in wanted
    }


def table(times: dict[str, list[float]]) -> None:
    crun = statistics.median(times["crun run"]) if "crun run" in times else None
    print(f"{'':24}{'median ms':>12}{'min':>10}{'x crun':>10}")
    for name, values in times.items():
        median = statistics.median(values)
        ratio = f"{median / crun:10.2f}" if crun else ""
        print(f"{name:24}{median:12.1f}{min(values):10.1f}{ratio}")


def at_once(bench: Bench, callers: int, each: int) -> None:
    """Time many callers in threads of this process."""
    once = library(bench)

    def work() -> None:
        for _ in range(each):
            once()

    for count in (1, callers):
        threads = [threading.Thread(target=work) for _ in range(count)]
        start = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.perf_counter() - start
        print(f"{count} caller{'s' if count > 1 else ' '} in one process: {count * each / took:8.1f} pods/s")


def measure(bench: Bench, arguments: argparse.Namespace) -> None:
    every = contenders(bench, set(arguments.only))
    times: dict[str, list[float]] = {name: [] for name in every}
    for once in every.values():
        once()
    for _ in range(arguments.runs):
        for label, once in every.items():
            time.sleep(arguments.pause)
            times[label].append(once())
    pause = f"{arguments.pause * 1000:.0f} ms"
    print(f"start to exit of /bin/true in {arguments.directory}, {arguments.runs} runs each, {pause} apart")
    table(times)
    if not arguments.only:
        at_once(bench, 8, 25)
    run(bench.rkt, f"--dir={bench.data}", "gc", "--grace-period=0s")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--pause", type=float, default=0.1, help="seconds of idleness before each run")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm"), help="where images and pods are")
    parser.add_argument(
        "--only", action="append", default=[], help="rkt-py, rkt_py, crun, runc, podman, python"
    )
    arguments = parser.parse_args()
    in_a_mount_namespace_of_our_own()
    with tempfile.TemporaryDirectory(prefix="rkt-py-bench-", dir=arguments.directory) as name:
        try:
            measure(Bench(Path(name)), arguments)
        finally:
            subprocess.run(["umount", "-q", f"{name}/podman/overlay"], check=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
