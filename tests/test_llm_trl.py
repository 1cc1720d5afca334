"""The adapter for TRL: gradlab's DPO is TRL's sigmoid, in losses, metrics and parameters; all losses train; the log."""

import copy
import dataclasses
import importlib
import json
import os
import re
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

os.environ.update(HF_HUB_DISABLE_TELEMETRY="1", HF_HUB_OFFLINE="1", TQDM_DISABLE="1")  # read at import
pytest.importorskip("trl")

import datasets
from peft import LoraConfig
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, MixtralConfig, MixtralForCausalLM, PreTrainedTokenizerFast
from transformers.trainer_callback import TrainerState
from trl import DPOConfig, DPOTrainer

import gradlab.llm.trl as adapter
from gradlab.doctor.training_log import read_log
from gradlab.llm.trl import LOG, GradlabDPOTrainer, ImbalanceLog
from gradlab.losses import BATCH_LOSSES, DPO, PAIR_LOSSES, BalancedDPO, PairLogps, WeightedLosses, named_loss
from gradlab.losses.reference_free import SimPO

# TRL 1.16 uses names of transformers that 5.24 has begun to retire.
pytestmark = [
    pytest.mark.slow,  # TRL's trainers take seconds each
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated and will be:FutureWarning"),
]
WORDS = ["<pad>", "</s>", "<unk>", *"abcdefghijklmnopq"]
SIZE = {"vocab_size": len(WORDS), "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 64,
        "bos_token_id": None, "eos_token_id": 1, "pad_token_id": 0}  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer():
    words = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>", eos_token="</s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def pairs():
    """Preference pairs of many lengths."""
    draw = torch.Generator().manual_seed(0)

    def text(longest):
        length = int(torch.randint(2, longest, (1,), generator=draw))
        return "".join(f" {WORDS[int(word)]}" for word in torch.randint(3, len(WORDS), (length,), generator=draw))

    rows = [(text(6), text(12) + " </s>", text(12) + " </s>") for _ in range(24)]
    return datasets.Dataset.from_list([dict(zip(("prompt", "chosen", "rejected"), row, strict=True)) for row in rows])


@pytest.fixture(scope="module")
def llamas():
    """A policy and its reference, which differ, so that the first step's loss is not ln 2 anyhow."""
    torch.manual_seed(0)
    return [LlamaForCausalLM(LlamaConfig(**SIZE, initializer_range=0.2)) for _ in range(2)]


@pytest.fixture
def make(tmp_path, tokenizer, pairs, llamas):
    """A trainer, which is TRL's own where there is no loss; three steps of the same batches each time."""

    def make(loss=None, name="run", *, model=None, reference=None, evaluate=False, settings=None,
             reduction=None, **rest):  # fmt: skip
        own = {
            "output_dir": str(tmp_path / name), "beta": 0.2, "bf16": False, "use_cpu": True, "report_to": "none",
            "disable_tqdm": True, "logging_steps": 1, "save_strategy": "no", "learning_rate": 1e-2, "max_steps": 3,
            "gradient_checkpointing": False, "per_device_train_batch_size": 4, "per_device_eval_batch_size": 3,
        }  # fmt: skip
        own |= {"eval_strategy": "steps", "eval_steps": 2} if evaluate else {}
        rest = {"train_dataset": pairs, "eval_dataset": pairs.select(range(7)) if evaluate else None, **rest}
        arguments = [model or copy.deepcopy(llamas[0]), reference, DPOConfig(**own | (settings or {}))]
        if reference is None and "peft_config" not in rest and "precompute_ref_log_probs" not in (settings or {}):
            arguments[1] = copy.deepcopy(llamas[1])
        ours = {"gradlab_loss": loss, **({"gradlab_reduction": reduction} if reduction else {})}
        kind, more = (DPOTrainer, {}) if loss is None else (GradlabDPOTrainer, ours)
        return kind(*arguments, processing_class=tokenizer, **rest, **more)

    return make


def history(trainer):
    """What the trainer logged, but for the clock."""
    clock = re.compile("runtime|per_second|preparation_time")
    return [{name: row[name] for name in row if not clock.search(name)} for row in trainer.state.log_history]


def log_of(trainer):
    return read_log(Path(trainer.args.output_dir) / LOG)


