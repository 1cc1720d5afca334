"""The page of the engine's benchmark: its numbers as tables, whether targets are met, and what looks wrong."""

from __future__ import annotations

import math

import pandas as pd

from scripts.benchmarks.page_parts import heading, number
from scripts.benchmarks.page_parts import table as markdown
from scripts.benchmarks.timing import machine

WAYS = {
    "loop": "autograd loop", "eager": "eager `fit`", "jax": "JAX", "jax tuned": "JAX, tuned",
    "fit": "`fit` with the engine", "engine": "bare engine", "steps alone": "its steps alone",
}  # fmt: skip
DTYPES = ("float64", "float32")
ONE_RUN_MS = 8.0
SWEEP_NS = {"float64": 1.2, "float32": 0.6}
OVER_JAX = 5.0
MOST_SIGMOIDS = 6.0  # a slot and step, beyond which a kernel can hardly be vectorised any more
MOST_TORCH = 2.0  # the engine's sigmoid against PyTorch's


def page(table: pd.DataFrame, disagreement: dict[str, float] | None, shares: pd.Series, quick: bool) -> str:
    """Return the page, from the rows of engine.csv; shares are processor time over wall time by way."""
    table = with_steps_alone(table)
    parts = [
        heading("Speed of the engine", quick),
        _introduction(table),
        "## Targets\n\n" + targets(table),
        "## One run\n\n" + _one_run(table, disagreement),
        "## Sweeps\n\n" + _sweeps(table),
        "## The bound\n\n" + _bound(table, quick),
        "## Growth\n\n" + _growth(table),
        "## Threads and processes\n\n" + _workers(table),
        "## Memory\n\n" + _memory(table),
        "## The first training\n\n" + _starts(table),
        "## The figure\n\n" + CAPTION,
        _conditions(shares),
    ]
    return "\n\n".join(parts) + "\n"


def with_steps_alone(table: pd.DataFrame) -> pd.DataFrame:
    """Add the way ``steps alone``: the time of the engine for twice the steps, less its time for the steps."""
    keys = ["dtype", "loss"]
    if (table["way"] == "steps alone").any():
        return table
    once = table[(table["part"] == "one run") & (table["way"] == "engine")].set_index(keys)
    twice = table[table["part"] == "one run, twice the steps"].set_index(keys)
    alone = once.assign(way="steps alone")
    for clock in ("wall", "cpu"):
        seconds = twice[f"{clock}_seconds"] - once[f"{clock}_seconds"]
        alone[f"{clock}_seconds"] = seconds
        alone[f"{clock}_ns"] = seconds / (once["slots"] * once["steps"]) * 1e9
    alone = alone.drop(columns=[name for name in alone if str(name).startswith("times_as_fast")])
    return pd.concat([table, alone.reset_index()], ignore_index=True)


def lost_vectors(table: pd.DataFrame) -> list[str]:
    """Return one line for each kernel that seems to have lost its vectors.

    Judged by processor time, relative to a sigmoid measured in the same run: that needs to know neither the processor
    nor its assembly, nor how the engine works. With vectors of one number a kernel costs 13 (float64) to 23 (float32)
    sigmoids of whole vectors, and else about 2 to 4. The engine's sigmoid is in turn compared with PyTorch's, since all
    code of the engine could lose its vectors at once: then it takes 4 and 6 times as long, and else about half.
    """
    table = with_steps_alone(table)
    lines = []
    for dtype in DTYPES:
        sigmoid, other = (_value(table, "cpu_ns", way=way, dtype=dtype) for way in ("sigmoid", "torch.sigmoid"))
        if sigmoid > MOST_TORCH * other:
            lines.append(f"WARNING: the engine's sigmoid in {dtype} takes {sigmoid / other:.1f} times PyTorch's; "
                         "its code may have lost its vectors")  # fmt: skip
        kernels = _kernels(table, dtype)
        lines += [
            f"WARNING: the kernel of {row['loss']} in {dtype} may have lost its vectors: {row['cpu_ns']:.2f} ns a "
            f"slot and step ({row['runs']:.0f} runs), {row['cpu_ns'] / sigmoid:.1f} sigmoids"
            for row in kernels[kernels["cpu_ns"] > MOST_SIGMOIDS * sigmoid].to_dict("records")
        ]
    return lines


