"""The human study: a plan that is frozen before the first answer, blind answers, and a verdict that they carry."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach(
    __name__,
    submod_attrs={
        "answers": ["Answers", "read_answers"],
        "assignment": ["Task", "assign"],
        "frozen": ["Study", "freeze", "read_study"],
        "plan": ["Plan"],
        "rates": ["Rate", "win_rate"],
    },
)
