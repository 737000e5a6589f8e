"""Commands: every verb, with its flags, their defaults and help, as data.

Names, defaults and meanings are rkt's. A verb's flags are made when it is the verb that was asked for;
`run` names a function in a module of this package, `function(invocation) -> exit code`.
"""

from __future__ import annotations

from rkt_py.runtime import paths
from rkt_py.runtime.cli.options import INSECURE, INSECURE_GROUPS, Command, Option

MINUTE = 60 * 1_000_000_000
HOUR = 60 * MINUTE

PULL_POLICIES = ("never", "new", "update")
FORMATS = ("", "json", "json-pretty")
IMAGE_FIELDS = ("id", "name", "size", "importtime", "lastused")
IMAGE_SORTS = ("name", "importtime", "lastused", "size")
COMPRESSIONS = ("gzip", "zstd", "xz", "bzip2", "none")


def global_options() -> tuple[Option, ...]:
    insecure = (*INSECURE_GROUPS, *INSECURE)
    # fmt: off
    return (
        Option("debug", help="print more about what is done, and errors in full, to stderr", kind="bool"),
        Option("dir", "DIR", "data directory", paths.DATA, "directory"),
        Option("insecure-options", "LIST", "comma-separated list of security features to disable. Allowed "
               "values: " + ", ".join(insecure), ("none",), "words", choices=insecure),
        Option("local-config", "DIR", "local configuration directory", paths.LOCAL_CONFIG, "directory"),
        Option("system-config", "DIR", "system configuration directory", paths.SYSTEM_CONFIG, "directory"),
        Option("user-config", "DIR", "user configuration directory", "", "directory"),
        Option("trust-keys-from-https", help="automatically trust gpg keys fetched from https", kind="bool"),
    )
    # fmt: on


# fmt: off
def _network_options() -> tuple[Option, ...]:
    return (
        Option("net", "NAME[:ARGS],...", "networks of the pod: none, host, default, or configured ones with "
               "their arguments", ("default",), "words", bare="default"),
        Option("dns", "IP", "name server to write in /etc/resolv.conf; 'host' to use the host's "
               "resolv.conf, 'none' to ignore DNS configuration from networks", kind="list"),
        Option("dns-domain", "DOMAIN", "DNS domain to write in /etc/resolv.conf"),
        Option("dns-opt", "OPTION", "DNS option to write in /etc/resolv.conf", kind="list"),
        Option("dns-search", "DOMAIN", "DNS search domain to write in /etc/resolv.conf", kind="list"),
        Option("hostname", "NAME", "hostname of the pod. If empty, it is rkt-UUID"),
        Option("hosts-entry", "IP=NAME", "entry to add to the pod's /etc/hosts; 'host' to use the host's "
               "file", kind="list"),
        Option("interactive", help="run the pod with a terminal; only for one image", kind="bool"),
        Option("ipc", "MODE", "IPC namespace of the pod: auto (private), private, or parent for the host's",
               "auto", choices=("auto", "private", "parent")),
        Option("mds-register", help="register the pod with the metadata service", kind="bool"),
    )


def _prepare_options() -> tuple[Option, ...]:
    return (
        Option("inherit-env", help="inherit all environment variables not set by apps", kind="bool"),
        Option("no-overlay", help="copy the images' trees instead of mounting overlays on them", kind="bool"),
        Option("pod-manifest", "FILE", "run this pod manifest; then only --net, --no-overlay and "
               "--interactive may be given besides"),
        Option("port", "NAME:[HOSTIP:]PORT", "port to expose on the host (needs a contained network)",
               kind="list"),
        Option("private-users", help="run within a user namespace", kind="bool"),
        Option("pull-policy", "POLICY", "when to fetch an image: never, new (when it is not in the store) "
               "or update", "new", choices=PULL_POLICIES),
        Option("set-env", "NAME=VALUE", "environment variable for all apps; --environment goes before it",
               kind="pairs"),
        Option("set-env-file", "FILE", "file of environment variables for all apps", kind="list"),
        Option("volume", "NAME,kind=KIND,...", "volume of the pod: NAME,kind=host,source=PATH with "
               "readOnly=BOOL "
               "and recursive=BOOL, or NAME,kind=empty with mode=MODE, uid=UID and gid=GID", kind="list"),
        *_app_options(),
    )


