"""The tabular lab: worlds, policies, and their training by preference losses and by PPO; every probability is known."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(__name__, submodules=["line", "metrics", "samplers"])
