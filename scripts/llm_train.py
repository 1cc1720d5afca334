"""Train a language model: `gradlab train`, or `torchrun … -m gradlab.llm`, by the path of a script."""

import runpy

runpy.run_module("gradlab.llm", run_name="__main__")