def by_hand(trainer, model, reference, loss):
    """The mean loss of all pairs, from whole log-softmaxes: another route than the trainer's."""
    batch = trainer.data_collator([trainer.train_dataset[place] for place in range(len(trainer.train_dataset))])
    mask = batch.pop("completion_mask")[:, 1:]
    sums = []
    for one in (model, reference):
        logits = one(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits[:, :-1]
        by_token = torch.log_softmax(logits, -1).gather(-1, batch["input_ids"][:, 1:, None])[..., 0]
        sums += (by_token * mask).sum(1).chunk(2)
    return loss(PairLogps(*sums[:2], *(one.detach() for one in sums[2:]), *mask.sum(1).chunk(2))).mean()


def test_means_over_tokens_are_the_log_probabilities_on_request(make):
    theirs = make(settings={"loss_type": ["sigmoid_norm"]}, name="theirs")
    ours = make(DPO(0.2), name="ours", reduction="mean")
    for trainer in (theirs, ours):
        trainer.train()
    losses = [[row["loss"] for row in trainer.state.log_history if "loss" in row] for trainer in (theirs, ours)]
    np.testing.assert_allclose(*losses, rtol=1e-5)
    for one, other in zip(theirs.model.parameters(), ours.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    log = log_of(ours)
    assert log.attrs["settings"]["reduction"] == "mean"
    assert log["loss"].to_numpy() == pytest.approx(losses[1], rel=1e-5)
    sums = make(DPO(0.2), name="sums")
    sums.train()
    assert (log["logp_win"] > log_of(sums)["logp_win"]).all()  # per token, and not of whole responses
    assert log_of(sums).attrs["settings"]["reduction"] == "sum"
    with pytest.raises(ValueError, match="gradlab_reduction must be one of sum, mean; got 'avg'"):
        make(DPO(0.2), reduction="avg")
    with pytest.raises(ValueError, match=r"gradlab_reduction must be sum with dpo\+0.5\*simpo, which divides log π by"):
        make([(DPO(0.2), 1.0), (SimPO(), 0.5)], reduction="mean")


LORA = LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=["q_proj", "v_proj"])
CASES = {
    "plain": {},
    "accumulated": {"settings": {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 3}},
    "logged now and then": {"settings": {"logging_steps": 2, "max_steps": 4}},
    "evaluated": {"evaluate": True},
    "LoRA": {"peft_config": LORA, "evaluate": True},
    "precomputed": {"settings": {"precompute_ref_log_probs": True}, "evaluate": True},
    "checkpointed and cut": {"settings": {"gradient_checkpointing": True, "max_length": 9}},
    "bf16": {"settings": {"bf16": True}},
}


@pytest.mark.parametrize("case", CASES)
def test_dpo_is_trls_sigmoid(make, case):
    trainers = [make(name="trl", **CASES[case]), make(DPO(beta=0.2), name="gradlab", **CASES[case])]
    for trainer in trainers:
        trainer.train()
    theirs, ours = (history(trainer) for trainer in trainers)
    assert len(theirs) > 2
    assert [list(row) for row in theirs] == [list(row) for row in ours]
    for there, here in zip(theirs, ours, strict=True):
        assert here == pytest.approx(there, rel=1e-6, abs=1e-7)
    before = make(**CASES[case]).model.state_dict()
    ends = [trainer.model.state_dict() for trainer in trainers]
    moved = [name for name in before if not torch.equal(before[name], ends[0][name])]
    assert moved
    for name in before:
        torch.testing.assert_close(ends[1][name], ends[0][name], rtol=1e-6, atol=1e-7)


def test_the_loss_of_routers_is_added_as_trl_adds_it(make):
    torch.manual_seed(0)
    config = MixtralConfig(**SIZE, num_local_experts=2, output_router_logits=True, router_aux_loss_coef=0.3)
    policy, reference = MixtralForCausalLM(config), MixtralForCausalLM(config)
    trainers = [
        make(loss, name, model=copy.deepcopy(policy), reference=copy.deepcopy(reference))
        for loss, name in ((None, "trl"), (DPO(beta=0.2), "gradlab"))
    ]
    for trainer in trainers:
        trainer.train()
    theirs, ours = (history(trainer) for trainer in trainers)
    assert theirs[0]["aux_loss"] > 0
    assert ours[-1] == pytest.approx(theirs[-1], rel=1e-6)


def with_beta(name, beta=0.2):
    loss = named_loss(name)
    return dataclasses.replace(loss, beta=beta) if hasattr(loss, "beta") else loss


SUMS = {
    "dpo+0.5*simpo": ((DPO(0.2), 1.0), (with_beta("simpo"), 0.5)),
    "aot+-0.1*dpo": ((with_beta("aot"), 1), (DPO(0.2), -0.1)),
}


@pytest.mark.parametrize("name", [*PAIR_LOSSES, *BATCH_LOSSES, *SUMS])
def test_every_loss_trains_with_the_gradient_found_by_hand(make, llamas, pairs, name):
    given = list(SUMS[name]) if name in SUMS else with_beta(name)
    loss = WeightedLosses(SUMS[name]) if name in SUMS else given
    policy, reference = (copy.deepcopy(one) for one in llamas)
    settings = {"optim": "sgd", "max_grad_norm": 0.0, "max_steps": 1, "beta": getattr(loss, "beta", 1.0)}
    chosen = pairs.select(range(4))
    value = by_hand(make(loss, "looked-at", settings=settings, train_dataset=chosen), policy, reference, loss)
    value.backward()
    steepest = max(float(one.grad.norm()) for one in policy.parameters() if one.grad is not None)
    rate = 0.5 / max(1.0, steepest)  # a larger step would only enlarge the rounding of float32
    trainer = make(given, settings={**settings, "learning_rate": rate}, train_dataset=chosen)
    trainer.train()
    log = log_of(trainer)
    assert log["loss"].item() == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
    assert history(trainer)[0]["loss"] == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
    assert log.attrs["settings"]["loss"] == name
    after = dict(trainer.model.named_parameters())
    for key, one in policy.named_parameters():
        torch.testing.assert_close(after[key], one - rate * one.grad, rtol=1e-4, atol=1e-5)


def test_a_loss_of_batches_is_logged_batch_by_batch(make, pairs):
    """Two batches of two pairs each are not one batch of four."""
    settings = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "max_steps": 1, "beta": 0.2}
    trainer = make(with_beta("aot"), settings=settings, train_dataset=pairs.select(range(4)))
    trainer.train()
    assert log_of(trainer)["loss"].item() == pytest.approx(history(trainer)[0]["loss"], rel=1e-5)


