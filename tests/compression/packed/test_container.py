"""The container, the round trip, and damage of every kind."""

import copy
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from asrcompress.compression import Plan, coders, compress, fold, packed, record
from asrcompress.compression.packed.container import PackedError
from asrcompress.errors import UserError
from tests.compression.models_of_tests import Net, net


@pytest.fixture(scope="module")
def small() -> torch.nn.Module:
    return compress(net(), Plan("svd", size=0.6))[0]


@pytest.fixture(scope="module")
def good(small: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("packed") / "good.packed"
    packed.save(path, small, build=Net)
    return path


def write(path: Path, header: Any, streams: bytes) -> Path:
    """A file with a right checksum around any header."""
    text = header if isinstance(header, bytes) else zlib.compress(json.dumps(header).encode())
    body = struct.pack("<8sIQ", b"ASRCPACK", 3, len(text)) + text + streams
    path.write_bytes(body + hashlib.sha256(body).digest())
    return path


def parts(path: Path) -> tuple[dict[str, Any], bytes]:
    """Header and streams, read as the format says and not by the code under test."""
    data = path.read_bytes()
    magic, version, length = struct.unpack("<8sIQ", data[:20])
    assert (magic, version, (20 + length) % 64) == (b"ASRCPACK", 3, 0)
    assert hashlib.sha256(data[:-32]).digest() == data[-32:]
    inflate = zlib.decompressobj()
    header = json.loads(inflate.decompress(data[20 : 20 + length]))
    assert inflate.eof and not any(inflate.unused_data)
    return header, data[20 + length : -32]


def test_round_trip_is_bit_equal(small: torch.nn.Module, good: Path) -> None:
    folded, loaded = fold(small), packed.load(good, Net)
    ours, theirs = folded.state_dict(), loaded.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)
    x = torch.randn(2, 16, 30)
    assert torch.equal(loaded(x), folded(x)) and not loaded.training and loaded.config == folded.config
    torch.testing.assert_close(loaded(x), small.eval()(x), rtol=1e-4, atol=1e-5)


def test_the_format_is_what_the_docstring_says(small: torch.nn.Module, good: Path) -> None:
    header, streams = parts(good)
    state = fold(small).state_dict()
    assert [entry["name"] for entry in header["tensors"]] == list(state)
    for entry in header["tensors"]:
        raw = streams[entry["offset"] : entry["offset"] + entry["length"]]
        assert np.array_equal(np.frombuffer(raw, "<f4").reshape(entry["shape"]), state[entry["name"]].numpy())
        assert (entry["quantization"], entry["coder"]) == ("float32", "raw")


def test_the_size_of_the_file_is_the_size_of_the_plan(tmp_path: Path) -> None:
    model = net(96)
    packed.save(tmp_path / "dense", model, build=Net)
    dense = (tmp_path / "dense").stat().st_size
    for size in (0.5, 0.25):
        packed.save(tmp_path / "small", compress(model, Plan("svd", size=size))[0], build=Net)
        assert 0.9 * size < (tmp_path / "small").stat().st_size / dense < 1.05 * size, "the header is the rest"


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_integers_and_every_float_and_unfoldable_norms_come_back(dtype: torch.dtype, tmp_path: Path) -> None:
    def build(config: Any) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))

    model = build({})
    model(torch.randn(8, 4))
    packed.save(tmp_path / "m", model.to(dtype), build=build)
    loaded = packed.load(tmp_path / "m", build)
    assert loaded[1].num_batches_tracked == 1 and torch.equal(loaded[0].weight, model[0].weight)
    assert {p.dtype for p in loaded.parameters()} == {dtype} and loaded[1].running_mean.dtype == dtype


@pytest.mark.parametrize("structure", ["svd", "multi_hash"])
@pytest.mark.parametrize("kind", ["float32", "int8"])
def test_what_save_returns_is_what_load_gives(structure: str, kind: str, tmp_path: Path) -> None:
    small, _ = compress(net(), Plan(structure, 0.6, budget="uniform", quantization=kind))
    before = {key: tensor.clone() for key, tensor in small.state_dict().items()}
    x = torch.randn(2, 16, 30)
    wanted = small.eval()(x).detach()
    written = packed.save(tmp_path / "m", small, vectors="float16", build=Net)
    rows = {row["name"]: row for row in packed.info(tmp_path / "m")}
    assert {rows[name]["quantization"] for name in ("convs.0.bias", "convs.1.bias", "output.bias")} == {"float16"}
    assert torch.equal(written.convs[0].bias, written.convs[0].bias.half().float())
    assert torch.equal(written(x), packed.load(tmp_path / "m", Net)(x)) and not written.training
    assert 1e-6 < float((written(x).detach() - wanted).abs().max()) < 0.05, "what float16 costs"
    after = small.state_dict()
    assert before.keys() == after.keys() and all(torch.equal(after[key], before[key]) for key in before)
    assert torch.equal(small(x), wanted)


