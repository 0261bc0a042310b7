"""The demo's heat map, and the numbers that it shows."""

from __future__ import annotations

from collections.abc import Sequence

from gradsim.cli.files import Files
from gradsim.data import Language
from gradsim.similarity import Similarity

__all__ = ["heatmap"]


def heatmap(similarity: Similarity, languages: Sequence[Language], group: str, files: Files) -> None:
    """Write heatmap.png and heatmap.json for one group of parameters."""
    families = {language.name: language.family for language in languages}
    title = (
        f"Cosine similarity of the gradients of {len(languages)} languages ({group} of a small joint model),\n"
        "trained to tell which country, language or currency a name stands for"
    )
    similarity.plot("heatmap", groups=[group], classes=families, title=title).savefig(files.path("heatmap.png"))
    matrix = similarity.mean([group]).tolist()
    files.write_json(
        "heatmap.json", {"group": group, "tasks": similarity.tasks, "families": families, "matrix": matrix}
    )
