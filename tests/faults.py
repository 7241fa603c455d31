"""For every error code a small program that earns it, why, and what mends it.

`error_page` makes docs/errors.md of them: the golden text (message, places, carets, hints) of every code.
"""

from __future__ import annotations

import textwrap
from dataclasses import dataclass


@dataclass(frozen=True)
class Fault:
    """Why a code is given, what mends it, and a program that gets it."""

    why: str
    mend: str
    source: str

    @property
    def text(self) -> str:
        return textwrap.dedent(self.source).strip("\n") + "\n"


FAULTS: dict[str, Fault] = {
    "FX100": Fault(
        "A kernel is read from its source text. Functions made by `exec` or typed into `python -c` "
        "have none.",
        "Define the kernel in a file or a notebook cell, or pass its source as a string.",
        """
        names = {}
        exec("def f(a):\\n    return a", names)
        allo.customize(names["f"])
        """,
    ),
    "FX101": Fault(
        "The kernel language is a subset of Python with static types. This statement or expression is "
        "not in it.",
        "See the [language](language.md) for what is.",
        """
        def f(a: int32) -> int32:
            b: int32 = 0
            try:
                b = a
            finally:
                b = 1
            return b

        allo.customize(f)
        """,
    ),
    "FX102": Fault(
        "The name is not a parameter, a local variable, a loop variable or a name visible where the "
        "kernel is "
        "defined. A variable declared inside a loop or a branch ends with it.",
        "Declare it (`x: int32 = 0`) before it is used, or outside the block.",
        """
        def f(a: int32) -> int32:
            count: int32 = a
            return coutn + 1

        allo.customize(f)
        """,
    ),
    "FX103": Fault(
        "Parameters, results and local variables have types: an element type, or one with a shape.",
        "Annotate it, e.g. `A: int8[32, 32]`. Types come from `flexllm_allo.ir.types`.",
        """
        def f(a: int32, b) -> int32:
            return a

        allo.customize(f)
        """,
    ),
    "FX104": Fault(
        "A value of this kind cannot stand here, or two types do not go together.",
        "Convert explicitly (`x: float32 = a`), or use an array where an array is expected.",
        """
        def f(A: int32[4], B: int32[4]) -> int32:
            if A:
                return 1
            return 0

        allo.customize(f)
        """,
    ),
    "FX105": Fault(
        "Shapes are part of types. An assignment, a call and a result need equal shapes, operands "
        "need shapes "
        "that can be broadcast.",
        "Compare the two shapes in the message.",
        """
        def f(A: int32[4]) -> int32[5]:
            return A

        allo.customize(f)
        """,
    ),
    "FX106": Fault(
        "An index that is known at compile time lies outside of its dimension, or an index is of a "
        "kind that the "
        "value does not have.",
        "Indices count from 0; negative ones are not counted from the end.",
        """
        def f(A: int32[4]) -> int32:
            return A[7]

        allo.customize(f)
        """,
    ),
    "FX107": Fault(
        "A function is called with too many, too few or unknown arguments, or it cannot be called "
        "from a kernel.",
        "Kernels call kernels, the functions of `flexllm_allo` and a few of Python's (`abs`, `min`, "
        "`max`, ...).",
        """
        def g(a: int32) -> int32:
            return a

        def f(a: int32) -> int32:
            return g(a, a)

        allo.customize(f)
        """,
    ),
    "FX108": Fault(
        "Every template parameter must follow from `instantiate=`, from the brackets of a call, or "
        "from its "
        "arguments.",
        'Give it, in order (`[int8, 16]`) or by name (`{"N": 16}`).',
        """
        T, N = allo.params("T, N")

        @allo.template(T, N)
        def f(A: T[N]) -> T[N]:
            return A

        allo.customize(f, instantiate={"T": int8, "M": 4})
        """,
    ),
    "FX109": Fault(
        "There is no such operator for operands of these types, see the [rules](numerics.md).",
        "Convert an operand first.",
        """
        def f(a: float32, b: int32) -> float32:
            return a & b

        allo.customize(f)
        """,
    ),
    "FX110": Fault(
        "Loops run over `range`, `allo.grid` and `allo.reduction`, with a positive step.",
        "Count upwards and compute the descending index from it.",
        """
        def f(A: int32[4]) -> int32[4]:
            for i in range(4, 0, -1):
                A[i - 1] = i
            return A

        allo.customize(f)
        """,
    ),
    "FX111": Fault(
        "A variable is declared once in its block, and a loop variable is not a variable's name.",
        "Choose another name.",
        """
        def f(A: int32[4, 4]) -> int32:
            total: int32 = 0
            for i in range(4):
                for i in range(4):
                    total += A[i, i]
            return total

        allo.customize(f)
        """,
    ),
    "FX112": Fault(
        "What `return` gives must be what the signature promises; it is the last statement.",
        "Add the return statement or the annotation `-> type`.",
        """
        def f(a: int32) -> int32:
            b: int32 = a

        allo.customize(f)
        """,
    ),
    "FX113": Fault(
        "Shapes, template arguments, bounds of bit slices and the like are fixed when the kernel is "
        "compiled.",
        "Use a literal, a constant visible to the kernel or a template parameter.",
        """
        def f(A: int32[8]) -> int32:
            n: ConstExpr[int32]
            return A[n]

        allo.customize(f)
        """,
    ),
    "FX199": Fault(
        "A program in the intermediate representation breaks one of its own rules: made by hand, or "
        "by a fault of "
        "the library.",
        "If you made no IR yourself, please report it.",
        """
        program = Program((Function("f", (), (Call("g", ()),)),), "f")
        from flexllm_allo.ir.verify import verify
        verify(program)
        """,
    ),
    "FX201": Fault(
        "Loops, bands, buffers and functions are found by their names in the program as it is now; "
        "`print(s)` and "
        "`s.get_loops()` show them.",
        'Use the name in the hint. In another function: `"function:loop"`.',
        """
        def f(A: int32[8, 8]) -> int32[8, 8]:
            B: int32[8, 8]
            for row, col in allo.grid(8, 8):
                B[row, col] = A[row, col] + 1
            return B

        s = allo.customize(f)
        s.pipeline("rwo")
        """,
    ),
    "FX202": Fault(
        "`reorder` and `fuse` work on loops with nothing between them.",
        "Move the statement into the inner loop's band or into a loop of its own.",
        """
        def f(A: int32[8, 8]) -> int32[8]:
            B: int32[8]
            for i in range(8):
                B[i] = 0
                for j in range(8):
                    B[i] += A[i, j]
            return B

        s = allo.customize(f)
        s.reorder("j", "i")
        """,
    ),
    "FX203": Fault(
        "In the new order an element would be read before it is written, or a float sum would be rounded "
        "differently.",
        "Keep the order. For float sums, `s.reassociate(loop)` says that the rounding does not matter.",
        """
        def f(A: int32[8, 8]):
            for i, j in allo.grid(7, 7):
                A[i + 1, j] = A[i, j + 1]

        s = allo.customize(f)
        s.reorder("j", "i")
        """,
    ),
    "FX204": Fault(
        "A factor, dimension, initiation interval or depth is not in the range that makes sense here.",
        "The message and the hint give the range.",
        """
        def f(A: int32[8]) -> int32[8]:
            B: int32[8]
            for i in range(8):
                B[i] = A[i]
            return B

        s = allo.customize(f)
        s.split("i", 0)
        """,
    ),
    "FX205": Fault(
        "The loop or buffer exists, and the primitive cannot be applied to it.",
        "The hint says what is missing.",
        """
        def f(A: int32[8]) -> int32[8]:
            B: int32[8]
            for i in range(8):
                B[i] = A[i]
            return B

        s = allo.customize(f)
        s.unroll("i")
        s.split("i", 2)
        """,
    ),
    "FX206": Fault(
        "`compose` applies the schedule of a kernel to the places where the top function calls this kernel.",
        "Compose schedules of kernels that are called, and check the id.",
        """
        def add_one(a: int32) -> int32:
            return a + 1

        def f(a: int32) -> int32:
            return a

        s = allo.customize(f)
        s.compose(allo.customize(add_one))
        """,
    ),
    "FX301": Fault(
        "A FIFO hands elements over in the order they were written. The reader needs another order.",
        "Reorder one of the two loops, or keep the array.",
        """
        def f(A: int32[8]) -> int32[8]:
            B: int32[8]
            C: int32[8]
            for i in range(8):
                B[i] = A[i]
            for i in range(8):
                C[i] = B[7 - i]
            return C

        s = allo.customize(f)
        s.to(s.B, "S_i_1")
        """,
    ),
    "FX302": Fault(
        "A FIFO has one process that writes it and one that reads it.",
        "Give every reader its own copy.",
        """
        def f(A: int32[8]) -> int32[8]:
            B: int32[8] = 0
            for i in range(8):
                B[i] = A[i]
            for i in range(8):
                B[i] = B[i] + 1
            return B

        s = allo.customize(f)
        s.to(s.A, "S_i_0")
        """,
    ),
    "FX303": Fault(
        "All processes wait: for an element that nobody will write, or for space in a FIFO that "
        "nobody empties. The "
        "message shows who waits for whom.",
        "Make the FIFO deep enough for what is in flight, or change the order of puts and gets.",
        """
        def f(A: int32[8]) -> int32[8]:
            B: int32[8]
            fifo: Stream[int32, 4]
            for i in range(8):
                fifo.put(A[i])
            for i in range(8):
                B[i] = fifo.get()
            return B

        s = allo.customize(f)
        s.build()(list(range(8)))
        """,
    ),
    "FX304": Fault(
        "A FIFO with several elements per token is written, and read, by as many lanes: iterations of an "
        "unrolled loop "
        "that access one element each.",
        "Put the loops of both sides on lanes with `vectorize`; they may have other numbers, if one divides "
        "the other.",
        """
        def f(A: int32[8]) -> int32[8]:
            B: int32[8]
            C: int32[8]
            for i in range(8):
                B[i] = A[i]
            for j in range(8):
                C[j] = B[j] + 1
            return C

        s = allo.customize(f)
        s.vectorize("i", 4)
        s.to(s.B, "S_j_1", lanes=(4, 2))
        """,
    ),
    "FX401": Fault(
        "A built module is called with other arguments than its signature says: number, shape, type, "
        "or an array "
        "that cannot be written although the kernel writes it.",
        "Integers wrap on the way in; floats are not converted to integers silently.",
        """
        def f(A: int32[8]) -> int32[8]:
            return A

        allo.customize(f).build()(list(range(9)))
        """,
    ),
    "FX402": Fault(
        "There is no such target, mode or device.",
        "Targets: llvm, simulator, vhls, vitis_hls.",
        """
        def f(a: int32) -> int32:
            return a

        allo.customize(f).build(target="vitis")
        """,
    ),
    "FX403": Fault(
        "The program is right, and this backend has no way to say it.",
        "Use another target or export a part of the program.",
        """
        def f(A: int32[4]) -> int32[4]:
            B: int32[4]
            fifo: Stream[int32, 2]
            for i in range(4):
                fifo.put(A[i])
                B[i] = fifo.get()
            return B

        allo.customize(f).mlir()
        """,
    ),
    "FX404": Fault(
        'The interpreter (`target="simulator"`) checks every access. Compiled code does not.',
        "Mind the bounds, and write before you read.",
        """
        def f(A: int32[4], n: int32) -> int32:
            return A[n]

        allo.customize(f).build(target="simulator")([1, 2, 3, 4], 5)
        """,
    ),
    "FX501": Fault(
        "A tool that this step needs is not installed or not found.",
        "`flexllm doctor` lists what is found and what each tool is for.",
        """
        import os

        os.environ["CXX"] = "no-such-compiler"
        from flexllm_allo.backend.hls.toolchain import find_compiler
        find_compiler()
        """,
    ),
    "FX502": Fault(
        "A compiler or a vendor's tool was started and failed.",
        "The message holds the tool's first error and where its log is.",
        """
        from pathlib import Path
        from flexllm_allo.backend.hls.toolchain import run_tool

        run_tool(["false"], Path(), "build.log")
        """,
    ),
    "FX601": Fault(
        "A file of the checkpoint is missing, truncated or not what its name says.",
        "Download it again; with git, get the LFS files.",
        """
        from flexllm_allo.models.hf import load_checkpoint
        load_checkpoint("no/such/folder")
        """,
    ),
    "FX602": Fault(
        "The tensors of the checkpoint are not those its config.json promises. The message lists all "
        "differences.",
        "Take config.json and the weights from one model.",
        """
        import json, shutil
        from pathlib import Path
        from flexllm_allo import models
        from flexllm_allo.models.hf import load_checkpoint

        shutil.copytree(Path(models.__path__[0]) / "tiny", "checkpoint")
        path = Path("checkpoint/config.json")
        config = json.loads(path.read_text())
        path.write_text(json.dumps(config | {"vocab_size": config["vocab_size"] + 1}))
        load_checkpoint("checkpoint")
        """,
    ),
    "FX603": Fault(
        "The configuration asks for something that the design does not have. The message lists all of it.",
        "Use a model of the supported family.",
        """
        from flexllm_allo.models.spec import LlamaConfig
        LlamaConfig.from_dict({"model_type": "mamba"})
        """,
    ),
    "FX604": Fault(
        "There is no such quantization recipe, or it does not fit the model.",
        "Use one of the names in the hint.",
        """
        from flexllm_allo.quant.recipes import get_recipe
        get_recipe("w8a8")
        """,
    ),
    "FX605": Fault(
        "tokenizer.json is missing, unreadable, or from another model.",
        "Take it from the same model as the weights.",
        """
        import shutil
        from pathlib import Path
        from flexllm_allo import models
        from flexllm_allo.models.hf import load_checkpoint

        shutil.copytree(Path(models.__path__[0]) / "tiny", "checkpoint")
        Path("checkpoint/tokenizer.json").unlink()
        load_checkpoint("checkpoint").encode("def f():")
        """,
    ),
    "FX606": Fault(
        "A tensor does not fit the format that it is given: a group that does not divide its rows, a mask "
        "that keeps too much, NaN or infinity, a scale too large for its type. The message names the tensor.",
        "Give this tensor a format that fits, or mend the checkpoint.",
        """
        import numpy as np
        from flexllm_allo.quant.formats import ProgressiveFormat
        from flexllm_allo.quant.integer.progressive import quantize_progressive

        weight = np.ones((64, 96), np.float32)
        quantize_progressive(weight, ProgressiveFormat(4, group=64), "layers.0.wq")
        """,
    ),
    "FX607": Fault(
        "The recipe looks at activations, and the text it was given for that is too short, of another "
        "vocabulary, or missing.",
        "Give more text, or take fewer or shorter samples.",
        """
        from flexllm_allo.quant.calibration import calibration_samples

        calibration_samples(range(1000), bos=0, samples=16, length=256)
        """,
    ),
    "FX608": Fault(
        "A file of quantized weights is missing, truncated, damaged, or holds a type that is not supported; "
        "or what should be written cannot be stored in it, and then nothing is.",
        "Fetch or make the file again, with one of the supported types.",
        """
        import numpy as np
        from pathlib import Path
        from flexllm_allo.quant.gguf.container import GgufTensor, read_gguf, write_gguf

        weight = np.ones((4, 256), np.float32)
        path = Path("model.gguf")
        write_gguf(path, {}, [GgufTensor.quantize("blk.0.attn_q.weight", weight, "Q4_K")])
        path.write_bytes(path.read_bytes()[:600])
        read_gguf(path)
        """,
    ),
    "FX701": Fault(
        "There is nothing to continue, or the prompt does not fit into the context.",
        "Give a shorter text, or one that is not empty.",
        """
        from flexllm_allo.cli.running import generate

        generate("folder-of-a-model", prompt="")
        """,
    ),
    "FX702": Fault(
        "The folder or file for the results cannot be written, or holds something else.",
        "Name a folder that is new or that this tool made.",
        """
        from pathlib import Path
        from flexllm_allo.runtime.outputs import OutputFile

        OutputFile(Path("no/such/folder/out.json"))
        """,
    ),
    "FX703": Fault(
        "An option has a value it cannot have.",
        "The hint gives the values it can have.",
        """
        def f(a: int32) -> int32:
            return a

        allo.customize(f).build(target="vhls", wrap_oi=True)
        """,
    ),
    "FX901": Fault(
        "An estimate needs to know how often a loop runs, and that follows from data, or from a scalar "
        "without a value.",
        'Give the scalar, or the number of iterations itself: `trips={"loop": n}`.',
        """
        def total(A: float32[64], n: int32) -> float32:
            s: float32 = 0.0
            for i in range(n):
                s += A[i]
            return s

        allo.customize(total).estimate("u280")
        """,
    ),
    "FX902": Fault(
        "An estimate was given an argument that the design does not have, or lacks one.",
        "The hint lists the names.",
        """
        def total(A: float32[64], n: int32) -> float32:
            s: float32 = 0.0
            for i in range(n):
                s += A[i]
            return s

        allo.customize(total).estimate("u280", m=64)
        """,
    ),
    "FX910": Fault(
        "The design needs more than the device has, or more than designs that route use of it.",
        "Take the setting that the hint names, or another device.",
        """
        from flexllm_allo.estimate.limits import Demand, check_fits
        from flexllm_allo.estimate.result import Module
        from flexllm_allo.hardware.devices import Resources, device

        def demand(setting):
            lanes = setting["token_parallel"] * setting["weight_parallel"]
            engine = Resources(lut=900 * lanes, ff=1200 * lanes, dsp=8 * lanes, bram18=64, uram=0)
            return Demand([Module("linear", engine)], {"HBM": setting["weight_parallel"] // 2})

        asked = {"token_parallel": 16, "weight_parallel": 80}
        choices = {"token_parallel": [4, 8, 16], "weight_parallel": [16, 32, 48, 64, 80]}
        check_fits(demand(asked), device("u280"), None, asked, choices, demand)
        """,
    ),
    "FX911": Fault(
        "The database has no figures of this board.",
        "Fill them in, or take a device that is known.",
        """
        from flexllm_allo.estimate.roofline import roofline
        from flexllm_allo.hardware.devices import device

        roofline(device("zcu104"), 300, weight_bits=4, activation_bits=8)
        """,
    ),
    "FX921": Fault(
        "How often a process puts or gets must follow from constants and scalars, for its FIFOs to be "
        "analysed without a run.",
        "Give the scalars that the hint names: `s.check_streams(n=8)`.",
        """
        def f(A: int32[8], n: int32) -> int32[8]:
            B: int32[8]
            fifo: Stream[int32, 4]
            for i in range(n):
                fifo.put(A[i])
            for i in range(n):
                B[i] = fifo.get()
            return B

        s = allo.customize(f)
        s.dataflow()
        s.check_streams()
        """,
    ),
}
