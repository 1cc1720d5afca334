"""The rows that looks of all tasks share: held-out pairs, and sampled responses, under the policy and the reference."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from gradlab.llm.data.batches import Row, len_of, pair_rows
from gradlab.llm.data.tokens import Encoded
from gradlab.llm.model.sampling import Samples
from gradlab.llm.real.task import Looked


def held_out_rows(model: Looked, pairs: Sequence[Encoded]) -> pd.DataFrame:
    """Return a row per held-out pair, of ``kind`` "pair".

    Columns: ``index``, ``win``, ``lose``, ``ref_win``, ``ref_lose`` (log π in nats); ``win_len``, ``lose_len``.
    Lengths are in tokens. The reference scores the pairs once per training.
    """
    rows = pair_rows(pairs)
    if "pairs" not in model.memory:
        model.memory["pairs"] = model.ref_score(rows).view(-1, 2)
    ref, logps = model.memory["pairs"], model.score(rows).view(-1, 2)
    return pd.DataFrame({
        "kind": "pair", "index": np.arange(len(pairs)), "win": logps[:, 0], "lose": logps[:, 1],
        "ref_win": ref[:, 0], "ref_lose": ref[:, 1],
        "win_len": len_of(pairs, "win"), "lose_len": len_of(pairs, "lose"),
    })  # fmt: skip


def sample_rows(model: Looked, prompts: Sequence[list[int]], drawn: Samples) -> pd.DataFrame:
    """Return a row per sampled response, of ``kind`` "sample".

    Columns: ``index`` of the prompt, ``logp``, ``ref_logp`` (nats), ``tokens``, ``finished``
    (1 where the model ended it, else 0; a number, as PPO's log has the share under this name).
    """
    rows: list[Row] = [(prompts[index], tokens) for index, tokens in zip(drawn.prompts, drawn.tokens, strict=True)]
    logp, ref_logp = model.both(rows)
    return pd.DataFrame({
        "kind": "sample", "index": drawn.prompts, "logp": logp, "ref_logp": ref_logp,
        "tokens": [len(tokens) for tokens in drawn.tokens], "finished": np.array(drawn.finished, float),
    })  # fmt: skip
