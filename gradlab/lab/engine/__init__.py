"""Exact training as one compiled function: softmax, every pair's loss and slope, and the optimiser, for many steps.

A training meets the files in this order. ``fusion`` is the way in. ``trace`` watches what PyTorch does to
differentiate a loss. ``kernel`` writes the training loop around that trace, in the lanes of ``vectors`` and with the
``functions`` that it needs. ``machine`` compiles it and keeps it on disk, ``run`` feeds it, and ``examine`` compares it
with autograd. No loss is written a second time. Compiling takes about a fifth of a second, once per machine and kind of
training: a loss at any hyper-parameters, an optimiser, a precision, free or shared parameters.

``webassembly`` compiles the same kernels for a page, and ``constants`` says how their numbers follow from the
hyper-parameters, so that a page moves these without Python.
"""

from gradlab.lab.engine.fusion import EagerNotice, NotFusable, fused, notice

__all__ = ["EagerNotice", "NotFusable", "fused", "notice"]