def test_int8_vectors_and_the_smallest_coder(tmp_path: Path) -> None:
    model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.BatchNorm1d(64), torch.nn.Linear(64, 64))
    small, _ = compress(model, quantization="int4")
    sizes = {}
    for coder in (*coders.names(), "smallest"):
        packed.save(tmp_path / coder, small, coder=coder, vectors="int8", build=lambda config: copy.deepcopy(model))
        rows = {row["name"]: row for row in packed.info(tmp_path / coder)}
        sizes[coder] = {name: row["bytes"] for name, row in rows.items() if name.endswith("weight")}
    assert sizes["smallest"] == {name: min(one[name] for one in sizes.values()) for name in sizes["raw"]}
    assert rows["0.weight"]["coder"] in coders.names()
    assert {rows[name]["quantization"] for name in ("0.bias", "1.weight", "1.bias")} == {"int8"}
    assert {rows[name]["quantization"] for name in ("1.running_mean", "1.running_var")} == {"float16"}
    loaded = packed.load(tmp_path / "smallest", lambda config: copy.deepcopy(model))
    bias = model[0].bias.detach()
    assert float((loaded[0].bias.detach() - bias).abs().max()) <= float(bias.abs().max()) / 127


def test_a_tensor_that_modules_share_is_rounded_in_each(tmp_path: Path) -> None:
    def build(config: Any) -> torch.nn.Module:
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Linear(4, 4))
        model[1].bias = model[0].bias
        return model

    written = packed.save(tmp_path / "m", build({}), vectors="float16", build=build)
    loaded, x = packed.load(tmp_path / "m", build), torch.randn(3, 4)
    assert torch.equal(written(x), loaded(x)) and loaded[1].bias is loaded[0].bias
    assert torch.equal(written[1].bias, written[0].bias.half().float())


def test_a_header_of_version_2_is_read_as_it_is(good: Path, tmp_path: Path) -> None:
    header, streams = parts(good)
    text = json.dumps(header).encode()
    body = struct.pack("<8sIQ", b"ASRCPACK", 2, len(text)) + text + streams
    old = _file(tmp_path / "old", body + hashlib.sha256(body).digest())
    ours, theirs = packed.load(old, Net).state_dict(), packed.load(good, Net).state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("header", [
    zlib.compress(b" " * (16 * 2**20 + 1)), zlib.compress(b"{}")[:-1], zlib.compress(b"{}") + b"x", b"", b"{}",
    zlib.compress(b"\xff\xfe")], ids=["too long", "cut", "more behind", "empty", "not compressed", "not UTF-8"])
def test_a_header_that_is_no_zlib_stream_of_its_length_is_refused(header: bytes, tmp_path: Path) -> None:
    assert "header" in refused(write(tmp_path / "x", header, b""))


def test_info_itemises_every_byte(small: torch.nn.Module, good: Path) -> None:
    rows = packed.info(good)
    assert sum(row["bytes"] for row in rows) == good.stat().st_size
    assert sum(row["parameters"] for row in rows) == sum(t.numel() for t in fold(small).state_dict().values())
    kinds = {row["name"]: row["structure"] for row in rows}
    assert kinds["convs.1.structure.left"] == "svd" and kinds["convs.1.bias"] == "dense"
    for path in record.layers(small):
        stem = path.removesuffix(".weight")
        assert "svd" in {kind for name, kind in kinds.items() if name.startswith(stem)}


def refused(path: Path) -> str:
    with pytest.raises(PackedError) as error:
        packed.info(path)
        packed.load(path, Net)
    assert "\n" not in str(error.value) and str(path) in str(error.value)
    return str(error.value)


