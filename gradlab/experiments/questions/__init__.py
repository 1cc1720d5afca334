"""The paper's questions, one per file: settings, computation, verdict, figures and captions.

What only one question needs lies beside it, in a file that begins with its name.
"""
