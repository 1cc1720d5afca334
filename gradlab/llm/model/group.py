"""A group of one process or many, which torchrun started, and a model spread over it by PyTorch's DDP or FSDP2."""

from __future__ import annotations

import contextlib
import gc
import math
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeVar, get_args

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from gradlab.checks import one_of
from gradlab.console import say
from gradlab.llm.model.heads import layers_of, unwrapped

Precision = Literal["fp32", "bf16"]
AskedPrecision = Literal["auto", "fp32", "bf16"]  # "auto": of the device, or of the weights
DISTRIBUTIONS = ("ddp", "fsdp")
T = TypeVar("T")
_PATIENCE = timedelta(hours=2)  # one process may write a large model while the others wait


@dataclass(frozen=True)
class Group:
    """The processes that train one model, as this process sees them; just this process without torchrun."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def is_main(self) -> bool:
        """Say whether this process is the main one, which writes."""
        return self.rank == 0

    def spreads(self, distribution: str) -> bool:
        """Say whether a model is spread over several processes, so that none holds it whole."""
        return self.size > 1 and distribution == "fsdp"

    def total(self, tensor: Tensor) -> Tensor:
        """Return the sum over all processes, in every process."""
        if self.size > 1:
            moved = tensor.to(self.device)
            dist.all_reduce(moved)
            tensor = moved.to(tensor.device)
        return tensor

    def broadcast(self, value: Any) -> Any:
        """Return the main process's value, in every process."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def on_main(self, work: Callable[[], T]) -> T:
        """Do ``work`` in the main process only, and return its result in all; if it fails, all fail and none waits.

        The main process raises the error, and the others ``Elsewhere``.
        """
        result, trouble = _tried(work) if self.is_main else (None, None)
        if self.size > 1:
            result, failed = self.broadcast((result, trouble is not None))
            if failed and trouble is None:
                raise Elsewhere
        if trouble is not None:
            raise trouble
        return result  # type: ignore[return-value]

    def on_all(self, work: Callable[[], T]) -> T:
        """Do ``work`` in each process, and return its result there; if it fails in any, all fail and none waits.

        The main process raises its error, or else the first error of the others; the others raise ``Elsewhere``.
        """
        result, trouble = _tried(work)
        errors: list[tuple[type, str] | None] = [None] * self.size
        if self.size > 1:
            dist.all_gather_object(errors, trouble and _portable(trouble, self.rank))
            if any(errors) and not self.is_main:
                raise Elsewhere
        if trouble is not None:
            raise trouble
        for kind, words in filter(None, errors):
            raise kind(words)
        return result  # type: ignore[return-value]


class Elsewhere(RuntimeError):
    """An error that the main process reports."""


def _tried(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """Return the result of the work, or its error."""
    try:
        return work(), None
    except Exception as error:
        return None, error


def _portable(error: Exception, rank: int) -> tuple[type, str]:
    """Return an error as another process can raise it."""
    kind = next((kind for kind in (ValueError, OSError) if isinstance(error, kind)), RuntimeError)
    return kind, f"process {rank}: {type(error).__name__ + ': ' if kind is RuntimeError else ''}{error}"


@contextlib.contextmanager
def start_group(device: str = "auto") -> Iterator[Group]:
    """Join the processes that torchrun has started, if any; leave them at the end, if this call has joined them.

    device  ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
    """
    one_of("device", device, ("auto", "cpu", "cuda"))
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise ValueError("device must be auto or cpu on a machine without CUDA, got 'cuda'")
    local = int(os.environ.get("LOCAL_RANK", 0))
    if cuda and local >= torch.cuda.device_count():
        raise ValueError(
            f"torchrun must start at most {torch.cuda.device_count()} processes here, one per GPU, "
            f"got number {local + 1}"
        )
    where = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(where)
    if "RANK" not in os.environ:
        yield Group(device=where)
        return
    joined = dist.is_initialized()  # by the caller: a second beginning in one process may wait for ever
    if not joined:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield Group(dist.get_rank(), dist.get_world_size(), where)
    finally:
        if not joined:
            gc.collect()  # models in cycles hold on to the group, and freeing them after its end can abort the process
            dist.destroy_process_group()


@contextlib.contextmanager
def stop_asked(group: Group) -> Iterator[Callable[[], bool]]:
    """Give a function that says whether Ctrl-C or SIGTERM has come to any process; all processes call it together.

    Inside, the first signal is only noted; another, a second or more later, stops at once (KeyboardInterrupt).
    """
    came: list[float] = []

    def note(*_: object) -> None:
        if came and time.monotonic() - came[0] > 1:  # torchrun sends on at once what the terminal has sent already
            raise KeyboardInterrupt
        came.append(time.monotonic())
        if group.is_main and len(came) == 1:
            say("\nstopping after this step; once more to stop at once", file=sys.stderr)

    inside = threading.current_thread() is threading.main_thread()  # no other thread may take signals
    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM) if inside}
    try:
        yield lambda: bool(group.total(torch.tensor(float(len(came)))))
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def placed(model: Any, group: Group, distribution: str) -> Any:
    """Move a model to its device, unless FSDP is to spread it over several."""
    return model if group.spreads(distribution) else model.to(group.device)


