"""Merge methods in float64, one tensor at a time, written from the papers and from what docs/merge-methods.md says.

    python methods.py CASES OUT.safetensors BASE MODEL:WEIGHT [MODEL:WEIGHT ...]

CASES is a JSON list of [method, parameters, number of models, whether there is a base]; tensors are named
`<number of the case>:<tensor>`.
"""

import json
import math
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

# By their last part, as in the toys.
LINEAR = ("q_proj.weight", "k_proj.weight", "v_proj.weight", "o_proj.weight", "gate_proj.weight", "up_proj.weight", "down_proj.weight")


class Case:
    """One tensor of one case. The differences are those of float32: what is trimmed depends on them."""

    def __init__(self, name, base, tensors, weights, params):
        self.name, self.params, self.weights = name, params, weights
        self.base = None if base is None else base.double()
        self.models = [tensor.double() for tensor in tensors]
        self.vectors = None if base is None else [(tensor.float() - base.float()).double() for tensor in tensors]

    def get(self, name, default):
        return self.params.get(name, default)

    @property
    def weighted(self):
        return [vector * weight for vector, weight in zip(self.vectors, self.weights)]


def task_arithmetic(case):
    divisor = sum(case.weights) if case.get("normalize", False) else 1.0
    return case.base + case.get("lambda", 1.0) * sum(case.weighted) / divisor


def mask_of(order, kept):
    mask = torch.zeros(order.numel(), dtype=torch.bool)
    mask[order[:kept]] = True
    return mask


def rescaled(vector, mask, rescale):
    kept = vector * mask.view(vector.shape)
    if rescale and kept.abs().sum() > 0:
        kept = kept * (vector.abs().sum() / kept.abs().sum())
    return kept


def falling(vector):
    return torch.sort(vector.abs().flatten(), descending=True, stable=True).indices


def trim(case, vector):
    density = case.get("density", 1.0)
    kept = max(1, int(density * vector.numel())) if density > 0 else 0
    return rescaled(vector, mask_of(falling(vector), kept), case.get("rescale", False))


def outliers(case, vector):
    density, count = case.get("density", 1.0), vector.numel()
    if density >= 1:
        return vector
    kept = int(density * count)
    gone = min(int(case.get("gamma", 0.01) * count), count - kept)
    order = falling(vector)
    mask = mask_of(order, gone + kept) & ~mask_of(order, gone)
    return rescaled(vector, mask, case.get("rescale", False))


def elect(case, vectors, normalize):
    parts = torch.stack([vector * weight for vector, weight in zip(vectors, case.weights)])
    elected = torch.where(parts.sum(0) >= 0, 1.0, -1.0).double()
    mask = parts.sign() == elected
    divisor = (mask * torch.tensor(case.weights, dtype=torch.float64).view([-1] + [1] * case.base.dim())).sum(0)
    divisor[divisor == 0] = 1.0
    merged = (parts * mask).sum(0)
    return case.base + case.get("lambda", 1.0) * (merged / divisor if case.get("normalize", normalize) else merged)


def ties(case):
    return elect(case, [trim(case, vector) for vector in case.vectors], True)


def breadcrumbs(case):
    total = sum(outliers(case, vector) * weight for vector, weight in zip(case.vectors, case.weights))
    divisor = sum(case.weights) if case.get("normalize", False) else 1.0
    return case.base + case.get("lambda", 1.0) * total / divisor


def breadcrumbs_ties(case):
    return elect(case, [outliers(case, vector) for vector in case.vectors], False)


def circle(t, first, second, line):
    """Between two vectors, which lie in the last dimension."""
    cosine = torch.nn.functional.cosine_similarity(first, second, dim=-1, eps=1e-30).clamp(-1, 1).unsqueeze(-1)
    angle = torch.acos(cosine)
    curved = (torch.sin((1 - t) * angle) * first + torch.sin(t * angle) * second) / torch.sin(angle)
    return torch.where(line(cosine), (1 - t) * first + t * second, curved)


def slerp(case):
    flat = circle(case.params["t"], case.base.flatten(), case.models[0].flatten(), lambda cosine: cosine.abs() > 0.9995)
    return flat.view(case.base.shape)


