"""Functions without parameters between two layers: those that keep the samples, move them, or couple them."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from one_backward.small import WIDE, B, D, L
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

Between = Callable[[nn.Module, Tensor, Tensor], Tensor]  # module, x [B, L, D], a(x) -> the output, by way of s.b


def behind(x: Tensor) -> Tensor:
    """The samples in reverse order."""
    return torch.arange(len(x) - 1, -1, -1)


def put(x: Tensor, index: object, value: Tensor) -> Tensor:
    x = x.clone()
    x[index] = value
    return x


def filled(x: Tensor) -> Tensor:
    result = torch.zeros_like(x)
    for k in range(len(x)):
        result[k] = x[len(x) - 1 - k]
    return result


def through(x: Tensor) -> Tensor:
    """The samples in reverse order, written through a view."""
    h = x.clone()
    h.view(-1, D)[torch.arange(len(x) * L)] = x.flip(0).view(-1, D)
    return h


def copied(x: Tensor) -> Tensor:
    h = x.clone()
    h.copy_(x.flip(0))
    return h


# The samples stay where they can be found: these are right.
KEPT: dict[str, Between] = {
    "flip_places": lambda s, x, a: s.b(a.flip(1)),
    "all_of_them": lambda s, x, a: s.b(a[::1]),
    "every_second_place": lambda s, x, a: s.b(a[:, ::2]),
    "first_place": lambda s, x, a: s.b(a[:, 0]),
    "dots": lambda s, x, a: s.b(F.pad(a[..., :3], (0, D - 3))),
    "new_dimension": lambda s, x, a: s.b(a[:, None]),
    "new_dimension_in_front": lambda s, x, a: s.b(a[None])[0],
    "unsqueeze": lambda s, x, a: s.b(a.unsqueeze(0)).squeeze(0),
    "place_by_place": lambda s, x, a: torch.stack([s.b(z) for z in a.unbind(1)], 1),
    "parts_of_features": lambda s, x, a: torch.cat([F.linear(z, s.b.weight[:4, :4]) for z in a.chunk(2, -1)], -1),
    "joined_places": lambda s, x, a: s.b(torch.cat([a, -x], 1)),
    "joined_places_keyword": lambda s, x, a: s.b(torch.cat([a, -x], dim=1)),
    "stacked_in_front": lambda s, x, a: s.b(torch.stack([a, -x])).sum(0),
    "stacked_behind": lambda s, x, a: s.b(torch.stack([a, -x], dim=-2)),
    "normalised": lambda s, x, a: s.b(F.normalize(a, dim=-1)),
    "attending": lambda s, x, a: s.b(F.scaled_dot_product_attention(a, a, x)),
    "attending_by_hand": lambda s, x, a: s.b((a @ a.transpose(1, 2)).softmax(-1) @ x),
    "attending_einsum": lambda s, x, a: s.b(torch.einsum("bld,bmd->blm", a, a) @ x),
    "causal": lambda s, x, a: s.b((a @ a.mT).masked_fill(torch.ones(L, L).triu(1).bool(), -9.0).softmax(-1) @ x),
    "flattened": lambda s, x, a: s.b(a.view(-1, D)).view(x.shape),
    "flattened_by_name": lambda s, x, a: s.b(a.flatten(0, 1)).view(x.shape),
    "transposed": lambda s, x, a: s.b(a.transpose(0, 1)).transpose(0, 1),
    "transposed_twice": lambda s, x, a: s.b(a.permute(2, 0, 1).permute(1, 2, 0)),
    "time_by_time": lambda s, x, a: torch.stack([s.b(z) for z in a.transpose(0, 1)], 1),
    "heads_merged": lambda s, x, a: (
        F.linear(a.view(-1, L, 2, 4).transpose(1, 2).reshape(-1, L, 4), s.b.weight[:4, :4])
        .view(-1, 2, L, 4)
        .transpose(1, 2)
    ),
    "windows": lambda s, x, a: s.b(a.view(-1, 3, L // 3, D).reshape(-1, L // 3, D)).view(x.shape),
    "best_places": lambda s, x, a: s.b(a.topk(3, 1)[0]),
    "later_places": lambda s, x, a: s.b(put(torch.zeros_like(x), (slice(None), slice(1, None)), a[:, :-1])),
    "neighbours": lambda s, x, a: s.b(a.unfold(1, 2, 1).sum(-1)),
    "pooled": lambda s, x, a: s.b(F.max_pool1d(a.mT, 2).mT),
    "one_place_each": lambda s, x, a: s.b(a[torch.arange(len(x)), x[:, :, 0].argmax(1)]),
    "gathered_places": lambda s, x, a: s.b(a.gather(1, x.argsort(1))),
    "dropout_off": lambda s, x, a: s.b(F.dropout(a, 0.5, training=False)),
    "einsum_with_dots": lambda s, x, a: s.b(torch.einsum("...ld,...md->...lm", a, x) @ x),
    "norm_of_vectors": lambda s, x, a: s.b(a / torch.linalg.vector_norm(a, dim=-1, keepdim=True)),
    "spread": lambda s, x, a: s.b(a - torch.std_mean(a, -1, keepdim=True)[1]),
    "repeated_places": lambda s, x, a: s.b(a.repeat(1, 2, 1)),
    "repeated_in_front": lambda s, x, a: s.b(a.repeat(2, 1, 1, 1)).sum(0),
    "repeated_each": lambda s, x, a: s.b(a.repeat_interleave(2, dim=1)),
    "distances_between_places": lambda s, x, a: s.b(torch.cdist(a, a).softmax(-1) @ x),
    "turned_as_complex": lambda s, x, a: s.b(
        torch.view_as_real(torch.view_as_complex(a.view(-1, L, 4, 2)) * 1j).flatten(2)
    ),
    "one_place_each_from_zero": lambda s, x, a: s.b(a[torch.arange(0, len(x)), x[:, :, 0].argmax(1)]),
    "written_part": lambda s, x, a: s.b(put(torch.zeros_like(x), (..., slice(0, 4)), a[..., :4])),
    "written_places": lambda s, x, a: s.b(put(torch.zeros_like(x), (slice(None), torch.tensor([0, 2])), a[:, :2])),
    "loss_of_each_sample": lambda s, x, a: (
        F.cross_entropy(a[:, 0], x[:, 0].argmax(1), reduction="none") * s.b(x)[:, 0, 0]
    ),
    "loss_of_each_place": lambda s, x, a: F.cross_entropy(a.mT, x.argmax(2), reduction="none") * s.b(x)[:, :, 0],
    "loss_flattened": lambda s, x, a: (
        F.cross_entropy(a.view(-1, D), x.argmax(2).view(-1), reduction="none").view(x.shape[:2]) * s.b(x)[:, :, 0]
    ),
    "loss_time_first": lambda s, x, a: (
        (
            F.cross_entropy(a.transpose(0, 1).reshape(-1, D), x.argmax(2).T.reshape(-1), reduction="none").view(L, -1)
            * s.b(x)[:, :, 0].T
        ).T
    ),
    "divergence": lambda s, x, a: F.kl_div(a.log_softmax(-1), x.softmax(-1), reduction="none").sum(-1) + s.b(x)[..., 0],
    "mean_place_time_first": lambda s, x, a: s.b(a.transpose(0, 1).mean(0)),
    "checkpointed": lambda s, x, a: checkpoint(lambda z: s.b(torch.tanh(z)), a, use_reentrant=False),
    "mean_place": lambda s, x, a: s.b(a - a.mean(1, keepdim=True)),
    "masked_mean": lambda s, x, a: s.b((a * (x > 0)).sum(1) / (x > 0).sum(1).clamp(min=1)),
}

# The order of the samples changes, or some are left out, but none meets another: right or refused.
MOVED: dict[str, Between] = {
    "fourier_of_features": lambda s, x, a: s.b(torch.fft.fft(a, dim=-1).real),
    "flip": lambda s, x, a: s.b(a.flip(0)).flip(0),
    "flip_named": lambda s, x, a: s.b(a.flip(dims=(0,))).flip(0),
    "roll": lambda s, x, a: s.b(a.roll(1, 0)).roll(-1, 0),
    "roll_named": lambda s, x, a: s.b(a.roll(shifts=1, dims=0)).roll(-1, 0),
    "roll_tuple": lambda s, x, a: s.b(torch.roll(a, shifts=(1,), dims=(0,))).roll(-1, 0),
    "roll_flat": lambda s, x, a: s.b(a.roll(L * D)).roll(-1, 0),
    "flipud": lambda s, x, a: s.b(a.flipud()).flipud(),
    "rot90": lambda s, x, a: s.b(a.rot90(2, (0, 1))).rot90(2, (0, 1)),
    "index_select": lambda s, x, a: s.b(a.index_select(0, behind(x))).flip(0),
    "index": lambda s, x, a: s.b(a[behind(x)]).flip(0),
    "index_list": lambda s, x, a: s.b(a[list(range(len(x)))[::-1]]).flip(0),
    "gather": lambda s, x, a: s.b(a.gather(0, behind(x)[:, None, None].expand(x.shape))).flip(0),
    "take_along_dim": lambda s, x, a: s.b(a.take_along_dim(behind(x)[:, None, None], 0)).flip(0),
    "row_by_row": lambda s, x, a: torch.stack([s.b(z) for z in a]),
    "row_by_row_unbind": lambda s, x, a: torch.stack([s.b(z) for z in a.unbind()]),
    "chunks": lambda s, x, a: torch.cat([s.b(z) for z in a.chunk(2)]),
    "narrow": lambda s, x, a: torch.cat([s.b(a.narrow(0, 0, 1)), s.b(a.narrow(0, 1, len(x) - 1))]),
    "two_views": lambda s, x, a: s.b(torch.cat([a, -x])).chunk(2)[0],
    "two_views_repeated": lambda s, x, a: s.b(a.repeat(2, 1, 1))[: len(x)],
    "repeat_interleave": lambda s, x, a: s.b(a.repeat_interleave(2, 0)).unflatten(0, (-1, 2)),
    "repeat_interleave_places": lambda s, x, a: s.b(a.repeat_interleave(2, 1)),
    "rotated_cat": lambda s, x, a: s.b(torch.cat([a[1:], a[:1]])).roll(1, 0),
    "rotated_vstack": lambda s, x, a: s.b(torch.vstack([a[1:], a[:1]])).roll(1, 0),
    "time_first_flattened": lambda s, x, a: s.b(a.transpose(0, 1).reshape(-1, D)).view(L, -1, D).transpose(0, 1),
    "time_first_contiguous": lambda s, x, a: (
        s.b(a.transpose(0, 1).contiguous().view(-1, D)).view(L, -1, D).mT.permute(2, 0, 1)
    ),
    "written_rows": lambda s, x, a: s.b(put(torch.zeros_like(x), behind(x), a)).flip(0),
    "written_row_by_row": lambda s, x, a: s.b(filled(a)).flip(0),
    "losses_in_another_order": lambda s, x, a: (
        F.cross_entropy(a.transpose(0, 1).reshape(-1, D), x.argmax(2).T.reshape(-1), reduction="none").view(L, -1).T
        * s.b(x)[:, :, 0]
    ),
    "indexed_from_behind": lambda s, x, a: s.b(a[torch.arange(len(x) - 1, -1, -1), 0]).flip(0),
    "indexed_shifted": lambda s, x, a: s.b(a[(torch.arange(len(x)) + 1) % len(x), 0]).roll(1, 0),
    "written_mask": lambda s, x, a: s.b(put(torch.zeros_like(x), x[:, :, 0] > 0, a[x[:, :, 0] > 0])),
    "index_copied": lambda s, x, a: s.b(torch.zeros_like(x).index_copy_(0, behind(x), a)).flip(0),
    "index_added": lambda s, x, a: s.b(torch.zeros_like(x).index_add(0, behind(x), a)).flip(0),
    "index_put": lambda s, x, a: s.b(torch.zeros_like(x).index_put_((behind(x),), a)).flip(0),
    "scattered": lambda s, x, a: s.b(torch.zeros_like(x).scatter_(0, behind(x)[:, None, None].expand(x.shape), a)).flip(
        0
    ),
    "copied": lambda s, x, a: s.b(copied(a)).flip(0),
    "padded": lambda s, x, a: s.b(F.pad(a, (0, 0, 0, 0, 1, 0))[1:]),
    "padded_in_front": lambda s, x, a: s.b(F.pad(a, (0, 0, 0, 0, 1, 0)))[1:],
    "selected_rows": lambda s, x, a: x.masked_scatter((x > 0).any(-1, keepdim=True), s.b(a[(x > 0).any(-1)])),
    "vmap": lambda s, x, a: torch.vmap(lambda z: F.linear(z, s.b.weight, s.b.bias))(a),
    "permuted_input": lambda s, x, a: s.b(x[behind(x)] * 2).flip(0) + a,
    "as_strided": lambda s, x, a: s.b(a.as_strided((len(x), L, D), (L * D, D, 1))),
}

MOVED |= {
    "flip_two": lambda s, x, a: s.b(a.flip(1, 0)).flip(1, 0),
    "written_value": lambda s, x, a: s.b(
        put(torch.zeros_like(x), (slice(None), slice(1, None)), a.flip(0)[:, 1:])
    ).flip(0),
    "written_through_a_view": lambda s, x, a: s.b(through(a)).flip(0),
    "indexed_twice": lambda s, x, a: s.b(a[torch.arange(len(x))[behind(x)], :]).flip(0),
    "indexed_twice_one_place": lambda s, x, a: s.b(a[torch.arange(len(x))[behind(x)], 0]).flip(0),
    "index_changed_in_place": lambda s, x, a: s.b(a[torch.arange(len(x)).neg_().add_(len(x) - 1), 0]).flip(0),
    "indices_apart": lambda s, x, a: F.linear(
        a.view(-1, L, 2, 4)[:, torch.arange(B), :, torch.tensor([0, 1, 2, 3, 0])], s.b.weight[:2, :2]
    ).transpose(0, 1),
}

# Samples meet samples: refused.
COUPLED: dict[str, Between] = {
    "mean": lambda s, x, a: s.b(a - a.mean(0)),
    "mean_kept": lambda s, x, a: s.b(a - a.mean(0, keepdim=True)),
    "mean_named": lambda s, x, a: s.b(a - torch.mean(input=a, dim=0)),
    "sum": lambda s, x, a: x * s.b(a.sum((0, 1))),
    "var_mean": lambda s, x, a: s.b(a - torch.var_mean(a, 0)[1]),
    "std_mean": lambda s, x, a: s.b(a / torch.std_mean(a, 0)[0]),
    "smallest": lambda s, x, a: s.b(a - a.aminmax(dim=0)[0]),
    "largest": lambda s, x, a: s.b(a / a.abs().max()),
    "norm": lambda s, x, a: s.b(a / a.norm()),
    "vector_norm": lambda s, x, a: s.b(a / torch.linalg.vector_norm(a, dim=0)),
    "normalised": lambda s, x, a: s.b(F.normalize(a, dim=0)),
    "samples_as_features": lambda s, x, a: x[:, 0] @ F.linear(a[:, 0].T, s.b.weight[:, :B]),
    "samples_as_features_normalised": lambda s, x, a: (
        x[:, 0] @ F.layer_norm(a[:, 0].T, [B], s.b.bias[:B]) @ s.b.weight[:B]
    ),
    "pairs_and_a_parameter": lambda s, x, a: s.b(torch.addcmul(s.b.bias, a[:, None, 0], a[None, :, 0]).mean(1)),
    "across_with_a_learned_mask": lambda s, x, a: s.b(
        F.scaled_dot_product_attention(*3 * [a.transpose(0, 1)], attn_mask=s.b.weight[:B, :B]).transpose(0, 1)
    ),
    "matrix_norm": lambda s, x, a: s.b(x / torch.linalg.matrix_norm(a, dim=(0, 1))),
    "einsum_with_dots": lambda s, x, a: s.b(torch.einsum("i...,j...->i...", a, a)),
    "einsum_without_arrow": lambda s, x, a: s.b(x * torch.einsum("bld,bd", a, a[:, 0])[:, None]),
    "distances_of_a_stack": lambda s, x, a: s.b(torch.cdist(a[None, :, 0], a[None, :, 0])[0] @ x[:, 0]),
    "summed_by_a_product": lambda s, x, a: s.b(x * (torch.ones(B, dtype=WIDE) @ a[:, 0])),
    "layer_norm_over_all": lambda s, x, a: s.b(F.layer_norm(a, a.shape)),
    "batch_norm": lambda s, x, a: s.b(F.batch_norm(a.mT, None, None, training=True).mT),
    "renormalised": lambda s, x, a: s.b(a.renorm(2, 1, 0.1)),
    "mean_written": lambda s, x, a: s.b(put(a, (slice(None), 0), a.mean((0, 1)))),
    "mean_added_through_a_view": lambda s, x, a: s.b(a.clone()) + a.clone().select(1, 0).add_(a.mean((0, 1)))[:, None],
    "pairs_as_weights": lambda s, x, a: s.b(F.linear(a[:, 0], a[:, 1]) @ x[:, 0]),
    "softmax": lambda s, x, a: s.b(a.softmax(0)),
    "softmax_named": lambda s, x, a: s.b(F.softmax(a, dim=0)),
    "cumsum": lambda s, x, a: s.b(a.cumsum(0)),
    "cummax": lambda s, x, a: s.b(a.cummax(0)[0]),
    "sorted": lambda s, x, a: s.b(a.sort(0).values),
    "topk": lambda s, x, a: s.b(a.topk(B, 0)[0]),
    "median": lambda s, x, a: s.b(a - a.median(0)[0]),
    "quantile": lambda s, x, a: s.b(a - a.quantile(0.5, dim=0)),
    "diff": lambda s, x, a: s.b(a.diff(dim=0, prepend=x[:1])),
    "fourier": lambda s, x, a: s.b(torch.fft.fft(a, dim=0).real),
    "fourier_all": lambda s, x, a: s.b(torch.fft.fftn(a).real),
    "convolved": lambda s, x, a: s.b(
        F.conv1d(a.permute(1, 2, 0), torch.ones(D, 1, 3, dtype=WIDE), padding=1, groups=D).permute(2, 0, 1)
    ),
    "pooled": lambda s, x, a: s.b(F.avg_pool1d(a.permute(1, 2, 0), 3, 1, 1).permute(2, 0, 1)),
    "across": lambda s, x, a: s.b((a[:, 0] @ a[:, 0].T).softmax(1) @ a[:, 0]),
    "across_einsum": lambda s, x, a: s.b(torch.einsum("bld,cld->bc", a, a) @ a[:, 0]),
    "across_attention": lambda s, x, a: s.b(F.scaled_dot_product_attention(*3 * [a.transpose(0, 1)]).transpose(0, 1)),
    "all_pairs": lambda s, x, a: s.b((a[:, None] * a[None]).mean(1)),
    "all_pairs_other": lambda s, x, a: s.b((a[:, None] * a[None]).mean(0)),
    "outer": lambda s, x, a: s.b(x * torch.outer(a[:, 0, 0], a[:, 0, 0]).sum(0)[:, None, None]),
    "inner": lambda s, x, a: s.b(torch.inner(a[:, 0], a[:, 0]) @ x[:, 0]),
    "gram": lambda s, x, a: s.b(a @ (a[:, 0].T @ a[:, 1])),
    "tensordot": lambda s, x, a: s.b(x * torch.tensordot(a, a, 3)),
    "cosines": lambda s, x, a: s.b(x * F.cosine_similarity(a[:, None, 0], a[None, :, 0], dim=-1).sum(1)[:, None, None]),
    "distances": lambda s, x, a: s.b(x * torch.cdist(a[:, 0], a[:, 0]).sum(1)[:, None, None]),
    "pdist": lambda s, x, a: s.b(x * F.pdist(a[:, 0]).sum()),
    "mixed_up": lambda s, x, a: s.b(0.5 * a + 0.5 * a.flip(0)),
    "where": lambda s, x, a: s.b(torch.where(x > 0, a, a.flip(0))),
}