def spread(model: Any, group: Group, distribution: str, precision: Precision) -> Any:
    """Move a model to its device, and spread it over all processes where there are several.

    With FSDP the main process's weights count; the others may hold the model on the meta device.
    """
    model = placed(model, group, distribution)
    if group.size == 1:
        return model
    if one_of("distribution", distribution, DISTRIBUTIONS) == "ddp":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*broadcast_buffers")  # its other name is not in older versions
            return DistributedDataParallel(model, broadcast_buffers=False)
    mixed = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if precision == "bf16" else MixedPrecisionPolicy()
    whole = {name: value.detach() for name, value in model.state_dict().items()} if group.is_main else {}
    buffers = dict(model.named_buffers()) if group.is_main else {}
    mesh = init_device_mesh(group.device.type, (group.size,))
    for layer in layers_of(unwrapped(model))[1]:
        fully_shard(layer, mesh=mesh, mp_policy=mixed)
    fully_shard(model, mesh=mesh, mp_policy=mixed)
    model.to_empty(device=group.device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, whole, options=options)
    for name, buffer in model.named_buffers():  # those that no state dict holds, such as the rotary frequencies
        if group.is_main:
            buffer.copy_(buffers[name])
        dist.broadcast(buffer, 0)
    return model


def precision_on(device: torch.device, precision: str) -> Precision:
    """Return the precision that a setting means on a device: ``auto`` is bf16 on a GPU, and fp32 on a CPU."""
    if precision == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return one_of("precision", precision, get_args(Precision))  # type: ignore[return-value]


def computing(device: torch.device, precision: Precision) -> torch.autocast:
    """Let the model compute in this precision inside, whatever type its weights have."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def plain(model: Any) -> Any:
    """Return the model inside DDP's wrapper."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def whole_state(model: Any) -> dict[str, Tensor]:
    """Return all weights, on the CPU of the main process; every process must call. Tied weights share their memory."""
    if not isinstance(model, FSDPModule):
        return {name: value.detach().cpu() for name, value in plain(model).state_dict().items()}
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    whole: dict[str, Any] = get_model_state_dict(model, options=options)  # type: ignore[arg-type]
    first: dict[nn.Parameter, str] = {}
    for name, value in model.named_parameters(remove_duplicate=False):  # type: ignore[attr-defined]
        if whole and first.setdefault(value, name) != name:
            whole[name] = whole[first[value]]
    return whole


@contextlib.contextmanager
def gradients_meet(model: Any, meet: bool) -> Iterator[None]:
    """Let DDP's backward passes inside exchange gradients between processes, or not; the last pass of a step should.

    FSDP's passes always do: otherwise each process would hold the gradient of the whole model.
    """
    if isinstance(model, DistributedDataParallel) and not meet:
        with model.no_sync():
            yield
    else:
        yield


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the parameters that are trained, by name; the names do not depend on how the model is spread."""
    if isinstance(model, FSDPModule):
        model.reshard()  # a forward without a backward leaves the ends of the model gathered, in other parameters
    return {name: value for name, value in plain(model).named_parameters() if value.requires_grad}


def local(tensor: Tensor) -> Tensor:
    """Return this process's part of a tensor that FSDP has spread, or the whole tensor where it is not spread."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def dot(left: Sequence[Tensor], right: Sequence[Tensor], group: Group) -> float:
    """Return the inner product of two gradients, over all their parts and processes.

    A CPU computes in float64. A GPU sums in the gradient's type, float32 at least, by a tree: a copy of the gradient in
    float64 would cost more than it gains.
    """
    return _summed(lambda a, b, kind: (a.to(kind) * b.to(kind)).sum().double(), left, right, group)


def norm(gradient: Sequence[Tensor], group: Group) -> float:
    """Return ‖g‖ of a gradient, over all its parts and processes; the sum is as for ``dot``."""
    return math.sqrt(
        _summed(lambda a, _, kind: torch.linalg.vector_norm(a, dtype=kind).double() ** 2, gradient, gradient, group)
    )


def distance(left: Sequence[Tensor], right: Sequence[Tensor], group: Group) -> float:
    """Return ‖a − b‖ of two gradients, over all their parts and processes; the sum is as for ``dot``."""
    return math.sqrt(
        _summed(lambda a, b, kind: torch.linalg.vector_norm(a - b, dtype=kind).double() ** 2, left, right, group)
    )


def _summed(
    of: Callable[[Tensor, Tensor, torch.dtype], Tensor], left: Sequence[Tensor], right: Sequence[Tensor], group: Group
) -> float:
    """Return the sum of a function of two gradients' parts, over all processes."""
    if not left:
        return 0.0
    kinds = [torch.float64 if a.device.type == "cpu" else torch.promote_types(a.dtype, torch.float32) for a in left]
    total = torch.stack([of(local(a), local(b), kind) for a, b, kind in zip(left, right, kinds, strict=True)]).sum()
    return float(group.total(total) if any(isinstance(part, DTensor) for part in left) else total)