def _app_options() -> tuple[Option, ...]:
    return (
        Option("annotation", "NAME=VALUE", "annotation of the app", kind="pairs", per_app=True),
        Option("caps-remove", "CAP,...", "capabilities to remove (example: CAP_MKNOD)", kind="words",
               per_app=True),
        Option("caps-retain", "CAP,...", "capabilities to retain, and no others (example: CAP_SYS_ADMIN)",
               kind="words", per_app=True),
        Option("cpu", "CORES", "CPU limit (example: 500m)", per_app=True),
        Option("cpu-shares", "WEIGHT", "weight of the app's share of CPU time (example: 2048)", kind="int",
               per_app=True),
        Option("environment", "NAME=VALUE", "environment variable of the app", kind="pairs", per_app=True),
        Option("exec", "PATH", "what to execute instead of the image's own", per_app=True, once=True),
        Option("group", "GROUP", "group to run as: name, number, or path of a file in the image",
               per_app=True),
        Option("memory", "BYTES", "memory limit (examples: 16Mi, 50M, 1G)", per_app=True),
        Option("mount", "volume=NAME,target=PATH", "where to mount a volume; before any image: in all apps",
               kind="mounts", per_app=True),
        Option("name", "NAME", "name of the app. If not given, the last part of the image's name",
               per_app=True),
        Option("oom-score-adj", "NUMBER", "adjustment of the kernel's out-of-memory score, -1000 to 1000",
               kind="int", per_app=True),
        Option("readonly-rootfs", help="make the app's root file system read-only", kind="bool",
               per_app=True),
        Option("seccomp", "mode=MODE,...", "system calls: mode=retain or mode=remove[,errno=ERRNO],CALL,... "
               "(example: mode=remove,errno=EPERM,chmod,chown)", per_app=True),
        Option("signature", "FILE", "signature to verify the image with", per_app=True, once=True),
        Option("stderr", "MODE", "where stderr goes", per_app=True, choices=("null", "tty", "stream", "log"),
               hidden=True),
        Option("stdin", "MODE", "where stdin comes from", per_app=True, choices=("null", "tty", "stream"),
               hidden=True),
        Option("stdout", "MODE", "where stdout goes", per_app=True, choices=("null", "tty", "stream", "log"),
               hidden=True),
        Option("supplementary-gids", "GID,...", "supplementary groups of the app", kind="ints", per_app=True),
        Option("user", "USER", "user to run as: name, number, or path of a file in the image", per_app=True),
        Option("user-annotation", "NAME=VALUE", "user annotation of the app", kind="pairs", per_app=True),
        Option("user-label", "NAME=VALUE", "user label of the app", kind="pairs", per_app=True),
        Option("working-dir", "PATH", "working directory of the app", per_app=True),
    )


def _run_options() -> tuple[Option, ...]:
    return (
        *_network_options(),
        Option("uuid-file-save", "FILE", "write the pod's UUID to this file"),
        *_prepare_options(),
    )


def _prepare_only_options() -> tuple[Option, ...]:
    return (
        Option("quiet", help="print nothing but the UUID of the pod", kind="bool"),
        *_prepare_options(),
    )


UUID_FILE = Option("uuid-file", "FILE", "read the pod's UUID from this file")
FORMAT = Option("format", "FORMAT", "json or json-pretty, instead of text", "", choices=FORMATS)
NO_LEGEND = Option("no-legend", help="print no heading above the list", kind="bool")
PRETTY_PRINT = Option("pretty-print", help="indent the manifest", default=True, kind="bool")


def _list_options() -> tuple[Option, ...]:
    return (FORMAT, Option("full", help="print whole UUIDs, image IDs and times", kind="bool"), NO_LEGEND)


def _status_options() -> tuple[Option, ...]:
    return (
        FORMAT,
        UUID_FILE,
        Option("wait", "BOOL|DURATION", "wait until the pod has ended; a duration is how long at most",
               kind="wait", bare="true"),
        Option("wait-ready", "BOOL|DURATION", "wait until the pod is ready; a duration is how long at most",
               kind="wait", bare="true"),
    )


