"""An import contract for parts of external packages: "cryptography yes, cryptography.x509 no".

The linter's own contracts see an external package only whole. This one follows the imports inside locum with
the linter's graph, and reads the sources of what it reaches for the exact modules they import.
"""

from __future__ import annotations

import ast
import importlib.util
from collections.abc import Iterator
from pathlib import Path

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class ClosedContract(Contract):
    """No module that `source_modules` import, directly or through others, imports any of `forbidden_modules`.

    Both are module names and stand for everything below them too. The packages that contain an imported
    module count as imported, since Python runs them.
    """

    type_name = "closed"

    source_modules = fields.ListField(subfield=fields.StringField())
    forbidden_modules = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        found: list[tuple[str, str, str]] = []
        for source in self.source_modules:
            for module in sorted(_reached(graph, source)):
                for imported in imported_names(module):
                    found.extend(
                        (source, module, imported) for bad in self.forbidden_modules if within(imported, bad)
                    )
        return ContractCheck(kept=not found, metadata={"found": list(dict.fromkeys(found))})

    def render_broken_contract(self, check: ContractCheck) -> None:
        for source, module, imported in check.metadata["found"]:
            output.print_error(f"{source} reaches {module}, which imports {imported}")


def within(name: str, package: str) -> bool:
    """True when `name` is `package` or something below it."""
    return name == package or name.startswith(package + ".")


def _reached(graph: ImportGraph, source: str) -> set[str]:
    own = {source} | graph.find_descendants(source)
    reached = own | graph.find_upstream_modules(source, as_package=True)
    inside = {module for module in reached if within(module, "locum")}
    for module in list(inside):
        while "." in module:
            module = module.rpartition(".")[0]
            if module in graph.modules and module not in inside:
                inside.add(module)
                inside |= {each for each in graph.find_upstream_modules(module) if within(each, "locum")}
    return inside


def imported_names(module: str) -> Iterator[str]:
    """The full names that the source of `module` imports, at any depth of nesting."""
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return
    for node in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None and node.level == 0:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
