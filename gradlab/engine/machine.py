"""From LLVM's assembly to a function that Python can call, by way of llvmlite; and its machine code on disk.

A compiled kernel is kept under a key of its assembly (which holds all that the sources had to say), of llvmlite's and
LLVM's versions, and of the processor. What is read back must name that key, carry its checksum, and be one's own: else
it counts as not there, is compiled again, and replaced.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

from gradlab.artifacts import write_whole
from gradlab.engine.kernel import ARGUMENTS, NAME
from gradlab.engine.vectors import Kind


class Kernel:
    """A compiled function; call it with its arguments by name: numbers, and addresses of what has several.

    While it runs, other Python threads can.
    """

    def __init__(self, code: bytes, name: str = NAME, arguments: Mapping[str, Kind] = ARGUMENTS) -> None:
        self._engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _target_machine())
        self._engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        self._engine.finalize_object()
        self._names = tuple(arguments)
        kinds = [ctypes.c_int64 if kind == "integer" else ctypes.c_void_p for kind in arguments.values()]
        self._call = ctypes.CFUNCTYPE(None, *kinds)(self._engine.get_function_address(name))

    def __call__(self, **given: int) -> None:
        """Run."""
        self._call(*(given[name] for name in self._names))


def compile(assembly: str) -> bytes:
    """Machine code for this processor, as an object file."""
    machine = _target_machine()
    module = llvm.parse_assembly(assembly)
    module.triple, module.data_layout = machine.triple, str(machine.target_data)
    module.verify()
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    passes = llvm.create_pass_builder(machine, options)
    passes.getModulePassManager().run(module, passes)
    return machine.emit_object(module)


def load(assembly: str) -> bytes | None:
    """The machine code that was saved for this assembly; None if there is none, or none to be trusted."""
    key = _key(assembly)
    path = _path(key)
    try:
        state = path.stat()
        head, code = path.read_bytes().split(b"\n", 1)
        stated = json.loads(head)
    except (OSError, ValueError):
        return None
    ours = not hasattr(os, "getuid") or (state.st_uid == os.getuid() and not state.st_mode & 0o022)
    right = stated == {"key": key, "sha256": hashlib.sha256(code).hexdigest()}
    return code if ours and right else None


def save(assembly: str, code: bytes) -> None:
    """Keep machine code for the next process. A folder that cannot be written to costs only that."""
    key = _key(assembly)
    head = json.dumps({"key": key, "sha256": hashlib.sha256(code).hexdigest()})
    with contextlib.suppress(OSError):
        write_whole(_path(key), head.encode() + b"\n" + code)


def folder() -> Path:
    """Where kernels are kept: GRADLAB_CACHE, or the user's cache folder of this platform."""
    if os.environ.get("GRADLAB_CACHE"):
        return Path(os.environ["GRADLAB_CACHE"])
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData/Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "gradlab"


def _path(key: str) -> Path:
    return folder() / "kernels" / f"{key}.bin"


def _key(assembly: str) -> str:
    machine = _target_machine()
    parts = [assembly, llvmlite.__version__, list(llvm.llvm_version_info), machine.triple, *_processor()]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _processor() -> tuple[str, str]:
    return llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()


def _target_machine() -> llvm.TargetMachine:
    """A new one each time: an engine takes its own with it when it goes."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    triple = llvm.get_process_triple() + ("-elf" if sys.platform == "win32" else "")  # the one format that MCJIT loads
    name, features = _processor()
    return llvm.Target.from_triple(triple).create_target_machine(cpu=name, features=features, opt=3, jit=True)
