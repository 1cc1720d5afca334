"""What runs in a browser: its built file is that of its sources, and its numbers are the library's."""

import json
import subprocess

import numpy as np
import pytest
import torch
from node import WEB, needs_node, node
from own_losses import every_loss
from rounding import rounding

from gradlab.lab import metrics
from gradlab.lab.engine.webassembly import slopes_kernel, training_kernel
from gradlab.lab.optimizers import OPTIMIZERS
from gradlab.lab.world import gaussian_world
from gradlab.losses import DPO, BalancedDPO, PairLogps, log_prob_ratio, slopes

BUILT = ("gradlab.js", "gradlab.licenses.txt")


def packages_missing():
    """Return why the front end cannot be built here, or None."""
    installed = WEB / "node_modules/.package-lock.json"
    if not installed.exists():
        return "no packages in gradlab/web/node_modules (make node installs them)"
    wanted = json.loads((WEB / "package-lock.json").read_text("utf-8"))["packages"]
    there = json.loads(installed.read_text("utf-8"))["packages"]
    others = [name for name, one in there.items() if wanted.get(name, {}).get("version") != one["version"]]
    return f"other versions than package-lock.json's are installed: {', '.join(others)}" if others else None


needs_packages = pytest.mark.skipif(packages_missing() is not None, reason=str(packages_missing()))


@needs_node
@needs_packages
def test_the_built_file_and_its_licences_are_those_of_the_sources(tmp_path):
    node("build.mjs", str(tmp_path))
    for name in BUILT:
        assert (tmp_path / name).read_bytes() == (WEB / name).read_bytes(), f"{name} is stale: run make web"


