"""The log of a language model's preference training: its columns, an appender, and a reader that also knows TRL's."""

from __future__ import annotations

import csv
import json
import math
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.checks import count, one_of
from gradlab.store.json_lines import append_line, keep_lines, read_lines, start_lines

FORMAT = 1
HEADER = "gradlab_training_log"  # key of the first line, whose value is the format

# Columns about the responses that PPO samples in a step.
PPO_COLUMNS: dict[str, str] = {
    "reward": "mean reward of sampled responses, without penalty (the reward's own unit)",
    "reward_deviation": "mean over prompts of the rewards' standard deviation: without it nothing is learned",
    "kl": "mean log π/π_ref of the sampled responses, an estimate of KL(π‖π_ref) (nats)",
    "response_length": "mean tokens of the sampled responses",
    "finished": "share of sampled responses that end by themselves",
    "clip_share": "share of sampled responses whose gradient the clip has set to 0",
}
# The columns that a log may have for each step, about the pairs of that step's batch and before its update. Means are
# over pairs, logarithms natural. After "validation_" a name stands for the value on held-out pairs.
COLUMNS: dict[str, str] = {
    "step": "the optimiser's step, from 1",
    "loss": "mean loss (nats where the loss is logistic); of PPO −(reward − β kl), which it minimises",
    "reward_win": "mean implicit reward β h_w of the winners (nats)",
    "reward_lose": "mean implicit reward β h_l of the losers (nats)",
    "reward_margin": "mean of β (h_w − h_l) (nats)",
    "margin": "mean of m, which stands inside log σ; DPO's is the reward margin (nats)",
    "accuracy": "share of pairs with h_w > h_l",
    "logp_win": "mean log π(y_w|x), summed over tokens (nats)",
    "logp_lose": "mean log π(y_l|x), summed over tokens (nats)",
    "win_weight": "mean λ_w: the winner's share in |∂m/∂log π_w| + |∂m/∂log π_l|; ½ for DPO",
    "win_weight_q10": "the batch's 10% quantile of λ_w",
    "win_weight_q50": "its median",
    "win_weight_q90": "its 90% quantile",
    "win_weight_length_correlation": "Pearson correlation of λ_w with the winner's share L_w/(L_w + L_l) of tokens; "
    "absent where λ_w does not vary",
    "slope_win": "mean of each pair's own ∂L/∂log π_w",
    "slope_lose": "mean of each pair's own ∂L/∂log π_l",
    "log_prob_ratio": "mean of log(|∂L/∂π_w| / |∂L/∂π_l|) (nats)",
    "grad_norm_win": "‖g_w‖: gradient of the mean loss in the parameters, through the winners only; of PPO "
    "through samples above their prompt's mean",
    "grad_norm_lose": "‖g_l‖: the same through the losers only; of PPO through the other samples",
    "grad_cosine": "cosine of g_w and g_l",
    "grad_split_error": "‖g − g_w − g_l‖ / ‖g‖, with g from one backward pass through both sides: rounding",
    "grad_norm": "‖g‖, g = g_w + g_l, before any clipping",
    "delta_win": "mean change of log π(y_w|x) of the batch's winners in this step (nats)",
    "delta_lose": "mean change of log π(y_l|x) of its losers; the sides of PPO are those of its gradient",
    "learning_rate": "the optimiser's learning rate",
    **PPO_COLUMNS,
}
# The names that TRL's DPO trainer writes; step has other names at W&B.
_FROM_TRL = {
    "rewards/chosen": "reward_win", "rewards/rejected": "reward_lose", "rewards/margins": "reward_margin",
    "rewards/accuracies": "accuracy", "logps/chosen": "logp_win", "logps/rejected": "logp_lose",
}  # fmt: skip
# Losses by the names that TRL has for them: the registry's name, or the facts themselves.
TRL_LOSSES: dict[str, Any] = {
    "sigmoid": "dpo",
    "hinge": {"logistic": False, "start_value": 1.0, "weight_range": [0.5, 0.5], "constant_weight": True},
}
_STEPS = ("step", "global_step", "_step")  # the first that is there counts
Rows = list[tuple[str, dict[str, Any]]]  # each with its place in the file
ACCEPTED = (
    "a training log is gradlab's JSON lines, TRL's trainer_state.json, or rows with a step as CSV, JSON or JSON lines"
)


