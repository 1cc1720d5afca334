"""The frames of the atlas: made method by method, resumed, completed when a loss is new, and checked by a sample.

They are long frames: what they depend on are the settings, the losses' numbers and ``atlas_runs.VERSION``, which is
raised by hand, and not the sources. So an edit of the engine does not cost ten minutes; instead a sample is trained
again whenever a source has changed, and compared with the committed rows.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from gradlab.experiments import samples
from gradlab.experiments.experiment import Settings, plain
from gradlab.experiments.questions import atlas_band, atlas_runs, atlas_worlds
from gradlab.experiments.questions.atlas_runs import BASE, ENDPOINTS, KEYS, MATCHED, VALUES, VERSION, Method
from gradlab.experiments.questions.atlas_worlds import WORLD
from gradlab.store.artifacts import load_frame, load_manifest, make_way, remove_frames, save_frame
from gradlab.store.files import remove_leftovers
from gradlab.store.pool import Part, run_parts
from gradlab.store.provenance import code_key, fingerprint

FILES = {
    "ends": "data/atlas.parquet", "levels": "data/atlas-levels.parquet", "band": "data/atlas-band.parquet",
    "worlds": "data/atlas-worlds.parquet",
}  # fmt: skip
ENDS = [*KEYS, *ENDPOINTS, "settled"]
LEVELS = ["loss", "preset", "reference", "policy", "how", "kl", "seed", *VALUES]
BAND = ["loss", "preset", "policy", "pairs", "seed", "inside", "inside_kept", "outside", "outside_kept"]
WORLDS = ["loss", "preset", *WORLD, "seed", "beta", "kl", *atlas_worlds.VALUES]
COMMAND = "make atlas"
SAMPLED = 2  # seeds


def settings_of(quick: bool) -> dict[str, Settings]:
    """Return the settings of the runs, of the band and of the drawn worlds, of a full or of a quick run."""
    return {
        "runs": {**atlas_runs.SETTINGS, **(atlas_runs.QUICK if quick else {})},
        "band": {**atlas_band.SETTINGS, **(atlas_band.QUICK if quick else {})},
        "worlds": {**atlas_worlds.SETTINGS, **(atlas_worlds.QUICK if quick else {})},
    }


def key_of(method: Method, quick: bool) -> str:
    """Return the key of a method's rows: the settings, the loss with its numbers, and the version."""
    return fingerprint(VERSION, plain(settings_of(quick)), repr(method.make()), dict(method.hyper))


def bring_up_to_date(
    folder: Path, *, quick: bool = False, fresh: bool = False, workers: int | None = None,
    methods: Sequence[Method] | None = None,
) -> list[str]:  # fmt: skip
    """Bring the frames of the atlas in the folder of the figures up to date; return the methods that were trained.

    fresh    train every method again.
    methods  None: all of ``atlas_runs.methods``; the frames then have these and no others.
    """
    every = atlas_runs.methods() if methods is None else list(methods)
    keys = {method.name: key_of(method, quick) for method in every}
    former, kept = _former(folder, keys) if not fresh else ({}, set())
    todo = [method for method in every if method.name not in kept]
    if not todo and former and _names(folder) == list(keys):
        return []
    parts = folder / "data" / ".parts" / "atlas"
    remove_leftovers(folder / "data")
    if fresh:
        remove_frames(parts)
    made = _train(todo, settings_of(quick), parts, keys, workers)
    order = {method.name: place for place, method in enumerate(every)}
    columns = {"ends": ENDS, "levels": LEVELS, "band": BAND, "worlds": WORLDS}
    manifest = {"version": VERSION, "settings": plain(settings_of(quick)), "methods": keys, "quick": quick}
    for name, file in FILES.items():
        old = [rows for method, rows in former.get(name, {}).items() if method in kept]
        rows = pd.concat([*old, *made[name]], ignore_index=True)[columns[name]]
        place = [order[method] for method in method_of(rows)]
        ordered = rows.assign(place=place).sort_values("place", kind="stable").drop(columns="place")
        measured = {value: "float32" for value in (*ENDPOINTS, "kl", "dose") if value in ordered}
        make_way(folder / file)
        save_frame(ordered.astype(measured).reset_index(drop=True), folder / file, manifest, overwrite=True)
    remove_frames(parts)
    with contextlib.suppress(OSError):
        parts.parent.rmdir()
    return [method.name for method in todo]


