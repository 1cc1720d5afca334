"""The human study: a plan that is frozen before the first answer, blind answers, and a verdict that they carry.

``Plan`` says what is decided before, ``power`` how likely it finds an effect, ``freeze`` makes it a ``Study``,
``assign`` gives each rater a list and ``rating_page`` a page; ``interim`` says whether the study may stop, and
``report`` analyses the answers as planned. The names are listed in ``__init__.pyi``; each is imported when it is first
used. Judges that are models answer by ``gradlab.llm.judge.study_judges.judged``; other tools by ``study.exchange``.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
