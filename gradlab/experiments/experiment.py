"""The contract of an experiment, which a file in ``questions`` fills in, and that of a committed measurement."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from gradlab.experiments.contrasts import Judged
from gradlab.lab.training import Training
from gradlab.store.artifacts import load_frame, load_manifest

Settings = dict[str, Any]  # numbers, words and recipes (``Training``), and lists and dictionaries of them
Frames = Mapping[str, pd.DataFrame]
# The first report used seeds from 0 on. What judges is drawn by seeds from here on, which nobody had looked at.
FIRST_SEED = 1000


def plain(settings: Settings) -> Settings:
    """Return settings as JSON-able data, a recipe as its fields by name. TypeError for anything else."""
    return json.loads(json.dumps(settings, default=_fields))


def _fields(value: object) -> Settings:
    if isinstance(value, Training):
        return value.settings()
    raise TypeError(f"a setting must be JSON-able or a Training, got {value!r}")


@dataclass(frozen=True, eq=False)
class Experiment:
    """An experiment on one question: its settings, how its frame is made and judged, and its figures.

    name      in lower case, with hyphens; the name of its file has underscores.
    settings  of the full run.
    quick     the settings that a quick run replaces.
    parts     cuts settings into the arguments of ``run_part``, one dictionary per part.
    run_part  makes the rows of one part. The rows depend only on its arguments.
    verdict   judges the whole frame under its settings: answers as ``contrasts.judged`` gives them.
    more      the further parts that precision asks for, given the rows so far and the settings; empty where they are
              enough. It sees widths, never effects. None: the first parts are all.
    figures   draws the whole frame: figures by their names, which are those of ``captions``.
    captions  say how to read each figure.
    version   0: the frame's key follows the sources. Else the experiment is *long*: its key follows the settings and
              this number, which is raised by hand when a change of any source changes the numbers.
    sample    of a long experiment: some of the parts, which are run again when a source has changed, to see that their
              rows are those of the frame.

    ``parts`` and ``run_part`` are defined at the top level of one module: other processes find ``run_part`` by its
    name, and the key of a frame follows the code of both, see ``frames.frame_key``.
    """

    name: str
    settings: Settings
    quick: Settings
    parts: Callable[[Settings], list[Settings]]
    run_part: Callable[..., pd.DataFrame]
    verdict: Callable[[pd.DataFrame, Settings], list[Judged]]
    figures: Callable[[pd.DataFrame], dict[str, Figure]]
    captions: Mapping[str, str]
    more: Callable[[pd.DataFrame, Settings], list[Settings]] | None = None
    version: int = 0
    sample: Callable[[Settings], list[Settings]] | None = None

    @property
    def is_long(self) -> bool:
        """Return whether only its name runs the experiment, or ``questions``; its frame stands as committed else."""
        return self.version > 0

    @property
    def needs(self) -> str:
        """Return in words what is needed to get the frame."""
        return f"needs a run of `gradlab figures {self.name}`; none has been committed"

    @property
    def module(self) -> str:
        """Return the full name of the module that makes and judges the frame."""
        return self.run_part.__module__

    @property
    def question(self) -> str:
        """The question in words, as the module opens with it."""
        return _question(self.module)


@dataclass(frozen=True, eq=False)
class Measurement:
    """Committed frames that no experiment here makes, such as times, and how they are judged and drawn.

    name      in lower case, with hyphens. The claims that the frames judge name it, see ``report.claims``.
    files     where the frames are kept, in the folder of the figures, by their names.
    command   makes them.
    verdict   judges the frames, by name: answers as an experiment's.
    figures   draws the frames, by name; None where nothing is drawn.
    captions  say how to read each figure.
    """

    name: str
    files: Mapping[str, str]
    command: str
    verdict: Callable[[Frames], list[Judged]]
    figures: Callable[[Frames], dict[str, Figure]] | None = None
    captions: Mapping[str, str] = field(default_factory=dict)

    @property
    def module(self) -> str:
        """Return the full name of the module that judges the frames."""
        return self.verdict.__module__

    @property
    def question(self) -> str:
        """The question in words, as the module opens with it."""
        return _question(self.module)

    @property
    def needs(self) -> str:
        """Return in words what is needed to get the frames."""
        return f"needs a measurement that `{self.command}` makes; none has been committed"

    def is_in(self, folder: Path) -> bool:
        """Return whether the frames can be judged: all are there, with their manifests, and none is of a quick run."""
        return len(self.there(folder)) == len(self.files)

    def is_whole(self, folder: Path) -> bool:
        """Return whether the figures can be drawn."""
        return self.is_in(folder)

    def there(self, folder: Path) -> dict[str, str]:
        """Return those of the files that are there, with their manifests, and not of a quick run."""
        paths = {name: folder / file for name, file in self.files.items()}
        return {
            name: self.files[name] for name, path in paths.items()
            if path.exists() and path.with_suffix(".json").exists() and not load_manifest(path).get("quick")
        }  # fmt: skip

    def places(self, folder: Path | None = None) -> list[str]:
        """Return where a reader finds the frames, in the folder of the figures; given that, those that are there."""
        return list((self.files if folder is None else self.there(folder)).values())

    def load(self, folder: Path) -> dict[str, pd.DataFrame]:
        """Load the frames that are there by their names; ValueError where one is damaged."""
        return {name: load_frame(folder / file)[0] for name, file in self.there(folder).items()}


@dataclass(frozen=True, eq=False, kw_only=True)
class Collected(Measurement):
    """A measurement of many runs whose frames are committed one by one.

    parts   names of the frames of each part, which is judged and drawn once all of them are there.

    ``verdict`` and ``figures`` are given the frames that are there. Until those of a statement are, ``verdict`` answers
    that it was not run, and says how many runs there are; ``figures`` shows the parts that are whole.
    """

    parts: tuple[tuple[str, ...], ...]

    @property
    def needs(self) -> str:
        """Return in words what is needed to get the frames."""
        return f"needs {sum(map(len, self.parts))} runs that `{self.command}` makes; none has been committed"

    def is_in(self, folder: Path) -> bool:
        """Return whether a frame is there."""
        return bool(self.there(folder))

    def places(self, folder: Path | None = None) -> list[str]:
        """Return the folders of the frames, which are many."""
        return sorted({str(Path(file).parent) for file in super().places(folder)})

    def is_whole(self, folder: Path) -> bool:
        """Return whether all frames of a part are there."""
        there = set(self.there(folder))
        return any(there.issuperset(part) for part in self.parts)


def _question(module: str) -> str:
    """Return the first paragraph of a module's docstring, in one line."""
    return (inspect.getdoc(sys.modules[module]) or "").split("\n\n")[0].replace("\n", " ")
