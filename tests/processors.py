"""The engine's kernels for another processor than this one."""

import llvmlite.binding as llvm


def compile_for(name, patch):
    """Let ``patch``, a MonkeyPatch, have kernels compiled for a processor that LLVM knows by this name."""
    patch.setattr(llvm, "get_host_cpu_name", lambda: name)
    patch.setattr(llvm, "get_host_cpu_features", llvm.FeatureMap)  # none beside those that the name stands for
