"""Reading the last commit of a checkout of somebody else's runs nothing of theirs."""

import os
import shutil
import subprocess

import pytest

from gradlab.store import provenance
from gradlab.store.provenance import text_at_head

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="needs git")


def git(folder, *arguments):
    who = ["-c", "user.name=x", "-c", "user.email=x@example.org", "-c", "commit.gpgsign=false"]
    done = subprocess.run(["git", "-C", str(folder), *who, *arguments], check=True, capture_output=True, text=True)
    return done.stdout.strip()


class Clone:
    """A checkout with a file in its last commit, and a program that leaves a mark if anything runs it."""

    def __init__(self, folder):
        self.folder, self.mark = folder / "clone", folder / "RAN"
        self.file = self.folder / "figures/claims.csv"
        self.file.parent.mkdir(parents=True)
        self.file.write_text("a,b\n")
        self.program = folder / "program"
        self.program.write_text(f"#!/bin/sh\necho $0 $* >> {self.mark}\nexit 1\n")
        self.program.chmod(0o755)
        git(self.folder, "init", "-q")
        git(self.folder, "add", ".")
        git(self.folder, "commit", "-qm", "Report")

    def set(self, **settings):
        for key, value in settings.items():
            git(self.folder, "config", key.replace("__", "."), value)

    def lose_the_file(self):
        """Remove the object of the file, as in a partial clone."""
        name = git(self.folder, "rev-parse", "HEAD:figures/claims.csv")
        (self.folder / ".git/objects" / name[:2] / name[2:]).unlink()

    def promise(self, url):
        """Make it a partial clone of a remote, which would have the missing objects."""
        self.lose_the_file()
        self.set(core__repositoryformatversion="1", extensions__partialClone="origin", remote__origin__url=url,
                 remote__origin__promisor="true", protocol__allow="always")  # fmt: skip
        for name in ("ext", "ssh", "file", "git", "http", "https"):
            self.set(**{f"protocol__{name}__allow": "always"})


@pytest.fixture
def clone(tmp_path):
    return Clone(tmp_path)


REMOTES = {
    "ext": ("ext::{program}", {}),
    "ssh": ("ssh://nowhere.invalid/x", {"core__sshCommand": "{program}"}),
    "path": ("{folder}/.git", {"remote__origin__uploadpack": "{program}"}),
    "file": ("file://{folder}/.git", {"remote__origin__uploadpack": "{program}"}),
    "git": ("git://nowhere.invalid/x", {"core__gitProxy": "{program}"}),
    "renamed": ("https://nowhere.invalid/x", {"url__ext::{program} __insteadOf": "https:"}),
    "helper": ("anything", {"remote__origin__vcs": "ext"}),
    "credentials": ("https://127.0.0.1:1/x", {"credential__helper": "{program}", "core__askPass": "{program}"}),
}


@pytest.mark.parametrize("remote", REMOTES)
def test_a_missing_object_is_fetched_from_nowhere(clone, remote):
    url, settings = REMOTES[remote]
    names = {"program": clone.program, "folder": clone.folder}
    clone.promise(url.format(**names))
    clone.set(**{key.format(**names): value.format(**names) for key, value in settings.items()})
    assert text_at_head(clone.file) is None
    assert not clone.mark.exists(), clone.mark.read_text()


def test_these_clones_do_run_a_program_of_theirs(clone):
    clone.promise(f"ext::{clone.program}")
    subprocess.run(["git", "-C", str(clone.folder), "show", "HEAD:figures/claims.csv"], capture_output=True)
    assert clone.mark.exists()


def test_no_setting_of_theirs_is_run(clone):
    (clone.folder / ".gitattributes").write_text("* filter=x diff=x\n")
    git(clone.folder, "add", ".gitattributes")
    git(clone.folder, "commit", "-qm", "Attributes")
    for key in (
        "alias__cat-file", "alias__rev-parse", "core__editor", "core__fsmonitor", "core__pager", "core__sshCommand",
        "core__alternateRefsCommand", "diff__external", "diff__x__command", "diff__x__textconv", "filter__x__clean",
        "filter__x__process", "filter__x__smudge", "gpg__program", "pager__cat-file", "pager__rev-parse",
    ):  # fmt: skip
        clone.set(**{key: f"!{clone.program}" if key.startswith("alias") else str(clone.program)})
    clone.set(filter__x__required="true", core__hooksPath=str(clone.folder / "hooks"), gc__auto="1")
    hooks = clone.folder / "hooks"
    hooks.mkdir()
    for name in ("post-checkout", "post-index-change", "reference-transaction", "fsmonitor-watchman", "pre-auto-gc"):
        shutil.copy(clone.program, hooks / name)
    clone.mark.unlink(missing_ok=True)
    assert text_at_head(clone.file) == "a,b\n"
    assert provenance._git(clone.folder, "rev-parse", "--short", "HEAD")
    assert not clone.mark.exists(), clone.mark.read_text()


def test_a_folder_that_is_itself_a_bare_repository_is_none(clone):
    bare = clone.folder / "figures"
    for name in ("HEAD", "config"):
        shutil.copy(clone.folder / ".git" / name, bare / name)
    for name in ("objects", "refs"):
        shutil.copytree(clone.folder / ".git" / name, bare / name)
    git(clone.folder, "config", "--file", str(bare / "config"), "core.bare", "true")
    assert text_at_head(clone.file) is None


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
def test_a_checkout_of_another_user_is_read_only_where_this_user_has_said_so(clone, tmp_path, monkeypatch):
    for path in (clone.folder, clone.folder / ".git"):
        os.chown(path, 65533, 65533)
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "settings"))
    assert text_at_head(clone.file) is None
    (tmp_path / "settings").write_text(f"[safe]\n\tdirectory = {clone.folder}\n")
    assert text_at_head(clone.file) == "a,b\n"


def test_a_hook_of_another_checkout_changes_nothing(clone, tmp_path, monkeypatch):
    other = Clone(tmp_path / "other")
    other.file.write_text("another\n")
    git(other.folder, "commit", "-qam", "Another")
    monkeypatch.setenv("GIT_DIR", str(other.folder / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(other.folder))
    assert text_at_head(clone.file) == "a,b\n"


def test_sources_inside_another_projects_checkout_have_no_commit(clone, monkeypatch):
    monkeypatch.delenv("GRADLAB_COMMIT", raising=False)
    inside = clone.folder / ".venv/gradlab/store/provenance.py"
    inside.parent.mkdir(parents=True)
    inside.touch()
    monkeypatch.setattr(provenance, "__file__", str(inside))
    provenance.commit.cache_clear()
    try:
        assert provenance.commit() is None
        git(clone.folder, "add", "-f", str(inside))
        git(clone.folder, "commit", "-qm", "Sources")
        provenance.commit.cache_clear()
        assert provenance.commit() == git(clone.folder, "rev-parse", "--short", "HEAD")
    finally:
        provenance.commit.cache_clear()