def start_log(path: Path | str, settings: Mapping[str, Any]) -> None:
    """Begin a log with its header line; FileExistsError where there is one already (see ``keep_steps``)."""
    start_lines(path, {HEADER: FORMAT, "settings": dict(settings)})


def append_step(path: Path | str, step: int, **values: float) -> None:
    """Append the line of a step, whole. ValueError for a name that is not in ``COLUMNS``, validation_ aside."""
    for name in values:
        one_of("column of a training log", name.removeprefix("validation_"), COLUMNS)
    append_line(path, {"step": count("step", step), **{name: float(value) for name, value in values.items()}})


def keep_steps(path: Path | str, last: int) -> None:
    """Drop all lines after step ``last``, from which a killed run resumes."""
    lines, _ = read_lines(path, ACCEPTED)
    later = [number for number, row in lines if row.get("step", 0) > last]
    if later:
        keep_lines(path, min(later) - 1)


def read_log(path: Path | str) -> pd.DataFrame:
    """Read a training log as a frame with one row per step, in order, and gradlab's names; other columns are kept.

    It recognises gradlab's JSON lines, TRL's trainer_state.json, and its exports as CSV, JSON or JSON lines, also with
    the prefixes ``train/`` and ``eval/`` of Weights & Biases. Lines of one step are joined; the later one wins.

    ``attrs`` of the frame: ``settings`` of the run where the log has them; ``not_finite``, by column the place in the
    file of the first number that is not finite; and ``notes``, a list of what is to be said about the file, such as a
    last line that was cut short, ``not_finite`` included.

    ValueError or OSError with one line that names the file, the place and the fault.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path} is no file; {ACCEPTED}")
    read = {".csv": _csv_rows, ".json": _json_rows}.get(path.suffix.lower(), _json_lines)
    settings: dict[str, Any] = {}
    notes: list[str] = []
    rows = read(path, settings, notes)
    names = _gradlab_names({name for _, row in rows for name in row}, path)
    checked = [(place, _checked(row, names, f"{path}, {place}")) for place, row in rows]
    kept = [row for _, row in checked if "step" in row]
    if not kept:
        raise ValueError(f"{path} has no step; {ACCEPTED}")
    not_finite = _not_finite(checked)
    notes += not_finite_notes(not_finite)
    if len(kept) < len(rows):
        notes.append(f"{len(rows) - len(kept)} rows without a step are left out")
    frame = pd.DataFrame(kept).groupby("step", as_index=False, sort=True).last()
    frame.attrs = {"settings": settings, "notes": notes, "not_finite": not_finite}
    return frame


def not_finite_notes(not_finite: Mapping[str, str]) -> list[str]:
    """Return the notes of ``read_log`` on columns that are not finite: one per column, with the place in the file."""
    return [f"{name} is not finite, first at {place}" for name, place in not_finite.items()]


def positive_number(value: Any) -> float | None:
    """Return a number of a file's settings that is finite and > 0; None for anything else."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    return float(value) if 0 < value < sys.float_info.max else None


def is_known(name: str) -> bool:
    """Return whether a column is one of ``COLUMNS``, by itself or after validation_."""
    return name.removeprefix("validation_") in COLUMNS


def smoothed(log: pd.DataFrame, share: float) -> pd.DataFrame:
    """Return the running mean of columns of a log: with each row of the log a value's weight shrinks by ``share``.

    The weights are normalised, so that the first values are not drawn to 0; ``share`` 0 gives the values themselves.
    What is absent or not finite stays out, and is NaN in the result, but counts as a row: columns that are logged now
    and then keep pace with the others.
    """
    there = log.abs() < math.inf
    return log.where(there).ewm(alpha=1 - share, ignore_na=False).mean().where(there)


def _json_lines(path: Path, settings: dict[str, Any], notes: list[str]) -> Rows:
    lines, torn = read_lines(path, ACCEPTED)
    if torn:
        notes.append(f"line {lines[-1][0] + 1 if lines else 1} was cut short, as by a killed run, and is left out")
    if lines and HEADER in lines[0][1]:
        header = lines.pop(0)[1]
        if header[HEADER] != FORMAT:
            raise ValueError(f"{path} has format {header[HEADER]!r}; this version of gradlab reads format {FORMAT}")
        recorded = header.get("settings", {})
        if not isinstance(recorded, dict):
            raise ValueError(f"{path}, line 1: settings must be an object, got {recorded!r}")
        settings.update(recorded)
    return [(f"line {number}", row) for number, row in lines]


