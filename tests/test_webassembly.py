"""Kernels as WebAssembly modules: the same bytes each time, valid, small; and what cannot be one is refused."""

import base64
import json
import shutil
import subprocess
import zlib
from dataclasses import dataclass, fields, replace

import llvmlite.binding as llvm
import pytest
import torch
from own_losses import Lopsided, SquaredMargin, every_loss

from gradlab.experiments.methods import PermutedBalancedDPO
from gradlab.lab.engine import NotFusable, webassembly
from gradlab.lab.engine.constants import laws
from gradlab.lab.engine.kernel import ARGUMENTS
from gradlab.lab.engine.trace import derivative
from gradlab.lab.engine.webassembly import linked, module, slopes_kernel, training_kernel
from gradlab.lab.training import Training
from gradlab.losses import DPO, IPO, BalancedDPO, ConservativeDPO, FixedWeightDPO, NaiveBalancedDPO, pair_loss

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="no Node on the PATH (make node installs it)")
RECIPES = [
    Training(policy=policy, optimizer=optimizer, dtype=dtype)
    for policy in ("free", "shared")
    for optimizer in ("adam", "gd")
    for dtype in ("float32", "float64")
]


def test_equal_arguments_give_equal_bytes():
    first = module(DPO())
    webassembly._compiled.cache_clear()
    assert module(DPO()) == first
    assert module(DPO(2.0)) == first
    assert module(DPO(), Training(optimizer="gd")) != first


@pytest.mark.slow
def test_each_recipe_has_bytes_of_its_own():
    first = [module(BalancedDPO(), recipe) for recipe in RECIPES]
    webassembly._compiled.cache_clear()
    assert [module(BalancedDPO(), recipe) for recipe in RECIPES] == first
    assert len(set(first)) == len(RECIPES)
    assert module(NaiveBalancedDPO(0.5, 0.2)) == module(NaiveBalancedDPO(2.0, 0.7))


@pytest.mark.slow
@every_loss
def test_a_module_is_small(loss):
    for dtype, most in (("float32", 12_000), ("float64", 18_000)):
        code = module(loss, Training(policy="shared", dtype=dtype))
        assert len(code) < most
        assert len(zlib.compress(code)) < most / 2.5
        assert len(slopes_kernel(loss, dtype).module) < most / 3


def test_a_record_says_all_that_a_caller_needs():
    kernel = training_kernel(NaiveBalancedDPO(2.0, 0.25), Training(policy="shared", optimizer="gd", dtype="float32"))
    record = json.loads(json.dumps(kernel.record()))
    assert base64.b64decode(record.pop("module")) == kernel.module
    assert dict(record.pop("arguments")) == ARGUMENTS
    assert {2.0, 0.25} <= set(record.pop("constants"))
    assert record == {
        "function": "descend", "dtype": "float32", "lanes": 4, "antisymmetric": False, "shared": True,
        "optimizer": "gd", "memories": 0, "laws": None, "hyper": {},
    }  # fmt: skip


@needs_node
@pytest.mark.parametrize(
    ("losses", "recipes"),
    [([DPO()], [Training()]), pytest.param([DPO(), Lopsided(), SquaredMargin()], RECIPES, marks=pytest.mark.slow)],
    ids=["one", "many"],
)
def test_node_finds_every_module_valid_with_one_import_and_one_export(losses, recipes):
    kernels = [training_kernel(loss, recipe) for loss in losses for recipe in recipes]
    kernels += [slopes_kernel(loss) for loss in losses]
    script = """
      const records = JSON.parse(require("fs").readFileSync(0));
      console.log(JSON.stringify(records.map(({module, function: name}) => {
        const bytes = Buffer.from(module, "base64");
        if (!WebAssembly.validate(bytes)) return "invalid";
        const made = new WebAssembly.Module(bytes);
        const [given, offered] = [WebAssembly.Module.imports(made), WebAssembly.Module.exports(made)];
        return [given.map((one) => `${one.module}.${one.name}`), offered.map((one) => one.name), name];
      })));
    """
    records = json.dumps([kernel.record() for kernel in kernels])
    run = subprocess.run(["node", "-e", script], input=records, capture_output=True, text=True, check=True)
    for offered, name in zip(json.loads(run.stdout), (kernel.function for kernel in kernels), strict=True):
        assert offered == [["env.__linear_memory"], [name], name]


# --- one kernel for all hyper-parameters ---

MOVED = {
    "dpo": DPO(3.0),
    "cdpo": ConservativeDPO(0.2, 0.4),
    "ipo": IPO(0.05),
    "bdpo": BalancedDPO(7.0),
    "nbdpo": NaiveBalancedDPO(2.0, 1.5),
    "nbdpo-symmetric": NaiveBalancedDPO(2.0, 1.5, symmetric=True),
    "fixed-weight": FixedWeightDPO(2.0, 0.5),
    "robust": pair_loss("robust", label_smoothing=0.3),
    "exo": pair_loss("exo", beta=2.0, label_smoothing=0.2),
    "simpo": pair_loss("simpo", beta=3.0, gamma=0.5),
    "lopsided": Lopsided(2.0),
}


