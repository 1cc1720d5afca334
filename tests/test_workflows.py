"""What GitHub, Binder and a release read agrees with the Makefile, pyproject.toml and the pages."""

import json
import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from scripts import release

ROOT = Path(__file__).parent.parent
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
FORMS = [path for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml") if path.name != "config.yml"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def load(path):
    return yaml.safe_load(path.read_text("utf-8"))


def jobs():
    """Every job of every workflow, as a parameter named by both."""
    return [
        pytest.param(job, id=f"{path.stem}-{name}") for path in WORKFLOWS for name, job in load(path)["jobs"].items()
    ]


def targets(line):
    """The targets that a line gives to make, without its options and variables."""
    return [word for word in line.split()[1:] if "=" not in word and not word.startswith("-")]


def runs():
    return [step["run"] for job in jobs() for step in job.values[0]["steps"] if "run" in step]


def test_there_are_the_five_workflows_and_three_forms():
    assert [path.stem for path in WORKFLOWS] == ["checks", "release", "site", "tests", "weekly"]
    assert sorted(path.stem for path in FORMS) == ["bug", "loss", "number"]


def test_every_make_line_names_targets_that_exist():
    lines = [line for run in runs() for line in run.splitlines() if line.startswith("make ")]
    named = {target for line in lines for target in targets(line)}
    assert named >= {"check", "test", "test-all", "test-long", "dist", "site"}
    assert named <= TARGETS


def test_python_and_its_tools_are_called_by_the_makefile_alone():
    words = {line.split()[0] for run in runs() for line in run.splitlines() if line.strip()}
    assert not words & {"python", "python3", "pip", "pytest", "ruff", ".venv/bin/python"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_may_read_and_runs_once_at_a_time(path):
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    assert workflow["concurrency"]["group"]


@pytest.mark.parametrize("job", jobs())
def test_a_job_has_its_time_limit_and_actions_have_their_versions(job):
    assert job["timeout-minutes"] <= 360
    for step in job["steps"]:
        if "uses" in step:
            assert re.fullmatch(r"[\w./-]+@(v\d+|release/v\d+|[0-9a-f]{40})", step["uses"])
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


def test_more_rights_are_given_only_to_report_and_to_publish():
    rights = {job.id: job.values[0]["permissions"] for job in jobs() if "permissions" in job.values[0]}
    assert rights == {"weekly-report": {"issues": "write"}, "release-publish": {"id-token": "write"},
                      "site-keep": {"contents": "write", "actions": "write"},
                      "site-publish": {"pages": "write", "id-token": "write"}}  # fmt: skip


def test_no_secret_is_used_and_the_jobs_token_only_to_report_and_to_keep_a_site():
    for path in WORKFLOWS:
        text = path.read_text("utf-8")
        assert "secrets" not in text
        assert text.count("github.token") == (1 if path.stem in ("site", "weekly") else 0)
        assert not re.search(r"(password|api[-_]token|api[-_]key)\s*:", text)


def test_the_release_tells_make_its_tag():
    build = load(ROOT / ".github/workflows/release.yml")["jobs"]["build"]
    assert build["env"]["TAG"] == "${{ github.ref_name }}"


def test_pythons_agree():
    minor = {name.rpartition(" ")[2] for name in PROJECT["classifiers"] if re.search(r":: 3\.\d+$", name)}
    lowest = PROJECT["requires-python"].removeprefix(">=")
    matrix = load(ROOT / ".github/workflows/tests.yml")["jobs"]["test"]["strategy"]["matrix"]["python"]
    ordered = sorted(minor, key=lambda version: int(version.partition(".")[2]))
    assert [lowest, matrix[0], matrix[-1]] == [ordered[0], ordered[0], ordered[-1]]
    setups = [
        step["with"]["python-version"]
        for job in jobs()
        for step in job.values[0]["steps"]
        if step.get("uses", "").startswith("actions/setup-python@")
    ]
    assert {version for version in setups if "matrix" not in version} <= minor
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text("utf-8"))
    assert re.search(r"python:(3\.\d+)", container["image"])[1] in minor
    assert (ROOT / "binder/runtime.txt").read_text("utf-8").strip().removeprefix("python-") in minor


def test_the_devcontainer_calls_a_target():
    container = json.loads((ROOT / ".devcontainer/devcontainer.json").read_text("utf-8"))
    assert container["postCreateCommand"] == "make .venv/.ready"
    assert re.search(r"^\.venv/\.ready:", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)


def test_binder_installs_an_extra_that_exists():
    script = ROOT / "binder/postBuild"
    assert os.access(script, os.X_OK)
    extras = re.search(r"-e '\.\[(.+?)\]'", script.read_text("utf-8"))[1].split(",")
    assert set(extras) <= set(PROJECT["optional-dependencies"])


def test_uv_and_pip_read_one_list_of_tools():
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    assert groups == {"dev": ["gradlab[dev]"]}


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_a_form_asks_each_thing_once_and_something_must_be_answered(path):
    form = load(path)
    assert {"name", "description", "body"} <= set(form)
    ids = [field["id"] for field in form["body"]]
    assert len(ids) == len(set(ids))
    assert any(field.get("validations", {}).get("required") for field in form["body"])
    for field in form["body"]:
        assert field["type"] in {"input", "textarea", "dropdown", "checkboxes"}
        assert field["attributes"]["label"]


@pytest.mark.parametrize("path", [ROOT / ".github/dependabot.yml", ROOT / ".github/ISSUE_TEMPLATE/config.yml"],
                         ids=lambda path: path.stem)  # fmt: skip
def test_the_other_files_of_github_are_yaml(path):
    assert isinstance(load(path), dict)


@pytest.mark.parametrize("page", ["SECURITY.md", "CODE_OF_CONDUCT.md", "README.md", "CONTRIBUTING.md"])
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text("utf-8"))
    assert [link for link in links if "://" not in link and not (ROOT / link).exists()] == []


