"""Errors of images and their manifests, and the root of all errors of rkt-py.

RktError                      a sentence for the user; exit code 254, as rkt's own errors
├── BadName                   an ACIdentifier, ACName, label, hash or version against the rules
├── BadManifest               an image or pod manifest; `.field` is its path, "app.ports[0].port"
├── BadImage                  the archive: not a tar, truncated, forbidden entries, too large
├── BuildError                an image cannot be built: the directory changes, an option makes no sense
├── discovery: DiscoveryError (discovery/errors.py)
└── runtime: see runtime/errors.py
"""

from __future__ import annotations


class RktError(Exception):
    """What went wrong, as one sentence with the offending thing in it."""

    exit_code = 254


class BadName(RktError):
    """A name, label, hash or version does not follow the appc rules."""


class BadManifest(RktError):
    """A manifest does not follow the appc schema. `field` is the path of what is wrong."""

    def __init__(self, message: str, field: str = "") -> None:
        super().__init__(f"{field}: {message}" if field else message)
        self.field = field


class BadImage(RktError):
    """An image archive is not one, or holds what an image may not hold."""


class BuildError(RktError):
    """An image cannot be built from this directory with these options."""
