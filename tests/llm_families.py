"""Every kind of causal language model that transformers has, with random weights, at a tiny size."""

from __future__ import annotations

import re
from typing import Any

import torch
from transformers import AutoModelForCausalLM
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING

VOCABULARY = 40
# Sizes by the names of a config's whole numbers: the first pattern that fits. Any other number over 64 becomes 32.
_SIZES = {
    r"vocab_size\w*|decoder_vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2,
    r"(decoder_|image_|video_|audio_|bo\w|eo\w)?\w*token_(id|index)": 3,
    r"num_experts_per_tok(en)?|moe_k|moe_topk|top_k|topk_group|n_group|num_expert_group|num_nextn_predict_layers": 1,
    r"(moe_num|num_local|n_routed|num|zero|max)_experts?(_num)?|zero_expert_num": 2,
    r"first_k_dense_replace|\w*dense_layers|expert_layer_offset|attn_layer_offset|moe_layer_interval|\w*n_?groups": 1,
    r"moe_layer_start_index|num_kv_shared_layers": 0,
    r"\w*(key_value|kv|num_query|linear_num_key)_?(heads|groups)|num_kv_heads|n_kv_heads": 4,
    r"\w*attention_heads|\w*num_(key|value)_heads|n_heads?|num_heads|mamba_\w*heads|index_n_heads|encoder_heads": 4,
    r"\w*(hidden_layers|encoder_layers|decoder_layers)|n_layers?|num_layers|n_(input|output|recurrent)_layers": 4,
    r"(attention_)?hidden_size|d_model|n_embd|embedding_(size|dim)|emb_dim|word_embed_proj_dim|lru_width": 32,
    r"\w*head_dim|kv_channels|d_head|dim_head|rotary_dim|mamba_d_head|mamba_headdim|\w*_head_size": 8,
    r"\w*(intermediate_size\w*|ffn_dim|ffn_hidden_size|d_ff|dff|dim_ff|d_inner|feed_forward_size)|ffn_dim": 16,
    r"\w*(max_position_embeddings|n_positions|n_ctx|max_seq_len|context_length|max_target_positions)": 64,
}  # fmt: skip
_LEFT_OUT = ("num_key_value_heads", "moe_intermediate_size", "moe_topk", "num_experts_per_tok")  # None as a default
# Sizes that depend on each other by a rule of the family.
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8}
_ALSO: dict[str, dict[str, Any]] = {
    "bamba": _MAMBA,
    "granitemoehybrid": _MAMBA,
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1},
    "dory": {"n_input_layers": 1, "n_recurrent_layers": 2, "n_output_layers": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 2]]},
    "reformer": {"axial_pos_embds_dim": (16, 16), "axial_pos_shape": (8, 8)},
    "nemotron": {"head_dim": 8},
    "ministral": {"head_dim": 8},
    "hunyuan_v1_dense": {"head_dim": 8},
    "zamba": {"num_hidden_layers": 4},
    "xlm": {"causal": True},
    "minicpm3": {"dim_model_base": 4},
}
FAMILIES = {kind.model_type: kind for kind in MODEL_FOR_CAUSAL_LM_MAPPING}


def _size(name: str, value: int) -> int:
    known = next((size for pattern, size in _SIZES.items() if re.fullmatch(pattern, name)), None)
    return min(value, 32 if value > 64 else value) if known is None else known


def tiny_config(kind: Any) -> Any:
    """Return the config with all sizes shrunk by their names, those of its parts too."""
    usual = kind()
    given: dict[str, Any] = {}
    for name, value in vars(usual).items():
        if name in usual.sub_configs:
            if value is not None:
                given[name] = tiny_config(type(value))
        elif isinstance(value, int) and not isinstance(value, bool) and not name.startswith("_"):
            given[name] = _size(name, value)
        elif value is None and name in _LEFT_OUT:
            given[name] = _size(name, 4)
        elif name.endswith(("layer_types", "block_type")) and isinstance(value, list | tuple):
            kinds: list[Any] = list(dict.fromkeys(value))
            given[name] = (4 * kinds)[:4]
    given |= {"is_decoder": True, **_ALSO.get(kind.model_type, {})}
    given.pop("chunk_size_feed_forward", None)
    return kind(**given)


def tiny_model(name: str) -> Any:
    """Return a model of a family; any error where it does not build."""
    config = tiny_config(FAMILIES[name])
    with torch.device("meta"):
        size = AutoModelForCausalLM.from_config(config).num_parameters()
    if size > 5_000_000:
        raise ValueError(f"{size:,} parameters")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return AutoModelForCausalLM.from_config(config).eval()
