"""Functions that write torch.export archives that run code when torch.export loads them, to place.path."""

import json

import pytest
import torch
from hostile_tools import Payload, bytes_of, edit_config, edit_program, rezip


def export_with_pickled_inputs(place, honest):
    evil = bytes_of(lambda file: torch.save(Payload(place.marker), file))
    change = {"data/sample_inputs/model.pt": evil}
    place.path.write_bytes(rezip(honest["export"], lambda records: records.update(change)))


def export_with_pickled_weight(place, honest):
    def change(config, records):
        first = next(iter(config.values()))
        first["use_pickle"] = True
        records[f"data/weights/{first['path_name']}"] = bytes_of(lambda file: torch.save(Payload(place.marker), file))

    place.path.write_bytes(edit_config(honest["export"], "weights", change))


def export_with_a_second_config_in_capitals(place, honest):
    """torch finds records regardless of case, by bisection: of two lists of weights it can use either."""
    name = "data/weights/model_weights_config.json"

    def change(records):
        config = json.loads(records[name])
        next(iter(config["config"].values())).update(use_pickle=True, path_name="weight_evil")
        before = dict(records)
        records.clear()
        for other, content in before.items():
            records[other] = content
            if other == name:
                records[name.replace("json", "JSON")] = json.dumps(config).encode()
        records["data/weights/weight_evil"] = bytes_of(lambda file: torch.save(Payload(place.marker), file))

    place.path.write_bytes(rezip(honest["export"], change))


def export_with_one_config_in_capitals(place, honest):
    def change(records):
        name = "data/weights/model_weights_config.json"
        config = json.loads(records.pop(name))
        next(iter(config["config"].values())).update(use_pickle=True)
        records[name.replace("json", "JSON")] = json.dumps(config).encode()

    place.path.write_bytes(rezip(honest["export"], change))


def export_with_old_pickled_weights(place, honest):
    evil = bytes_of(lambda file: torch.save(Payload(place.marker), file))
    place.path.write_bytes(rezip(honest["export"], lambda records: records.update({"data/weights/model.pt": evil})))


def _export_constant(path_name):
    def make(place, honest):
        def change(config, records):
            config["evil"] = {"path_name": path_name, "is_param": False, "use_pickle": True, "tensor_meta": None}
            records[f"data/constants/{path_name}"] = place.payload

        place.path.write_bytes(edit_config(honest["export"], "constants", change))

    return make


export_with_opaque_object = _export_constant("opaque_obj_0")
export_with_custom_object = _export_constant("custom_obj_0")
export_with_pickled_constant = _export_constant("tensor_0")


def export_with_compiled_library(place, honest):
    change = {"data/aotinductor/model/evil.so": b"\x7fELF"}
    place.path.write_bytes(rezip(honest["export"], lambda records: records.update(change)))


def export_with_code_as_expression(place, honest):
    def change(program, graph):
        for value in graph["tensor_values"].values():
            for size in value["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = place.code

    place.path.write_bytes(edit_program(honest["export"], change))


def export_with_code_as_name(place, honest):
    text = json.dumps("x")
    evil = json.dumps(f"x = {place.code}\n    y")
    change = {}

    def edit(records):
        change["models/model.json"] = records["models/model.json"].replace(text.encode(), evil.encode())
        records.update(change)

    place.path.write_bytes(rezip(honest["export"], edit))


def _export_target(target):
    def make(place, honest):
        def change(program, graph):
            argument = {"name": "command", "arg": {"as_string": f"touch {place.marker}"}, "kind": 1}
            graph["nodes"][0] |= {"target": target, "inputs": [argument]}

        place.path.write_bytes(edit_program(honest["export"], change))

    return make


export_that_calls_the_system = _export_target("torch.os.system")
export_that_hides_its_module = _export_target("torch_.os.system")
export_that_loads_a_library = _export_target("torch.ops.load_library")
export_that_maps_a_file = _export_target("torch.ops.aten.from_file.default")
export_that_imports = _export_target("torch.hub.importlib.import_module")


def export_with_foreign_tree(place, honest):
    (place.folder / "evil_module.py").write_text(place.code)

    def change(program, graph):
        signature = program["graph_module"]["module_call_graph"][0]["signature"]
        enum = json.dumps({"__enum__": True, "fqn": "evil_module:X", "name": "Y"})
        tree = {"type": "builtins.dict", "context": enum, "children_spec": []}
        signature["out_spec"] = json.dumps([1, tree])

    place.path.write_bytes(edit_program(honest["export"], change))


MAKERS = [
    pytest.param(export_with_pickled_inputs, id="export_with_pickled_inputs"),
    pytest.param(export_with_pickled_weight, id="export_with_pickled_weight"),
    pytest.param(export_with_a_second_config_in_capitals, id="export_with_a_second_config_in_capitals"),
    pytest.param(export_with_one_config_in_capitals, id="export_with_one_config_in_capitals"),
    pytest.param(export_with_old_pickled_weights, id="export_with_old_pickled_weights"),
    pytest.param(export_with_opaque_object, id="export_with_opaque_object"),
    pytest.param(export_with_custom_object, id="export_with_custom_object"),
    pytest.param(export_with_pickled_constant, id="export_with_pickled_constant"),
    pytest.param(export_with_compiled_library, id="export_with_compiled_library"),
    pytest.param(export_with_code_as_expression, id="export_with_code_as_expression"),
    pytest.param(export_with_code_as_name, id="export_with_code_as_name"),
    pytest.param(export_that_calls_the_system, id="export_that_calls_the_system"),
    pytest.param(export_that_hides_its_module, id="export_that_hides_its_module"),
    pytest.param(export_that_loads_a_library, id="export_that_loads_a_library"),
    pytest.param(export_that_maps_a_file, id="export_that_maps_a_file"),
    pytest.param(export_that_imports, id="export_that_imports"),
    pytest.param(export_with_foreign_tree, id="export_with_foreign_tree"),
]
