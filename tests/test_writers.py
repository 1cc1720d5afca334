"""All files are written by two modules, which are tested at a full disk; whatever else writes is listed here."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
HOUSE = ("gradlab/store/files.py", "gradlab/store/json_lines.py", "gradlab/store/private_files.py")
# Calls that write to a file, or put another in its place; of to_parquet and to_csv only with an argument.
WRITING = {
    "write_text", "write_bytes", "touch", "truncate", "symlink_to", "to_parquet", "to_csv", "to_json", "to_pickle",
    "save_file", "save_pretrained", "ParquetWriter", "SummaryWriter", "copy", "copyfile", "copytree", "move",
    "dump", "tofile", "savez", "ftruncate", "sendfile",
}  # fmt: skip
OF_MODULES = {"os": {"write", "replace", "rename", "link", "truncate", "pwrite"}, "np": {"save"}, "torch": {"save"}}
ONLY_IN = {"copy": "shutil", "move": "shutil", "copyfile": "shutil", "copytree": "shutil"}
EXCEPTIONS = {
    ("gradlab/store/artifacts.py", "to_parquet"): "into memory",
    ("gradlab/store/artifacts.py", "ParquetWriter"): "to the temporary file of write_whole",
    ("gradlab/store/artifacts.py", "write_text"): "to the temporary file of write_whole",
    ("gradlab/store/artifacts.py", "rename"): "moves what is not ours out of the way",
    ("gradlab/atlas/comparison.py", "savefig"): "into memory",
    ("gradlab/cli/workbench_command.py", "savefig"): "into memory",
    ("gradlab/widgets/explorer.py", "savefig"): "into memory",
    ("gradlab/widgets/study_rating.py", "savefig"): "into memory",
    ("gradlab/plotting/looks.py", "savefig"): "to the temporary file of write_whole",
    ("scripts/benchmarks/engine_plot.py", "savefig"): "to the temporary file of write_whole",
    ("gradlab/llm/data/source_tokens.py", "write_bytes"): "into a temporary folder",
    ("gradlab/study/report_page.py", "savefig"): "into memory",
    ("gradlab/study/report_page.py", "write_text"): "into the temporary folder of write_folder",
    ("scripts/benchmarks/pretrained_speed.py", "write_text"): "into a temporary folder",
    ("gradlab/llm/trl.py", "rename"): "gives the log of another run a free name",
    ("scripts/benchmarks/large_inputs.py", "write_text"): "into a temporary folder",
    ("scripts/benchmarks/large_inputs.py", "open"): "into a temporary folder",
    ("scripts/site/sources.py", "write_bytes"): "into the folder of a build, which is made anew where it is torn",
    ("scripts/hosts.py", "open"): "what a host prints, into a temporary folder",
    ("scripts/hosts.py", "write_text"): "into a temporary folder",
    ("scripts/hosts.py", "copy"): "notebooks into a temporary folder",
    ("scripts/site/versions.py", "copytree"): "a built site, made anew where it is torn",
    ("scripts/browser.py", "write_text"): "settings of a JupyterLab that a test starts",
    ("scripts/browser.py", "open"): "what that JupyterLab prints",
    ("scripts/benchmarks/explorer_speed.py", "copytree"): "into a temporary folder",
}


def writing_calls(source):
    """The names of the calls in a source that write to files by hand, each with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute):
            of = getattr(node.value, "id", "")
            if node.attr == "savefig" or node.attr in OF_MODULES.get(of, ()):
                yield node.attr, node.lineno
        if not isinstance(node, ast.Call):
            continue
        of, name = None, getattr(node.func, "id", None)
        if isinstance(node.func, ast.Attribute):
            of, name = getattr(node.func.value, "id", None), node.func.attr
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        if name == "open":
            modes = [one.value for one in given if isinstance(one, ast.Constant) and isinstance(one.value, str)]
            flags = {one.attr for one in ast.walk(node) if isinstance(one, ast.Attribute)}
            if any(set(mode) <= set("rwaxbt+") and set(mode) & set("wax+") for mode in modes):
                yield name, node.lineno
            if flags & {"O_WRONLY", "O_RDWR", "O_CREAT"} and "devnull" not in flags:
                yield name, node.lineno
        elif name == "rename" and len(node.args) == 1 and not node.keywords and not isinstance(node.args[0], ast.Dict):
            if not (isinstance(node.args[0], ast.Constant) and isinstance(node.args[0].value, str)):
                yield name, node.lineno  # of a path; a frame's takes columns=, a series' a text
        elif name in WRITING and ONLY_IN.get(name, of) == of and (node.args or not name.startswith("to_")):
            yield name, node.lineno


OF_MODELS = ("gradlab/llm/train/", "gradlab/llm/model/")  # weights and checkpoints, which have tests of their kind


def test_files_are_written_by_the_house_or_listed():
    by_hand, used = [], set()
    for file in sorted((*ROOT.glob("gradlab/**/*.py"), *ROOT.glob("scripts/**/*.py"))):
        name = file.relative_to(ROOT).as_posix()
        if name in HOUSE or name.startswith(OF_MODELS):
            continue
        for call, line in writing_calls(file.read_text("utf-8")):
            if (name, call) in EXCEPTIONS:
                used.add((name, call))
            else:
                by_hand.append(f"{name}:{line} {call}")
    assert by_hand == [], "write with gradlab.store.files, or list the call with its reason"
    assert used == EXCEPTIONS.keys(), "an exception that is not needed any more"


@pytest.mark.parametrize(
    "source",
    ["open(a, 'w')", "open(a, mode='ab')", "a.open('x')", "a.write_text(b)", "os.write(a, b)", "os.open(a, os.O_RDWR)",
     "a.rename(b)", "os.replace(a, b)", "frame.to_csv(a)", "frame.to_parquet(a)", "torch.save(a, b)",
     "partial(figure.savefig, a)", "shutil.copy(a, b)", "json.dump(a, b)"],
)  # fmt: skip
def test_a_hand_that_writes_is_seen(source):
    assert list(writing_calls(source))


@pytest.mark.parametrize(
    "source",
    ["open(a)", "a.open('rb')", "text.replace(a, b)", "frame.rename(columns={})", "frame.to_csv()", "a.copy()",
     "series.rename('best')", "os.open(os.devnull, os.O_WRONLY)"],
)  # fmt: skip
def test_what_writes_nothing_is_not_taken_for_it(source):
    assert not list(writing_calls(source))
