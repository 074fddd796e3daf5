"""CUDA graphs: gradient steps of one shape recorded once and replayed.

At the sizes dreamed at a GPU is done with a kernel sooner than the host can launch the next one;
a recorded step is launched as a whole. Source: "CUDA semantics: CUDA Graphs", PyTorch's notes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from streamdream.backbone import Backbone
from streamdream.objectives.aims import Aim
from streamdream.polish.gradient import BANDS

KEPT = 16  # recordings; live sizes come and go
WARM_UP = 3  # runs before recording, in which libraries choose their algorithms
ALIKE = 0.98  # cosine between a replay and the same computed afresh, or it is not trusted


@runtime_checkable
class Slope(Protocol):
    """The direction (3, h, w) in which a picture (3, h, w) excites an aim most.

    A picture larger than `tile` pixels either way is seen in pieces. `levels` are the bands
    of its gradient that are made equally strong.
    """

    def __call__(
        self, backbone: Backbone, x: Tensor, aim: Aim, tile: int, levels: int = BANDS, /
    ) -> Tensor: ...


Record = Callable[[Callable[[Tensor], Tensor], Tensor], Callable[[Tensor], Tensor]]


class Replayed:
    """A slope, replayed from a recording where the picture is on a GPU and seen as a whole.

    A recording that fails, or gives something else than the slope itself, is not used. What is
    returned is overwritten by the next call of the same shape. What an aim's tensors hold is read
    anew by every replay: one recording does while they move.
    """

    def __init__(self, slope: Slope, record: Record | None = None, kinds: str = "cuda") -> None:
        """Replay this slope, as `record` does it, on devices of these `kinds`."""
        self._slope, self._kinds = slope, kinds
        self._record = record or recorded
        # Recordings, each with the aim whose tensors it reads.
        self._kept: OrderedDict[object, tuple[Callable[[Tensor], Tensor] | None, Aim]] = (
            OrderedDict()
        )

    def __call__(
        self, backbone: Backbone, x: Tensor, aim: Aim, tile: int, levels: int = BANDS
    ) -> Tensor:
        """The direction (3, h, w)."""
        if x.device.type not in self._kinds or max(x.shape[-2:]) > tile:
            return self._slope(backbone, x, aim, tile, levels)
        key = (id(backbone), tuple(x.shape), aim.kind, levels)
        if key not in self._kept:
            held = aim.held()
            replay = self._trusted(lambda y: self._slope(backbone, y, held, tile, levels), x)
            self._kept[key] = replay, held
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        replay, held = self._kept[key]
        if replay is None:
            return self._slope(backbone, x, aim, tile, levels)
        for mine, theirs in zip(held.tensors, aim.tensors, strict=True):
            mine.copy_(theirs)
        return replay(x)

    def _trusted(
        self, function: Callable[[Tensor], Tensor], x: Tensor
    ) -> Callable[[Tensor], Tensor] | None:
        try:
            replay = self._record(function, x)
            other = x.flip(-1)  # not what was recorded, or a stale answer would pass
            pair = torch.stack([replay(other).flatten(), function(other).flatten()]).float()
        except RuntimeError:
            return None
        cosine = torch.nn.functional.cosine_similarity(pair[0], pair[1], dim=0)
        return replay if float(cosine) > ALIKE else None


def recorded(function: Callable[[Tensor], Tensor], x: Tensor) -> Callable[[Tensor], Tensor]:
    """A replay of what `function` does on tensors like `x`, which is on a CUDA device."""
    given = x.clone()
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(WARM_UP):
            function(given)
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    # The outer context puts the stream back even where ending a failed recording fails too.
    with torch.cuda.stream(torch.cuda.current_stream()), torch.cuda.graph(graph):
        result = function(given)

    def replay(y: Tensor) -> Tensor:
        given.copy_(y)
        graph.replay()
        return result

    return replay
