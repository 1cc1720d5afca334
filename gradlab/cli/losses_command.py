"""List the registered losses: name, equation, source and hyper-parameters."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from gradlab.cli.options import parsed
from gradlab.console import say


@dataclasses.dataclass(frozen=True)
class LossesCommand:
    """The options of ``gradlab losses``."""

    def run(self) -> int:
        """Print the registry."""
        say(losses_table())
        return 0


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(LossesCommand, "losses", __doc__, arguments).run()


def losses_table() -> str:
    """Return the registry as text: one paragraph per loss, then the meaning of the symbols."""
    from gradlab.losses import PAIR_LOSSES, hyper_parameters

    width = max(map(len, PAIR_LOSSES)) + 2
    menu = hyper_parameters()
    lines = []
    for name, make in PAIR_LOSSES.items():
        loss = make()
        hyper = ", ".join(f"{key} = {of.defaults[name]:g}" for key, of in menu.items() if name in of.defaults)
        kind = "antisymmetric" if loss.antisymmetric else "not antisymmetric"
        lines += [f"{name:<{width}}{loss.equation}", f"{'':<{width}}{hyper}; {kind}", f"{'':<{width}}{loss.source}", ""]
    lines += [
        "h_w = log π(y_w)/π_ref(y_w) of the preferred response y_w, h_l the same of the dispreferred one.",
        "antisymmetric: the loss is −log σ of something that changes sign when the two responses trade places.",
    ]
    return "\n".join(lines)
