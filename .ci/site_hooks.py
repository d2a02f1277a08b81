"""Pages of the site that are made rather than written: labkit's public names, and the changes.

They are not in docs/, which the portal's own help shows as it is.
"""

from __future__ import annotations

import ast
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

TOP = Path(__file__).resolve().parents[1]
_REFERENCE = """\
# labkit

What `import labkit` offers. Each part is loaded when it is first used.

"""


def public_names() -> dict[str, str]:
    """Return labkit's public names, each with where it is defined; read without an import."""
    tree = ast.parse((TOP / "labkit" / "__init__.py").read_text())
    modules: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith("labkit."):
            modules |= {
                name.asname or name.name: f"{node.module}.{name.name}" for name in node.names
            }
    return {name: path for name, path in sorted(modules.items()) if not name.startswith("_")}


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    reference = _REFERENCE + "".join(f"::: {path}\n\n" for path in public_names().values())
    changes = (TOP / "CHANGELOG.md").read_text()
    for name, text in (("reference/labkit.md", reference), ("changes.md", changes)):
        files.append(File.generated(config, name, content=text))
    return files