def method_of(rows: pd.DataFrame) -> list[str]:
    """Return the name of each row's method."""
    plainly = rows["preset"].isin(["published", "grid", ""])
    return np.where(plainly, rows["loss"], rows["loss"] + " " + rows["preset"]).tolist()


def _names(folder: Path) -> list[str]:
    return list(load_manifest(folder / FILES["ends"])["methods"])


def _former(folder: Path, keys: dict[str, str]) -> tuple[dict[str, dict[str, pd.DataFrame]], set[str]]:
    """Return the rows of the present frames by method, and the methods whose rows have today's keys."""
    former = dict[str, dict[str, pd.DataFrame]]()
    kept = set(keys)
    for name, file in FILES.items():
        try:
            frame, manifest = load_frame(folder / file)
        except (OSError, ValueError):
            return {}, set()
        there = manifest.get("methods", {})
        kept &= {method for method in kept if there.get(method) == keys[method]}
        former[name] = {str(method): rows for method, rows in frame.groupby(method_of(frame), sort=False)}
    return former, kept


def _train(
    todo: Sequence[Method], settings: dict[str, Settings], folder: Path, keys: dict[str, str], workers: int | None
) -> dict[str, list[pd.DataFrame]]:
    """Train methods: the grid and the band first, then one factor at a time at the β that the grid gives."""
    runs, band = settings["runs"], settings["band"]
    first = list[tuple[Method, str, Settings]]()
    of_grid, of_factors = (
        {name: runs[name] for name in names}
        for names in (
            ("betas", "world", "training", "first_seed", "seeds"),
            ("factors", "world", "training", "first_seed", "seeds"),
        )
    )
    of_band = {name: band[name] for name in ("training", "world", "first_seed", "seeds")}
    for method in todo:
        if not method.is_of_pairs:
            few = {"seeds": runs["batch_seeds"], "reference": BASE[0], "policy": BASE[1]}
            first.append((method, "grid", {**of_grid, **few}))
            continue
        for reference, policy in runs["cells"]:
            first.append((method, "grid", {**of_grid, "reference": reference, "policy": policy}))
        for policy in band["policies"]:
            first += [(method, "band", {**of_band, "policy": policy, "pairs": pairs}) for pairs in band["pairs"]]
        first.append((method, "worlds", settings["worlds"]))
    parts = [_part(folder, keys, *each) for each in first]
    run_parts(_run, parts, label="atlas", workers=workers)
    done = [load_frame(part.file)[0] for part in parts]
    grids = [frame for (_, kind, _), frame in zip(first, done, strict=True) if kind == "grid"]
    second = [
        (method, "factors", {**of_factors, "beta": matched_beta(frame)})
        for (method, _, given), frame in zip(_of_kind(first, "grid"), grids, strict=True)
        if (given["reference"], given["policy"]) == BASE and method.preset == "published" and method.is_of_pairs
    ]
    further = [_part(folder, keys, *each) for each in second]
    run_parts(_run, further, label="atlas, factors", workers=workers)
    ends = [frame[frame["how"].isna()] for frame in grids] + [load_frame(part.file)[0] for part in further]
    bands, worlds = (
        [frame for (_, kind, _), frame in zip(first, done, strict=True) if kind == wanted]
        for wanted in ("band", "worlds")
    )
    return {"ends": ends, "levels": [frame[frame["how"].notna()] for frame in grids],
            "band": bands or [pd.DataFrame(columns=BAND)],
            "worlds": worlds or [pd.DataFrame(columns=WORLDS)]}  # fmt: skip


def _of_kind(parts: Iterable[tuple[Method, str, Settings]], kind: str) -> list[tuple[Method, str, Settings]]:
    return [part for part in parts if part[1] == kind]


def matched_beta(frame: pd.DataFrame) -> float | None:
    """Return the β of the grid whose median KL at the end is nearest to ``MATCHED``, in logarithms; None without β."""
    over = frame[frame["how"].isna() & (frame["factor"] == "beta")]
    if not len(over):
        return None
    kl = over.groupby("beta")["kl_to_reference"].median().clip(lower=1e-12)
    return float((np.log(kl) - np.log(MATCHED)).abs().idxmin())


def _part(folder: Path, keys: dict[str, str], method: Method, kind: str, given: Settings) -> Part:
    arguments = {"kind": kind, "method": method.arguments(), "given": given}
    name = fingerprint(method.name, kind, plain(given))
    return Part(arguments, folder / f"{name}.parquet", keys[method.name])


