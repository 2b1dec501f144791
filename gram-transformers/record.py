"""Forward passes over sequences of token ids, with a hook on every linear layer."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from gram import Gram
from report import Events, Refused, one_line

BATCH_TOKENS = 2048


@dataclass(frozen=True)
class Sequence:
    """One row's tokens; `counted` are ranges [start, end) of positions that count in a Gram."""

    row: int
    ids: list[int]
    counted: list[list[int]]


class Batch:
    """Sequences of one length, `ids` [sequences, tokens], and where in it laid flat the tokens that count are."""

    def __init__(self, sequences: list[Sequence], device: torch.device) -> None:
        self.sequences = sequences
        self.ids = torch.tensor([sequence.ids for sequence in sequences], device=device)
        counts = torch.zeros(self.ids.shape, dtype=torch.bool)
        for index, sequence in enumerate(sequences):
            for start, end in sequence.counted:
                counts[index, start:end] = True
        first = torch.zeros_like(counts)
        first[:, 0] = True
        self.all_count = bool(counts.all())
        self.counts, self.first = counts.flatten().to(device), first.flatten().to(device)
        self.starts = counts[:, 0].to(device)

    def rows_of(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor] | None:
        """The rows of a module's input that count, [n, in], and which of them are first tokens; None if it cannot be said."""
        flat = x.reshape(-1, x.shape[-1])
        leading, shape = tuple(x.shape[:-1]), tuple(self.ids.shape)
        if leading in (shape, (self.ids.numel(),)):
            return (flat, self.first) if self.all_count else (flat[self.counts], self.first[self.counts])
        if leading in (shape[:1], (shape[0], 1)):  # One token a sequence: a pooler's.
            return flat[self.starts], self.starts[self.starts]
        # Tokens in another order or number, such as those that a router gives an expert: whole, or not at all.
        return (flat, self.first.new_zeros(len(flat))) if self.all_count else None


def batches(sequences: list[Sequence], budget: Callable[[], int], device: torch.device) -> Iterator[Batch]:
    """Sequences by length, equal ones in order, as many at a time as `budget()` tokens hold."""
    ordered, at = sorted(sequences, key=lambda sequence: len(sequence.ids)), 0
    while at < len(ordered):
        length, end = len(ordered[at].ids), at + 1
        while end < len(ordered) and len(ordered[end].ids) == length and (end - at + 1) * length <= budget():
            end += 1
        yield Batch(ordered[at:end], device)
        at = end


class Recorder:
    """Sees the input of every linear module and adds it to the Gram of the first module that got this very tensor."""

    def __init__(self, modules: dict[str, torch.nn.Module], device: torch.device, events: Events) -> None:
        self.device, self.events, self.budget = device, events, BATCH_TOKENS
        self.grams: dict[str, Gram] = {}
        self.leader: dict[str, str] = {}
        self.unclear: set[str] = set()
        self.batch: Batch | None = None
        for name, module in modules.items():
            module.register_forward_pre_hook(
                lambda _, args, kwargs, name=name: self.see(name, args[0] if args else next(iter(kwargs.values()))),
                with_kwargs=True,
            )

    def run(self, model: Any, batch: Batch, arguments: dict[str, Any], done: dict[tuple[str, int], int]) -> None:
        """One forward pass. A batch that does not fit goes in halves, which skip what `done` says was added for all of it:
        by module and number of its call, the strips of its Gram."""
        self.batch, self.done, self.calls, self.live = batch, dict(done), {}, {}
        try:
            model(input_ids=batch.ids, attention_mask=torch.ones_like(batch.ids), **arguments)
            return
        except torch.OutOfMemoryError as error:
            if len(batch.sequences) == 1:
                sequence = batch.sequences[0]
                raise Refused(f"out of memory on the device with one sequence (row {sequence.row}, {len(sequence.ids)} "
                              f"tokens): {one_line(error)}", "set a smaller `max_length`, or `device: cpu`", "stage") from None  # fmt: skip
        # Past the handler, so that the failed pass has let go of what it held.
        self.live, done, half = {}, self.done, (len(batch.sequences) + 1) // 2
        torch.cuda.empty_cache()
        self.budget = max(1, half * batch.ids.shape[1])
        self.events.note(f"out of memory with {batch.ids.numel()} tokens at once; going on with {self.budget}")
        for part in (batch.sequences[:half], batch.sequences[half:]):
            self.run(model, Batch(part, self.device), arguments, done)

    def see(self, name: str, x: torch.Tensor) -> None:
        reference, version, leader = self.live.get(id(x), (lambda: None, 0, name))
        if reference() is not x or version != x._version:
            leader = name
            self.live[id(x)] = (weakref.ref(x), x._version, name)
        if self.leader.setdefault(name, leader) != leader:
            raise Refused(f"{name} read the input of {self.leader[name]} first and that of {leader} later", fault="stage")
        if leader != name:
            return
        if not torch.isfinite(x.sum(dtype=torch.float32)):
            self.refuse_infinite(name, x)
        call = (name, self.calls.get(name, 0))
        self.calls[name] = call[1] + 1
        rows = self.batch.rows_of(x)
        if rows is None:
            self.unclear.add(name)
        elif len(rows[0]) > 0:
            gram = self.grams.get(name) or self.grams.setdefault(name, Gram(x.shape[-1], self.device))
            for strips in gram.add(*rows, self.done.get(call, 0)):
                self.done[call] = strips

    def refuse_infinite(self, name: str, x: torch.Tensor) -> None:
        bad = (~x.isfinite()).flatten(1).any(1).nonzero()  # A sum may overflow by itself: then nothing is bad.
        if len(bad):
            aligned = x.shape[0] == len(self.batch.sequences)
            rows = [sequence.row for sequence in self.batch.sequences]
            where = f"row {rows[int(bad[0])]}" if aligned else f"one of the rows {', '.join(map(str, rows))}"
            hint = "`dtype: float32` or bfloat16 has more range than float16; otherwise the weights are damaged"
            raise Refused(f"{name}: the activations of {where} of the data are not finite", hint)
