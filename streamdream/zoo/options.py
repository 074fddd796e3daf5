"""Options of where a network's weights are from, declared once, as in `streamdream.options`.

This module imports neither torch nor OpenCV, so that wrong options are answered at once.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import Group, Parameter
from pydantic import BaseModel, Field

from streamdream.zoo.store import CACHE_VARIABLE, Store

MODELS = Group("Models", sort_key=1.2)

# Where weights are on this machine decides nothing of how a result looks.
PLACES = frozenset({"model_cache", "offline"})


class Modelled(BaseModel):
    """Which weights a network has, and where they lie."""

    weights: Annotated[Path | None, Parameter(group=MODELS, metavar="FILE")] = Field(
        default=None,
        description="Weights of one's own for the model: a state dict, as .safetensors or .pth. "
        "The number of classes may be another.",
    )
    model_cache: Annotated[Path | None, Parameter(group=MODELS, metavar="FOLDER")] = Field(
        default=None,
        description="Folder of fetched weights. Default: the environment's "
        f"{CACHE_VARIABLE}, or the platform's cache; streamdream models names it.",
    )
    offline: Annotated[bool, Parameter(group=MODELS, negative=())] = Field(
        default=False, description="Fetch nothing: fail where weights are not here."
    )

    @property
    def store(self) -> Store:
        """Where fetched weights lie."""
        return Store(self.model_cache, self.offline)