def nuslerp(case):
    first, second = case.models if case.base is None else case.vectors
    t = case.weights[1] / sum(case.weights)
    shape = first.shape
    columns = not case.get("nuslerp_flatten", True) and case.get("nuslerp_row_wise", False) and len(shape) > 1
    if case.get("nuslerp_flatten", True):
        first, second = first.flatten(), second.flatten()
    elif columns:
        first, second = first.T, second.T
    merged = circle(t, first, second, lambda cosine: 1 - cosine**2 <= 1e-16)
    merged = merged.T if columns else merged.view(shape)
    return merged if case.base is None else case.base + merged


def multislerp(case):
    vectors = case.models if case.base is None else case.vectors
    weights = torch.tensor(case.weights, dtype=torch.float64)
    if case.get("normalize_weights", True):
        weights = weights / weights.sum()
    flat = torch.stack([vector.flatten() for vector in vectors])
    norms = flat.norm(dim=1)
    units = flat / norms[:, None]
    mean = (weights[:, None] * units).sum(0)
    mean = mean / mean.norm()
    tangent = (weights[:, None] * (units - (units @ mean)[:, None] * mean)).sum(0)
    angle = tangent.norm()
    merged = mean * torch.cos(angle) + tangent * torch.sinc(angle / math.pi)
    merged = (merged * (weights * norms).sum()).view(vectors[0].shape)
    return merged if case.base is None else case.base + merged


def karcher(case):
    """By its definition: where the logarithms of all models add up to nothing."""
    flat = torch.stack([model.flatten() for model in case.models])
    norms = flat.norm(dim=1)
    units = flat / norms[:, None]
    mean = units.mean(0)
    mean = mean / mean.norm()
    for _ in range(200):
        cosines = (units @ mean).clamp(-1, 1)
        angles = torch.acos(cosines)
        logs = (units - cosines[:, None] * mean) * (angles / torch.sin(angles))[:, None]
        step = logs.mean(0)
        if step.norm() < 1e-12:
            break
        mean = torch.cos(step.norm()) * mean + torch.sin(step.norm()) * step / step.norm()
        mean = mean / mean.norm()
    return (mean * norms.mean()).view(case.models[0].shape)


def model_stock(case):
    rows = case.get("filter_wise", False) and case.base.dim() > 1
    vectors = case.vectors if rows else [vector.flatten() for vector in case.vectors]
    count = len(vectors)
    pairs = [(a, b) for a in range(count) for b in range(a)]
    cosine = sum(torch.nn.functional.cosine_similarity(vectors[a], vectors[b], dim=-1) for a, b in pairs) / len(pairs)
    t = count * cosine / (1 + (count - 1) * cosine)
    return case.base + (t.unsqueeze(-1) if rows else t) * sum(case.vectors) / count


def sce(case):
    vectors, share = torch.stack(case.vectors), case.get("select_topk", 1.0)
    if share < 1:
        variance = vectors.var(0, unbiased=False)
        kept = int(int((variance.float() != 0).sum()) * share)
        mask = mask_of(torch.sort(variance.float().flatten(), descending=True, stable=True).indices, kept)
        vectors = vectors * mask.view(variance.shape)
    squares = (vectors**2).flatten(1).mean(1)
    weights = squares / squares.sum() if squares.sum() >= 1e-6 else torch.full_like(squares, 1 / len(squares))
    weights = weights.view([-1] + [1] * case.base.dim())
    mask = vectors.sign() == torch.where(vectors.sum(0) >= 0, 1.0, -1.0)
    return case.base + (vectors * weights * mask).sum(0) / (weights * mask).sum(0).clamp(min=1e-6)


def nearswap(case):
    difference = case.models[0] - case.base
    return case.base + (case.params["t"] / difference.abs().clamp(min=1e-6)).clamp(max=1) * difference


