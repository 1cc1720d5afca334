"""See, test and settle what a preference loss really does to a policy: ``import gradlab as gl``.

The names that gradlab promises are listed in ``__init__.pyi``, next to this file. Each is imported when it is first
used, so that ``import gradlab`` itself takes milliseconds and no PyTorch.
"""

import lazy_loader

__version__ = "0.1.0"

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
