"""Fused kernels for gradient surgery: pairwise inner products, GradVac and PCGrad weights, combination of gradients.

See `gradsim_kernels.functional` for what each function takes and returns, `backends()` for what computes it here.
"""

from gradsim_kernels import backends as _backends

_backends.register()

from gradsim_kernels.backends import Backend, backends, use_backend  # noqa: E402
from gradsim_kernels.functional import (  # noqa: E402
    combine,
    cosine_similarity,
    cross_gramian,
    gradvac_,
    gradvac_weights,
    gramian,
    pcgrad_weights,
    random_order,
)

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "__version__",
    "backends",
    "combine",
    "cosine_similarity",
    "cross_gramian",
    "gradvac_",
    "gradvac_weights",
    "gramian",
    "pcgrad_weights",
    "random_order",
    "use_backend",
]