@pytest.fixture
def released(tmp_path):
    """A tree whose files all name version 1.2.3."""
    (tmp_path / "gradlab").mkdir()
    (tmp_path / "gradlab/__init__.py").write_text('"""…"""\n\n__version__ = "1.2.3"\n', "utf-8")
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.3\n", "utf-8")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 1.2.3 (2026-02-03)\n\n## 1.2.2 (2026-01-03)\n", "utf-8")
    return tmp_path


def test_a_tag_that_all_files_name_is_released(released):
    assert release.problems("v1.2.3", released) == []


@pytest.mark.parametrize(
    ("tag", "said"),
    [
        ("1.2.3", ["tag: '1.2.3' is not a version; accepted: v1.2.3, v1.2.3a1, v1.2.3b1, v1.2.3rc1"]),
        (
            "v1.2.2",
            [
                "gradlab/__init__.py: its version is 1.2.3, the tag's 1.2.2",
                "CITATION.cff: its version is 1.2.3, the tag's 1.2.2",
            ],
        ),
    ],
)
def test_another_tag_is_refused(released, tag, said):
    assert release.problems(tag, released) == said


@pytest.mark.parametrize("heading", ["## 1.2.3 (unreleased)", "## 1.2.30 (2026-02-03)", "### 1.2.3 (2026-02-03)"])
def test_a_version_without_a_dated_heading_is_refused(released, heading):
    (released / "CHANGELOG.md").write_text(f"# Changelog\n\n{heading}\n", "utf-8")
    assert release.problems("v1.2.3", released) == ["CHANGELOG.md: no heading '## 1.2.3 (YYYY-MM-DD)'"]


def test_the_repository_names_one_version():
    assert len(set(release.stated_versions(ROOT).values())) == 1
    assert None not in release.stated_versions(ROOT).values()


REPORT = load(ROOT / ".github/workflows/weekly.yml")["jobs"]["report"]
GH = """#!/bin/sh
if [ "$1 $2" = "issue list" ]; then
  for word; do filter=$word; done
  printf '%s' "$OPEN" | jq -r "$filter"
else
  printf '%s %s %s' "$2" "$3" "$4" >&2
fi
"""


