"""What decides about recordings; recording itself needs a GPU."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from streamdream.backbone import Backbone, load
from streamdream.dream import steepest
from streamdream.frame import Image
from streamdream.graphs import KEPT, Replayed
from streamdream.objectives.aims import aim_at

AIM = aim_at("block3")
Function = Callable[[Tensor], Tensor]


class Recorder:
    """Stands in for CUDA graphs: a fixed input, a fixed output, as they have."""

    def __init__(self, spoil: Callable[[Tensor], Tensor] = lambda y: y) -> None:
        self.made, self.replayed, self._spoil = 0, 0, spoil

    def __call__(self, function: Function, x: Tensor) -> Function:
        self.made += 1
        given, result = x.clone(), torch.zeros_like(x)

        def replay(y: Tensor) -> Tensor:
            self.replayed += 1
            given.copy_(y)
            result.copy_(self._spoil(function(given)))
            return result

        return replay


def test_a_shape_is_recorded_once_and_then_replayed(lite0: Backbone, photo: Image) -> None:
    record = Recorder()
    slope = Replayed(steepest, record, "cpu")
    small = photo[:, :64, :96]
    for x in (photo, small, photo, small, photo.flip(-2)):
        assert torch.equal(slope(lite0, x, AIM, 1024), steepest(lite0, x, AIM, 1024))
    assert record.made == 2
    assert record.replayed == 2 + 5  # two of them to see whether the recording can be trusted


def test_other_layers_are_another_recording(lite0: Backbone, photo: Image) -> None:
    record = Recorder()
    slope = Replayed(steepest, record, "cpu")
    for aim in (AIM, aim_at("block5"), aim_at("block3")):
        assert torch.equal(slope(lite0, photo, aim, 1024), steepest(lite0, photo, aim, 1024))
    assert record.made == 2


def test_weights_that_move_are_one_recording(lite0: Backbone, photo: Image) -> None:
    record = Recorder()
    slope = Replayed(steepest, record, "cpu")
    seen = []
    for part in (0.0, 0.25, 0.5, 1.0):
        aim = aim_at("block5", "block3", weights=(part, 1 - part))
        found = slope(lite0, photo, aim, 1024).clone()
        assert torch.equal(found, steepest(lite0, photo, aim, 1024))
        seen.append(found)
    assert record.made == 1
    assert not torch.equal(seen[0], seen[1])


@pytest.mark.parametrize("spoil", [torch.zeros_like, lambda y: y.flip(-1), lambda y: y * torch.nan])
def test_a_recording_that_gives_something_else_is_not_used(
    lite0: Backbone, photo: Image, spoil: Callable[[Tensor], Tensor]
) -> None:
    record = Recorder(spoil)
    slope = Replayed(steepest, record, "cpu")
    for _ in range(2):
        assert torch.equal(slope(lite0, photo, AIM, 1024), steepest(lite0, photo, AIM, 1024))
    assert (record.made, record.replayed) == (1, 1)


def test_a_recording_that_fails_is_not_tried_again(lite0: Backbone, photo: Image) -> None:
    tries = []

    def record(_function: Function, _x: Tensor) -> Function:
        tries.append(1)
        raise RuntimeError("operation not permitted when stream is capturing")

    slope = Replayed(steepest, record, "cpu")
    for _ in range(2):
        assert torch.equal(slope(lite0, photo, AIM, 1024), steepest(lite0, photo, AIM, 1024))
    assert len(tries) == 1


def test_only_so_many_recordings_are_kept(lite0: Backbone, photo: Image) -> None:
    record = Recorder()
    slope = Replayed(lambda _net, x, *_: x, record, "cpu")
    for width in range(33, 33 + KEPT + 1):
        slope(lite0, photo[:, :64, :width], AIM, 1024)
    slope(lite0, photo[:, :64, :49], AIM, 1024)
    assert record.made == KEPT + 1
    slope(lite0, photo[:, :64, :33], AIM, 1024)
    assert record.made == KEPT + 2


def test_without_a_gpu_and_for_pieces_nothing_is_recorded(lite0: Backbone, photo: Image) -> None:
    record = Recorder()
    Replayed(steepest, record)(lite0, photo, AIM, 1024)
    Replayed(lambda _net, x, *_: x, record, "cpu")(lite0, photo, AIM, 100)
    assert record.made == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_graphs_give_what_the_slope_gives(photo: Image) -> None:
    net, x = load("efficientnet-lite0", "cuda"), photo.to("cuda")
    slope = Replayed(steepest)
    near, deep = aim_at("block3", device="cuda"), ("block3", "block5")
    for y in (x, x.flip(-1), x):
        direct = steepest(net, y, near, 1024)
        assert torch.allclose(slope(net, y, near, 1024), direct, atol=1e-2)
    for part in (0.1, 0.5, 0.9):
        both = aim_at(*deep, weights=(part, 1 - part), device="cuda")
        assert torch.allclose(slope(net, x, both, 1024), steepest(net, x, both, 1024), atol=1e-2)
    assert len(slope._kept) == 2
    assert all(replay is not None for replay, _ in slope._kept.values())
