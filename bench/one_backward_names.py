"""The names of the contenders that the tables and goals speak of."""

from __future__ import annotations

PLAIN, MANY = "plain", "T backwards"
JUDGED = {"all_layer": "one backward, all_layer", "all_matrix": "one backward, all_matrix"}  # what the goals are about
