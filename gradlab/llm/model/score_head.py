"""The score models of safe-rlhf, which transformers lacks: a Llama with one linear head, read at the last token."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel, LlamaPreTrainedModel

ARCHITECTURES = ("LlamaModelForScore", "LlamaForScore")  # of safe-rlhf's older and newer checkpoints
_NORMALISED = {"reward": "affine", "cost": "scale", "critic": "identity"}  # by the config's score_type


class LlamaForScore(LlamaPreTrainedModel):
    """A Llama with safe-rlhf's score head.

    Weights are named as in safe-rlhf's checkpoints: ``model.*`` and ``score_head.weight`` (1, H), perhaps a bias.

    A checkpoint whose config says ``do_normalize`` has its scores shifted and scaled by the config's mean and variance;
    a cost is scaled only, so that it keeps its sign. Source: the format of github.com/PKU-Alignment/safe-rlhf.
    """

    _keys_to_ignore_on_load_unexpected = [r"^normalizer\.", r"^lm_head\.", r"rotary_emb\.inv_freq"]  # noqa: RUF012

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__(config)
        self.model = LlamaModel(config)
        said: Any = config
        if getattr(said, "score_dim", 1) != 1:
            raise ValueError(f"score_dim of a score model must be 1, got {said.score_dim}")
        kind = getattr(said, "score_type", "reward")
        if kind not in _NORMALISED:
            raise ValueError(f"score_type of a score model must be one of {', '.join(_NORMALISED)}; got {kind!r}")
        self.score_head = nn.Linear(
            said.hidden_size, 1, bias=bool(getattr(said, "score_bias", getattr(said, "bias", False)))
        )
        self.shift, self.scale = 0.0, 1.0
        if getattr(said, "do_normalize", False) and _NORMALISED[kind] != "identity":
            mean, var = getattr(said, "mean", None) or [0.0], getattr(said, "var", None) or [1.0]
            self.shift = float(mean[0]) if _NORMALISED[kind] == "affine" else 0.0
            self.scale = float(var[0]) ** 0.5 + 1e-8
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return the score of each text, (B,) float32, at its last token that is no padding."""
        hidden = self.model(input_ids, attention_mask=attention_mask, use_cache=False).last_hidden_state
        place = torch.arange(input_ids.shape[1], device=input_ids.device)
        last = (place * attention_mask).argmax(1)
        score = self.score_head(hidden[torch.arange(len(last), device=last.device), last])[:, 0]
        return (score.float() - self.shift) / self.scale
