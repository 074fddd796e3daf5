"""Networks of other libraries, read by layer: a traced graph, cut behind the deepest layer wanted.

Source of the tracing: Reed et al., "torch.fx: Practical Program Capture and Transformation for
Deep Learning in Python" (arXiv:2112.08429).
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

KEPT = 32  # sets of layers that were asked for; schedules and sliders come back to them


class Traced:
    """A network in evaluation mode as a graph of operations, in which layers have names.

    Dropout is taken out and batch normalisation is folded into the convolution before it. For
    each set of layers there is a function that computes those and nothing else.
    """

    def __init__(
        self,
        network: nn.Module,
        paths: Mapping[str, str],
        leaves: tuple[type, ...] = (),
        functions: tuple[Callable[..., Any], ...] = (),
        lenient: bool = False,
    ) -> None:
        """Trace a network; `paths` say by which module (or operation) a layer is made.

        Modules of the kinds in `leaves` and `functions` are not looked into. Raises ValueError
        for a path that leads nowhere, unless `lenient`, which leaves it out; and what torch.fx
        raises where a network cannot be traced.
        """
        graph = _Tracer(leaves, functions).trace(network)
        self._module = fx.GraphModule(network, graph)
        for node in list(graph.nodes):
            if _kind(self._module, node) is not None and _drops(self._module, node):
                node.replace_all_uses_with(node.args[0])
                graph.erase_node(node)
        found = {layer: _maker(graph, path) for layer, path in paths.items()}
        lost = [paths[layer] for layer, node in found.items() if node is None]
        if lost and not lenient:
            raise ValueError(f"nothing is called {lost[0]}")
        made = {layer: node for layer, node in found.items() if node is not None}
        folded = _fold(self._module)
        if lenient:  # a convolution with its norm folded in no longer gives what it did
            made = {layer: n for layer, n in made.items() if n not in set(folded.values())}
        made = {layer: folded.get(node, node) for layer, node in made.items()}
        order = {node: i for i, node in enumerate(graph.nodes)}
        self.layers = tuple(sorted(made, key=lambda layer: order[made[layer]]))
        self._made = made
        self._readers: OrderedDict[frozenset[str], Callable[[Tensor], tuple[Tensor, ...]]] = (
            OrderedDict()
        )

    def __call__(self, x: Tensor, wanted: Collection[str]) -> dict[str, Tensor]:
        """The activations of layers for a prepared batch x (1, 3, h, w), in order of depth."""
        key = frozenset(wanted)
        if key not in self._readers:
            self._readers[key] = self._cut(key)
            if len(self._readers) > KEPT:
                self._readers.popitem(last=False)
        self._readers.move_to_end(key)
        names = (layer for layer in self.layers if layer in key)
        return {name: _map(y) for name, y in zip(names, self._readers[key](x), strict=True)}

    def to(self, device: torch.device, precision: torch.dtype) -> None:
        """Put the weights on a device, in this precision."""
        self._module.to(device, precision).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._readers.clear()

    def _cut(self, wanted: frozenset[str]) -> fx.GraphModule:
        outputs = [self._made[name] for name in self.layers if name in wanted]
        needed, waiting = set(outputs), list(outputs)
        while waiting:
            before = set(waiting.pop().all_input_nodes) - needed
            needed |= before
            waiting += before
        graph = fx.Graph()
        copies: dict[fx.Node, fx.Node] = {}
        for node in self._module.graph.nodes:
            if node in needed:
                copies[node] = graph.node_copy(node, copies.__getitem__)
        graph.output(tuple(copies[node] for node in outputs))
        return fx.GraphModule(self._module, graph)


class _Tracer(fx.Tracer):
    def __init__(self, leaves: tuple[type, ...], functions: tuple[Callable[..., Any], ...]) -> None:
        super().__init__(autowrap_functions=functions)
        self._leaves = leaves

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, self._leaves) or super().is_leaf_module(m, module_qualified_name)


def _kind(module: fx.GraphModule, node: fx.Node) -> nn.Module | None:
    return module.get_submodule(str(node.target)) if node.op == "call_module" else None


def _drops(module: fx.GraphModule, node: fx.Node) -> bool:
    name = type(_kind(module, node)).__name__
    return name in ("Dropout", "Dropout2d", "StochasticDepth", "Identity")


def _maker(graph: fx.Graph, path: str) -> fx.Node | None:
    """The last operation inside a module, or the one of that name; "output" is the whole's."""
    inside = [n for n in graph.nodes if path in n.meta.get("nn_module_stack", ())]
    inside = inside or [n for n in graph.nodes if n.name == path]
    if not inside:
        return None
    whole: Any = inside[-1].args[0] if inside[-1].op == "output" else inside[-1]
    return whole


def _fold(module: fx.GraphModule) -> dict[fx.Node, fx.Node]:
    """Fold batch norms into convolutions; which operations took the place of which."""
    graph, folded = module.graph, {}
    uses = Counter(node.target for node in graph.nodes if node.op == "call_module")
    for node in list(graph.nodes):
        norm = _kind(module, node)
        before: Any = node.args[0] if node.args else None
        if type(norm) is not nn.BatchNorm2d or not isinstance(before, fx.Node):
            continue
        conv = _kind(module, before)
        alone = uses[node.target] == uses[before.target] == len(before.users) == 1
        if type(conv) is not nn.Conv2d or not alone:
            continue
        parent, _, name = str(before.target).rpartition(".")
        setattr(module.get_submodule(parent), name, fuse_conv_bn_eval(conv, norm))
        node.replace_all_uses_with(before)
        graph.erase_node(node)
        folded[node] = before
    module.recompile()
    return folded


def _map(y: Tensor) -> Tensor:
    """What a layer gave, as a map (1, c, h, w): numbers (1, c), tokens (1, n, c) have no place."""
    if y.ndim == 3:
        y = y.transpose(1, 2)
    return y.reshape(*y.shape, *[1] * (4 - y.ndim))
