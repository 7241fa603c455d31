"""The helpers behind Allo's module paths: reports, project pieces, utilities, placement."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import flexllm_allo as allo
from flexllm_allo import passes, utils
from flexllm_allo.backend import config, report, vitis
from flexllm_allo.errors import DTypeError, TargetError, ToolError, UsageError
from flexllm_allo.hardware.devices import devices
from flexllm_allo.ir.types import UInt, int8, int32
from flexllm_allo.memory import Layout, Memory

REPORT = Path(__file__).parent / "goldens" / "csynth.xml"


def inner(A: int32[4], B: int32[4]):
    for i in range(4):
        B[i] = A[i] + 1


def outer(X: int32[4]) -> int32[4]:
    Y: int32[4]
    inner(X, Y)
    return Y


def test_reports_are_tables(tmp_path, capsys):
    folder = tmp_path / "out.prj" / "solution1" / "syn" / "report"
    folder.mkdir(parents=True)
    shutil.copy(REPORT, folder / "two_layers_csynth.xml")
    table = report.parse_xml(tmp_path, "Vitis HLS", top="two_layers", print_flag=True)
    printed = capsys.readouterr().out
    assert "Vitis HLS" in printed
    assert "Pipeline II" in printed
    assert "profile" in json.loads((tmp_path / "report.json").read_text())
    column = next(name for name in table.columns if name.endswith("Trip Count"))
    found = table.get_max(column)
    assert [value for _, value, _ in found] == sorted((value for _, value, _ in found), reverse=True)
    text = table.display(loops=[found[0][0]], cols=[column])
    assert str(found[0][1]) in text
    assert "Pipeline II" not in text
    with pytest.raises(UsageError, match='FX703: the report has no column "Speed"'):
        table.get_max("Speed")
    with pytest.raises(RuntimeError, match=r"Cannot find top_csynth\.xml, run csyn first") as caught:
        report.parse_xml(tmp_path, "Vitis HLS")
    assert isinstance(caught.value, ToolError)


def test_pieces_of_projects(tmp_path):
    text = vitis.generate_hbm_config("top", {"A": 0, "B": "DDR[1]"}, {"A": "a_port"})
    assert text == "[connectivity]\nsp=top_1.a_port:HBM[0]\nsp=top_1.B:DDR[1]\n"
    with pytest.raises(ValueError, match="Invalid memory specification for 'A': 'x'"):
        vitis.generate_hbm_config("top", {"A": "x"})
    s = allo.customize(outer)
    code = s.build(target="vhls").hls_code
    assert vitis.extract_hls_arg_names(code, "outer") == ["X", "Y"]
    assert vitis.separate_header(code, "outer")[0].startswith("void outer(")
    assert "xrt::kernel" in vitis.codegen_host("outer", s.module)
    assert "create_clock -period 5.00" in vitis.codegen_tcl("outer", {"device": "zcu104", "frequency": 200})
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    vitis.write_tensor_to_file(array, (2, 3), tmp_path / "x.data")
    np.testing.assert_array_equal(vitis.read_tensor_from_file("i16", (2, 3), tmp_path / "x.data"), array)
    assert config.PART_NUMBER["u280"] == "xcu280-fsvh2892-2L-e"
    assert config.PART_NUMBER == {card.key: card.part for card in devices()}


def test_utilities():
    assert utils.get_bitwidth_from_type("ui12") == 12
    assert utils.get_bitwidth_from_type("fixed(12, 4)") == 12
    with pytest.raises(DTypeError, match='FX103: there is no element type "q8"'):
        utils.get_bitwidth_from_type("q8")
    assert utils.allo_to_numpy_dtype(int8) == np.int8
    assert utils.allo_to_numpy_dtype(UInt(5)) == np.uint8
    assert utils.handle_overflow(np.array([9, -9, 7]), 4, "i4").tolist() == [-7, 7, 7]
    assert utils.c2allo_type["unsigned int"] == "ui32"
    assert utils.parse_kernel_name(utils.construct_kernel_name("pe_x", (0, 12))) == ("pe_x", (0, 12))
    assert utils.freeze_list([1, [2, [3]]]) == (1, (2, (3,)))


def test_analyses_of_programs():
    s = allo.customize(outer)
    assert passes.analyze_arg_load_store(s.module) == {"inner": ["in", "out"], "outer": ["in", "out"]}
    assert {"inner:A", "outer:X"} in passes.analyze_use_def(s.module)
    assert "pipeline II=2" in str(passes.df_pipeline(s.module, initiation_interval=2))
    assert "load_buf0" in str(passes.generate_input_output_buffers(s.module, "outer"))
    with pytest.raises(TargetError, match="index maps of arguments are not supported"):
        passes.generate_input_output_buffers(s.module, mappings={"X": None})
    assert s.get_equivalent_variables("outer:X") == {"outer:0", "inner:0"}
    assert s.get_equivalent_variables("outer:nothing") == []
    s.partition(s.X, dim=1)
    assert s.partitioned_arrays["inner:A"] == [(allo.Partition.Complete, 1, 0)]
    assert [(a.name, a.shape) for a in s.func_args["inner"]] == [("A", (4,)), ("B", (4,))]


def test_memory_and_layout():
    memory = Memory(resource="uram", storage_type="ram_2p")
    assert memory == Memory("URAM", "RAM_2P")
    assert hash(memory) == hash(Memory("URAM", "RAM_2P"))
    assert memory.get_memory_space() == 34
    assert Memory.decode_memory_space(34) == memory
    assert Memory().get_memory_space() == 0
    with pytest.raises(ValueError, match=r"Invalid resource 'FLASH'\. Must be one of: BRAM, URAM") as caught:
        Memory("FLASH")
    assert isinstance(caught.value, allo.FlexError)
    layout = Layout([Layout.Shard(1), Layout.Replicate])
    assert layout.get_placement([2, 2]) == {(0, "R"): [(0, 0), (1, 0)], (1, "R"): [(0, 1), (1, 1)]}
    assert layout.local_shape((8, 4), (2, 2)) == (4, 4)
    with pytest.raises(ValueError, match=r"the mesh \[2\] has no axis 1"):
        layout.get_placement([2])


def test_buffers_show_their_place_among_the_arguments():
    def add(A: int32[4]) -> int32[4]:
        B: int32[4] = 0
        for i in range(4):
            B[i] = A[i]
        return B

    s = allo.customize(add)
    assert (repr(s.A), repr(s.B)) == ("MockBuffer(add:A:0)", "MockBuffer(add:B)")
