"""Live explorers for JupyterLab, one a file: thin faces over the lab and the theory. The only user of ipywidgets."""

from gradlab.widgets.explorer import Explorer, Story
from gradlab.widgets.grid import GridExplorer

EXPLORERS: dict[str, type[Explorer]] = {one.name: one for one in (GridExplorer,)}

__all__ = ["EXPLORERS", "Explorer", "GridExplorer", "Story"]