def _json_rows(path: Path, settings: dict[str, Any], notes: list[str]) -> Rows:
    """Return the rows of TRL's trainer_state.json, or of a list."""
    try:
        whole = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged, or no JSON ({error}); {ACCEPTED}") from None
    rows = whole.get("log_history") if isinstance(whole, dict) else whole
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError(f"{path} has no list of rows, as trainer_state.json has in log_history; {ACCEPTED}")
    return [(f"row {number}", row) for number, row in enumerate(rows, 1)]


def _csv_rows(path: Path, settings: dict[str, Any], notes: list[str]) -> Rows:
    try:
        with open(path, newline="", encoding="utf-8-sig") as text:
            table = csv.DictReader(text, strict=True)
            rows = [(f"line {table.line_num}", row) for row in table]
            names = table.fieldnames or []
    except (ValueError, csv.Error) as error:
        raise ValueError(f"{path} is damaged, or no CSV ({error}); {ACCEPTED}") from None
    if len(set(names)) < len(names):
        raise ValueError(f"{path} has a column more than once: {', '.join(names)}; {ACCEPTED}")
    for place, row in rows:
        if None in row:
            raise ValueError(f"{path}, {place}, has more fields than the first line; {ACCEPTED}")
    if rows and None in rows[-1][1].values():
        notes.append(f"{rows.pop()[0]} was cut short and is left out")
    return rows


def _gradlab_names(columns: Iterable[str], path: Path) -> dict[str, str]:
    """Return gradlab's name of each column, by the name in the file."""
    names = {
        name: gradlab_name(name) for name in sorted(columns) if not name.endswith(("__MIN", "__MAX"))
    }  # W&B's bands
    step = next((name for name in _STEPS if name in names.values()), None)
    names = {old: "step" if new == step else new for old, new in names.items()}
    for name in names.values():
        same = [old for old, new in names.items() if new == name]
        if len(same) > 1:
            raise ValueError(
                f"{path} has {name} more than once, as {' and '.join(same)}; give one run, and one of each"
            )
    return names


def gradlab_name(name: str) -> str:
    """Return gradlab's name of a column that TRL, Weights & Biases or a model card writes; any other name as it is."""
    plain = name.rpartition(" - ")[2]  # W&B's charts put the name of the run and a dash before it
    plain = plain.lower() if plain.lower() in (*_STEPS, *_FROM_TRL) else plain  # model cards write capitals
    for prefix, kept in (("train/", ""), ("eval/", "validation_"), ("eval_", "validation_"), ("", "")):
        rest = plain.removeprefix(prefix)
        known = _FROM_TRL.get(rest, rest)
        if plain.startswith(prefix) and (known in _STEPS or is_known(known)):
            return known if known in _STEPS else kept + known
    return name


def _checked(row: Mapping[str, Any], names: Mapping[str, str], place: str) -> dict[str, Any]:
    """Return a row with gradlab's names and with numbers, without empty fields."""
    renamed = ((names[old], value) for old, value in row.items() if old in names and value is not None and value != "")
    return {name: _number(name, value, place) for name, value in renamed}


def _not_finite(rows: Rows) -> dict[str, str]:
    """Return, by column, the place of its first number that is not finite."""
    places: dict[str, str] = {}
    for place, row in rows:
        for name, value in row.items():
            if isinstance(value, float) and not math.isfinite(value):
                places.setdefault(name, place)
    return places


def _number(name: str, value: Any, place: str) -> Any:
    """Return the value of a column that gradlab knows as a number; other columns may hold anything."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if not is_known(name):
        return number if isinstance(value, str) and number is not None else value
    if number is None or isinstance(value, bool):
        raise ValueError(f"{place}: {name} must be a number, got {value!r}")
    if name != "step":
        return number
    if not 0 <= number < 2**53 or number % 1:
        raise ValueError(f"{place}: step must be a whole number ≥ 0, got {value!r}")
    return int(number)
