"""Whether two merges are the same: what is measured, and the limits.

mergekit is run twice on each configuration: as it stands, which computes in float32, and in float64. A tensor has to agree with
one of the two. Where the first run's own rounding is larger than the limit, the second says what the formula gives; how many
tensors it decided is reported.
"""

import math
from dataclasses import dataclass, field

import torch

# Of a float32 tensor: Frobenius norm of the difference over that of the reference.
LIMIT = 2e-6


def steps(value: torch.Tensor) -> torch.Tensor:
    """The place of each bfloat16 among all of them in ascending order; both zeros are 0. Neighbours are one unit in the last
    place apart, across a power of two and through zero as well."""
    bits = value.contiguous().view(torch.int16).int()
    return torch.where(bits < 0, -(bits & 0x7FFF), bits)


def error(value: torch.Tensor, reference: torch.Tensor) -> float:
    """`‖value - reference‖ / ‖reference‖`; what is not finite is infinitely wrong."""
    value, reference = value.double(), reference.double()
    distance, size = (value - reference).norm().item(), reference.norm().item()
    if not math.isfinite(distance):
        return math.inf
    return distance / size if size else (math.inf if distance else 0.0)


@dataclass
class Off:
    """How a bfloat16 tensor differs from a reference."""

    one: int
    """Elements that are one unit in the last place off."""
    near_zero: int
    """Elements further off, whose difference is within what float32 may be wrong by in this tensor: next to zero bfloat16
    has finer steps than sums of larger numbers."""
    beyond: list[tuple[tuple[int, ...], float, float]]
    """Elements further off: position, value, reference."""

    @staticmethod
    def of(value: torch.Tensor, reference: torch.Tensor) -> "Off":
        apart = (steps(value) - steps(reference)).abs()
        far = (apart > 1) | ~value.isfinite() | ~reference.isfinite()
        room = LIMIT * reference.double().square().mean().sqrt()
        small = far & ((value.double() - reference.double()).abs() <= room)
        places = [tuple(place) for place in (far & ~small).nonzero().tolist()]
        beyond = [(place, value[place].item(), reference[place].item()) for place in places]
        return Off(int(((apart == 1) & ~far).sum()), int(small.sum()), beyond)


@dataclass
class Merge:
    """What comparing one merge gave."""

    elements: int = 0
    worst: dict[str, float] = field(default_factory=lambda: dict.fromkeys(("float32", "float64", "itself"), 0.0))
    """float32 output: the largest error of a tensor against mergekit in float32, in float64, and of the first against the
    second."""
    by_float64: int = 0
    """Tensors that agree with mergekit in float64 only."""
    one: int = 0
    near_zero: int = 0
    wrong: list[str] = field(default_factory=list)
    """What is not the same, a line each."""

    def note(self, figure: str, value: float) -> None:
        self.worst[figure] = max(self.worst[figure], value)


Tensors = dict[str, torch.Tensor]


def compare(merged: Tensors, reference: Tensors, exact: Tensors) -> Merge:
    """Holds a merge against mergekit's in float32 and in float64. All must be stored in one type."""
    found = Merge()
    for name in sorted(merged.keys() | reference.keys()):
        if name not in merged or name not in reference:
            found.wrong.append(f"{name}: {'missing' if name in reference else 'mergekit has no such tensor'}")
            continue
        value, other, formula = merged[name], reference[name], exact[name]
        if (value.shape, value.dtype) != (other.shape, other.dtype):
            found.wrong.append(f"{name}: {list(value.shape)} {value.dtype}, mergekit's is {list(other.shape)} {other.dtype}")
            continue
        found.elements += value.numel()
        (by_steps if value.dtype == torch.bfloat16 else by_norm)(found, name, value, other, formula)
    return found


def by_norm(found: Merge, name: str, value: torch.Tensor, reference: torch.Tensor, exact: torch.Tensor) -> None:
    apart, from_exact, itself = error(value, reference), error(value, exact), error(reference, exact)
    for figure, measured in (("float32", apart), ("float64", from_exact), ("itself", itself)):
        found.note(figure, measured)
    if apart <= LIMIT:
        return
    if from_exact <= LIMIT:
        found.by_float64 += 1
        return
    worst = (value.double() - reference.double()).abs().nan_to_num(math.inf).argmax()
    place = tuple(int(at) for at in torch.unravel_index(worst, value.shape))
    found.wrong.append(f"{name}: off by {apart:.1e} (by {from_exact:.1e} from mergekit in float64, {itself:.1e} between the two); "
                       f"most at {list(place)}: {value[place].item():.9g}, mergekit {reference[place].item():.9g}")


def by_steps(found: Merge, name: str, value: torch.Tensor, reference: torch.Tensor, exact: torch.Tensor) -> None:
    off = Off.of(value, reference)
    if off.beyond and not Off.of(value, exact).beyond:
        found.by_float64 += 1
        return
    found.one += off.one
    found.near_zero += off.near_zero
    for place, here, there in off.beyond[:3]:
        found.wrong.append(f"{name}{list(place)}: {here:.9g}, mergekit {there:.9g}")
    if len(off.beyond) > 3:
        found.wrong.append(f"{name}: {len(off.beyond)} of {value.numel()} elements in all")
