"""Devices in a recorded graph."""

from typing import Any

import torch
from torch import fx
from torch.fx.node import map_aggregate


def device_of_images(graph: fx.Graph) -> fx.Node:
    """Replace every recorded device by that of the images; return the node that finds it, which may have no users."""
    images = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(images):
        device = graph.call_function(getattr, (images, "device"))

    def replace(argument: Any) -> Any:
        return device if isinstance(argument, torch.device) else argument

    for node in graph.nodes:
        node.args, node.kwargs = (map_aggregate(part, replace) for part in (node.args, node.kwargs))
    return device