def _logs_options() -> tuple[Option, ...]:
    return (
        Option("app", "NAME", "print only what this app wrote"),
        Option("follow", help="go on printing what the apps write until the pod ends", kind="bool",
               short="f"),
    )


def _gc_options() -> tuple[Option, ...]:
    return (
        Option("expire-prepared", "DURATION", "how long a prepared pod is kept", 24 * HOUR, "duration"),
        Option("grace-period", "DURATION", "how long an ended pod is kept after it was found", 30 * MINUTE,
               "duration"),
        Option("mark-only", help="only move ended and aborted pods to the garbage, and delete nothing",
               kind="bool"),
    )


def _fetch_options() -> tuple[Option, ...]:
    return (
        Option("full", help="print whole image IDs", kind="bool"),
        Option("pull-policy", "POLICY", "when to fetch an image: never, new (when it is not in the store) "
               "or update", "update", choices=PULL_POLICIES),
        Option("signature", "FILE", "signature to verify the image with"),
    )


def _image_list_options() -> tuple[Option, ...]:
    return (
        Option("fields", "LIST", "comma-separated list of what to print: " + ", ".join(IMAGE_FIELDS),
               IMAGE_FIELDS, "words", choices=IMAGE_FIELDS),
        FORMAT,
        Option("full", help="print whole image IDs, sizes in bytes and times", kind="bool"),
        NO_LEGEND,
        Option("order", "ORDER", "order of sorting: asc or desc", "asc", choices=("asc", "desc")),
        Option("sort", "LIST", "comma-separated list of what to sort by: " + ", ".join(IMAGE_SORTS),
               ("importtime",),
               "words", choices=IMAGE_SORTS),
    )


def _build_options() -> tuple[Option, ...]:
    return (
        Option("annotation", "NAME=VALUE", "annotation of the image", kind="pairs"),
        Option("arch", "ARCH", "arch label, as appc spells it; - for none. If empty, this machine's"),
        Option("compression", "HOW", "gzip, zstd, xz, bzip2 or none", "gzip", choices=COMPRESSIONS),
        Option("environment", "NAME=VALUE", "environment variable of the app", kind="pairs"),
        Option("exec", "WORD", "what the app executes; once for each word of the command", kind="list"),
        Option("group", "GROUP", "group to run as: name, number, or path of a file in the image", "0"),
        Option("isolator", "NAME=JSON", "isolator of the app (example: resource/memory={\"limit\":\"1G\"})",
               kind="pairs"),
        Option("label", "NAME=VALUE", "label of the image", kind="pairs"),
        Option("level", "NUMBER", "level of compression", kind="int"),
        Option("manifest", "FILE", "image manifest to use as it is, instead of making one of the other "
               "flags"),
        Option("mount", "NAME,path=PATH", "mount point of the app: NAME,path=PATH[,readOnly=BOOL]",
               kind="list"),
        Option("name", "NAME", "name of the image (example: example.com/hello)"),
        Option("os", "OS", "os label; - for none", "linux"),
        Option("overwrite", help="replace the output if it exists", kind="bool"),
        Option("owner", "UID:GID", "owner of everything in the image, instead of the owners in the "
               "directory"),
        Option("port", "NAME,port=NUMBER", "port of the app: NAME,port=NUMBER with protocol=tcp, "
               "count=NUMBER and socketActivated=BOOL", kind="list"),
        Option("supplementary-gids", "GID,...", "supplementary groups of the app", kind="ints"),
        Option("user", "USER", "user to run as: name, number, or path of a file in the image", "0"),
        Option("version", "VERSION", "version label of the image"),
        Option("working-dir", "PATH", "working directory of the app"),
    )


def _app_option() -> tuple[Option, ...]:
    return (Option("app", "NAME", "name of the app; needed when the pod has several"),)


def _stop_options() -> tuple[Option, ...]:
    return (Option("force", help="kill the pod at once", kind="bool"), UUID_FILE)


def _uuid_file_option() -> tuple[Option, ...]:
    return (UUID_FILE,)


def _cat_manifest_options() -> tuple[Option, ...]:
    return (PRETTY_PRINT, UUID_FILE)


def _image_cat_manifest_options() -> tuple[Option, ...]:
    return (PRETTY_PRINT,)


def _export_options() -> tuple[Option, ...]:
    return (Option("overwrite", help="replace the output if it exists", kind="bool"),)


