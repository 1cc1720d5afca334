"""Compile LLVM's assembly, by llvmlite, to a function that Python can call; keep its machine code on disk.

A compiled kernel is kept under a key made of its assembly (which holds all that the sources determine), llvmlite's and
LLVM's versions, and the processor. A file that is read back must carry a checksum of key and code, and be one that only
this user can have written: else it counts as missing, and is compiled again and replaced. Where others may write to the
folder, nothing is read or kept, with a notice.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import warnings
from collections.abc import Iterable
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
from platformdirs import user_cache_path

from gradlab.console import one_line
from gradlab.lab.engine.kernel import ARGUMENTS, NAME
from gradlab.store.private_files import NotPrivate, read_private, write_private

_SAID: set[str] = set()
LARGEST = 2**24  # bytes of a kernel's code; a usual kernel takes some thousands


class Kernel:
    """A compiled function; call it with its arguments by name: numbers, and addresses of arrays.

    While it runs, other Python threads can.
    """

    def __init__(self, code: bytes, name: str = NAME, arguments: Iterable[str] = ARGUMENTS) -> None:
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self._names = tuple(arguments)
        kind = ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * len(self._names))
        self._call = kind(self._engine.get_function_address(name))

    def __call__(self, **given: int) -> None:
        """Run the function; an argument that is not given is 0, for what the function does not use."""
        self._call(*(given.get(name, 0) for name in self._names))


def compile(assembly: str) -> bytes:
    """Return machine code for this processor, as an object file."""
    machine = _target_machine()
    module = llvm.parse_assembly(assembly)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    passes = llvm.create_pass_builder(machine, llvm.create_pipeline_tuning_options(speed_level=3))
    passes.getModulePassManager().run(module, passes)
    return machine.emit_object(module)


def load(assembly: str) -> bytes | None:
    """Return the machine code that was saved for this assembly; None if there is no file or it cannot be trusted."""
    path = _path(assembly)
    try:
        content = read_private(path.parent, path.name, LARGEST) or b""
    except NotPrivate as reason:
        _not_kept(reason)
        return None
    except OSError:  # such as a link or a socket in the file's place
        return None
    code = content[32:]
    return code if content == _sealed(path, code) else None


def save(assembly: str, code: bytes) -> None:
    """Keep machine code for the next process. A folder that cannot be used costs only that."""
    path = _path(assembly)
    try:
        write_private(path.parent, path.name, _sealed(path, code))
    except (NotPrivate, OSError) as reason:  # such as for a full disk
        _not_kept(reason)


def _not_kept(reason: Exception) -> None:
    """Say once in this process that kernels are compiled anew, and why."""
    if not _SAID:
        _SAID.add("not kept")
        warnings.warn(
            f"compiled kernels are not kept (see GRADLAB_CACHE): {one_line(reason)}", UserWarning, stacklevel=6
        )


def _sealed(path: Path, code: bytes) -> bytes:
    """Return the code with a checksum before it, of the code and of the key in its file's name."""
    return hashlib.sha256(path.name.encode() + code).digest() + code


def _path(assembly: str) -> Path:
    """Return the cache file: in GRADLAB_CACHE, or in the user's cache folder of this platform."""
    parts = assembly, llvmlite.__version__, llvm.llvm_version_info, llvm.get_process_triple(), _processor()
    key = hashlib.sha256(repr(parts).encode()).hexdigest()
    folder = os.environ.get("GRADLAB_CACHE") or user_cache_path("gradlab", appauthor=False)
    return Path(folder, "kernels", f"{key}.bin")


def _processor() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _target_machine() -> llvm.TargetMachine:
    """Return a new target machine at each call: an engine that goes away frees the machine that it was given."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    name, features = _processor()
    target = llvm.Target.from_triple(llvm.get_process_triple())
    return target.create_target_machine(cpu=name, features=features, opt=3, jit=True)
