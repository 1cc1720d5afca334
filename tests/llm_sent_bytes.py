"""Prints what each of two processes, started by torchrun, sends and receives by FSDP in a step: SHARE BYTES, lines.

SHARE is that of the layers which are computed again.
"""

from pathlib import Path

import torch
from tiny_llm import settings, tiny_model
from torch.utils._python_dispatch import TorchDispatchMode

from gradlab.console import leave
from gradlab.llm.model.group import start_group
from gradlab.llm.train.policy_model import PolicyModel

MEETINGS = {"c10d::_allgather_base_", "c10d::_reduce_scatter_base_"}


class Sent(TorchDispatchMode):
    """Adds up the bytes of the whole tensors that are gathered and scattered."""

    bytes = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.name() in MEETINGS:
            self.bytes += max(arg.nbytes for arg in args if isinstance(arg, torch.Tensor))
        return function(*args, **(kwargs or {}))


def main() -> None:
    torch.set_num_threads(1)
    rows = [((0, 5, 7), (9, 11, 1), (8, 1))] * 4
    with start_group("cpu") as group:
        for share in (0.0, 0.5, 1.0):
            given = settings(
                model="m", data="d", out=Path("out"), batch=4, micro=1, precision="fp32", device="cpu",
                distribution="fsdp", gradient_checkpointing=share,
            )  # fmt: skip
            policy = PolicyModel(tiny_model(layers=4), group, given, rate=1e-3, steps=1, pad=2)
            with Sent() as sent:
                policy.accumulate(
                    policy.parts(rows, 1), lambda places: [rows[place] for place in places],
                    lambda logps, _: logps.sum(0), number=4, step=1,
                )  # fmt: skip
            if group.is_main:
                print(share, sent.bytes, flush=True)


if __name__ == "__main__":
    main()
    leave(0)
