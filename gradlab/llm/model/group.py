"""One process or many: what torchrun started, and how a model is spread over it by PyTorch's DDP or FSDP2."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict, set_model_state_dict
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from gradlab.checks import one_of

Precision = Literal["fp32", "bf16"]
DISTRIBUTIONS = ("ddp", "fsdp")
T = TypeVar("T")
_PATIENCE = timedelta(hours=2)  # one process may write a large model while the others wait


@dataclass(frozen=True)
class Processes:
    """This process among all that train one model; alone where torchrun did not start it."""

    rank: int = 0
    size: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    @property
    def main(self) -> bool:
        """Whether it is the one that writes."""
        return self.rank == 0

    def total(self, tensor: Tensor) -> Tensor:
        """The sum over all processes, in each of them."""
        if self.size > 1:
            moved = tensor.to(self.device)
            dist.all_reduce(moved)
            tensor = moved.to(tensor.device)
        return tensor

    def told(self, value: Any) -> Any:
        """The main process's value, in each of them."""
        box = [value]
        if self.size > 1:
            dist.broadcast_object_list(box, device=self.device)
        return box[0]

    def by_main(self, work: Callable[[], T]) -> T:
        """What ``work`` gives where the main process alone does it; where it fails all do, and none waits for ever.

        It raises the error, and the others ``Elsewhere``.
        """
        made, trouble = _tried(work) if self.main else (None, None)
        if self.size > 1:
            made, failed = self.told((made, trouble is not None))
            if failed and trouble is None:
                raise Elsewhere
        if trouble is not None:
            raise trouble
        return made  # type: ignore[return-value]

    def together(self, work: Callable[[], T]) -> T:
        """What ``work`` gives in each process; where it fails in some all fail, and none waits for ever.

        The main process raises its own error, or one that tells the first of the others, and those ``Elsewhere``.
        """
        made, trouble = _tried(work)
        every: list[tuple[type, str] | None] = [None] * self.size
        if self.size > 1:
            dist.all_gather_object(every, trouble and _told(trouble, self.rank))
            if any(every) and not self.main:
                raise Elsewhere
        if trouble is not None:
            raise trouble
        for kind, words in filter(None, every):
            raise kind(words)
        return made  # type: ignore[return-value]


class Elsewhere(RuntimeError):
    """What went wrong is told by the main process."""


def _tried(work: Callable[[], T]) -> tuple[T | None, Exception | None]:
    """What it gives, or how it fails."""
    try:
        return work(), None
    except Exception as error:
        return None, error


def _told(error: Exception, rank: int) -> tuple[type, str]:
    """An error as another process can raise it."""
    kind = next((one for one in (ValueError, OSError) if isinstance(error, one)), RuntimeError)
    return kind, f"process {rank}: {type(error).__name__ + ': ' if kind is RuntimeError else ''}{error}"


@contextlib.contextmanager
def processes(device: str = "auto") -> Iterator[Processes]:
    """What torchrun has started, or this process alone; ends what it began.

    device  ``auto`` (a GPU where there is one), ``cpu`` or ``cuda``.
    """
    one_of("device", device, ("auto", "cpu", "cuda"))
    cuda = torch.cuda.is_available() if device == "auto" else device == "cuda"
    if cuda and not torch.cuda.is_available():
        raise ValueError("device must be auto or cpu on a machine without CUDA, got 'cuda'")
    local = int(os.environ.get("LOCAL_RANK", 0))
    if cuda and local >= torch.cuda.device_count():
        raise ValueError(
            f"torchrun must start at most {torch.cuda.device_count()} processes here, one a GPU, got number {local + 1}"
        )
    where = torch.device("cuda", local) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(where)
    if "RANK" not in os.environ:
        yield Processes(device=where)
        return
    begun = dist.is_initialized()  # by who calls: a second beginning in one process may wait for ever
    if not begun:
        dist.init_process_group("nccl" if cuda else "gloo", timeout=_PATIENCE)
    try:
        yield Processes(dist.get_rank(), dist.get_world_size(), where)
    finally:
        if not begun:
            gc.collect()  # models in cycles hold on to the group, and their end after its own can abort the process
            dist.destroy_process_group()