@needs_node
@needs_packages
@pytest.mark.slow
def test_types_agree():
    run = subprocess.run(["npx", "--no-install", "tsc"], cwd=WEB, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout


def test_every_package_is_pinned_and_no_address_is_locked():
    asked = json.loads((WEB / "package.json").read_text("utf-8"))["devDependencies"]
    lock = json.loads((WEB / "package-lock.json").read_text("utf-8"))["packages"]
    for name, version in asked.items():
        assert lock[f"node_modules/{name}"]["version"] == version
    assert not [name for name, one in lock.items() if "resolved" in one]
    assert all("integrity" in one for name, one in lock.items() if name)


def script(body, given):
    """Run a module that has the built file as ``lab`` and ``given``; return what it makes of them."""
    code = f"""
      import {{ readFileSync }} from "node:fs";
      import * as lab from "{(WEB / "gradlab.js").as_posix()}";
      const given = JSON.parse(readFileSync(0, "utf8"));
      const answer = await (async () => {{ {body} }})();
      console.log(JSON.stringify(answer, (key, value) => ArrayBuffer.isView(value) ? [...value] : value));
    """
    return json.loads(node("--input-type=module", "-e", code, given=given))


# --- metrics ---


def worlds():
    rng = np.random.default_rng(0)
    for seed, reference in enumerate(["uniform", "random", "shifted"]):
        world = gaussian_world(6, 9, mask_rate=0.3 * (seed > 0), reference=reference, seed=seed)
        yield world, torch.log_softmax(torch.from_numpy(3 * rng.standard_normal(world.utility.shape)), -1)


METRICS = {  # by their names here: their names in the page, and their arguments
    "expected_utility": ("expectedUtility", ("logp", "utility")),
    "utility_share": ("utilityShare", ("logp", "utility", "ref_logp")),
    "kl_to_reference": ("klToReference", ("logp", "ref_logp")),
    "entropy": ("entropy", ("logp",)),
    "unobserved_mass": ("unobservedMass", ("logp", "observed")),
    "top1_accuracy": ("top1Accuracy", ("logp", "utility")),
    "win_rate": ("winRate", ("logp", "ref_logp", "utility")),
}


@needs_node
def test_metrics_in_a_page_are_those_of_the_library():
    asked, expected = [], []
    for world, logp in worlds():
        arrays = {name: torch.tensor(getattr(world, name)) for name in ("utility", "ref_logp", "observed")}
        arrays["logp"] = logp
        for name, (there, arguments) in METRICS.items():
            given = [arrays[argument].numpy().ravel().tolist() for argument in arguments]
            asked.append([there, *given, world.responses])
            expected.append(getattr(metrics, name)(*(arrays[argument] for argument in arguments)).item())
    answers = script("return given.map(([name, ...rest]) => lab.metrics[name](...rest));", asked)
    # 54 terms of at most three functions and four products each, of at most 4 nats; a win rate sums 9 in each
    np.testing.assert_allclose(answers, expected, rtol=0, atol=rounding(54 * 10, 4.0))


@needs_node
def test_share_of_the_reward_is_nan_where_nothing_can_be_gained_and_ties_count_in_part():
    body = """
      const flat = [1, 1, 2, 2];
      const even = [0.5, 0.5, 0.5, 0.5].map(Math.log);
      return [String(lab.metrics.utilityShare(even, flat, even, 2)), lab.metrics.top1Accuracy(even, [1, 0, 2, 2], 2)];
    """
    assert script(body, None) == ["NaN", 0.75]


# --- pairs ---


def pairs():
    """Pairs of every size of log-probability, at the reference and away from it: (37), not a multiple of the lanes."""
    rng = np.random.default_rng(0)
    sides = -rng.exponential([[2.0], [2.0], [2.0], [2.0]], (4, 37))
    sides[:, -3:] = np.array(
        [[-1e-9, -800.0, -30.0], [-40.0, -1e-5, -30.0], [-3.0, -700.0, -30.0], [-3.0, -2.0, -30.0]]
    )
    sides[2:, :5] = sides[:2, :5]
    return PairLogps(*map(torch.from_numpy, sides))


@needs_node
@pytest.mark.parametrize("loss", [DPO(0.5), BalancedDPO()], ids=lambda one: one.name)
def test_slopes_and_ratios_of_pairs_are_those_of_the_library(loss):
    check_slopes(loss)


@needs_node
@pytest.mark.slow
@every_loss
def test_so_are_those_of_every_loss(loss):
    check_slopes(loss)


def check_slopes(loss):
    given = pairs()
    sides = {"win": given.win, "lose": given.lose, "refWin": given.ref_win, "refLose": given.ref_lose}
    body = """
      const kernel = await lab.Kernel.load(given.kernel);
      const { win, lose } = lab.slopes(kernel, given.pairs);
      const twice = lab.slopes(kernel, given.pairs); // as in the same memory
      const at = given.pairs;
      const ratios = [...win].map((one, n) => lab.logProbRatio(one, lose[n], at.win[n], at.lose[n]));
      return [win, lose, ratios.map(String), [...win].every((one, at) => Object.is(one, twice.win[at]))];
    """
    request = {
        "kernel": slopes_kernel(loss).record(), "pairs": {name: side.tolist() for name, side in sides.items()},
    }  # fmt: skip
    *found, ratios, same = script(body, request)
    assert same
    # about thirty roundings, of which those before an exp count by its argument, here at most 800
    for there, here in zip(found, slopes(loss, given), strict=True):
        np.testing.assert_allclose(there, here.numpy(), rtol=rounding(30, 800.0), atol=1e-300)
    expected = log_prob_ratio(loss, given).numpy()
    np.testing.assert_allclose(np.array(ratios, float), expected, rtol=0, atol=rounding(60, 800.0))


# --- kernels and what they refuse ---


@needs_node
def test_a_kernel_or_a_problem_that_is_not_fit_is_refused_in_one_sentence():
    body = """
      const said = async (action) => {
        try { await action(); return "nothing"; } catch (error) { return error.message; }
      };
      const damaged = { ...given, module: given.module.slice(0, 400) };
      const kernel = await lab.Kernel.load(given);
      const other = await lab.Kernel.load({ ...given, optimizer: "lion" });
      const columns = { count: 1, responses: 2, weights: [0, 1, 1, 0], reference: [-1, -1], start: [-1, -1] };
      return [
        await said(() => lab.Kernel.load(damaged)),
        await said(() => lab.Kernel.load({ ...given, function: "ascend" })),
        await said(() => lab.train(kernel, { ...columns, start: [-1] }, 0.1, [1])),
        await said(() => lab.train(kernel, { ...columns, features: [1, 1] }, 0.1, [1])),
        await said(() => lab.train(kernel, columns, 0.1, [3, 2])),
        await said(() => lab.train(other, columns, 0.1, [1])),
        await said(() => kernel.allocate({ steps: 3 })),
      ];
    """
    assert script(body, training_kernel(DPO()).record()) == [
        "This browser cannot run the kernel: it needs WebAssembly with SIMD, and an undamaged module.",
        'The kernel has no function "ascend".',
        "start must have 2 numbers, got 1",
        "features must be absent for this kernel",
        "wanted must be whole steps that rise, got 3, 2",
        'optimizer must be one of adam, gd, got "lion"',
        'The kernel takes no array "steps".',
    ]


@needs_node
def test_factors_of_the_optimisers_are_those_of_the_library():
    body = """
      const steps = [...Array(500).keys()];
      return Object.entries(lab.FACTORS).map(([name, of]) => [name, steps.map((step) => of(0.05, step + 1))]);
    """
    there = dict(script(body, None))
    assert set(there) == set(OPTIMIZERS)
    for name, rule in OPTIMIZERS.items():  # a power of n rounds n times at most
        np.testing.assert_allclose(there[name], rule.factors(0.05, 500), rtol=rounding(500))
