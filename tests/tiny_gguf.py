"""A tiny Llama as a GGUF file, as llama.cpp writes it: what the tests of reading such files share."""

import numpy as np
from gguf import GGMLQuantizationType as Kind
from gguf import GGUFWriter
from gguf.quants import dequantize, quantize

from gradlab.llm.model.gguf_tokens import byte_letters
from gradlab.llm.model.loading import small_llama

SPECIAL = ("<unk>", "<|im_start|>", "<|im_end|>")
MERGES = ("Ġ t", "h e", "Ġt he", "1 2", "i n")
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TOKENS = [*SPECIAL, *byte_letters(), *(merge.replace(" ", "") for merge in MERGES)]
WIDTH, HEADS = 96, 2  # rows of whole blocks of 32
_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "model.layers": "blk",
}  # fmt: skip


def tiny_llama(seed=0):
    return small_llama(len(TOKENS), width=WIDTH, layers=2, heads=HEADS, longest=512, seed=seed)


def write_gguf(file, *, architecture="llama", pre="smollm", kind=Kind.Q4_1, seed=0, tensors=(), bos=False, **metadata):
    """Write the file; return the weights that it stands for, by transformers' names.

    tensors   names and arrays beside the model's. metadata: more entries of the file, by name.
    bos       whether a text begins with BOS; None: the file does not say so.
    """
    model = tiny_llama(seed)
    writer = GGUFWriter(file, architecture)
    writer.add_name("tiny")
    writer.add_block_count(2)
    writer.add_context_length(512)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(model.config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(TOKENS)
    writer.add_token_types([3] * len(SPECIAL) + [1] * (len(TOKENS) - len(SPECIAL)))
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)
    if bos is not None:
        writer.add_add_bos_token(bos)
    writer.add_chat_template(TEMPLATE)
    for name, value in metadata.items():
        writer.add_string(name, value)
    whole = {}
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight":
            continue
        array = tensor.numpy()
        stored = _permuted(array) if "q_proj" in name or "k_proj" in name else array
        of = kind if array.ndim == 2 and "embed" not in name else Kind.F32 if array.ndim == 1 else Kind.Q8_0
        data = stored if of == Kind.F32 else quantize(stored, of)
        back = data if of == Kind.F32 else dequantize(data, of)
        whole[name] = _permuted(back, back=True) if "q_proj" in name or "k_proj" in name else back
        writer.add_tensor(_spelled(name), data, raw_dtype=None if of == Kind.F32 else of)
    for name, array in tensors:
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return whole


def _spelled(name):
    for ours, theirs in _NAMES.items():
        name = name.replace(ours, theirs)
    return name


def _permuted(array, *, back=False):
    """Return the rows of queries or keys in the order of llama.cpp, pairs of a rotation side by side; or ``back``."""
    half = WIDTH // HEADS // 2
    shape = (HEADS, half, 2) if back else (HEADS, 2, half)
    return np.ascontiguousarray(array.reshape(*shape, -1).swapaxes(1, 2).reshape(array.shape))
