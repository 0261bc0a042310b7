"""Training one model per group of tasks, against its baselines, on the same budget."""

from gradsim.training.along import measure_along
from gradsim.training.budget import Budget
from gradsim.training.comparison import Comparison, compare
from gradsim.training.evaluate import evaluate
from gradsim.training.one import Trained, train_one
from gradsim.training.results import Arm, Results
from gradsim.training.summary import ArmRow, RandomSpread, Summary, TaskRow, summary
from gradsim.training.verdict import verdict

__all__ = [
    "Arm",
    "ArmRow",
    "Budget",
    "Comparison",
    "RandomSpread",
    "Results",
    "Summary",
    "TaskRow",
    "Trained",
    "compare",
    "evaluate",
    "measure_along",
    "summary",
    "train_one",
    "verdict",
]
