"""Fetch: what a user calls an image to an image in the store.

The order of decisions is rkt's: a hash, a URL, a path, a name. Only what is on this machine can be had
so far; and nothing is taken from a file whose signature was to be verified, which is not possible yet.
"""

from __future__ import annotations

import os

from rkt_py.aci import name as names
from rkt_py.aci.errors import BadName, RktError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from rkt_py.runtime.imagestore import Image, ImageStore


def image(text: str, store: ImageStore, *, verify: bool = True, signature: str = "") -> Image:
    """Return the image that an argument of `run`, `prepare` or `fetch` means.

    Raises StoreError when it is not in the store, BadImage when the file is none, RktError.
    """
    if text.startswith("sha512-"):
        return store.resolve(text)
    scheme, separator, rest = text.partition("://")
    if separator and scheme == "file":
        return _file(rest, store, verify=verify, signature=signature)
    if separator or scheme in ("docker", "cimd") or text.startswith("docker:"):
        raise RktError(f"{text}: images cannot be fetched from the network yet")
    if _is_path(text):
        return _file(text, store, verify=verify, signature=signature)
    try:
        reference = names.parse(text)
    except BadName as error:
        raise RktError(f'image "{text}": {error}') from None
    return store.find(reference)


def _is_path(text: str) -> bool:
    if text.startswith("/") or os.path.isfile(text):
        return True
    return ":" not in text and ("./" in text or text.endswith(".aci"))


def _file(path: str, store: ImageStore, *, verify: bool, signature: str) -> Image:
    if verify:
        # rkt's text for a missing signature; people search for it.
        beside = signature or f"{path}.asc"
        if not os.path.exists(beside):
            raise RktError(f"open {beside}: no such file or directory (try --insecure-options=image)")
        raise RktError(f"{beside}: signatures cannot be verified yet (try --insecure-options=image)")
    return store.put(path)


def stored(text: str, store: ImageStore) -> Image:
    """Return the image in the store that an ID or a name means. Raises StoreError, RktError."""
    if text.startswith("sha512-"):
        return store.resolve(text)
    try:
        return store.find(names.parse(text))
    except BadName as error:
        raise RktError(f'image "{text}": {error}') from None