def ram(case, factors=None):
    vectors = torch.stack(case.vectors)
    changed = vectors.abs() > case.get("epsilon", 1e-5)
    counts = changed.sum(0)
    if factors is None:
        factors = torch.ones(len(vectors), dtype=torch.float64)
    alone = (vectors * changed * (counts == 1) * factors.view([-1] + [1] * case.base.dim())).sum(0)
    shared = (vectors * changed * (counts > 1)).sum(0) / counts.clamp(min=1)
    return case.base + alone + shared


def ramplus_tl(case):
    changed = torch.stack(case.vectors).abs() > case.get("epsilon", 1e-5)
    counts = changed.sum(0)
    shared = (changed & (counts > 1)).flatten(1).sum(1).double()
    own = (changed & (counts == 1)).flatten(1).sum(1).double()
    overlap = shared / own.clamp(min=case.get("epsilon", 1e-5))
    return ram(case, 1 + case.get("r", 0.1) * overlap.clamp(max=case.get("alpha", 0.2)))


def arcee_fusion(case):
    # Importances are float32 there; whether an element passes must not hang on more.
    base, model = case.base.float(), case.models[0].float()
    p, q = (torch.softmax(tensor, dim=-1) + 1e-8 for tensor in (model, base))
    importance = (model - base).abs() * (p * torch.log(p / q)).sum(-1, keepdim=True)
    order = importance.flatten().sort().values
    low, middle, high = (order[int(share * (order.numel() - 1))] for share in (0.25, 0.5, 0.75))
    return torch.where(importance >= middle + 1.5 * (high - low), case.models[0], case.base)


def passthrough(case):
    return case.models[0] * case.get("scale", 1.0)


def matrices(case, merge):
    if case.name.endswith(LINEAR):
        moved = merge(case.weighted)
    else:
        moved = sum(case.weighted) / len(case.weighted)
    return case.base + case.get("lambda", 1.0) * moved


def tsv(case):
    def merge(vectors):
        kept = min(vectors[0].shape) // len(vectors)
        parts = [torch.linalg.svd(vector, full_matrices=False) for vector in vectors]
        left = torch.cat([u[:, :kept] for u, _, _ in parts], dim=1)
        values = torch.cat([s[:kept] for _, s, _ in parts])
        right = torch.cat([v[:kept] for _, _, v in parts], dim=0)

        def nearest(matrix):
            p, _, q = torch.linalg.svd(matrix, full_matrices=False)
            return p @ q

        return nearest(left) @ torch.diag(values) @ nearest(right)

    return matrices(case, merge)


def iso_c(case):
    def merge(vectors):
        u, s, v = torch.linalg.svd(sum(vectors), full_matrices=False)
        return s.mean() * u @ v

    return matrices(case, merge)


def consensus_ta(case):
    vectors = torch.stack(case.weighted)
    total = vectors.sum(0)
    matters = vectors.abs() >= case.get("mask_lambda", 0.4) * (total - vectors).abs()
    return case.base + case.get("lambda", 1.0) * total * (matters.sum(0) >= case.get("agree", 2))


def wudi(case):
    def merge(vectors):
        merged = sum(vectors).clone().requires_grad_(True)
        optimizer = torch.optim.Adam([merged], lr=case.get("learning_rate", 1e-5))
        for _ in range(case.get("iterations", 300)):
            optimizer.zero_grad()
            loss = sum((((merged - vector) @ vector.T) ** 2).sum() / (vector**2).sum() for vector in vectors)
            loss.backward()
            optimizer.step()
        return merged.detach()

    return matrices(case, merge)


def main():
    cases, out, base = json.loads(sys.argv[1]), sys.argv[2], load_file(Path(sys.argv[3]) / "model.safetensors")
    models = [argument.rsplit(":", 1) for argument in sys.argv[4:]]
    weights = [float(weight) for _, weight in models]
    tensors = [load_file(Path(path) / "model.safetensors") for path, _ in models]
    merged = {}
    for name, start in base.items():
        for number, (method, params, count, with_base) in enumerate(cases):
            these = [tensor[name] for tensor in tensors[:count]]
            case = Case(name, start if with_base else None, these, weights[:count], params)
            merged[f"{number}:{name}"] = globals()[method](case).contiguous()
    save_file(merged, out)


main()
