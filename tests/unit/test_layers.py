"""The layering that CONTRIBUTING describes, read from the imports themselves."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import worker

ROOT = Path(worker.__file__).parent
BENCH = Path(__file__).parents[2] / "bench"

# Arrows point down only: a module imports from its own row or from a row below. CONTRIBUTING has the same table.
ROWS = [
    {"__main__", "cli", "web", "tasks", "testing", "", "attempt", "bridge", "leases", "status"},
    {"conversations", "recall"},
    {"stores", "models"},
    {"operations"},
    {"broker"},
    {"attempts"},
    {"history"},
    {"loops"},
    {"server"},
    {"settings"},
    {"threads", "ground"},
    {"errors"},
]
ROW_OF = {name: number for number, row in enumerate(ROWS) for name in row}
APPLICATION = {"conversations", "recall", "stores", "models", "tasks"}
EDGES = {"__main__", "cli", "web"}
MOST_ARROWS = 107
"""Half of what there was when the modules had no rooms. Fewer is better; more needs a reason."""


def modules() -> dict[str, ast.Module]:
    found = {}
    for file in ROOT.rglob("*.py"):
        parts = file.relative_to(ROOT).with_suffix("").parts
        name = ".".join(("worker", *parts)).removesuffix(".__init__")
        found[name] = ast.parse(file.read_text(), str(file))
    return found


MODULES = modules()


def imports(tree: ast.AST) -> Iterator[tuple[str, ast.stmt]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            for alias in node.names:
                whole = f"{node.module}.{alias.name}"
                yield (whole if whole in MODULES else node.module), node


def ours(tree: ast.AST) -> set[str]:
    return {name for name, _ in imports(tree) if name in MODULES}


def place(module: str) -> str:
    return module.partition(".")[2].partition(".")[0]


def test_every_module_has_its_row() -> None:
    """A new module must be given a place in the layers."""
    assert {place(name) for name in MODULES} <= set(ROW_OF)


def test_no_import_points_upwards() -> None:
    """A module imports from its own row or from a row below."""
    upward = [(m, i) for m, tree in MODULES.items() for i in ours(tree) if ROW_OF[place(i)] < ROW_OF[place(m)]]
    assert upward == []


def test_the_framework_never_imports_the_built_in_application() -> None:
    """Somebody else's project uses the framework without it."""
    wrong = [
        (module, imported)
        for module, tree in MODULES.items()
        if place(module) not in APPLICATION | EDGES
        for imported in ours(tree)
        if place(imported) in APPLICATION | EDGES
    ]
    assert wrong == []


def test_no_two_rooms_import_each_other() -> None:
    """What cannot be understood without the other is one room."""
    arrows = {(place(m), place(i)) for m, tree in MODULES.items() for i in ours(tree) if place(m) != place(i)}
    assert [arrow for arrow in arrows if arrow[::-1] in arrows] == []


def test_there_are_few_arrows_between_rooms() -> None:
    """Whoever draws them all can still follow each: a room is a folder or a module of the root, or the benchmarks."""
    trees = [(place(name), tree) for name, tree in MODULES.items()]
    trees += [("bench", ast.parse(file.read_text())) for file in BENCH.rglob("*.py")]
    arrows = {(room, place(i)) for room, tree in trees for i in ours(tree) if place(i) != room}
    assert len(arrows) <= MOST_ARROWS, sorted(arrows)


def test_there_is_no_cycle() -> None:
    """No module imports itself, through however many others."""
    graph = {module: ours(tree) - {module} for module, tree in MODULES.items()}
    # A package's own modules are imported after it, by Python itself: only what it imports in turn counts.
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join((*path[path.index(module) :], module))
        if module not in done:
            for imported in graph[module]:
                visit(imported, (*path, module))
            done.add(module)

    for module in graph:
        visit(module, ())


def test_nothing_of_ours_is_imported_inside_a_function_or_a_block() -> None:
    """Imports inside functions hide cycles."""
    hidden = [
        (module, node.lineno)
        for module, tree in MODULES.items()
        for name, node in imports(tree)
        if name.partition(".")[0] == "worker"
        and node not in tree.body
        # The package loads its names when they are used, and tells type checkers of them.
        and module != "worker"
    ]
    assert hidden == []


def test_the_bridge_imports_neither_dramatiq_nor_redis() -> None:
    """The bridge, and what it imports in turn, serves programs without either."""
    reached, todo = set(), ["worker.bridge"]
    while todo:
        module = todo.pop()
        if module not in reached:
            reached.add(module)
            todo += ours(MODULES[module])
    foreign = {name.partition(".")[0] for module in reached for name, _ in imports(MODULES[module])}
    assert not foreign & {"dramatiq", "redis"}


def test_the_built_in_application_imports_neither_dramatiq_nor_redis() -> None:
    """Its rooms are plain asyncio; only its actors know Dramatiq."""
    foreign = [
        (module, name)
        for module, tree in MODULES.items()
        if place(module) in {"conversations", "recall", "stores", "models"}
        for name, _ in imports(tree)
        if name.partition(".")[0] in {"dramatiq", "redis"}
    ]
    assert foreign == []


def test_only_the_settings_read_the_environment() -> None:
    """One way in from outside."""
    readers = [
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and (node.value.id, node.attr) in {("os", "environ"), ("os", "getenv"), ("os", "environb")}
    ]
    assert set(readers) == {"worker.settings.environment"}


def test_every_test_says_in_a_sentence_what_it_promises() -> None:
    """So that a failing name can be understood without its code."""
    silent = [
        f"{file.name}:{node.lineno}"
        for file in Path(__file__).parents[1].rglob("test_*.py")
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
        and not ast.get_docstring(node)
    ]
    assert silent == []
