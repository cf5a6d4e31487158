"""What the house style promises about files, imports and sizes."""

import ast
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

import adaptkit
from adaptkit.runs import plugins

CORE = Path(adaptkit.__file__).parent
PLUGINS = Path(sys.modules["adaptkit_plugins"].__path__[0] if plugins.table("methods") else "")
CORE_FILES, PLUGIN_FILES = (sorted(root.rglob("*.py")) for root in (CORE, PLUGINS))
ALL_FILES = [*CORE_FILES, *PLUGIN_FILES]
LIGHT = {"hooks", "plugins", "recipe", "yamls", "home", "cli", "values", "files", "store", "samplers", "split_files"}
HEAVY = {"torch", "transformers", "pytorch_lightning", "torchmetrics", "sklearn", "scipy", "matplotlib", "datasets"}
LARGE = {"torchmetrics", "sklearn", "scipy", "matplotlib", "pandas", "datasets"}


def name(file):
    """A file as people call it."""
    return str(file.relative_to(CORE.parent if file.is_relative_to(CORE) else PLUGINS.parent))


@cache
def tree(file):
    return ast.parse(file.read_text(encoding="utf-8"))


@cache
def imports(file, at_once=False):
    """Names of the modules that a file imports, but for type checkers only; perhaps only those imported `at_once`."""
    found, queue = set(), [tree(file)]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            queue += node.orelse
            continue
        if at_once and isinstance(node, ast.FunctionDef):
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found.add("." * node.level + (node.module or ""))
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            found |= {str(a.value) for a in node.args if isinstance(a, ast.Constant)}
        queue += ast.iter_child_nodes(node)
    return found


def imports_any(file, *modules, at_once=False):
    return sorted(i for i in imports(file, at_once) for m in modules if i == m or i.startswith(f"{m}."))


def brings_methods(file):
    return any(isinstance(node, ast.FunctionDef) and node.name == "methods" for node in tree(file).body)


def of_each(files):
    """Make a test of one file a test of all these, which says all that is wrong: thousands of tests take long."""

    def made(check):
        def test():
            wrong = []
            for file in files:
                try:
                    check(file)
                except AssertionError as error:
                    wrong.append(str(error).partition("\nassert ")[0])
            assert not wrong, "\n".join(["", *wrong])

        test.__name__ = check.__name__
        return test

    return made


METHOD_FILES = [file for file in PLUGIN_FILES if brings_methods(file)]


def test_the_files_are_found():
    assert len(CORE_FILES) > 25 and len(PLUGIN_FILES) > 20, "there must be files, or the tests below hold for nothing"
    assert len(METHOD_FILES) > 12, "and plugins with methods among them"


@of_each(ALL_FILES)
def test_a_file_fits_on_a_few_screens(file):
    text = file.read_text(encoding="utf-8")
    lines, classes = len(text.splitlines()), text.partition("def methods():")[2].count('": ')
    limit = 90 + 30 * max(1, classes) if file in METHOD_FILES else 250  # 120 for a method, 30 for each further one
    assert lines <= limit, f"{name(file)} must have at most {limit} lines; it has {lines}"


@of_each(ALL_FILES)
def test_a_file_raises_errors_that_survive_optimisation_and_prints_nothing(file):
    nodes = [*ast.walk(tree(file))]
    lines = [node.lineno for node in nodes if isinstance(node, ast.Assert)]
    assert not lines, f"{name(file)} must raise errors, not assert; lines {lines}"
    prints = [n.lineno for n in nodes if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "print"]
    allowed = ("cli.py", "job.py", "report.py")
    assert not prints or file.name in allowed or file.parent.name == "commands", (
        f"{name(file)} must not print; lines {prints}"
    )


@of_each([f for f in ALL_FILES if f.read_text().strip()])
def test_a_file_says_what_it_is_for(file):
    doc = ast.get_docstring(tree(file))
    assert doc, f"{name(file)} must have a docstring"
    assert len(doc.splitlines()[0]) <= 120, f"{name(file)} must begin with a sentence"
    if file in METHOD_FILES:
        missing = [heading for heading in ("Source:", "Deviations:") if not re.search(f"^{heading} ", doc, re.M)]
        assert not missing, f"{name(file)} brings methods and must have {missing} in its docstring"


@of_each(PLUGIN_FILES)
def test_a_plugin_imports_no_plugin(file):
    ours = [i for i in imports(file) if i.startswith((".", "adaptkit_plugins", "adaptkit_recipes", "tests"))]
    assert not ours, f"{name(file)} must import from adaptkit and other people's packages only; got {ours}"


