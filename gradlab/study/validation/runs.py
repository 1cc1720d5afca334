"""Run all simulations in parts that are kept, and put what they found into three small frames."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from gradlab.store.artifacts import load_frame, save_frame
from gradlab.store.pool import Part, run_parts
from gradlab.store.provenance import fingerprint
from gradlab.study.validation import turning as turnings
from gradlab.study.validation.settings import VERSION, Case, Settings, Turning
from gradlab.study.validation.trials import STUDY, promised, trials

FOLDER = "study"  # of the frames, in the folder of the figures
AT_ONCE = 50  # simulations of a part
COUNTED = ("beyond", "careless", "caught", "careful")
COMMAND = "gradlab study validate"


@dataclass(frozen=True)
class Found:
    """The findings of the simulations in three frames.

    intervals  a row per case and kind of interval: ``case``, ``kind``, ``simulations``, ``covered`` (how many hold the
               truth), the means of ``estimate``, ``truth`` and ``half_width``, and ``spread`` of the estimate.
    verdicts   a row per case: ``simulations``; in how many of them the interval lay ``beyond`` the margin; numbers of
               ``careless`` raters, ``caught`` ones and ``careful`` ones who were left out; ``word NAME`` and
               ``warned NAME``, how many studies had them; ``promised`` power (NaN: not asked) by ``promises``
               simulations.
    turnings   a row per simulated study: ``turning``, ``leaning``, ``number``, ``rate``, ``equal``, ``slope``; and the
               ``formula``'s and the ``predicted`` leaning, the number of ``items``, and the ``expected`` rate.
    """

    intervals: pd.DataFrame
    verdicts: pd.DataFrame
    turnings: pd.DataFrame


NAMES = {"intervals": "validation", "verdicts": "verdicts", "turnings": "turning"}


def validate(figures: Path, out: Path, settings: Settings, workers: int | None = None) -> Found:
    """Run what is missing, and return what all simulations found.

    figures  the folder with the samples of known reward. out: the folder of the parts. The number of ``workers``
             changes no bit.
    """
    parts = {case.name: _parts_of(case, out, settings) for case in settings.cases}
    run_parts(trials, [part for of in parts.values() for part in of], label="studies", unit="study", workers=workers)
    asked = {case.name: _promise_of(case, out, settings) for case in settings.cases if case.promised}
    run_parts(promised, list(asked.values()), label="power", unit="promise", workers=workers)
    turned = {one.name: _turns_of(one, figures, out, settings) for one in settings.turnings}
    of_turnings = [part for of in turned.values() for part in of]
    run_parts(turnings.turning_trials, of_turnings, label="length bias", unit="study", workers=workers)
    frames = {name: pd.concat([load_frame(part.file)[0] for part in of]) for name, of in parts.items()}
    promises = {name: load_frame(part.file)[0].iloc[0] for name, part in asked.items()}
    return Found(
        pd.concat([_intervals(frame) for frame in frames.values()], ignore_index=True),
        _counts([_verdicts(frame, promises.get(name)) for name, frame in frames.items()]),
        _turned(turned, figures, settings),
    )


def save(found: Found, figures: Path, settings: Settings) -> list[Path]:
    """Keep the frames in the folder of the figures; return their paths."""
    manifest = {"key": key_of(settings), "version": VERSION, "settings": as_page(settings), "command": COMMAND}
    return [
        save_frame(getattr(found, name), figures / FOLDER / f"{file}.parquet", manifest, overwrite=True)
        for name, file in NAMES.items()
    ]


def load(figures: Path) -> tuple[Found, dict[str, Any]]:
    """Return the frames in the folder of the figures, and the manifest; errors as in ``load_frame``."""
    read = {name: load_frame(figures / FOLDER / f"{file}.parquet") for name, file in NAMES.items()}
    return Found(**{name: frame for name, (frame, _) in read.items()}), read["intervals"][1]


def as_page(settings: Settings) -> dict[str, Any]:
    """Return settings as plain data."""
    return dataclasses.asdict(settings)


def key_of(settings: Settings) -> str:
    """Return the key of all that the frames depend on besides the samples."""
    return fingerprint(VERSION, as_page(settings))


def _parts_of(case: Case, out: Path, settings: Settings) -> list[Part]:
    total = settings.number(case.simulations)
    parts = []
    for first in range(0, total, AT_ONCE):
        number = min(AT_ONCE, total - first)
        arguments = {"case": case, "first": first, "number": number, "per_study": settings.per_study,
                     "seed": settings.seed}  # fmt: skip
        key = fingerprint(VERSION, _drawn_by(case), first, number, settings.per_study, settings.seed)
        parts.append(Part(arguments, out / f"{_file(case.name)}-{first:04d}.parquet", key, number))
    return parts


def _promise_of(case: Case, out: Path, settings: Settings) -> Part:
    arguments = {"case": case, "simulations": settings.promises, "seed": settings.seed}
    key = fingerprint(VERSION, _drawn_by(case), settings.promises, settings.seed)
    return Part(arguments, out / f"power-{_file(case.name)}.parquet", key)


def _drawn_by(case: Case) -> dict[str, Any]:
    """Return what a case's numbers depend on: not how many there are, nor what counts as right."""
    left_out = {"simulations", "right", "wrong", "covers", "promised"}
    return {name: value for name, value in dataclasses.asdict(case).items() if name not in left_out}


