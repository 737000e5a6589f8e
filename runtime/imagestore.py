"""The image store: images, one directory each, there when its final name exists.

    cas/image/KEY/      0700: setuid files in it are for nobody on the host
        aci             the archive's bytes as they came
        manifest        the image manifest's bytes
        info            JSON: what else is known; its mtime is when the image was last used
        rootfs/         extracted
    cas/tmp/            images on their way in or out (temporary.py)

KEY is rkt's: "sha512-" and the first half of the uncompressed archive's hash. What has a final name is
whole and never changes. Who runs an image holds a shared lock on its directory, so that nobody removes it.
"""

from __future__ import annotations

import fcntl
import os
import stat
import time

from rkt_py.aci import strictjson
from rkt_py.aci.errors import BadImage, BadManifest
from rkt_py.aci.name import Label
from rkt_py.aci.value import value
from rkt_py.runtime.errors import StoreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, TypeVar

    from rkt_py.aci.name import Reference
    from rkt_py.runtime.paths import Paths
    from rkt_py.runtime.temporary import Temporary
    from rkt_py.runtime.unpack import Unpacked

    Unpack = Callable[..., Unpacked]
    T = TypeVar("T")

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_FILE = 8 << 20  # of a manifest or info; what a manifest may have is less
_PREFIX = "sha512-"
_KEY_LENGTH = len(_PREFIX) + 64
_HEX = "0123456789abcdef"


@value
class Image:
    """An image in the store. Times are ns since the epoch, sizes bytes."""

    key: str
    sha512: str
    name: str
    labels: tuple[Label, ...]
    size: int
    compressed_size: int
    compression: str
    import_time: int
    last_used: int
    path: str
    is_plain: bool = True  # no dependencies, no pathWhitelist: its rootfs is all there is to render

    @property
    def rootfs(self) -> str:
        return f"{self.path}/rootfs"

    def manifest_bytes(self) -> bytes:
        """Read the image manifest as it was in the archive."""
        fd = os.open(f"{self.path}/manifest", _READ)
        try:
            return _read_all(fd)
        finally:
            os.close(fd)


