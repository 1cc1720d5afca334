"""The paper's questions, one per file: settings, computation, verdict, figures and captions."""
