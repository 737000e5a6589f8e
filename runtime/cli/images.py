"""`rkt-py fetch`, `image list`, `cat-manifest`, `export`, `rm`."""

from __future__ import annotations

import os
import sys

from rkt_py.aci import imagemanifest, strictjson
from rkt_py.aci.errors import RktError
from rkt_py.runtime import fetch as fetching
from rkt_py.runtime.cli import table
from rkt_py.runtime.cli.main import complain
from rkt_py.runtime.cli.options import Invocation
from rkt_py.runtime.errors import StoreError
from rkt_py.runtime.imagestore import Image, ImageStore

HEADINGS = {"id": "ID", "name": "NAME", "size": "SIZE", "importtime": "IMPORT TIME", "lastused": "LAST USED"}
JSON_KEYS = {
    "id": "id",
    "name": "name",
    "size": "size",
    "importtime": "import_time",
    "lastused": "last_used_time",
}


def fetch(invocation: Invocation) -> int:
    """Put images into the store and print their IDs."""
    store = ImageStore(invocation.paths)
    verify = "image" not in invocation.insecure
    for text in invocation.args:
        image = fetching.image(text, store, verify=verify, signature=invocation.string("signature"))
        print(image.key if invocation.flag("full") else image.key[: len("sha512-") + 32])
    return 0


def _named(image: Image) -> str:
    version = next((label.value for label in image.labels if label.name == "version"), "")
    return f"{image.name}:{version}" if version else image.name


def _cell(image: Image, field: str, *, full: bool) -> str:
    if field == "id":
        return image.key if full else image.key[: len("sha512-") + 12]
    if field == "name":
        return _named(image)
    if field == "size":
        return str(image.size) if full else table.size(image.size)
    when = image.import_time if field == "importtime" else image.last_used
    return table.absolute(when) if full else table.ago(when)


def _value(image: Image, field: str) -> object:
    return {
        "id": image.key,
        "name": _named(image),
        "size": image.size,
        "importtime": image.import_time,
        "lastused": image.last_used,
    }[field]


def list_images(invocation: Invocation) -> int:
    """Print the images in the store."""
    images = list(ImageStore(invocation.paths).list())
    # Sorting is stable: the last key is sorted by first.
    for field in reversed(invocation.strings("sort")):
        images.sort(key=lambda image: str(_value(image, field)) if field == "name" else _number(image, field))
    if invocation.string("order") == "desc":
        images.reverse()
    fields = invocation.strings("fields")
    style = invocation.string("format")
    if style:
        records = [{JSON_KEYS[field]: _value(image, field) for field in fields} for image in images]
        print(strictjson.dumps(records or None, indent="\t" if style == "json-pretty" else None))
        return 0
    rows = [] if invocation.flag("no-legend") else [tuple(HEADINGS[field] for field in fields)]
    rows += [tuple(_cell(image, field, full=invocation.flag("full")) for field in fields) for image in images]
    print(table.render(rows), end="")
    return 0


def _number(image: Image, field: str) -> int:
    value = _value(image, field)
    assert isinstance(value, int)
    return value


def cat_manifest(invocation: Invocation) -> int:
    """Print an image's manifest."""
    image = fetching.stored(invocation.args[0], ImageStore(invocation.paths))
    manifest = image.manifest_bytes()
    if invocation.flag("pretty-print"):
        print(imagemanifest.dump(imagemanifest.parse(manifest), indent="\t"))
    else:
        # As it is, to the byte.
        sys.stdout.buffer.write(manifest + b"\n")
    return 0


def rm(invocation: Invocation) -> int:
    """Remove images from the store."""
    store = ImageStore(invocation.paths)
    removed = errors = 0
    for text in invocation.args:
        try:
            key = fetching.stored(text, store).key
        except RktError as error:
            complain(f"rm: {error}")
            errors += 1
            continue
        try:
            store.remove(key)
        except (StoreError, OSError) as error:
            complain(f'rm: error removing aci for image "{key}": {error}')
            errors += 1
            continue
        print(f'successfully removed aci for image: "{key}"')
        removed += 1
    if removed:
        complain(f"rm: {removed} image(s) successfully removed")
    if errors:
        complain(f"rm: {errors} image(s) cannot be removed")
        return 254
    return 0


def export(invocation: Invocation) -> int:
    """Write an image as an uncompressed archive, byte for byte what was hashed."""
    from rkt_py.aci import compression

    store = ImageStore(invocation.paths)
    image = fetching.stored(invocation.args[0], store)
    target = invocation.args[1]
    if os.path.lexists(target) and not invocation.flag("overwrite"):
        raise RktError(f"{target} exists (see --overwrite)")
    held = store.lock(image)
    try:
        compression.decompress_file(f"{image.path}/aci", target, sha512=image.sha512)
    finally:
        os.close(held)
    return 0
