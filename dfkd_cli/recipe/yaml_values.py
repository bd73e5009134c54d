"""YAML 1.2 read as nodes and as values: the safe subset that is also JSON, with the line of every error."""

import re
from collections.abc import Callable
from typing import Any

import yaml
from yaml.constructor import ConstructorError

DEEPEST = 100  # levels of nesting: many times what a recipe has, and too few to end PyYAML's parser in C
LONGEST = 40  # characters of a value that an error repeats
TAG = "tag:yaml.org,2002:"

# The loader in C, where PyYAML was built with it, is ten times faster.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):
    """A loader for the values of YAML 1.2: 1e-3 is a number, and `on` and 2020-01-01 are text."""


def _checked(construct: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
    """Return the constructor with its failures raised as ConstructorError, which holds the line."""

    def constructed(loader: Any, node: Any) -> Any:
        try:
            value = construct(loader, node)
            float(value)  # raises for an integer too large for a float
            return value
        except (ValueError, OverflowError, LookupError) as error:
            text = loader.construct_scalar(node)
            shown = text if len(text) <= LONGEST else f"{text[:LONGEST]}..."
            message = f"'{shown}' is not true, false or a number in the range of a float"
            raise ConstructorError(None, None, message, node.start_mark) from error

    return constructed


_constructors = yaml.SafeLoader.yaml_constructors
_Loader.yaml_constructors = {
    **{tag: _constructors[tag] for tag in (None, *(TAG + kind for kind in ("null", "str", "seq", "map")))},
    **{tag: _checked(_constructors[tag]) for tag in (TAG + kind for kind in ("bool", "int", "float"))},
}
_Loader.yaml_implicit_resolvers = {
    start: [(tag, pattern) for tag, pattern in resolvers if tag not in (f"{TAG}bool", f"{TAG}timestamp")]
    for start, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(f"{TAG}bool", re.compile("(true|True|TRUE|false|False|FALSE)$"), list("tTfF"))
_Loader.add_implicit_resolver(
    f"{TAG}float", re.compile(r"[-+]?(\d[\d_]*\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def parse_nodes(text: str) -> yaml.Node | None:
    """Return the root node of a YAML text, None when the text is empty. Raises YAMLError."""
    depth = 0
    for event in yaml.parse(text, _Loader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise yaml.MarkedYAMLError(None, None, f"more than {DEEPEST} levels of nesting", event.start_mark)
    return yaml.compose(text, _Loader)


def node_values(node: yaml.Node | None) -> Any:
    """Return the Python value of a node. Nodes with a `<<` key are changed. Raises YAMLError."""
    return None if node is None else _Loader("").construct_document(node)


def reason(error: Exception) -> str:
    """Return what is wrong with a YAML text, in one line."""
    text = getattr(error, "problem", None) or getattr(error, "context", None) or " ".join(str(error).split())
    return text if isinstance(error, ConstructorError) else f"not YAML: {text}"
