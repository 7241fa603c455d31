"""Every module path and name that programs written for Allo import."""

import importlib
import subprocess
import sys

import pytest

import flexllm_allo as allo
from flexllm_allo.errors import FlexError

# module path: names
TABLE = """
.: customize Partition grid reduction meta_if meta_elif meta_else meta_for Memory Layout IPModule
    HLSModule LLVMModule invoke_mlir_parser verify exp log log2 log10 sqrt sin cos tan tanh power
    abs relu softmax copy add sub mul div matmul bmm linear conv2d maxpool sumpool transpose view
    concat layernorm gelu tril ones zeros frontend backend ir passes library dsl template memory
    utils
ir: Int UInt Fixed int8 float32 types utils transform
ir.types: Int UInt Fixed UFixed Float Index Struct Stream ConstExpr Stateful AlloType TypeAnnotation
    bool int1 int7 int15 int16 int32 int64 int128 int256 int512 uint1 uint8 uint512 index float16
    float32 float64 bfloat16 allo_type_from_mlir_type
ir.utils: MockBuffer MockArg MockConstant get_global_vars parse_ast get_all_df_kernels get_kwarg
    get_kwarg_value get_extra_type_hints resolve_generic_types get_func_id_from_param_types
ir.transform: LoopWrapper LoopBand get_affine_loop_nests find_loop_in_bands find_buffer
    find_func_in_module
customize: customize Schedule Partition wrapped_apply getsourcefile
dataflow: region kernel get_pid gather scatter customize build move_stream_to_interface
    df_primitive_default
memory: Memory Layout DTensor Offset4D Size4D coalesce_memory_access
dsl: grid reduction exp matmul
template: meta_if meta_elif meta_else meta_for
library: KERNEL2SCHEDULE nn systolic
library.nn: softmax linear2d schedule_linear2d GeLU layer_norm
library.systolic: systolic systolic_tile packed_systolic schedule_systolic
library.gemv: int8xint8_mat_vec pe_kernel schedule_int8xint8_mat_vec
library.aie.modules.gemm: GEMM
library.aie.modules.flash_attn: FA
backend: llvm hls ip AIE_MLIRModule
backend.hls: is_available HLSModule run_process codegen_tcl separate_header copy_ext_libs
backend.llvm: LLVMModule invoke_mlir_parser
backend.ip: IPModule parse_cpp_function
backend.simulator: LLVMOMPModule build_dataflow_simulator
backend.vitis: generate_hbm_config codegen_host postprocess_hls_code generate_description_file
    extract_hls_arg_names write_tensor_to_file read_tensor_from_file
backend.report: parse_xml report_stats parse_js Displayer
backend.config: DEFAULT_CONFIG PART_NUMBER
backend.xls: XLSCCModule is_available
backend.catapult: codegen_host codegen_tcl
backend.pynq: codegen_host codegen_tcl
backend.tapa: codegen_tapa_host codegen_host
backend.aie: is_available AIE_MLIRModule ExternalModule vliw
backend.aie.external_kernel: ExternalModule
frontend: from_pytorch
primitives: to unify
primitives.unify: unify
passes: generate_input_output_buffers analyze_arg_load_store analyze_arg_load_store_in_func
    analyze_use_def analyze_read_write_patterns df_pipeline lower_linalg_and_attach_names
utils: get_np_struct_type get_bitwidth_from_type np_supported_types allo_to_numpy_dtype
    make_anywidth_numpy_array struct_array_to_int_array handle_overflow c2allo_type
    construct_kernel_name parse_kernel_name freeze_list
autoscheduler.config: AutoschedulerConfig
autoscheduler.passes: dataflow_optimization_pass
autoscheduler.primitives: SchedulePrimitive
autoscheduler.dfg: DFG
autoscheduler.util:
verify: verify
"""


def paths():
    """The table; continued lines are indented."""
    lines = TABLE.replace("\n    ", " ").strip().splitlines()
    return {path.rstrip("."): names.split() for path, names in (line.split(":") for line in lines)}


PATHS = paths()


@pytest.mark.parametrize("path", PATHS)
def test_every_name_is_there(path):
    module = importlib.import_module(f"flexllm_allo.{path}".rstrip("."))
    missing = [name for name in PATHS[path] if not hasattr(module, name)]
    assert not missing, f"flexllm_allo.{path} lacks {missing}"


def test_submodules_are_attributes_after_one_import():
    code = """
import flexllm_allo as allo
assert allo.backend.hls.is_available("vitis_hls") in (True, False)
assert allo.backend.aie.is_available() is False
assert allo.ir.types.int32 == allo.ir.int32
assert callable(allo.library.nn.softmax)
assert callable(allo.template.meta_if) and callable(allo.template)
assert allo.memory.Memory is allo.Memory
assert allo.utils.get_bitwidth_from_type("i8") == 8
import flexllm_allo.dataflow as df
assert allo.dataflow is df
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


def test_all_types_come_with_a_star():
    names: dict[str, object] = {}
    exec("from flexllm_allo.ir.types import *", names)
    assert not [name for name in PATHS["ir.types"] if name not in names]


def test_functions_that_share_the_name_of_their_module():
    from flexllm_allo.customize import Partition, Schedule
    from flexllm_allo.template import meta_for
    from flexllm_allo.verify import verify

    assert (Partition, Schedule, verify) == (allo.Partition, allo.Schedule, allo.verify)
    assert callable(allo.customize)
    assert callable(allo.verify)
    assert allo.template.meta_for is meta_for
    assert [p.value for p in Partition] == [0, 1, 2]


def test_importing_the_package_loads_nothing_heavy():
    code = """
import sys, time
before = time.process_time()
import numpy
numpy_alone = time.process_time()
import flexllm_allo
ours = time.process_time() - numpy_alone
heavy = {"llvmlite", "rich", "typer", "pydantic", "torch", "safetensors", "tokenizers"} & set(sys.modules)
assert not heavy, heavy
assert ours < 0.1, ours
"""
    subprocess.run([sys.executable, "-P", "-c", code], check=True)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("backend.xls", "XLSCCModule"),
        ("backend.llvm", "invoke_mlir_parser"),
        ("autoscheduler.passes", "dataflow_optimization_pass"),
    ],
)
def test_what_belongs_to_other_tools_is_refused_by_name(path, name):
    function = getattr(importlib.import_module(f"flexllm_allo.{path}"), name)
    with pytest.raises(FlexError, match=rf"FX402: {name} is not supported by this engine: ") as caught:
        function("anything", mode="csim")
    assert isinstance(caught.value, NotImplementedError)


def test_an_unknown_attribute_is_an_attribute_error():
    with pytest.raises(AttributeError, match=r"module 'flexllm_allo.backend' has no attribute 'cuda'"):
        allo.backend.cuda  # noqa: B018