@contextlib.contextmanager
def stop_asked(own: Processes) -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C or SIGTERM came to any process: a question that all of them ask together, between two steps.

    Inside, the first signal does no more than that; one a second or more later stops at once (KeyboardInterrupt).
    """
    came: list[float] = []

    def note(*_: object) -> None:
        if came and time.monotonic() - came[0] > 1:  # torchrun sends on at once what the terminal has sent already
            raise KeyboardInterrupt
        came.append(time.monotonic())
        if own.main and len(came) == 1:
            print("\nstopping after this step; once more to stop at once", file=sys.stderr)

    inside = threading.current_thread() is threading.main_thread()  # no other may take signals
    before = {one: signal.signal(one, note) for one in (signal.SIGINT, signal.SIGTERM) if inside}
    try:
        yield lambda: bool(own.total(torch.tensor(float(len(came)))))
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


def spread(model: Any, own: Processes, distribution: str, precision: Precision) -> Any:
    """Move a model to its device, and over all processes where there are several.

    With FSDP the main process's weights count; the others may hold theirs on the meta device.
    """
    if own.size == 1:
        return model.to(own.device)
    if one_of("distribution", distribution, DISTRIBUTIONS) == "ddp":
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*broadcast_buffers")  # its other name is not in older versions
            return DistributedDataParallel(model.to(own.device), broadcast_buffers=False)
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32) if precision == "bf16" else MixedPrecisionPolicy()
    whole = {name: value.detach() for name, value in model.state_dict().items()} if own.main else {}
    buffers = dict(model.named_buffers()) if own.main else {}
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    mesh = init_device_mesh(own.device.type, (own.size,))
    lists = [part for part in base.get_decoder().children() if isinstance(part, nn.ModuleList)]
    for layer in max(lists, key=len, default=()):
        fully_shard(layer, mesh=mesh, mp_policy=policy)
    fully_shard(model, mesh=mesh, mp_policy=policy)
    model.to_empty(device=own.device)
    options = StateDictOptions(full_state_dict=True, broadcast_from_rank0=True)
    set_model_state_dict(model, whole, options=options)
    for name, buffer in model.named_buffers():  # those that no state dict holds, such as the rotary frequencies
        if own.main:
            buffer.copy_(buffers[name])
        dist.broadcast(buffer, 0)
    return model


def computing(device: torch.device, precision: Precision) -> torch.autocast:
    """Within it the model computes in this precision, whatever its weights are in."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16")


def plain(model: Any) -> Any:
    """The model inside DDP's wrapper."""
    return model.module if isinstance(model, DistributedDataParallel) else model


def whole_state(model: Any) -> dict[str, Tensor]:
    """All weights, on the CPU of the main process; every process has to ask. Tied ones share their memory."""
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
    """Whether DDP's backward passes inside exchange gradients between processes; the last one of a step should.

    FSDP's always do: else each process would hold the gradient of the whole model.
    """
    if isinstance(model, DistributedDataParallel) and not meet:
        with model.no_sync():
            yield
    else:
        yield


def trainable(model: nn.Module) -> dict[str, nn.Parameter]:
    """The parameters that are trained, by name, the same names however the model is spread."""
    if isinstance(model, FSDPModule):
        model.reshard()  # a forward without a backward leaves the ends of the model gathered, in other parameters
    return {name: value for name, value in plain(model).named_parameters() if value.requires_grad}


def local(tensor: Tensor) -> Tensor:
    """This process's part of a tensor that FSDP has spread; the tensor itself where none has."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def dot(left: list[Tensor], right: list[Tensor], own: Processes) -> float:
    """The inner product of two gradients, over all their parts and processes; ‖g‖² of one with itself.

    In float64 on a CPU. A GPU sums in the gradient's own type, float32 at least, by a tree: a copy of all of it in
    float64 would cost more than what it adds.
    """
    spread_out = any(isinstance(one, DTensor) for one in left)
    kinds = [_summed_in(one) for one in left]
    if left is right:
        parts = [
            torch.linalg.vector_norm(local(a), dtype=kind).double() ** 2 for a, kind in zip(left, kinds, strict=True)
        ]
    else:
        parts = [(local(a).to(kind) * local(b).to(kind)).sum().double()
                 for a, b, kind in zip(left, right, kinds, strict=True)]  # fmt: skip
    product = torch.stack(parts).sum()
    return float(own.total(product) if spread_out else product)


def _summed_in(tensor: Tensor) -> torch.dtype:
    return torch.float64 if tensor.device.type == "cpu" else torch.promote_types(tensor.dtype, torch.float32)
