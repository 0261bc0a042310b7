"""Gradient similarity between tasks: the container that holds it, and the file it is stored in."""

from gradsim.similarity.similarity import Similarity

__all__ = ["Similarity"]
