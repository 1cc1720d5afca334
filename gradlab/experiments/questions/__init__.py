"""The paper's questions, a file for each; what only one of them needs lies beside it, under its name."""