def _kernels(table: pd.DataFrame, dtype: str) -> pd.DataFrame:
    """Select the rows whose time is almost wholly that of the kernel."""
    large = (table["part"] == "sweep") & (table["way"] == "engine")
    return table[(large | (table["way"] == "steps alone")) & (table["dtype"] == dtype)]


def targets(table: pd.DataFrame) -> str:
    """Return one line per target: the measurement, and whether it meets the target."""
    columns = [(dtype, way) for dtype in DTYPES for way in ("fit", "engine")]
    rows = []
    for loss in table.loc[table["part"] == "one run", "loss"].unique():
        one = {"part": "one run", "loss": loss}
        cells = [_at_most(_value(table, "wall_seconds", **one, dtype=dtype, way=way) * 1e3, ONE_RUN_MS, "ms")
                 for dtype, way in columns]  # fmt: skip
        rows.append([f"one run of {loss}, {ONE_RUN_MS:g} ms", *cells])
    sweeps = [runs for runs in table.loc[table["part"] == "sweep", "runs"].unique() if runs >= 200]
    for runs in sweeps:
        cells = [_at_most(_value(table, "wall_ns", part="sweep", runs=runs, dtype=dtype, way=way), SWEEP_NS[dtype],
                          "ns") for dtype, way in columns]  # fmt: skip
        limits = " / ".join(f"{limit:g}" for limit in SWEEP_NS.values())
        rows.append([f"{runs:.0f} runs of bdpo, {limits} ns a slot and step", *cells])
    for other in ("jax", "jax_tuned"):
        for part, runs in (("one run", 1), ("sweep", 200)):
            cells = [_at_least(_value(table, f"times_as_fast_as_{other}", part=part, runs=runs, loss="bdpo",
                                      dtype=dtype, way=way), OVER_JAX) for dtype, way in columns]  # fmt: skip
            name = {"jax": "JAX", "jax_tuned": "tuned JAX"}[other]
            rows.append([f"{runs} run{'s' * (runs > 1)} of bdpo, {OVER_JAX:g} × as fast as {name}", *cells])
    head = ["target", *(f"{WAYS[way]}, {dtype}" for dtype, way in columns)]
    return markdown(head, rows) + "\n\nJudged by wall time. The comparison with tuned JAX was added, and is no target."


def _at_most(value: float, limit: float, unit: str) -> str:
    if math.isnan(value):
        return "not measured"
    return f"{value:.3g} {unit}: " + ("met" if value <= limit else f"**missed** by {value / limit - 1:.0%}")


def _at_least(value: float, limit: float) -> str:
    if math.isnan(value):
        return "not measured"
    return f"{value:.3g} ×: " + ("met" if value >= limit else f"**missed** by {1 - value / limit:.0%}")


def _introduction(table: pd.DataFrame) -> str:
    one = table[table["part"] == "one run"].iloc[0]
    return (
        f"One run is {one['prompts']:.0f} prompts × {one['responses']:.0f} responses and Adam on the exact expectation "
        "over all ordered pairs of responses.\nA *slot* is one of its 8,000 ordered pairs, the diagonal included. "
        "`fit` makes its data, trains, and records\nstart and end (`record=1`); the *bare engine* and JAX get arrays "
        "and give log π. Its *steps alone* are what\nas many steps more take. The *autograd loop* is what one would "
        "write by hand. *JAX* is jit, vmap and scan of the\nlosses as one would write them; *tuned*, it takes each "
        "unordered pair once, with −σ(−m) as the slope by hand, and\nhas responses first. Numbers are medians of wall "
        "time, interleaved, on one thread; ratios are taken within a round.\nProcessor times, and all rows, are in "
        "[engine.csv](engine.csv)."
    )


