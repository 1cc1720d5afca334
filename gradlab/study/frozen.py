"""A frozen study: plan, items and attention checks in one sealed file, whose hash every answer carries."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from gradlab.checks import of_kind, shown
from gradlab.store.files import write_whole
from gradlab.store.sealed import Damaged, read_sealed, sealed
from gradlab.study.items import CHECKS, AttentionCheck, StudyItem, items_of
from gradlab.study.plan import Plan, as_page, plan_of

FORMAT = 1  # of the file; raised where a former version could not be read
SALTED = 2  # of a file with a salt: the sides that earlier versions would find for it are others
_KIND = "gradlab study"


@dataclass(frozen=True)
class Study:
    """A frozen study, which needs no other file: the plan, the items that raters see, and the attention checks."""

    plan: Plan
    items: tuple[StudyItem, ...]
    checks: tuple[AttentionCheck, ...] = CHECKS
    salt: str = ""
    """A secret of the file, on no page: it draws the sides, and hides them in answers from raters who have gradlab. A
    study without one draws by its plan alone, and whoever knows the plan can compute the sides."""

    def __hash__(self) -> int:
        """Return a number by which equal studies are found in a table."""
        return hash(self.hash)

    @cached_property
    def hash(self) -> str:
        """The SHA-256, in hex, of all that was decided: another plan or another text is another study."""
        page = json.dumps(_page(self), sort_keys=True, ensure_ascii=False)
        return hashlib.sha256(page.encode()).hexdigest()

    @cached_property
    def item_of(self) -> dict[str, StudyItem]:
        """The items by key."""
        return {item.key: item for item in self.items}

    @cached_property
    def check_of(self) -> dict[str, AttentionCheck]:
        """The attention checks by key."""
        return {check.key: check for check in self.checks}

    @property
    def shown(self) -> tuple[StudyItem, ...]:
        """Return the items that raters see; those with identical texts count as ties, and nobody sees them."""
        return tuple(item for item in self.items if not item.identical)

    def write(self, path: Path | str) -> None:
        """Write the study; FileExistsError where another study is in that file."""
        file = Path(path)
        if file.exists() and (not _is_study(file) or read_study(file).hash != self.hash):
            raise FileExistsError(f"{file} is there already, and is not this study; a changed plan needs another file")
        held = SALTED if self.salt else FORMAT
        write_whole({file: sealed({"kind": _KIND, "format": held, "hash": self.hash, **_page(self)})})


def freeze(plan: Plan, folder: Path | str = ".", sources: dict[str, Path | str] | None = None, salt: str = "") -> Study:
    """Return the study of a plan: from now on neither plan nor texts can change.

    folder   the folder to which the plan's paths are relative: that of its file.
    sources  files of samples in place of the plan's model folders, by system.
    salt     a secret, which ``gradlab study plan`` draws by ``salt_for``; equal plans and salts give equal studies.

    ValueError or OSError in one line, see ``items_of``; ValueError for a model folder without samples.
    """
    base = Path(folder)
    files = {system: base / source for system, source in plan.systems.items()} | (sources or {})
    for system, file in files.items():
        if Path(file).is_dir():
            raise ValueError(
                f"systems.{system} must be a file of samples; {file} is a folder, from which gradlab study plan draws "
                "them"
            )
    prompts = None if plan.prompts is None else base / plan.prompts
    return Study(plan, tuple(items_of(plan, files, prompts)), salt=of_kind("salt", salt, str, "a text"))


def salt_for(path: Path | str) -> str:
    """Return the salt of the study that is in a file, or a random one where there is none yet."""
    return read_study(path).salt if _is_study(Path(path)) else secrets.token_hex(16)


def read_study(path: Path | str) -> Study:
    """Return the study in a file that ``Study.write`` has written.

    OSError where there is no such file; ValueError in one line where it was changed, or is of another version.
    """
    try:
        page = read_sealed(path)
    except Damaged:
        raise ValueError(
            f"{path} is no frozen study as it was written; a plan is frozen by: gradlab study plan PLAN.toml --freeze"
        ) from None
    held = SALTED if page.get("salt") else FORMAT
    if page.get("kind") != _KIND or page.get("format") != held:
        raise ValueError(f"{path} must be a study of format {held}, got {page.get('kind')!r}, {page.get('format')!r}")
    try:
        study = _study(page)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if study.hash != page["hash"]:
        raise ValueError(f"{path} has another hash than its plan and its texts; it was changed after it was frozen")
    return study


def _study(page: Mapping[str, Any]) -> Study:
    """Return the study that a page says; ValueError for one that ``_page`` has not made."""
    for name in ("plan", "items", "checks", "hash"):
        if name not in page:
            raise ValueError(f"a study must have {name}")
    return Study(
        plan_of(of_kind("plan", page["plan"], Mapping, "a table"), "plan"),
        _records("items", page["items"], StudyItem), _records("checks", page["checks"], AttentionCheck),
        of_kind("salt", page.get("salt", ""), str, "a text"),
    )  # fmt: skip


_T = TypeVar("_T", StudyItem, AttentionCheck)


def _records(name: str, given: Any, kind: type[_T]) -> tuple[_T, ...]:
    """Return the records in a list of tables; ValueError where a table has other fields than the record."""
    fields = [field.name for field in dataclasses.fields(kind)]
    for place, table in enumerate(of_kind(name, given, list, "a list")):
        apt = isinstance(table, Mapping) and set(table) == {*fields}
        if not apt or not all(isinstance(value, str) for value in table.values()):
            raise ValueError(f"{name}[{place}] must have texts as {', '.join(fields)}, got {shown(table)}")
    return tuple(kind(**table) for table in given)


def _page(study: Study) -> dict[str, Any]:
    return {
        "plan": as_page(study.plan),
        "items": [dataclasses.asdict(item) for item in study.items],
        "checks": [dataclasses.asdict(check) for check in study.checks],
        **({"salt": study.salt} if study.salt else {}),
    }


def _is_study(file: Path) -> bool:
    try:
        return read_sealed(file).get("kind") == _KIND
    except (Damaged, OSError):
        return False