class ImageStore:
    """The images of one installation; opening it costs nothing and changes nothing."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths

    def get(self, key: str) -> Image:
        """Return the image with exactly this key."""
        if not _is_key(key):
            raise StoreError(f'"{key}" is not the ID of an image in the store')
        image = self._read(key)
        if image is None:
            raise StoreError(f'no image "{key}" in the store')
        return image

    def resolve(self, prefix: str) -> Image:
        """Return the one image whose ID begins with `prefix`: sha512- and two hex digits or more."""
        digits = prefix.removeprefix(_PREFIX)
        if digits == prefix or len(digits) < 2 or len(digits) > 128 or digits.strip(_HEX):
            raise StoreError(f'"{prefix}" is not an image ID: sha512- and at least two hex digits')
        if len(prefix) >= _KEY_LENGTH:
            image = self.get(prefix[:_KEY_LENGTH])
            if not image.sha512.startswith(digits):
                raise StoreError(f'no image "{prefix}" in the store')
            return image
        keys = [key for key in self._keys() if key.startswith(prefix)]
        if not keys:
            raise StoreError(f'no image "{prefix}" in the store')
        if len(keys) > 1:
            raise StoreError(f'"{prefix}" is ambiguous: {", ".join(sorted(keys))}')
        return self.get(keys[0])

    def find(self, reference: Reference) -> Image:
        """Return the newest import of that name having all the labels asked for."""
        wanted = set(reference.labels)
        matches = [image for image in self._named(reference.name) if wanted <= set(image.labels)]
        if not matches:
            raise StoreError(f'no image "{reference}" in the store')
        return max(matches, key=lambda image: (image.import_time, image.key))

    def list(self) -> Sequence[Image]:
        """List all images, oldest import first; one that is damaged on disk is not among them."""
        images = []
        for key in self._keys():
            try:
                image = self._read(key)
            except StoreError:
                continue
            if image is not None:
                images.append(image)
        images.sort(key=lambda image: (image.import_time, image.key))
        return images

    def touch(self, key: str) -> None:
        """Note that the image is used now."""
        try:
            os.utime(f"{self.paths.image(key)}/info")
        except OSError as error:
            import errno

            if error.errno not in (errno.EROFS, errno.ENOENT):
                raise

    def lock(self, image: Image) -> int:
        """Open the image's directory, share-locked: while somebody has this descriptor it is not removed."""
        return lock_directory(image.path, f'image "{image.key}"')

    # Writing

    def put(self, source: str | int, *, unpack: Unpack | None = None) -> Image:
        """Import an archive, by path or open descriptor; what is there already stays."""
        from rkt_py.runtime import temporary

        if unpack is None:
            from rkt_py.runtime import unpack as extractor

            unpack = extractor.unpack
        fd = _open_archive(source) if isinstance(source, str) else source
        try:
            temporary.make_directories(self.paths.data, self.paths.images, self.paths.image_tmp)
            with temporary.Temporary(self.paths.image_tmp, "image") as fresh:
                key = self._fill(fresh, fd, unpack)
                self._publish(fresh, key)
        except (BadImage, BadManifest) as error:
            if isinstance(source, str):
                error.args = (f"{source}: {error}",)
            raise
        finally:
            if fd is not source:
                os.close(fd)
        return self.get(key)

    def _fill(self, fresh: Temporary, source_fd: int, unpack: Unpack) -> str:
        from rkt_py.aci import imagemanifest

        keep_fd = os.open("aci", _NEW, 0o600, dir_fd=fresh.fd)
        try:
            unpacked = unpack(source_fd, fresh.fd, keep_fd=keep_fd, sync=True)
            os.fsync(keep_fd)
        finally:
            os.close(keep_fd)
        manifest = imagemanifest.parse(_read_entry(fresh.fd, "manifest"))
        if not _has_directory(fresh.fd, "rootfs"):
            raise BadImage("the archive has no rootfs directory")
        info = {
            "sha512": unpacked.sha512,
            "name": manifest.name,
            "labels": [{"name": label.name, "value": label.value} for label in manifest.labels],
            "size": unpacked.size,
            "compressedSize": unpacked.compressed_size,
            "compression": unpacked.compression,
            "importTime": time.time_ns(),
            "plain": not manifest.dependencies and not manifest.path_whitelist,
        }
        info_fd = os.open("info", _NEW, 0o600, dir_fd=fresh.fd)
        try:
            _write_all(info_fd, strictjson.dumps(info).encode())
            os.fsync(info_fd)
        finally:
            os.close(info_fd)
        return f"{_PREFIX}{unpacked.sha512[:64]}"

    def _publish(self, fresh: Temporary, key: str) -> None:
        while not fresh.publish(self.paths.image(key)):
            try:
                if self._read(key) is not None:
                    self.touch(key)
                    return
            except StoreError:
                # Something ate the one that was there: this one is whole.
                self.remove(key)

    def remove(self, key: str) -> None:
        """Remove an image no running pod uses. At no moment half an image has the key."""
        from rkt_py.runtime import temporary

        if not _is_key(key):
            raise StoreError(f'"{key}" is not the ID of an image in the store')
        temporary.make_directories(self.paths.data, self.paths.image_tmp)
        try:
            temporary.withdraw(self.paths.image(key), self.paths.image_tmp)
        except FileNotFoundError:
            raise StoreError(f'no image "{key}" in the store') from None
        except BlockingIOError:
            raise StoreError(f'image "{key}" is in use by a running pod') from None

    def sweep(self) -> Sequence[str]:
        """Remove what killed imports and removals left; return the names."""
        from rkt_py.runtime import temporary

        return temporary.sweep(self.paths.image_tmp)

    # Reading

    def _keys(self) -> Sequence[str]:
        try:
            return [name for name in os.listdir(self.paths.images) if _is_key(name)]
        except FileNotFoundError:
            return []

    def _named(self, name: str) -> Iterator[Image]:
        # Names are ASCII that JSON does not escape, so the bytes of most infos need no parsing.
        needle = f'"{name}"'.encode()
        for key in self._keys():
            found = _info(self.paths.image(key))
            if found is not None and needle in found[0]:
                image = self._image(key, *found)
                if image.name == name:
                    yield image

    def _read(self, key: str) -> Image | None:
        found = _info(self.paths.image(key))
        if found is not None:
            return self._image(key, *found)
        if os.path.lexists(self.paths.image(key)):
            raise StoreError(f'image "{key}" in the store is damaged: it has no info')
        return None

    def _image(self, key: str, data: bytes, last_used: int) -> Image:
        try:
            info: Any = strictjson.loads(data, what="info")
            return Image(
                key=key,
                sha512=_is(str, info["sha512"]),
                name=_is(str, info["name"]),
                labels=tuple(
                    [Label(_is(str, item["name"]), _is(str, item["value"])) for item in info["labels"]]
                ),
                size=_is(int, info["size"]),
                compressed_size=_is(int, info["compressedSize"]),
                compression=_is(str, info["compression"]),
                import_time=_is(int, info["importTime"]),
                last_used=last_used,
                path=self.paths.image(key),
                is_plain=_is(bool, info["plain"]),
            )
        except (BadManifest, KeyError, TypeError) as error:
            raise StoreError(f'image "{key}" in the store is damaged: info: {error}') from None


