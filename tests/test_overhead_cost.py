"""The measurement of Balanced-DPO's cost is paired, times what it says, and is saved whole."""

import pytest
import torch

from gradlab.losses import DPO, BalancedDPO
from gradlab.store.artifacts import load_frame
from scripts.benchmarks import overhead_cost as overhead

pytestmark = pytest.mark.slow


def test_a_quick_run_saves_both_sides_of_every_pair(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(overhead, "CASES", {"loss alone": overhead.loss_alone})
    overhead.bench(tmp_path, quick=True)
    frame, manifest = load_frame(tmp_path / "overhead.parquet")
    assert manifest["quick"] is True
    on_cpu = frame[frame["device"] == "cpu"]
    timed = on_cpu.dropna(subset=["seconds"])
    times = timed.pivot(index=["what", "pair"], columns="method", values="seconds")
    assert len(times) == 2
    assert (times > 0).all().all()
    assert (on_cpu["peak_mb"].dropna() > 50).all()
    assert "loss alone" in capsys.readouterr().out


def test_the_small_language_model_looks_only_back_and_its_step_trains_it():
    torch.manual_seed(0)
    model = overhead.CausalModel()
    tokens = torch.randint(overhead.VOCABULARY, (2, 12))
    with torch.no_grad():
        whole, start = model.logp(tokens), model.logp(tokens[:, :6])
        changed = tokens.clone()
        changed[:, 8:] = 0
        assert torch.allclose(model.logp(changed[:, :6]), start)
        assert (whole < start).all()
    for loss in (DPO(), BalancedDPO()):
        step = overhead.language_model_step(loss, "cpu")
        model = next(cell.cell_contents for cell in step.__closure__ if isinstance(cell.cell_contents, torch.nn.Module))
        before = model.head.weight.detach().clone()
        step()
        assert not torch.equal(before, model.head.weight)
