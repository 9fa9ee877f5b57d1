"""LoRA for many versions in one batch: each row of a forward pass goes through its own version's matrices.

    out = base(x) + scaling * (x A^T) B^T          Hu et al., "LoRA", 2021, equation 3

The base model is never copied, switched or merged: a wrapped layer holds the pairs of every loaded version,
and the rows of one version lie together, so that a version costs two small products a layer. Knows no text.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from serving.cpu_products import lacks_bfloat16
from store.errors import HeedError

FEW_ROWS = 32


class Group(NamedTuple):
    """The rows `start` to `stop` of the batch, all of one version."""

    version: str
    start: int
    stop: int


class Routing:
    """Whose rows the next forward pass holds. Set by the one thread that runs the model."""

    def __init__(self) -> None:
        self.groups: tuple[Group, ...] = ()

    @property
    def num_rows(self) -> int:
        return self.groups[-1].stop if self.groups else 0


class LoraLinear(nn.Module):
    """A linear layer of the base (whole, 4-bit, or GPT-2's transposed one) and what each version adds."""

    def __init__(self, base: nn.Module, routing: Routing) -> None:
        super().__init__()
        self.base = base
        self.pairs: dict[str, tuple[Tensor, Tensor]] = {}  # version -> (inputs, rank), (rank, outputs)
        self._routing = routing

    @property
    def weight(self) -> Any:
        """The base's own, for model code that looks at a layer's dtype."""
        return self.base.weight

    @property
    def bias(self) -> Any:
        """The base's own."""
        return self.base.bias

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.base(x)
        routing = self._routing
        wanted = [group for group in routing.groups if group.version in self.pairs]
        if not wanted:
            return out
        rows, sums = x.reshape(-1, x.shape[-1]), out.view(-1, out.shape[-1])
        width, rest = divmod(len(rows), routing.num_rows)
        if rest:  # a layer that sees tokens out of their rows would mix versions
            raise HeedError(f"a layer saw {len(rows)} positions for {routing.num_rows} rows")
        for version, start, stop in wanted:
            own = slice(start * width, stop * width)
            add_product(sums[own], rows[own], *self.pairs[version])
        return out


def add_product(out: Tensor, x: Tensor, down: Tensor, up: Tensor) -> None:
    """out += x down up, in place: (n, outputs), (n, inputs), (inputs, rank), (rank, outputs).

    Over a bfloat16 base on a CPU the pairs are float32: for a few rows two float32 products and the casts
    cost a quarter of two bfloat16 ones (12 to 17 against 48 to 51 microseconds at 8 rows of 576 and 1,536,
    rank 16), for hundreds of rows it is the other way round, unless the processor has no bfloat16: there the
    float32 ones take a twelfth to two fifths.
    """
    if down.dtype == x.dtype:
        out.addmm_(x @ down, up)
    elif len(x) <= FEW_ROWS or lacks_bfloat16():
        out.add_(x.to(down.dtype) @ down @ up)
    else:
        out.addmm_(x @ down.to(x.dtype), up.to(x.dtype))


class LoraBank:
    """Every loaded adapter over one base model, kept in `dtype`.

    `add` and `remove` may be called while another thread runs the model: a version's matrices are only looked
    at in passes that route rows to it.
    """

    def __init__(self, model: nn.Module, dtype: torch.dtype) -> None:
        self._model = model
        self._dtype = dtype
        self._routing = Routing()
        self._layers: dict[str, LoraLinear] = {}

    def add(self, version: str, layers: Mapping[str, tuple[Tensor, Tensor]], scaling: float) -> None:
        """Lay a version over the base: module name -> A (rank, inputs) and B (outputs, rank)."""
        for name, (a, b) in layers.items():
            layer = self._layers.get(name) or self._wrap(name)
            device = layer.weight.device
            down = a.to(device, self._dtype).t().contiguous()
            up = (b.to(device, torch.float32) * scaling).to(self._dtype).t().contiguous()
            layer.pairs[version] = (down, up)

    def remove(self, version: str) -> None:
        """Forget a version; the wrapped layers stay, at the price of a dictionary look-up each."""
        for layer in self._layers.values():
            layer.pairs.pop(version, None)

    def num_bytes(self, version: str) -> int:
        """What a version holds in memory besides the base."""
        pairs = (layer.pairs.get(version, ()) for layer in [*self._layers.values()])
        return sum(part.nbytes for pair in pairs for part in pair)

    def route(self, versions: Sequence[str]) -> None:
        """Say whose rows the next forward pass holds; rows of one version must lie together."""
        groups, start = [], 0
        for version, rows in itertools.groupby(versions):
            stop = start + sum(1 for _ in rows)
            groups.append(Group(version, start, stop))
            start = stop
        self._routing.groups = tuple(groups)

    def _wrap(self, name: str) -> LoraLinear:
        parent, _, child = name.rpartition(".")
        layer = LoraLinear(self._model.get_submodule(name), self._routing)
        setattr(self._model.get_submodule(parent), child, layer)
        self._layers[name] = layer
        return layer