# --- the sample ---


def check_sample(folder: Path, *, fresh: bool = False, workers: int | None = None) -> list[str]:
    """Train a sample of the committed runs again, and return in words where it differs, and what the frames lack.

    The sample is each committed method as published, or as its variant, in the cell ``BASE``, with ``SAMPLED`` seeds.
    Nothing is trained, and nothing said, where sources and versions are those of the last check without a difference,
    unless ``fresh``. [] where there are no frames.
    """
    path, stamp = folder / FILES["ends"], folder / "data" / "atlas.sample.json"
    try:
        frame, manifest = load_frame(path)
    except FileNotFoundError:
        return []
    if manifest.get("version") != VERSION:
        return [f"its numbers are of version {manifest.get('version')}, the code's of {VERSION}; run `{COMMAND}`"]
    known = {method.name: method for method in atlas_runs.methods()}
    quick, there = bool(manifest["quick"]), manifest["methods"]
    lacking = [name for name, method in known.items() if there.get(name) != key_of(method, quick)]
    said = [f"it lacks {', '.join(lacking)}; run `{COMMAND}`"] if lacking else []
    chosen = [known[name] for name in there if name in known and name not in lacking]
    key = fingerprint(manifest["sha256"], sorted(lacking), code_key(atlas_runs.__name__, ["measured", "methods"]))
    settings = settings_of(quick)["runs"]
    given = {**{name: settings[name] for name in ("world", "training", "first_seed")}, "seeds": SAMPLED}
    differences = functools.partial(_differences, frame, chosen, given, key, workers)
    remedy = f"raise atlas_runs.VERSION and run `{COMMAND}`"
    rounding = functools.partial(rounding_of, {method.name: method for method in chosen}, given)
    return [*said, *samples.check(stamp, key, differences, remedy, fresh=fresh, rounding=rounding)]


def _differences(
    frame: pd.DataFrame, chosen: Sequence[Method], given: Settings, key: str, workers: int | None
) -> dict[str, float]:
    """Train the sample of these methods; return the difference of each from its committed rows, by its name."""
    with tempfile.TemporaryDirectory() as scratch:
        keys = {method.name: key for method in chosen}
        parts = [_part(Path(scratch), keys, method, "sample", given) for method in chosen]
        run_parts(_run, parts, label="atlas, sample", workers=workers)
        again = [load_frame(part.file)[0].astype(dict.fromkeys(ENDPOINTS, "float32")) for part in parts]
    return {
        method.name: samples.difference(_committed(frame, method, rows["seed"]), _by_seed(rows))
        for method, rows in zip(chosen, again, strict=True)
    }


def rounding_of(known: Mapping[str, Method], given: Settings, names: Sequence[str]) -> dict[str, float]:
    """Return what rounding becomes in the sample of these methods: the change with a rate that is rounded otherwise.

    Where an exponential of log-ratios meets Adam, which divides by the gradient's size, the last digit of a number
    grows by ten orders of magnitude within a training.
    """
    return {name: samples.rounding_in(sample, {**known[name].arguments(), **given}) for name in names}


def sample(loss: str, preset: str, hyper: dict[str, float], **given: Any) -> pd.DataFrame:
    """Return the ends of a method's training in the cell ``BASE``."""
    world = {**given["world"], "reference": BASE[0]}
    training = given["training"].but(policy=BASE[1])
    trained = Method(loss, preset, hyper).make()
    return atlas_runs.ended(atlas_runs.measured(trained, world, training, given["first_seed"], given["seeds"]))


def _committed(frame: pd.DataFrame, method: Method, seeds: pd.Series) -> pd.DataFrame:
    """Return a method's committed rows in the cell ``BASE`` with these seeds, one per seed."""
    base = (frame["factor"] == "base") & (frame["preset"] == method.preset) & (frame["loss"] == method.loss)
    return _by_seed(frame[base & frame["seed"].isin(seeds)].drop_duplicates("seed"))


def _by_seed(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values("seed")[["seed", *ENDPOINTS]]


_KINDS: dict[str, Callable[..., pd.DataFrame]] = {
    "grid": atlas_runs.grid, "factors": atlas_runs.factors, "band": atlas_band.band, "worlds": atlas_worlds.in_worlds,
    "sample": sample,
}  # fmt: skip


def _run(kind: str, method: dict[str, Any], given: Settings) -> pd.DataFrame:
    return _KINDS[kind](**method, **given)