def _one_run(table: pd.DataFrame, disagreement: dict[str, float] | None) -> str:
    part = table[table["part"] == "one run"]
    rows = []
    for loss in part["loss"].unique():
        for way, name in WAYS.items():
            found = [_row(part, loss=loss, way=way, dtype=dtype) for dtype in DTYPES]
            if all(one is not None for one in found):
                cells = [cell for one in found if one is not None for cell in _one_run_cells(one)]
                rows.append([loss, name, *cells])
            elif way == "jax" and disagreement is None and loss != "nbdpo":
                rows.append([loss, name, "jax is not installed", *[""] * 7])
    head = ["loss", "way", *(f"{what}{dtype}" for dtype in DTYPES
                             for what in ("ms, ", "processor ms, ", "ns a slot and step, ", "× loop, "))]  # fmt: skip
    said = f"{part['steps'].iloc[0]:.0f} steps.\n\n" + markdown(head, rows)
    if disagreement:
        gaps = " and ".join(f"{gap:.1g} in {dtype}" for dtype, gap in disagreement.items())
        said += f"\n\nJAX's final probabilities differ from those of eager `fit` in float64 by at most {gaps}."
    return said


def _one_run_cells(row: pd.Series) -> list[str]:
    return [number(row["wall_seconds"] * 1e3), number(row["cpu_seconds"] * 1e3), number(row["wall_ns"]),
            number(row["times_as_fast_as_loop"])]  # fmt: skip


def _sweeps(table: pd.DataFrame) -> str:
    part = table[table["part"] == "sweep"]
    measures = ("wall_ns", "times_as_fast_as_eager", "times_as_fast_as_jax")
    rows = []
    for runs in part["runs"].unique():
        for way, name in WAYS.items():
            found = [_row(part, runs=runs, way=way, dtype=dtype) for dtype in DTYPES]
            if all(one is not None for one in found):
                cells = [number(one[measure]) for one in found if one is not None for measure in measures]
                rows.append([f"{runs:.0f}", f"{_value(part, 'steps', runs=runs):.0f}", name, *cells])
    if not (part["way"] == "jax").any():
        rows.append(["", "", "JAX", "jax is not installed", *[""] * 5])
    head = ["runs", "steps", "way", *(f"{what}{dtype}" for dtype in DTYPES
                                      for what in ("ns a slot and step, ", "× eager, ", "× JAX, "))]  # fmt: skip
    return "Balanced-DPO.\n\n" + markdown(head, rows)


def _bound(table: pd.DataFrame, quick: bool) -> str:
    sweep = table[(table["part"] == "sweep") & (table["way"] == "engine")]
    runs = sweep["runs"].max()
    responses = sweep["responses"].iloc[0]
    rows = []
    for dtype in DTYPES:
        sigmoid, other = (_value(table, "wall_ns", way=way, dtype=dtype) for way in ("sigmoid", "torch.sigmoid"))
        ordered, unordered = (sigmoid * (1 - 1 / responses) / share for share in (1, 2))
        reached = _value(sweep, "wall_ns", runs=runs, dtype=dtype)
        numbers = (sigmoid, other, unordered, ordered, reached, reached / unordered)
        rows.append([dtype, *map(number, numbers)])
    head = ["dtype", "ns a sigmoid", "torch.sigmoid", "one an unordered pair: ns a slot", "one an ordered pair",
            f"engine, {runs:.0f} runs of bdpo", "engine over one an unordered pair"]  # fmt: skip
    fine = (
        f"Vectorisation: no kernel takes more than {MOST_SIGMOIDS:g} sigmoids a slot and step, nor its sigmoid "
        f"more than {MOST_TORCH:g} of PyTorch's."
    )
    check = "Vectorisation is not judged." if quick else "\n".join(lost_vectors(table)) or fine
    return (
        "No exact training with a logistic loss can do with less than one sigmoid an unordered pair. Measured with "
        "the engine's own\nsigmoid, on an array in the first cache, and with `torch.sigmoid`.\n\n"
        + markdown(head, rows) + "\n\n" + check
    )  # fmt: skip


def _growth(table: pd.DataFrame) -> str:
    rows = []
    for what in ("responses", "prompts", "runs"):
        part = table[table["part"] == what]
        for size in part[what].unique():
            found = [_value(part, "wall_ns", **{what: size, "dtype": dtype}) for dtype in DTYPES]
            steps = _value(part, "steps", **{what: size})
            rows.append([what, f"{size:.0f}", f"{steps:.0f}", *map(number, found)])
    head = ["what grows", "to", "steps", *(f"ns a slot and step, {dtype}" for dtype in DTYPES)]
    return (
        "The bare engine on Balanced-DPO; one size grows, the others are 1 run, 20 prompts, 20 responses.\n\n"
        + markdown(head, rows)
    )