def _is(kind: type[T], item: object) -> T:
    if type(item) is not kind:
        raise TypeError(f"{item!r} is not of type {kind.__name__}")
    return item


def _is_key(text: str) -> bool:
    return len(text) == _KEY_LENGTH and text.startswith(_PREFIX) and not text[len(_PREFIX) :].strip(_HEX)


def lock_directory(path: str, what: str) -> int:
    """Open a published directory, share-locked: while somebody has this descriptor it is not removed."""
    try:
        fd = os.open(path, _DIRECTORY)
    except FileNotFoundError:
        raise StoreError(f"{what} is not in the store") from None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)  # removal holds its lock for no longer than a rename
        if not os.path.samestat(os.stat(path, follow_symlinks=False), os.fstat(fd)):
            raise FileNotFoundError
    except FileNotFoundError:
        os.close(fd)
        raise StoreError(f"{what} has just been removed from the store") from None
    return fd


def _info(path: str) -> tuple[bytes, int] | None:
    """Read an image's info: its bytes and mtime."""
    try:
        fd = os.open(f"{path}/info", _READ)
    except FileNotFoundError:
        return None
    try:
        return _read_all(fd), os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def _read_all(fd: int) -> bytes:
    data = os.read(fd, 1 << 14)
    if len(data) < 1 << 14:
        return data
    while block := os.read(fd, 1 << 20):
        data += block
        if len(data) > _MAX_FILE:
            raise StoreError(f"a file in the image store is larger than {_MAX_FILE >> 20} MiB")
    return data


def _read_entry(dirfd: int, name: str) -> bytes:
    try:
        fd = os.open(name, _READ, dir_fd=dirfd)
    except FileNotFoundError:
        raise BadImage(f"the archive has no {name}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise BadImage(f"the archive has a {name} that is not a regular file")
        return _read_all(fd)
    finally:
        os.close(fd)


def _has_directory(dirfd: int, name: str) -> bool:
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=dirfd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def _write_all(fd: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def _open_archive(path: str) -> int:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    if stat.S_ISDIR(os.fstat(fd).st_mode):
        os.close(fd)
        raise BadImage(f"{path} is a directory, not an image")
    return fd
