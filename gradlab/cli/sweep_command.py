"""Train every run that a TOML file asks for, in parallel, streamed to disk; a stopped sweep goes on where it was.

A key of the file is an argument of gaussian_world, of a loss or of Training, with a value or a list of values;
README.md shows a file. A loss of your own is FILE.py:CLASS or MODULE:CLASS there. In place of a file: questions, which
are the experiments on the paper's open questions, or one of them by its name.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from gradlab.checks import output_folder
from gradlab.cli.options import OPTIONAL, need, parsed
from gradlab.console import one_line, say

if TYPE_CHECKING:
    from distributed import Client


@dataclasses.dataclass(frozen=True)
class SweepCommand:
    """The options of ``gradlab sweep``."""

    file: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE.toml|NAME")]
    """The file that describes the runs; or questions, or the name of one of these experiments."""
    folder: Annotated[Path | None, OPTIONAL] = None
    """The folder of the results, in runs.parquet. Left out: beside the file, under its name without .toml. Of
    experiments the folder of the figures; left out: figures."""
    status: bool = False
    """Only say how far the sweep is; also while it runs elsewhere."""
    workers: Annotated[int | None, OPTIONAL] = None
    """Processes; left out: one per core. The results do not depend on it."""
    scheduler: Annotated[str | None, OPTIONAL] = None
    """Address of a dask scheduler, such as tcp://localhost:8786: its workers do the work."""
    fresh: bool = False
    """Start again, and delete the results of this sweep or another in the folder."""

    def run(self) -> int:
        """Train, unless only the state is asked for; print the state."""
        if self.file.suffix != ".toml":
            return self._run_experiments()
        from gradlab.sweeps.settings_frame import read_settings
        from gradlab.sweeps.sweep import run_sweep, sweep_status

        folder = self.folder or self.file.with_suffix("")
        if not self.status:
            settings = read_settings(self.file)
            with self._backend():
                say(f"saved: {run_sweep(settings, folder, workers=self.workers, fresh=self.fresh)}")
        say(sweep_status(folder))
        return 0

    def _run_experiments(self) -> int:
        """Run the experiments of this name and draw their figures, unless only the state is asked for; print that."""
        from gradlab.experiments import EXPERIMENTS, frames, long_experiments, make

        name, long = str(self.file), long_experiments()
        if name not in (make.QUESTIONS, *long):
            known = ", ".join((make.QUESTIONS, *long))
            raise ValueError(f"file must end in .toml, or be one of {known}, got {name!r}")
        folder = output_folder("folder", self.folder or Path("figures"))
        if not self.status:
            with self._backend():
                make.make_frames([name], folder=folder, fresh=self.fresh, workers=self.workers)
            make.make_figures([name], folder=folder, workers=self.workers)  # pictures are written here, not by workers
        for one in long if name == make.QUESTIONS else [name]:
            say(frames.progress(EXPERIMENTS[one], folder / "data"))
        return 0

    @contextlib.contextmanager
    def _backend(self) -> Iterator[None]:
        """Let joblib use its processes inside, or those of a dask scheduler."""
        from joblib import effective_n_jobs, parallel_config

        if self.scheduler is None:
            yield
            return
        need("dask", "distributed")
        with _client(self.scheduler) as client, parallel_config(backend="dask", client=client):
            if effective_n_jobs(-1) < 2:
                raise ValueError(f"scheduler must have two worker threads or more, {self.scheduler!r} has less")
            yield


def _client(address: str) -> Client:
    """Connect to a dask scheduler, as dask is configured; an address or a configuration at fault is one line."""
    from distributed import Client

    try:
        asyncio.run(_reach(address))  # a client that fails to connect would keep the process for a minute at its end
        return Client(address, set_as_default=False)
    except (TypeError, ValueError, RuntimeError) as error:
        wanted = "the address of a dask scheduler, such as tcp://localhost:8786, that dask's configuration allows"
        raise ValueError(f"scheduler must be {wanted}, got {address!r}: {one_line(error)}") from error


async def _reach(address: str) -> None:
    """Connect to an address once, as a client would, and leave."""
    from distributed.comm.core import connect
    from distributed.security import Security

    comm = await connect(address, **Security().get_connection_args("client"))
    await comm.close()


def run(arguments: Sequence[str]) -> int:
    """Do what the arguments say; return the exit status."""
    return parsed(SweepCommand, "sweep", __doc__, arguments).run()
