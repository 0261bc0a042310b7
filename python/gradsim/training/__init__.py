"""Training one model per group of tasks, against its baselines, on the same budget."""

from gradsim.training.along import measure_along
from gradsim.training.budget import Budget
from gradsim.training.comparison import Comparison, compare
from gradsim.training.results import Arm, Results
from gradsim.training.summary import Summary, summary
from gradsim.training.verdict import verdict

__all__ = ["Arm", "Budget", "Comparison", "Results", "Summary", "compare", "measure_along", "summary", "verdict"]
