"""A command on a dask cluster of this machine, for ``test_dask.py``; in a process of its own, as dask's threads stay.

python on_dask.py WORKERS pids FOLDER         which processes did four parts, with this one's first
python on_dask.py WORKERS sweep FILE …        gradlab sweep, with --scheduler; FILE may be the long experiment for tests
"""

import os
import sys
from pathlib import Path

import joblib
import pandas as pd
from distributed import LocalCluster
from long_experiment import EXPERIMENT

from gradlab import cli
from gradlab.experiments import EXPERIMENTS
from gradlab.store.artifacts import load_frame
from gradlab.store.pool import Part, run_parts


def pid(number):
    return pd.DataFrame({"number": [number], "pid": [os.getpid()]})


def pids(folder, address):
    parts = [Part({"number": n}, Path(folder, f"{n}.parquet"), "key") for n in range(4)]
    with joblib.parallel_config(backend="dask", scheduler_host=address):
        run_parts(pid, parts, label="pids", workers=1, progress=False)
    print(os.getpid(), *(load_frame(part.file)[0]["pid"].item() for part in parts))
    return 0


def main(workers, command, *more):
    with LocalCluster(n_workers=int(workers), threads_per_worker=1, dashboard_address=None) as cluster:
        if command == "pids":
            return pids(*more, cluster.scheduler_address)
        EXPERIMENTS[EXPERIMENT.name] = EXPERIMENT
        return cli.main([command, *more, "--scheduler", cluster.scheduler_address])


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