@pytest.mark.skipif(shutil.which("jq") is None, reason="no jq on the PATH")
@pytest.mark.parametrize(
    ("titles", "said"),
    [
        ([], "create --title {}"),
        (["Another fault"], "create --title {}"),
        (["Another fault", "{}"], "comment 2 --body"),
        (["{}", "{}"], "comment 1 --body"),
    ],
)
def test_a_second_failure_opens_no_second_issue(tmp_path, titles, said):
    title = REPORT["env"]["TITLE"]
    (tmp_path / "gh").write_text(GH)
    (tmp_path / "gh").chmod(0o755)
    issues = [{"number": 1 + k, "title": each.format(title)} for k, each in enumerate(titles)]
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "TITLE": title, "RUN": "x", "OPEN": json.dumps(issues)}
    (step,) = REPORT["steps"]
    done = subprocess.run(["bash", "-e", "-c", step["run"]], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, said.format(title))


def step(job, name):
    (found,) = [
        step for step in load(ROOT / ".github/workflows/site.yml")["jobs"][job]["steps"] if step.get("name") == name
    ]
    return found["run"]


def test_a_releases_site_is_kept_beside_the_former_ones(tmp_path):
    """Two tags and a push to main, with a bare repository in GitHub's place and a site of one file."""
    repo = tmp_path / "repo.git"
    subprocess.run(["git", "init", "-q", "--bare", repo], check=True)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/gh").write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / "bin/gh").chmod(0o755)
    environment = {"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "HOME": str(tmp_path), "BRANCH": "site-versions"}

    def run(folder, script, *, at=repo, **more):
        folder.mkdir(exist_ok=True)
        return subprocess.run(["bash", "-e", "-c", script], cwd=folder, env=environment | {"REPO": str(at), **more},
                              capture_output=True, text=True)  # fmt: skip

    former, push = "Versions that were published before", "Push the branch, and publish from main"
    assert step("keep", former) == step("build", former)
    for tag in ("v1.0.0", "v1.1.0"):
        assert run(tmp_path / tag, step("keep", former)).returncode == 0
        (tmp_path / tag / "build/versions" / tag[1:]).mkdir()
        (tmp_path / tag / "build/versions" / tag[1:] / "index.html").touch()
        pushed = run(tmp_path / tag, step("keep", push), TAG=tag)
        assert (pushed.returncode, pushed.stdout) == (0, "workflow run site.yml --ref main\n"), pushed.stderr
    assert run(tmp_path / "main", step("build", former)).returncode == 0
    assert sorted(path.parent.name for path in tmp_path.glob("main/build/versions/*/index.html")) == ["1.0.0", "1.1.0"]
    # Where the repository does not answer, nothing is published: the former versions would be lost.
    assert run(tmp_path / "lost", step("build", former), at=tmp_path / "none.git").returncode != 0


def make(folder, *arguments):
    """Return the lines that make would run in a folder with the Makefile."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, folder)
    if (folder / ".venv/.ready").exists():
        os.utime(folder / ".venv/.ready")
    environment = {
        name: value for name, value in os.environ.items() if name not in ("PYTHON", "CONSTRAINTS", "MAKEFLAGS")
    }
    done = subprocess.run(
        ["make", "-n", *arguments, "versions"], cwd=folder, env=environment, check=True, capture_output=True, text=True
    )
    return done.stdout.splitlines()


def test_make_lets_one_choose_python_and_constraints(tmp_path):
    assert ".venv/bin/python -m pip install -q -c constraints.txt -e '.[dev]'" in make(tmp_path)
    lines = make(tmp_path, "PYTHON=python3.13", "CONSTRAINTS=")
    assert "python3.13 -m venv .venv" in lines
    assert [line.split() for line in lines if "pip install" in line] == [
        [".venv/bin/python", "-m", "pip", "install", "-q", "-e", "'.[dev]'"]
    ]


@pytest.mark.parametrize(
    ("built_with", "arguments", "anew"),
    [
        ("python3 constraints.txt", (), False),
        ("python3.12 constraints.txt", (), False),
        ("python3.12 constraints.txt", ("PYTHON=python3.12",), False),
        ("python3 constraints.txt", ("CONSTRAINTS=",), True),
        ("python3 without constraints", ("CONSTRAINTS=",), False),
        ("python3 without constraints", ("PYTHON=python3.12",), True),
    ],
)
def test_an_environment_is_built_anew_only_where_another_is_named(tmp_path, built_with, arguments, anew):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.ready").write_text(f"{built_with}\n")
    assert ("rm -rf .venv" in make(tmp_path, *arguments)) == anew
