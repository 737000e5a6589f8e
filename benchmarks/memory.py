"""Memory of a running idle pod: ours, conmon and crun's, in KiB of PSS.

benchmarks/memory.py [--pods 10]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

FIELDS = ("Rss", "Pss", "Private_Dirty")


def smaps(pid: int) -> dict[str, int]:
    """Return what /proc/PID/smaps_rollup says, in KiB."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    found = {line.split(":")[0]: int(line.split()[1]) for line in lines}
    return {name: found[name] for name in FIELDS}


def children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pods", type=int, default=10)
    arguments = parser.parse_args()
    rkt = str(Path(sys.executable).parent / "rkt-py")
    with tempfile.TemporaryDirectory(prefix="rkt-py-bench-", dir="/dev/shm") as name:
        rootfs = Path(name, "rootfs")
        (rootfs / "bin").mkdir(parents=True)
        (rootfs / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
        (rootfs / "bin/busybox").chmod(0o755)
        aci = Path(name, "idle.aci")
        build = [
            rkt,
            "image",
            "build",
            "--name=example.com/idle",
            "--exec=/bin/busybox",
            str(rootfs),
            str(aci),
        ]
        subprocess.run(build, check=True, stdout=subprocess.DEVNULL)
        base = [rkt, f"--dir={name}/data", "--insecure-options=image"]
        run = [*base, "run", "--net=none", str(aci), "--", "sleep", "1000"]
        pods = [subprocess.Popen(run, stdout=subprocess.DEVNULL) for _ in range(arguments.pods)]
        try:
            for pod in pods:
                while not children(pod.pid) or not children(children(pod.pid)[0]):
                    if pod.poll() is not None:
                        raise SystemExit("a pod ended")
                    time.sleep(0.01)
            print(
                f"KiB of an idle pod, {arguments.pods} pods at once{'':8}"
                + "".join(f"{x:>16}" for x in FIELDS)
            )
            total = dict.fromkeys(FIELDS, 0.0)
            for label, pids in (
                ("supervisor", [pod.pid for pod in pods]),
                ("pid 1", [children(pod.pid)[0] for pod in pods]),
            ):
                each = [smaps(pid) for pid in pids]
                mean = {field: sum(item[field] for item in each) / len(each) for field in FIELDS}
                for field in FIELDS:
                    total[field] += mean[field]
                print(f"{label:44}" + "".join(f"{mean[field]:16.0f}" for field in FIELDS))
                names = {os.path.basename(os.readlink(f"/proc/{pid}/exe")) for pid in pids}
                assert not any("python" in item for item in names), names
            print(f"{'all of ours':44}" + "".join(f"{total[field]:16.0f}" for field in FIELDS))
        finally:
            for pod in pods:
                pod.terminate()
            for pod in pods:
                pod.wait()
            subprocess.run([*base, "gc", "--grace-period=0s"], check=True, capture_output=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
