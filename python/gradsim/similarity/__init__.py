"""Gradient similarity between tasks: measuring it, the container that holds it, and the file it is stored in."""

from gradsim.similarity.affinity import task_affinity
from gradsim.similarity.measure import task_similarity
from gradsim.similarity.measurements import Measurements
from gradsim.similarity.recorder import Recorder
from gradsim.similarity.similarity import Similarity

__all__ = ["Measurements", "Recorder", "Similarity", "task_affinity", "task_similarity"]