def _workers(table: pd.DataFrame) -> str:
    rows = []
    for what in ("threads", "processes"):
        part = table[table["part"] == what]
        for workers in part["workers"].unique():
            found = [_value(part, "wall_ns", workers=workers, dtype=dtype) for dtype in DTYPES]
            alone = [_value(part, "wall_ns", workers=1, dtype=dtype) for dtype in DTYPES]
            cells = [number(cell) for ns, one in zip(found, alone, strict=True) for cell in (ns, one / ns)]
            rows.append([what, f"{workers:.0f}", *cells])
    head = ["", "workers", *(f"{what}{dtype}" for dtype in DTYPES for what in ("ns a slot and step, ", "× one, "))]
    one = table[table["part"] == "threads"].iloc[0]
    return (
        f"Each worker trains {one['runs']:.0f} runs of Balanced-DPO for {one['steps']:.0f} steps with the bare engine; "
        "time over the slots of all.\n\n" + markdown(head, rows)
    )


def _memory(table: pd.DataFrame) -> str:
    part = table[table["part"] == "memory"]
    rows = [
        [f"{runs:.0f}", *(number(_value(part, "peak_mb", runs=runs, way=way)) for way in ("eager", "fit"))]
        for runs in part["runs"].unique()
    ]
    head = ["runs", "eager `fit`, MB", "`fit` with the engine, MB"]
    return (
        "Peak of a process of its own that trains Balanced-DPO in float64, beyond the "
        f"{part['imports_mb'].max():.0f} MB that the imports take,\nllvmlite included.\n\n" + markdown(head, rows)
    )


def _starts(table: pd.DataFrame) -> str:
    rows = []
    for way, name in (("fit", "`fit` with the engine"), ("jax", "JAX")):
        for dtype in DTYPES:
            cold, warm = (_value(table, "wall_seconds", part=f"{kind} start", way=way, dtype=dtype)
                          for kind in ("cold", "warm"))  # fmt: skip
            if not math.isnan(cold):
                rows.append([name, dtype, number(cold), number(warm)])
    head = ["way", "dtype", "nothing on disk, s", "kernel on disk, s"]
    return (
        "Seconds that the first training of a fresh process takes beyond the second: the engine's imports and the "
        "kernel.\nImporting PyTorch, gradlab and JAX is not in it.\n\n" + markdown(head, rows)
    )


CAPTION = """![Time of the engine beside other ways, its growth, and its memory](engine.png)

How to read it: top left, each mark is a loss in one way of training one run; full marks are float64, hollow ones
float32, and the dashed line is the target. Beside it, time a slot and step against the number of runs trained together,
a line a way, one precision a panel; further down is faster, the scale is logarithmic, and a flat line means that cost
grows in proportion to the work. The dashed line is the target, the dotted one the bound, here and below: one sigmoid
an unordered pair, at 20 responses.
Below, the same time for the bare engine as responses, prompts (left) or runs (middle) grow, on a linear scale; it is
higher where the columns, runs × prompts, do not fill the lanes of the vectors, and at the left end, where the cost of a
call is spread over little work. Bottom right, peak memory of `fit` beyond its imports."""


def _conditions(shares: pd.Series) -> str:
    measured = ", ".join(f"{way} {share:.2f}" for way, share in shares.items())
    return f"Processor time over wall time, where 1 is a processor of one's own: {measured}.\n\n" + machine(
        ("gradlab", "torch", "numpy", "llvmlite", "jax")
    )


def _row(table: pd.DataFrame, **wanted: object) -> pd.Series | None:
    """Return the first row with these values, or None."""
    for name, value in wanted.items():
        table = table[table[name] == value]
    return None if table.empty else table.iloc[0]


def _value(table: pd.DataFrame, column: str, **wanted: object) -> float:
    """Return one number of the first row with these values; NaN where there is no such row."""
    row = _row(table, **wanted)
    return math.nan if row is None else float(row[column])