@pytest.mark.parametrize("loss", MOVED.values(), ids=MOVED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=["float32", "float64"])
def test_laws_give_the_constants_of_a_loss_at_any_hyper_parameters(loss, dtype):
    general, found, hyper = laws(loss, dtype)
    assert set(hyper) == {field.name for field in fields(loss) if isinstance(getattr(loss, field.name), float)}
    assert hyper == {name: getattr(loss, name) for name in hyper}
    other = replace(general, **{name: 1.3 * getattr(general, name) for name in hyper})
    _, constants = derivative(other, dtype)
    at = {name: getattr(other, name) for name in hyper}
    assert [law.at(at) for law in found] == pytest.approx(constants, rel=1e-12)


@pytest.mark.parametrize("kind", [DPO, Lopsided])
def test_a_whole_number_in_a_field_of_real_numbers_can_be_moved_too(kind):
    assert laws(kind(3), torch.float64) == laws(kind(3.0), torch.float64)
    assert laws(kind(3), torch.float64)[2] == {"beta": 3.0}


@dataclass(frozen=True)
class Odd:
    """A loss with one constant of two hyper-parameters, or with other operations from some value on."""

    beta: float = 1.0
    power: float = 1.0
    branches: bool = False
    name = "odd"
    equation = source = "a test"
    antisymmetric = False

    def __call__(self, logps):
        gap = logps.win_logratio - logps.lose_logratio
        if self.branches:
            return (gap * gap if self.beta > 1 else gap).exp()
        return (self.beta * self.power * gap).exp()


@pytest.mark.parametrize("loss", [Odd(), Odd(branches=True), SquaredMargin()], ids=["product", "branches", "no number"])
def test_where_no_law_holds_the_kernel_serves_its_own_hyper_parameters(loss):
    kernel = training_kernel(loss, general=True)
    if isinstance(loss, SquaredMargin):
        assert kernel.hyper == {}
        assert all(law.name is None for law in kernel.laws)
    else:
        assert kernel.laws is None
        assert kernel == training_kernel(loss)


def test_a_general_kernel_is_that_of_no_special_value():
    general = slopes_kernel(FixedWeightDPO(win_weight=0.5), general=True)
    assert not general.antisymmetric
    assert slopes_kernel(FixedWeightDPO(win_weight=0.5)).antisymmetric
    assert general.hyper == {"beta": 1.0, "win_weight": 0.5}


# --- what is refused ---


class Averaged:
    name, equation, source, antisymmetric = "averaged", "", "a test", False

    def __call__(self, logps):
        return logps.win_logratio - logps.lose_logratio.mean()


@pytest.mark.parametrize("kernel_of", [training_kernel, slopes_kernel])
def test_a_loss_that_cannot_be_fused_has_no_module(kernel_of):
    with pytest.raises(NotFusable, match=r"^it does not treat every pair alike, by a fixed formula$"):
        kernel_of(Averaged())


def test_so_has_a_loss_whose_pairs_take_numbers_of_others():
    with pytest.raises(NotFusable, match=r"^its pairs take numbers of other pairs, which a page does not deal out$"):
        training_kernel(PermutedBalancedDPO())


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        (Training(pairs=9, batch=3), "every step has a mini-batch of its own"),
        (Training(dtype=torch.bfloat16), "a kernel has no torch.bfloat16 on cpu, but float64 and float32 on the cpu"),
    ],
    ids=["batch", "dtype"],
)
def test_so_has_a_recipe(recipe, reason):
    with pytest.raises(NotFusable, match=f"^{reason}$"):
        training_kernel(DPO(), recipe)


def test_a_build_of_llvm_without_the_target_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(webassembly, "TRIPLE", "wasm128-unknown-unknown")
    webassembly._compiled.cache_clear()
    with pytest.raises(
        RuntimeError, match=r"^llvmlite \S+ cannot compile to WebAssembly here, since its LLVM lacks wasm"
    ):
        training_kernel(DPO())


def object_of(assembly):
    """Compile assembly to an object for WebAssembly."""
    llvm.initialize_all_targets()
    llvm.initialize_all_asmprinters()
    made = llvm.parse_assembly(f'target triple = "{webassembly.TRIPLE}"\n{assembly}')
    return llvm.Target.from_triple(webassembly.TRIPLE).create_target_machine(reloc="static").emit_object(made)


def test_an_object_that_needs_a_linker_is_refused():
    good = object_of("define double @f(double %x) {\n ret double %x\n}")
    assert linked(good, "f").startswith(b"\0asm")
    in_memory = "@place = internal global double 1.0\n"
    in_memory += "define double @f() {\n %x = load double, ptr @place\n store double 2.0, ptr @place\n ret double %x\n}"
    calls = "declare double @sin(double)\ndefine double @f(double %x) {\n %y = call double @sin(double %x)\n"
    calls += " ret double %y\n}"
    with pytest.raises(RuntimeError, match=r"^f must need no linker, but its object has relocations$"):
        linked(object_of(in_memory), "f")
    with pytest.raises(RuntimeError, match=r"^f must import a memory alone, but its object imports more$"):
        linked(object_of(calls), "f")
    with pytest.raises(RuntimeError, match=r"^LLVM's object must begin as a WebAssembly module does$"):
        linked(b"\x7fELF", "f")


@pytest.mark.parametrize("size", [0, 1, 127, 128, 300, 20_000])
def test_sections_of_every_size_pass_through(size):
    """A custom section of any size is dropped, and what follows it is still found."""
    good = object_of("define double @f(double %x) {\n ret double %x\n}")
    name = b"\1x"
    content = name + bytes(size)
    length = bytes([len(content) & 127 | 128, len(content) >> 7 & 127 | 128, len(content) >> 14])
    assert linked(good[:8] + b"\0" + length + content + good[8:], "f") == linked(good, "f")