@pytest.mark.parametrize(
    ("given", "error", "line"),
    [
        ([], ValueError, "parts must be losses with weights"),
        ([DPO(0.2)], TypeError, "a part must be a loss and its weight"),
        ([(DPO, 1.0)], TypeError, "must be an instance"),
        ([(DPO(0.2), 0.0)], ValueError, "weight must not be 0"),
        ([(DPO(0.2), float("nan"))], ValueError, "weight must be finite"),
    ],
)
def test_a_sum_of_losses_needs_losses_and_weights(make, given, error, line):
    with pytest.raises(error, match=line) as raised:
        make(given)
    assert "\n" not in str(raised.value)


def test_the_log_has_every_column_of_log_probabilities_for_whole_steps(make):
    settings = {"gradient_accumulation_steps": 3, "per_device_train_batch_size": 2, "max_steps": 4, "warmup_steps": 2}
    trainer = make(BalancedDPO(beta=0.2), evaluate=True, settings=settings)
    trainer.train()
    log = log_of(trainer)
    of_pairs = {
        "loss", "reward_win", "reward_lose", "reward_margin", "margin", "accuracy", "logp_win", "logp_lose",
        "slope_win", "slope_lose", "win_weight", "win_weight_q10", "win_weight_q50", "win_weight_q90",
        "win_weight_length_correlation", "log_prob_ratio",
    }  # fmt: skip
    validated = {f"validation_{name}" for name in of_pairs}
    assert set(log) == of_pairs | validated | {"step", "grad_norm", "learning_rate"}
    assert log["step"].tolist() == [1, 2, 3, 4]
    assert log["validation_loss"].notna().tolist() == [False, True, False, True]
    theirs = {row["step"]: row for row in history(trainer) if "loss" in row}
    names = {"loss": "loss", "grad_norm": "grad_norm", "reward_win": "rewards/chosen", "logp_lose": "logps/rejected",
             "accuracy": "rewards/accuracies", "learning_rate": "learning_rate"}  # fmt: skip
    for ours, there in names.items():
        np.testing.assert_allclose(log[ours], [theirs[step][there] for step in log["step"]], rtol=1e-5)
    assert log["learning_rate"].nunique() > 2
    evaluated = {row["step"]: row["eval_loss"] for row in history(trainer) if "eval_loss" in row}
    assert log["validation_loss"].dropna().tolist() == pytest.approx(list(evaluated.values()), rel=1e-5)
    own = {"loss": "bdpo", "beta": 0.2, "batch": 6, "learning_rate": 1e-2, "seed": 42}
    assert own.items() <= log.attrs["settings"].items()
    assert log.attrs["notes"] == []


