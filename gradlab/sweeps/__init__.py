"""Sweeps: grids of settings, and thousands of trainings from them."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__, submod_attrs={"settings_frame": ["read_settings"], "sweep": ["run_sweep", "sweep_status"]}
)