def _turns_of(one: Turning, figures: Path, out: Path, settings: Settings) -> list[Part]:
    samples = turnings.samples_of(one, figures)
    if samples is None:
        return []
    number = settings.number(one.simulations)
    held = fingerprint(samples.frame.to_dict("records"))
    parts = []
    for place, leaning in enumerate(turnings.leanings(one, samples)):
        arguments = {"turning": one, "figures": figures, "leaning": float(leaning), "number": number,
                     "per_study": settings.per_study, "seed": settings.seed}  # fmt: skip
        key = fingerprint(VERSION, dataclasses.asdict(one), held, number, settings.per_study, settings.seed)
        parts.append(Part(arguments, out / f"turning-{_file(one.name)}-{place}.parquet", key, number))
    return parts


def _file(name: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in name)


def _intervals(frame: pd.DataFrame) -> pd.DataFrame:
    of = frame[frame["kind"] != STUDY]
    of = of.assign(
        covered=(of["low"] <= of["truth"]) & (of["truth"] <= of["high"]), half_width=(of["high"] - of["low"]) / 2
    )
    table = of.groupby(["case", "kind"], sort=False).agg(
        simulations=("number", "size"), covered=("covered", "sum"), estimate=("estimate", "mean"),
        truth=("truth", "mean"), half_width=("half_width", "mean"), spread=("estimate", "std"),
    )  # fmt: skip
    return table.reset_index()


def _verdicts(frame: pd.DataFrame, promise: Any) -> dict[str, Any]:
    of = frame[frame["kind"] == STUDY]
    names = pd.Series([name for said in of["warned"] for name in str(said).split()], dtype=object)
    return {
        "case": of["case"].iloc[0], "simulations": len(of), **{name: float(of[name].sum()) for name in COUNTED},
        **{f"word {word}": int(number) for word, number in of["word"].value_counts().items()},
        **{f"warned {name}": int(number) for name, number in names.value_counts().items()},
        **({} if promise is None else {
            "promised": float(promise["power"]), "promises": float(promise["simulations"]),
        }),
    }  # fmt: skip


def _counts(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """Return the rows as a frame: a word or caution that a case never had counts 0, an open promise is NaN."""
    frame = pd.DataFrame(rows)
    counted = [name for name in frame if str(name).startswith(("word ", "warned "))]
    return frame.assign(**{str(name): frame[name].fillna(0).astype(int) for name in counted})


def _turned(parts: dict[str, list[Part]], figures: Path, settings: Settings) -> pd.DataFrame:
    """Return the simulated studies of every turning whose samples are there."""
    frames = []
    for one in settings.turnings:
        samples = turnings.samples_of(one, figures)
        if samples is None or not parts[one.name]:
            continue
        frame = pd.concat([load_frame(part.file)[0] for part in parts[one.name]], ignore_index=True)
        rates = {leaning: turnings.expected_rate(one, samples, leaning) for leaning in frame["leaning"].unique()}
        frames.append(frame.assign(
            formula=turnings.formula(one, samples), predicted=turnings.predicted(one, samples),
            items=len(samples.frame),
            expected=[rates[leaning] for leaning in frame["leaning"]],
        ))  # fmt: skip
    columns = ["turning", "leaning", "number", "rate", "equal", "slope", "formula", "predicted", "items", "expected"]
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame(columns=columns)