def test_a_resumed_run_goes_on_with_its_log_and_a_new_one_keeps_the_old(make, tmp_path):
    settings = {"max_steps": 4, "save_strategy": "steps", "save_steps": 2}
    make(BalancedDPO(beta=0.2), settings=settings).train()
    whole = (tmp_path / "run" / LOG).read_text()
    assert json.loads(whole.splitlines()[-1])["step"] == 4
    make(BalancedDPO(beta=0.2), settings=settings).train(resume_from_checkpoint=str(tmp_path / "run/checkpoint-2"))
    resumed = (tmp_path / "run" / LOG).read_text()
    before, again = (read_rows(text) for text in (whole, resumed))
    assert len(before) == len(again)
    assert again[:5] == before[:5]
    for there, here in zip(before[5:], again[5:], strict=True):
        assert here == pytest.approx(there, rel=1e-4)
    make(BalancedDPO(beta=0.2), settings=settings).train()
    (old,) = (tmp_path / "run").glob("gradlab-log-until-*.jsonl")
    assert old.read_text() == resumed
    assert log_of(make(BalancedDPO(beta=0.2)))["step"].tolist() == [1, 2, 3, 4]


def read_rows(text):
    return [json.loads(line) for line in text.splitlines()[1:]]


def test_what_is_outside_of_training_or_has_a_name_is_not_logged(make, pairs):
    trainer = make(BalancedDPO(beta=0.2), evaluate=True, eval_dataset={"a": pairs.select([0]), "b": pairs.select([1])})
    trainer.evaluate()
    assert not Path(trainer.args.output_dir, LOG).exists()
    trainer.train()
    text = Path(trainer.args.output_dir, LOG).read_text()
    assert "validation_" not in text
    trainer.evaluate(pairs.select([2]))
    assert Path(trainer.args.output_dir, LOG).read_text() == text


def test_the_callback_gives_of_trls_own_trainer_what_its_logs_have(make):
    trainers = [
        make(name="trl", callbacks=[ImbalanceLog()], evaluate=True),
        make(DPO(beta=0.2), name="gradlab", evaluate=True),
    ]
    for trainer in trainers:
        trainer.train()
    theirs, ours = (log_of(trainer) for trainer in trainers)
    missing = {"win_weight_q10", "win_weight_q50", "win_weight_q90", "slope_win", "slope_lose"}
    assert set(ours) - set(theirs) == missing | {f"validation_{name}" for name in missing}
    assert set(theirs) <= set(ours)  # TRL logs an entropy of every training; gradlab's log has that of samples alone
    train = [name for name in theirs if not name.startswith("validation_")]
    np.testing.assert_allclose(theirs[train], ours[train], rtol=1e-5, atol=1e-6)
    # TRL's means at evaluation are over batches, of which the last may be smaller; its loss alone is over pairs.
    assert theirs["validation_loss"].dropna().tolist() == pytest.approx(ours["validation_loss"].dropna().tolist())
    assert theirs.attrs["settings"]["loss"] == "dpo"


def test_only_the_main_process_writes(tmp_path):
    args = DPOConfig(output_dir=str(tmp_path), bf16=False, use_cpu=True, report_to="none")
    for main in (False, True):
        state, log = TrainerState(is_world_process_zero=main, global_step=1), ImbalanceLog()
        log.on_train_begin(args, state, None)
        log.on_log(args, state, None, logs={"loss": 0.5})
        assert (tmp_path / LOG).exists() == main
    assert read_log(tmp_path / LOG)["loss"].tolist() == [0.5]


def test_the_callback_claims_nothing_of_trls_other_losses(make):
    trainer = make(callbacks=[ImbalanceLog()], settings={"loss_type": ["ipo", "sft"]})
    trainer.train()
    log = log_of(trainer)
    assert not {"margin", "win_weight", "log_prob_ratio"} & set(log)
    assert {"loss", "reward_margin", "logp_win", "grad_norm"} <= set(log)
    assert log.attrs["settings"]["loss"] == "TRL's ipo + sft"


