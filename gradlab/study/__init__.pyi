# The public face of the human study, in the order of its use.

from .answers import Answers, read_answers
from .assignment import Task, assign, tasks_of
from .frozen import Study, freeze, read_study
from .plan import Analysis, Design, Exclusions, Goal, Plan, Primary, Stop
from .planned_power import Power, power
from .rater_page import rating_page
from .raters import RaterModel, simulated
from .rates import Rate, win_rate
from .report_page import Report, report
from .results import Results, Verdict
from .stopping import Interim, interim

__all__ = [
    "Analysis",
    "Answers",
    "Design",
    "Exclusions",
    "Goal",
    "Interim",
    "Plan",
    "Power",
    "Primary",
    "Rate",
    "RaterModel",
    "Report",
    "Results",
    "Stop",
    "Study",
    "Task",
    "Verdict",
    "assign",
    "freeze",
    "interim",
    "power",
    "rating_page",
    "read_answers",
    "read_study",
    "report",
    "simulated",
    "tasks_of",
    "win_rate",
]