def test_one_changed_byte_is_found_in_every_region(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    header = struct.unpack("<Q", data[12:20])[0]
    regions = {"magic": 3, "version": 8, "header length": 12, "high length": 19, "header": 60, "padding": 19 + header,
               "first stream": 20 + header, "middle": len(data) // 2, "last stream": len(data) - 33, "digest": -1}
    for region, place in regions.items():
        damaged = bytearray(data)
        damaged[place] ^= 0x11
        (tmp_path / "damaged").write_bytes(damaged)
        assert refused(tmp_path / "damaged"), region


def test_a_cut_or_lengthened_file_is_refused(good: Path, tmp_path: Path) -> None:
    data = good.read_bytes()
    for end in (0, 1, 7, 8, 19, 20, 51, 52, 200, len(data) // 2, len(data) - 1):
        (tmp_path / "cut").write_bytes(data[:end])
        refused(tmp_path / "cut")
    (tmp_path / "long").write_bytes(data + b"\0")
    refused(tmp_path / "long")
    assert not packed.is_packed(_file(tmp_path / "other", b"something else"))
    with pytest.raises(UserError, match="does not exist"):
        packed.load(tmp_path / "none", Net)


def _file(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


LIES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a shape of a terabyte": lambda h: h["tensors"][0].update(shape=[2**20, 2**20]),
    "a length past the end": lambda h: h["tensors"][-1].update(length=2**40),
    "an overflowing shape": lambda h: h["tensors"][0].update(shape=[2**47] * 9),
    "a negative shape": lambda h: h["tensors"][0].update(shape=[-1]),
    "a shape of floats": lambda h: h["tensors"][0].update(shape=[2.0]),
    "a shape of booleans": lambda h: h["tensors"][0].update(shape=[True]),
    "overlapping tensors": lambda h: h["tensors"][1].update(offset=0),
    "the same name twice": lambda h: h["tensors"][1].update(name=h["tensors"][0]["name"]),
    "another name": lambda h: h["tensors"][0].update(name="convs.7.bias"),
    "no name": lambda h: h["tensors"][0].pop("name"),
    "a list for a name": lambda h: h["tensors"][0].update(name=[]),
    "an unknown quantization": lambda h: h["tensors"][0].update(quantization="int3"),
    "a quantization of a wrong type": lambda h: h["tensors"][0].update(quantization={}),
    "an unknown coder": lambda h: h["tensors"][0].update(coder="morse"),
    "one tensor less": lambda h: h["tensors"].pop(),
    "no tensors": lambda h: h.pop("tensors"),
    "tensors that are a number": lambda h: h.update(tensors=3),
    "no config": lambda h: h["model"].pop("config"),
    "a config that is text": lambda h: h["model"].update(config="x"),
    "a model of a terabyte": lambda h: h["model"]["config"].update(width=2**20),
    "a model without a width": lambda h: h["model"]["config"].pop("width"),
    "layers that are a list": lambda h: h["record"].update(layers=[1]),
    "a layer that is not there": lambda h: h["record"]["layers"].update({"x.y": h["record"]["layers"]["convs.1"]}),
    "a rank of a billion": lambda h: h["record"]["layers"]["convs.1"].update(rank=10**9),
    "an unknown structure": lambda h: h["record"]["layers"]["convs.1"].update(structure="__init__"),
    "no record": lambda h: h.pop("record"),
    "no model": lambda h: h.pop("model"),
    "a dtype that is none": lambda h: h["record"].update(dtype="float8"),
    "a tie that is not there": lambda h: h["record"].update(ties={"output.bias": "output.offset"}),
    "a tie of other shapes": lambda h: h["record"].update(ties={"convs.1.bias": "output.bias"}),
    "text of many lines": lambda h: h["tensors"][0].update(quantization="a\nb"),
    "a spec that is text": lambda h: h["record"]["layers"].update({"convs.1": "svd"}),
    "a model not folded": lambda h: h["model"]["config"].update(folded=False),
}


@pytest.mark.parametrize("change", LIES.values(), ids=LIES.keys())
def test_a_header_that_lies_is_refused(change: Callable[[dict[str, Any]], Any], good: Path, tmp_path: Path) -> None:
    header, streams = parts(good)
    change(header)
    refused(write(tmp_path / "lie", header, streams))


def test_headers_that_are_no_json_object_are_refused(tmp_path: Path) -> None:
    for text in (b"", b"{", b"[" * 100_000, b"\xff\xfe", b"[]", b"3", b"null",
                 b'{"model": {"adapter": "callable", "config": {}}, "record": {"layers": {}}, "tensors": [1]}'):
        refused(write(tmp_path / "odd", text, b""))
    length = struct.pack("<8sIQ", b"ASRCPACK", 2, 2**63)
    refused(_file(tmp_path / "huge", length + b" " * 100))
    sparse = tmp_path / "sparse"
    with sparse.open("wb") as file:
        file.write(struct.pack("<8sIQ", b"ASRCPACK", 2, 2**24 + 1))
        file.truncate(2**26)
    assert "header takes" in refused(sparse)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_damage_ends_in_the_one_error(good: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(good.read_bytes())
    start = data.draw(st.integers(0, len(content) - 1))
    patch = data.draw(st.binary(max_size=40))
    drop = data.draw(st.integers(0, 40))
    damaged = bytes(content[:start]) + patch + bytes(content[start + drop :])
    if damaged == bytes(content):
        return
    refused(_file(tmp_path / "damaged", damaged))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=5)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_any_value_in_the_table_ends_in_the_one_error_or_the_same_model(good: Path, tmp_path: Path, data: st.DataObject,
                                                                        ) -> None:
    header, streams = parts(good)
    entry = data.draw(st.sampled_from(header["tensors"]))
    key = data.draw(st.sampled_from(sorted(entry)))
    value = data.draw(json_values)
    if value != entry[key] or type(value) is not type(entry[key]):
        entry[key] = value
        refused(write(tmp_path / "damaged", header, streams))
