"""What a training has reached, on disk: enough to go on as if it had never stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from streamdream.errors import OptionError, SourceError, words
from streamdream.style.cards import read_facts
from streamdream.style.network import Network, write_whole

FORMAT = "streamdream checkpoint 1"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")  # of Adam


@dataclass
class Progress:
    """How far a training is: `step` steps in `seconds`, and the network with what trains it.

    `average` is the mean of the last networks, weighed towards the latest: what is kept in
    the end, as it is steadier than any one of them.
    """

    network: Network
    average: Network
    adam: torch.optim.Adam
    step: int = 0
    seconds: float = 0.0

    def save(self, path: Path, lesson: Mapping[str, str]) -> None:
        """Write all of it; `lesson` tells what is learned. Raises SinkError."""
        told = {**lesson, "step": self.step, "seconds": self.seconds}
        facts = {FORMAT: json.dumps(told)}
        write_whole(path, save({k: v.contiguous() for k, v in self._tensors().items()}, facts))

    def restore(self, path: Path, lesson: Mapping[str, str]) -> None:
        """Go on from a checkpoint; raises OptionError if it is of another lesson."""
        facts = read_facts(path, FORMAT)
        if facts is None:
            raise SourceError(path, "is not a checkpoint")
        try:
            _check_alike(path, facts, lesson)
            found = load_file(path)
            self.step, self.seconds = int(facts["step"]), float(facts["seconds"])
            for name in ("network", "average"):
                weights = {
                    k.partition(".")[2]: v for k, v in found.items() if k.startswith(f"{name}.")
                }
                getattr(self, name).load_state_dict(weights)
            for i, parameter in enumerate(self.network.parameters()):
                self.adam.state[parameter] = {
                    moment: _placed(found[f"adam.{i}.{moment}"], moment, parameter)
                    for moment in MOMENTS
                }
        except (
            SafetensorError, OSError, KeyError, ValueError, TypeError, AttributeError, RuntimeError
        ) as fault:  # fmt: skip
            raise SourceError(path, f"is damaged: {words(fault)}", "train anew") from None

    def _tensors(self) -> dict[str, Tensor]:
        networks = {"network": self.network, "average": self.average}
        found = {
            f"{name}.{key}": value.cpu()
            for name, network in networks.items()
            for key, value in network.state_dict().items()
        }
        for i, parameter in enumerate(self.network.parameters()):
            state = self.adam.state[parameter]
            found |= {f"adam.{i}.{moment}": state[moment].cpu() for moment in MOMENTS}
        return found


def _placed(tensor: Tensor, moment: str, parameter: Tensor) -> Tensor:
    if moment == "step":
        return tensor  # Adam counts on the CPU
    placed = torch.empty_like(parameter)  # in the parameter's own order in memory
    return placed.copy_(tensor)


def _check_alike(path: Path, facts: Mapping[str, object], lesson: Mapping[str, str]) -> None:
    told, wanted = json.loads(str(facts.get("options", "{}"))), json.loads(lesson["options"])
    for name, value in wanted.items():
        if told.get(name) != value:
            flag = "--" + name.replace("_", "-")
            reason = f"was {told.get(name)} when the training began, now it is {value}"
            raise OptionError(f"--resume with {flag}", reason, "leave it as it was, or train anew")
    for name, what in (
        ("trained_on", "to learn"),
        ("painting", "in the painting"),
        ("data", "in --data"),
    ):
        if facts.get(name) != lesson[name]:
            reason = f"there is something else {what} than when the training began"
            raise OptionError("--resume", reason, f"{path} belongs to that")