@of_each(ALL_FILES)
def test_heavy_libraries_are_imported_where_they_belong(file):
    inside = name(file)
    if inside != "adaptkit/runs/plugins.py" and file in CORE_FILES:
        found = imports_any(file, "adaptkit_plugins")
        assert not found, f"{inside} must not know the plugins; it imports {found}"
    training = [f"adaptkit/methods/{stem}.py" for stem in ("train", "keep_best", "resuming")]
    if inside not in training and file in CORE_FILES:  # a plugin may in `callbacks`; see the last test
        found = imports_any(file, "pytorch_lightning", "lightning", "lightning_fabric", at_once=file in PLUGIN_FILES)
        assert not found, f"only training and a plugin's callbacks() may import Lightning; {inside} has {found}"
    if inside != "adaptkit/towers/clip.py" and "testing" not in inside and "backbones" not in inside:
        found = imports_any(file, "transformers")
        assert not found, f"only clip.py, testing and backbones may import transformers; {inside} imports {found}"
    if inside not in ("adaptkit/sklearn.py", "adaptkit/report/drawing.py"):  # which are loaded where they are used
        found = imports_any(file, *LARGE, at_once=True)
        assert not found, f"every command pays for what plugins import; import {found} inside functions of {inside}"
    if file.stem in LIGHT:
        found = imports_any(file, *HEAVY)
        assert not found, f"{inside} must stay light; it imports {found}"


def test_reading_a_recipe_and_listing_plugins_import_what_they_may():
    code = (
        "import sys; loaded = lambda *names: [n for n in names if n in sys.modules];"
        "from adaptkit import cli; from adaptkit.runs import recipe; cli.parser(); recipe.read_recipe('toy');"
        "print(loaded('torch', 'transformers', 'pytorch_lightning', 'sklearn', 'matplotlib'));"
        "cli.main(['list', '--json']); cli.main(['show', 'gda']);"
        "print(loaded('transformers', 'pytorch_lightning', 'torchmetrics', 'matplotlib'))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    lines = done.stdout.splitlines()
    assert lines[0] == "[]", f"reading a recipe must import none of these; got {lines[0]}"
    assert lines[-1] == "[]", f"listing and showing may import torch, and none of these; got {lines[-1]}"


FORBIDDEN = {
    r"\bpickle\b|\bdill\b|\bjoblib\b": "pickle, which runs what it reads",
    r"torch\.load\((?!.*weights_only=True)": "torch.load without weights_only",
    r"\byaml\.(unsafe_load|full_load|UnsafeLoader|FullLoader)\b": "YAML that can run code",
    r"\bshell=True|\bos\.system\(|(?<![\w.])eval\(|(?<![\w.])exec\(": "a way to run text",
    r"/(home|root|Users|work|tmp|mnt|data)/\w": "a path of somebody's machine",
    r"[A-Z]:\\\\": "a path of somebody's machine",
    r"\binference_mode\(": "inference_mode, under which nothing can be learned from cached rows",
    r"(?<![\w.])hash\(": "hash(), which differs between processes",
    r"\b(TODO|FIXME|XXX|HACK)\b": "unfinished work",
}


@of_each(ALL_FILES)
def test_a_file_has_nothing_that_must_not_be_there(file):
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        found = [what for pattern, what in FORBIDDEN.items() if re.search(pattern, line)]
        assert not found, f"{name(file)}:{number} must not have {', '.join(found)}: {line.strip()}"


@of_each(METHOD_FILES)
def test_a_method_draws_from_no_generator_that_others_share(file):
    seeded = r"RandomState\(\w|default_rng\(\w|Random\(\w|Generator\b"  # a generator of its own, with a seed
    drawing = imports_any(file, "secrets", "time", "uuid")
    drawing += re.findall(rf"(?<![\w.])(?:np\.|numpy\.)?random\.(?!{seeded})\w+", file.read_text(encoding="utf-8"))
    assert not drawing, (
        f"{name(file)} must draw from torch's generator or a seeded one, and read no clock; got {drawing}"
    )


def test_public_names_are_those_of_the_stub():
    stub = ast.parse((CORE / "__init__.pyi").read_text(encoding="utf-8"))
    names = [alias.asname for node in stub.body if isinstance(node, ast.ImportFrom) for alias in node.names]
    assert names and None not in names, "the stub must export each name by an alias"
    assert set(names) <= set(adaptkit.__all__), "what the stub promises must be public"
    undocumented = [n for n in names if not getattr(adaptkit, n).__doc__]
    assert not undocumented, f"public names must have docstrings; not so {undocumented}"
    assert (CORE / "py.typed").exists(), "and types must be found"


TWICE: set[str] = {"command"}
"""Names that several modules may define: `command`, the verb of each module of commands."""


@of_each(CORE_FILES)
def test_a_function_fits_on_a_screen(file):
    functions = [node for node in ast.walk(tree(file)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    lines = {node.name: node.end_lineno - node.lineno + 1 for node in functions}
    long = {function: count for function, count in lines.items() if count > 40}
    assert not long, f"functions of {name(file)} must have at most 40 lines; got {long}; cut what is a step by itself"


def defined(file):
    """Public names that a file defines at its top: functions, classes and constants."""
    for node in tree(file).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            yield from (t.id for t in targets if isinstance(t, ast.Name))


def test_no_public_name_is_defined_twice():
    places = {}
    for file in CORE_FILES:
        for found in {n for n in defined(file) if not n.startswith("_")} - TWICE:
            places.setdefault(found, []).append(name(file))
    twice = {found: files for found, files in places.items() if len(files) > 1}
    assert not twice, f"a public name must mean one thing in adaptkit; got {twice}"


def test_no_name_means_nothing():
    vague = [name(f) for f in ALL_FILES if re.search(r"util|helper|misc|common|^cfg", f.stem)]
    assert not vague, f"files must be called by what is in them; got {vague}"