FAULTS = {
    "beta must be 0.3, got 0.2": (DPO(beta=0.3), {}),
    "loss_type must be ['sigmoid'], got ['sigmoid', 'sft']": (DPO(beta=0.2), {"loss_type": ["sigmoid", "sft"]}),
    "loss_type must be ['sigmoid'], got ['ipo']": (DPO(beta=0.2), {"loss_type": "ipo"}),
    "loss_weights must be None, got [0.5]": (DPO(beta=0.2), {"loss_weights": [0.5]}),
    "ld_alpha must be None, got 0.5": (DPO(beta=0.2), {"ld_alpha": 0.5}),
    "f_divergence_type must be 'reverse_kl', got 'js_divergence'": (
        DPO(beta=0.2), {"f_divergence_type": "js_divergence"}),
    "label_smoothing must be 0.0, got 0.1": (DPO(beta=0.2), {"label_smoothing": 0.1}),
    "use_weighting must be False, got True": (DPO(beta=0.2), {"use_weighting": True}),
    "padding_free must be False, got True": (DPO(beta=0.2), {"padding_free": True}),
    "gradlab_loss must be a loss such as gradlab.losses.DPO(beta=0.1), got 'bdpo'": ("bdpo", {}),
    "gradlab_loss must be a loss such as gradlab.losses.DPO(beta=0.1), got <class": (DPO, {}),
}  # fmt: skip


@pytest.mark.parametrize("line", FAULTS)
def test_a_setting_that_would_be_ignored_is_refused(make, line):
    loss, settings = FAULTS[line]
    with pytest.raises(ValueError, match=re.escape(line)) as error:
        make(loss, settings=settings)
    assert "\n" not in str(error.value)


def test_args_are_needed(llamas):
    with pytest.raises(ValueError, match=r"args must be a trl.DPOConfig, got None"):
        GradlabDPOTrainer(llamas[0], gradlab_loss=DPO())


@pytest.mark.parametrize("fault", ["another reference", "no call"])
def test_a_trl_that_computes_otherwise_is_noticed(make, monkeypatch, fault):
    own = DPOTrainer.compute_loss

    def compute_loss(self, model, inputs, *rest):
        if fault == "no call":
            return torch.tensor(0.5)
        shifted = {**inputs, "completion_mask": inputs["completion_mask"].roll(1, 0)}
        return own(self, model, shifted, *rest)

    trainer = make(DPO(beta=0.2))
    monkeypatch.setattr(DPOTrainer, "compute_loss", compute_loss)
    with pytest.raises(RuntimeError, match="did not call its models" if fault == "no call" else "gives the loss"):
        trainer.train()


def test_logits_give_the_sums_that_the_fused_head_gives(make):
    trainer = make()
    inputs = trainer.data_collator([trainer.train_dataset[place] for place in range(5)])
    ids = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    labels = ids["input_ids"].masked_fill(inputs["completion_mask"] == 0, -100)
    with torch.no_grad(), adapter._heard(trainer.model, inputs) as calls:
        trainer.model(**ids, labels=labels, fused_lm_head=True)
        trainer.model(**ids)
    (fused, _), (whole, _) = calls
    assert fused.shape == (10,)
    torch.testing.assert_close(fused, whole, rtol=1e-5, atol=1e-5)


def test_without_trl_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "trl", None)
    monkeypatch.delitem(sys.modules, "gradlab.llm.trl")
    with pytest.raises(ImportError, match=r"gradlab\.llm\.trl needs TRL \(.*\): pip install 'gradlab\[trl\]'"):
        importlib.import_module("gradlab.llm.trl")


def test_the_example_runs(llamas, tokenizer, pairs, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    llamas[0].save_pretrained("model")
    tokenizer.save_pretrained("model")
    code = textwrap.dedent(adapter.__doc__.partition("::\n\n")[2])
    assert len(code.splitlines()) <= 12
    code = code.replace('output_dir="out"', 'output_dir="out", report_to="none", use_cpu=True, max_steps=2')
    exec(code, {"model": "model", "pairs": pairs})
    assert "slope_lose" in capsys.readouterr().out