IMAGES = """IMAGE is a hash of an image in the store, the path of an .aci file, or the name of an image.

Volumes are made available to the pod by --volume. --mount puts one at a path of an app: of all apps
before the first IMAGE, of the preceding image after it. An app's own mount goes before one for all
apps at the same path.

Flags listed under APP OPTIONS apply to the image before them. What follows "--" is added to the
arguments of the preceding image's app; a lone "---" ends it, and further images may follow."""

APPS_USAGE = "[OPTIONS] IMAGE [APP OPTIONS] [-- ARGUMENTS... [---]]..."

COMMANDS = (
    Command(("cat-manifest",), "Print the manifest of a pod", "UUID", "", _cat_manifest_options,
            "show:cat_manifest", min_args=1, max_args=1, instead="uuid-file"),
    Command(("enter",), "Enter an app of a running pod", "UUID [--app=NAME] [COMMAND...]",
            "COMMAND runs with the confinement of the app it enters. If it is not given, it is /bin/bash.",
            _app_option, "enter:enter", needs_root=True, min_args=1, max_args=None, passthrough=2),
    Command(("fetch",), "Put image(s) into the store", "IMAGE...", "The image IDs are printed to stdout.",
            _fetch_options, "images:fetch", min_args=1, max_args=None),
    Command(("gc",), "Collect the garbage of pods that have ended", "",
            "Ended pods are moved to the garbage first. They are deleted by this or a later gc, once they "
            "have been "
            "there for the grace period; --grace-period=0s deletes them at once.",
            _gc_options, "remove:gc", needs_root=True),
    Command(("help",), "Print help about a command", "[COMMAND]", run="help:help", max_args=None),
    Command(("image",), "Build, list and manage images", "COMMAND"),
    Command(("image", "build"), "Build an image from a directory", "ROOTFS OUTPUT",
            "The same directory and flags give the same bytes. Times later than SOURCE_DATE_EPOCH, when "
            "that is in "
            "the environment, are set back to it.",
            _build_options, "build:build", min_args=2, max_args=2),
    Command(("image", "cat-manifest"), "Print the manifest of an image", "IMAGE", "",
            _image_cat_manifest_options, "images:cat_manifest", min_args=1, max_args=1),
    Command(("image", "export"), "Write an image of the store to a file", "IMAGE FILE",
            "The file is the uncompressed archive, whose hash is the image ID.",
            _export_options, "images:export", min_args=2, max_args=2),
    Command(("image", "list"), "List the images in the store", "", "", _image_list_options,
            "images:list_images"),
    Command(("image", "rm"), "Remove image(s) from the store", "IMAGE...", run="images:rm", min_args=1,
            max_args=None),
    Command(("list",), "List pods", "", "", _list_options, "show:list_pods"),
    Command(("logs",), "Print what the apps of a pod wrote", "UUID", "", _logs_options, "logs:logs",
            min_args=1, max_args=1),
    Command(("prepare",), "Prepare to run image(s) in a pod", APPS_USAGE,
            "The UUID of the pod is printed to stdout; run-prepared starts it.\n\n" + IMAGES,
            _prepare_only_options, "run:prepare", needs_root=True, apps=True),
    Command(("rm",), "Remove the files of pod(s) that have ended or never ran", "UUID...", "",
            _uuid_file_option, "remove:rm", needs_root=True, min_args=1, max_args=None, instead="uuid-file"),
    Command(("run",), "Run image(s) in a pod", APPS_USAGE, IMAGES, _run_options, "run:run", needs_root=True,
            apps=True),
    Command(("run-prepared",), "Run a prepared pod", "UUID", "UUID is what prepare printed.",
            _network_options, "run:run_prepared", needs_root=True, min_args=1, max_args=1),
    Command(("status",), "Print the state of a pod", "UUID",
            "Prints the state of the pod, its times, its pid, and the exit status of each app.",
            _status_options, "show:status", min_args=1, max_args=1, instead="uuid-file"),
    Command(("stop",), "Stop pod(s)", "UUID...", "", _stop_options, "stop:stop", needs_root=True, min_args=1,
            max_args=None, instead="uuid-file"),
    Command(("version",), "Print the version", run="version:version"),
)
# fmt: on
