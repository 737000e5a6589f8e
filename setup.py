"""Builds what is C: two cffi extensions for Python, and programs in rkt_py/bin.

Everything else about the package is in pyproject.toml.
"""

from __future__ import annotations

import os
import platform
import shutil
from dataclasses import dataclass
from pathlib import Path

from setuptools import Command, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import CompileError
from setuptools.modified import newer_group

CSRC = Path("csrc")
WARNINGS = ["-Wall", "-Wextra", "-Wformat=2"]
HARDENING = [
    "-fstack-protector-strong",
    "-fstack-clash-protection",
    "-fcf-protection",
    "-ftrivial-auto-var-init=zero",
    "-U_FORTIFY_SOURCE",
    "-D_FORTIFY_SOURCE=3",
]
# The same source gives the same bytes, wherever the tree is.
REPRODUCIBLE = ["-g0", f"-ffile-prefix-map={os.getcwd()}=.", "-Wdate-time"]
LINK = ["-Wl,--gc-sections", "-Wl,-z,relro", "-Wl,-z,now", "-Wl,-z,noexecstack", "-Wl,-s"]


@dataclass(frozen=True)
class Program:
    """An executable: NAME of csrc/SOURCE.c and csrc/SOURCE_*.c."""

    name: str
    source: str
    flags: tuple[str, ...]
    libraries: tuple[str, ...] = ()
    musl: bool = False

    def sources(self) -> list[str]:
        return [str(CSRC / f"{self.source}.c"), *sorted(map(str, CSRC.glob(f"{self.source}_*.c")))]

    def headers(self) -> list[str]:
        return sorted(map(str, CSRC.glob("*.h")))

    def command(self, output: str) -> list[str]:
        """Return the compiler's command line.

        musl starts a static program 0.3 ms earlier than glibc, which first asks the CPU what it can do, and
        makes it 14 kB instead of 700; where it is not installed, glibc does the same work.
        """
        compiler = os.environ.get("CC", "gcc").split()
        own_flags = list(self.flags)
        if self.musl and shutil.which("musl-gcc"):
            kernel_headers = ("/usr/include", f"/usr/include/{platform.machine()}-linux-gnu")
            compiler = ["musl-gcc", "-include", "csrc/musl.h"]
            compiler += [f"-idirafter{path}" for path in kernel_headers]
            if "-static-pie" in own_flags:
                # musl-gcc takes no notice of -static-pie, and would ask for its shared library when run.
                objects = Path(f"/usr/lib/{platform.machine()}-linux-musl")
                start = [str(objects / name) for name in ("rcrt1.o", "crti.o", "crtn.o")]
                own_flags.remove("-static-pie")
                own_flags += ["-fPIE", "-static", "-nostartfiles", *start]
                own_flags += ["-Wl,-pie", "-Wl,--no-dynamic-linker", "-Wl,-z,text"]
        sections = ["-ffunction-sections", "-fdata-sections"]
        flags = [*WARNINGS, *HARDENING, *REPRODUCIBLE, *sections, *own_flags]
        return [
            *compiler,
            "-std=gnu11",
            *flags,
            "-Icsrc",
            *self.sources(),
            "-o",
            output,
            *LINK,
            *self.libraries,
        ]


# Its input is its own arguments: a random base address would protect nobody and costs 0.1 ms.
LAUNCHER = Program("rkt-py", "launcher", ("-Os", "-static"), musl=True)
PROGRAMS = [
    LAUNCHER,
    Program("supervisor", "supervisor", ("-Os", "-static-pie"), musl=True),
    # libisal it loads when it runs, where there is one; the rest of what it reads archives with is linked in.
    Program(
        "unpack",
        "unpack",
        ("-O2", "-fPIE", "-pie", "-pthread"),
        libraries=("-l:libz.a", "-l:libzstd.a", "-l:liblzma.a", "-l:libbz2.a", "-l:libcrypto.a"),
    ),
]


class BuildExtensions(build_ext):
    """Compile the extensions, then the programs, each only when a source of it is newer."""

    def build_extensions(self) -> None:
        for extension in self.extensions:
            extension.extra_compile_args += [*WARNINGS, *HARDENING, *REPRODUCIBLE, "-Wno-unused-parameter"]
            extension.extra_link_args += LINK
        super().build_extensions()

    def run(self) -> None:
        # Not in build_extensions(): setuptools hides `inplace` from that, and copies extensions itself.
        super().run()
        for program in PROGRAMS:
            self.build_program(program)

    def program_path(self, program: Program) -> str:
        if self.inplace:
            return os.path.join("rkt_py", "bin", program.name)
        # A wheel holds the launcher as the environment's bin/rkt-py, and only there.
        directory = self.build_temp if program is LAUNCHER else os.path.join(self.build_lib, "rkt_py")
        return os.path.join(directory, "bin", program.name)

    def build_program(self, program: Program) -> None:
        path = self.program_path(program)
        if not self.force and not newer_group([*program.sources(), *program.headers(), "setup.py"], path):
            return
        os.makedirs(os.path.dirname(path), exist_ok=True)
        # Renamed into place: a program that runs cannot be written to, and an interrupted build leaves none.
        temporary = f"{path}.{os.getpid()}"
        try:
            self.spawn(program.command(temporary))
        except Exception as error:
            raise CompileError(f"{program.name} cannot be built: {error}") from error
        os.chmod(temporary, 0o755)
        os.rename(temporary, path)

    def get_outputs(self) -> list[str]:
        packaged = [] if self.inplace else [program for program in PROGRAMS if program is not LAUNCHER]
        return [*super().get_outputs(), *map(self.program_path, packaged)]


class BuildScripts(Command):
    """Install the launcher as bin/rkt-py: a program of C where others have a script."""

    description = "copy the launcher to where scripts are installed from"
    user_options = [("build-dir=", "d", "directory to copy to")]

    def initialize_options(self) -> None:
        self.build_dir = ""
        self.executable = ""  # set by editable_wheel, for scripts with a #! line

    def finalize_options(self) -> None:
        self.build_dir = self.build_dir or self.get_finalized_command("build").build_scripts

    def run(self) -> None:
        extensions = self.get_finalized_command("build_ext")
        assert isinstance(extensions, BuildExtensions)
        os.makedirs(self.build_dir, exist_ok=True)
        shutil.copy(extensions.program_path(LAUNCHER), os.path.join(self.build_dir, "rkt-py"))

    def get_source_files(self) -> list[str]:
        return LAUNCHER.sources()


setup(
    cffi_modules=["csrc/build_core.py:ffi", "csrc/build_seccomp.py:ffi"],
    scripts=["rkt-py"],
    cmdclass={"build_ext": BuildExtensions, "build_scripts": BuildScripts},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)
