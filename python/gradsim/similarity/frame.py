"""A similarity as a pandas table."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

    from gradsim.similarity.similarity import Similarity

__all__ = ["to_frame"]


def to_frame(similarity: Similarity) -> pandas.DataFrame:
    """The long form: one row per group and ordered pair, columns group, task, other, value, count and std.

    `std` is NaN throughout where the similarity has none. Raises `ImportError` where pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError("Similarity.to_pandas needs pandas: pip install 'gradsim-kernels[plots]'") from error

    index = pandas.MultiIndex.from_product(
        [similarity.groups, similarity.tasks, similarity.tasks], names=["group", "task", "other"]
    )
    std = similarity.std
    columns = {
        "value": similarity.cosine.flatten().tolist(),
        "count": similarity.count.flatten().tolist(),
        "std": [float("nan")] * len(index) if std is None else std.flatten().tolist(),
    }
    return pandas.DataFrame(columns, index=index).reset_index()
