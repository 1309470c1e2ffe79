# SPDX-License-Identifier: Apache-2.0
"""Netron opens our offline models: the reader of its PyPI wheel runs under Node and says what it sees."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.support.gear_graphs import compile_case
from tests.support.graphs import compile_pb, up_conv_graph
from vxm_convert.formats import om
from vxm_convert.sim.atc.__main__ import main

#: What om.js needs; its metadata are optional, but decide the names of inputs.
_FILES = ("om.js", "om-proto.js", "om-metadata.json", "base.js", "protobuf.js", "text.js")
#: Netron's own window is replaced by this: a stream over the file, and its modules and metadata from the folder.
_READER = """
import * as fs from 'node:fs';
import * as base from './base.js';
import * as om from './om.js';
const types = new Map(JSON.parse(fs.readFileSync('om-metadata.json', 'utf-8')).map((type) => [type.name, type]));
const context = {
    stream: new base.BinaryStream(new Uint8Array(fs.readFileSync(process.argv[2]))),
    set(name, value) { this.kind = name; this.value = value; return name; },
    require: (name) => import(name + '.js'),
    metadata: () => ({ type: (name) => types.get(name) || { name } })
};
const factory = new om.ModelFactory();
if (!await factory.match(context)) { throw new Error('not recognised'); }
const model = await factory.open(context);
const graph = model.modules[Number(process.argv[3] || 0)];
const seen = (value) => ({ name: value.name, type: value.type && value.type.toString(),
    bytes: value.initializer && value.initializer.values ? value.initializer.values.length : 0 });
console.log(JSON.stringify({ format: model.format, name: graph.name, nodes: graph.nodes.map((node) => ({
    name: node.name, type: node.type.name, inputs: node.inputs.map((argument) => argument.value.map(seen)),
    outputs: node.outputs.map((argument) => argument.value.map(seen)),
    attributes: node.attributes.map((attribute) => attribute.name) })) }));
"""


@pytest.fixture
def netron(tmp_path):
    """Function: path of a model, number of a graph in it → what Netron sees."""
    node = shutil.which("node")
    if node is None:
        pytest.skip("Node.js is not installed")
    found = importlib.util.find_spec("netron")
    if found is None or not found.submodule_search_locations:
        pytest.skip("the netron wheel is not installed (pip install netron)")
    folder = tmp_path / "netron"
    folder.mkdir()
    for name in _FILES:
        shutil.copy(str(Path(list(found.submodule_search_locations)[0]) / name), str(folder / name))
    (folder / "package.json").write_text('{"type": "module"}')
    (folder / "read.js").write_text(_READER)

    def read(path, module=0):
        done = subprocess.run(
            [node, "read.js", str(path), str(module)], cwd=str(folder), capture_output=True, timeout=120
        )
        assert done.returncode == 0, done.stderr.decode()
        return json.loads(done.stdout.decode())

    return read


def _compiled(tmp_path, mode="force_fp16"):
    path = up_conv_graph(np.random.RandomState(0)).save(tmp_path / "g.pb")
    compile_pb(path, tmp_path / "m.om", [("y", 0), ("up", 0)], mode)
    return tmp_path / "m.om"


@pytest.mark.parametrize("mode", ["force_fp16", "force_fp32", "allow_mix_precision"])
def test_netron_sees_every_node_of_a_model(mode, tmp_path, netron):
    path = _compiled(tmp_path, mode)
    ours = [op for op in om.read_om(path).graph if op.type != "Const"]
    seen = netron(path)
    assert seen["format"] == "DaVinci OM" and seen["name"] == "model_0"
    assert [(node["name"], node["type"]) for node in seen["nodes"]] == [(op.name, op.type) for op in ours]
    assert sum(len(group) for node in seen["nodes"] for group in node["inputs"]) == sum(len(op.inputs) for op in ours)


def test_netron_sees_the_weights(tmp_path, netron):
    conv = next(node for node in netron(_compiled(tmp_path))["nodes"] if node["type"] == "Conv3D")
    source, kernel, bias = (value for group in conv["inputs"] for value in group)
    assert (
        source["type"] == "float16[1,8,1,8,8,16]"
        and kernel["type"] == "float16[27,1,16,16]"
        and kernel["bytes"] == 27 * 256 * 2
    )
    assert bias["type"] == "float16[5]" and bias["bytes"] == 10 and "_datadump_original_op_names" in conv["attributes"]


def test_netron_opens_an_original_model(tmp_path, netron, monkeypatch):
    monkeypatch.chdir(tmp_path)
    up_conv_graph(np.random.RandomState(0)).save(tmp_path / "g.pb")
    flags = [
        "--model=g.pb",
        "--framework=3",
        "--output=m",
        "--soc_version=Ascend910A",
        "--out_nodes=y:0",
        "--save_original_model=true",
    ]
    assert main(flags) == 0
    kinds = [node["type"] for node in netron(tmp_path / "m_original.om")["nodes"]]
    assert "BiasAdd" in kinds and kinds[-1] == "NetOutput"


@pytest.mark.parametrize("name", ["batch", "dims", "volumes"])
def test_netron_opens_a_model_with_gears(name, tmp_path, netron, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = compile_case(name, tmp_path)
    model = om.read_om(path).model
    for number, ops in enumerate([model.ops] + list(model.branches.values())):
        seen = netron(path, number)
        assert seen["name"] == ([f"{name}_0"] + list(model.branches))[number]
        assert [(node["name"], node["type"]) for node in seen["nodes"]] == [
            (op.name, op.type) for op in ops if op.type != "Const"
        ]
        weights = [value for node in seen["nodes"] for group in node["inputs"] for value in group if value["bytes"]]
        consts = {op.name for op in ops if op.type == "Const"}
        assert len(weights) == sum(source.rpartition(":")[0] in consts for op in ops for source in op.inputs)
