"""Paths: where everything is, spelled once.

/var/lib/rkt-py/                    --dir
    cas/image/KEY/                  an image; KEY is "sha512-" and 64 hex digits
        aci                         the archive's bytes as they came, compressed or not
        manifest                    the image manifest's bytes
        info                        JSON: full hash, name, size, times
        rootfs/                     the archive's rootfs, extracted
    cas/tree/ID/rootfs/             images with dependencies or a whitelist, laid out
    cas/tmp/                        images and trees being written; a lock says by whom
    cas/seccomp/                    compiled filters
    pods/STATE/UUID/                embryo prepare prepared run exited-garbage garbage
/run/rkt-py/                        gone at reboot
    networks/NAME/                  leases
/etc/rkt-py/  /usr/lib/rkt-py/      configuration, local over system
"""

from __future__ import annotations

from rkt_py.aci.value import value

DATA = "/var/lib/rkt-py"
RUN = "/run/rkt-py"
LOCAL_CONFIG = "/etc/rkt-py"
SYSTEM_CONFIG = "/usr/lib/rkt-py"


@value
class Paths:
    """The directories of one installation; every path of rkt-py starts at one of them."""

    data: str = DATA
    run: str = RUN
    local_config: str = LOCAL_CONFIG
    system_config: str = SYSTEM_CONFIG

    @property
    def images(self) -> str:
        return f"{self.data}/cas/image"

    @property
    def trees(self) -> str:
        return f"{self.data}/cas/tree"

    @property
    def image_tmp(self) -> str:
        return f"{self.data}/cas/tmp"

    @property
    def seccomp_cache(self) -> str:
        return f"{self.data}/cas/seccomp"

    @property
    def networks(self) -> str:
        return f"{self.run}/networks"

    def image(self, key: str) -> str:
        return f"{self.images}/{key}"

    def tree(self, identity: str) -> str:
        return f"{self.trees}/{identity}"

    def pods(self, state: str) -> str:
        return f"{self.data}/pods/{state}"

    def pod(self, state: str, uuid: str) -> str:
        return f"{self.data}/pods/{state}/{uuid}"
