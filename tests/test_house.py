"""The house itself: packaging, names, layers, sizes, import time, documents that run."""

import ast
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import warnings
import zipfile
from pathlib import Path

import pytest

from flexllm_allo.errors import CODES

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("kernels", "schedules", "models")
CODE = ("flexllm_allo", *FOLDERS)


def git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"not a git checkout: {done.stderr.strip()}")
    return [line for line in done.stdout.split("\0") if line]


def tracked(suffix: str = "") -> list[Path]:
    """Files of the repository that exist, new ones included, symlinks left out."""
    names = git("ls-files", "-z", "-co", "--exclude-standard")
    files = [ROOT / name for name in names if name.endswith(suffix)]
    return [file for file in files if file.is_file() and not file.is_symlink()]


def python(code: str, cwd: Path) -> str:
    done = subprocess.run([sys.executable, "-P", "-c", code], cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# ------------------------------------------------------------------------------------ packaging


@pytest.mark.parametrize("name", FOLDERS)
def test_no_generic_top_level_module(name):
    spec = importlib.util.find_spec(name)
    origin = spec and (spec.origin or next(iter(spec.submodule_search_locations), None))
    assert origin is None or not Path(origin).resolve().is_relative_to(ROOT)


@pytest.mark.parametrize("name", FOLDERS)
def test_folders_are_importable_inside_the_package(name):
    spec = importlib.util.find_spec(f"flexllm_allo.{name}")
    assert spec is not None


def test_nobody_imports_a_generic_top_level_name():
    for file in tracked(".py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            assert not {name.partition(".")[0] for name in names} & set(FOLDERS), f"{file}:{node.lineno}"


def test_symlinks_are_relative_and_stay_inside():
    links = [line.split("\t")[1] for line in git("ls-files", "-sz") if line.startswith("120000")]
    assert {f"flexllm_allo/{name}" for name in FOLDERS} <= set(links)
    for link in links:
        assert not os.path.isabs(os.readlink(ROOT / link)), link
        assert (ROOT / link).resolve().is_relative_to(ROOT), link


def test_wheel_holds_only_the_package(tmp_path):
    copy = tmp_path / "source"
    for name in git("ls-files", "-z", "-co", "--exclude-standard"):
        if os.path.lexists(ROOT / name):
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, copy / name, follow_symlinks=False)
    python("from setuptools import build_meta; build_meta.build_wheel('..')", copy)
    (wheel,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"flexllm_allo"}
    for needed in ("py.typed", "ir/types.pyi", "kernels/__init__.py", "models/tiny/model.safetensors"):
        assert f"flexllm_allo/{needed}" in names
    for data in (p for p in tracked() if p.is_relative_to(ROOT / "flexllm_allo")):
        assert str(data.relative_to(ROOT)) in names, "add its suffix to [tool.setuptools.package-data]"


def test_import_is_quick_and_light(tmp_path):
    code = (
        "import sys, time; t = time.process_time(); import flexllm_allo; "
        "import json; print(json.dumps([time.process_time() - t, sorted(sys.modules)]))"
    )
    # Processor time: other tests run at the same time and would only add to the clock on the wall.
    runs = [json.loads(python(code, tmp_path)) for _ in range(3)]
    heavy = {"torch", "transformers", "llvmlite", "typer", "rich", "pydantic", "tokenizers"}
    assert heavy.isdisjoint(runs[0][1])
    assert min(seconds for seconds, _ in runs) < 0.3


# ------------------------------------------------------------------------------------ structure


def test_imports_go_down_only():
    tool = Path(sys.executable).with_name("lint-imports")
    if not tool.exists():
        pytest.skip("import-linter is not installed")
    done = subprocess.run([tool, "--no-logo"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_files_and_functions_stay_small():
    long_files, long_functions, too_long = [], [], []
    for file in tracked(".py"):
        text = file.read_text(encoding="utf-8")
        name, lines = file.relative_to(ROOT), text.count("\n")
        if lines > 500:
            long_files.append(f"{name} {lines}")
        if lines > 700:
            too_long.append(f"{name} {lines}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and node.end_lineno - node.lineno >= 60:
                long_functions.append(f"{name}:{node.name} {node.end_lineno - node.lineno + 1}")
    if long_files or long_functions:
        warnings.warn(
            f"files over 500 lines: {long_files}; functions over 60: {long_functions}", stacklevel=1
        )
    assert not too_long


def test_every_error_code_is_in_the_catalogue():
    sources = [f for f in tracked(".py") if f.relative_to(ROOT).parts[0] in CODE and f.name != "errors.py"]
    used = {code for file in sources for code in re.findall(r"\bFX\d{3}\b", file.read_text(encoding="utf-8"))}
    assert used <= set(CODES)


def test_the_library_does_not_exit_or_print():
    for file in tracked(".py"):
        if file.relative_to(ROOT).parts[0] in CODE and "tiny" not in file.parts:
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
                assert called not in ("print", "exit", "sys.exit", "os._exit"), f"{file}:{node.lineno}"


# ---------------------------------------------------------------------------- what may be written

# In pieces, so that this file does not hold what it looks for.
MACHINE_PATH = (
    r"(?<![\w.$}])/(?:" + "|".join(("home", "root", "wo" + "rk", "fa" + "rm", "Users", "t" + "mp")) + r")/\w"
)
HOSTS = (
    "py" + "pi.org",
    "python" + "hosted",
    "download.py" + "torch",
    "registry.np" + "mjs",
    "conda" + ".anaconda",
)


def test_no_machine_paths_or_registry_hosts():
    forbidden = re.compile("|".join((MACHINE_PATH, *map(re.escape, HOSTS))))
    found = []
    for file in tracked():
        name = file.relative_to(ROOT)
        if name.parts[:2] == ("models", "tiny") and file.suffix in (".txt", ".json", ".safetensors"):
            continue  # text that the checkpoint was trained on
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:
            continue
        found += [f"{name}:{i}: {line.strip()}" for i, line in enumerate(lines, 1) if forbidden.search(line)]
    assert not found


# ---------------------------------------------------------------------------------- documents


def code_blocks(document: str) -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / document).read_text(encoding="utf-8"), re.M | re.S)


@pytest.mark.parametrize("block", code_blocks("README.md"), ids=lambda block: block.splitlines()[0])
def test_readme_programs_run(block, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(block)
    done = subprocess.run([sys.executable, program.name], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "document", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "docs/design.md", "docs/numerics.md"]
)
def test_relative_links_resolve(document):
    file = ROOT / document
    links = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", file.read_text(encoding="utf-8"))
    missing = [link for link in links if "://" not in link and not (file.parent / link).exists()]
    assert not missing
