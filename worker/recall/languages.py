"""Finds a file's language by its name, and the grammar for that language.

Grammars come in wheels, and are loaded when a file needs them; nothing is downloaded.
"""

from __future__ import annotations

import functools
import importlib
from pathlib import PurePosixPath

from worker.errors import MissingExtra

try:
    import tree_sitter
except ImportError as error:
    raise MissingExtra("recall", "cutting files along their structure") from error

_BY_SUFFIX = {
    "bash": ".bash .sh",
    "c": ".c .h",
    "cpp": ".cc .cpp .cxx .hh .hpp .hxx .ipp",
    "csharp": ".cs",
    "css": ".css .less .scss",
    "go": ".go",
    "html": ".htm .html",
    "java": ".java",
    "javascript": ".cjs .js .jsx .mjs",
    "json": ".json .jsonl",
    "kotlin": ".kt .kts",
    "lua": ".lua",
    "markdown": ".markdown .md",
    "perl": ".pl .pm",
    "php": ".php",
    "python": ".py .pyi .pyw",
    "restructuredtext": ".rst",
    "ruby": ".rake .rb",
    "rust": ".rs",
    "scala": ".scala",
    "sql": ".sql",
    "swift": ".swift",
    "text": ".text .txt",
    "toml": ".toml",
    "tsx": ".tsx",
    "typescript": ".cts .mts .ts",
    "xml": ".svg .xml .xsd",
    "yaml": ".yaml .yml",
}
_LANGUAGES = {suffix: language for language, suffixes in _BY_SUFFIX.items() for suffix in suffixes.split()}
_NAMES = {"Dockerfile": "dockerfile", "Gemfile": "ruby", "Makefile": "makefile", "Rakefile": "ruby"}

_GRAMMARS = {
    "bash": ("tree_sitter_bash", "language"),
    "c": ("tree_sitter_c", "language"),
    "cpp": ("tree_sitter_cpp", "language"),
    "csharp": ("tree_sitter_c_sharp", "language"),
    "go": ("tree_sitter_go", "language"),
    "java": ("tree_sitter_java", "language"),
    "javascript": ("tree_sitter_javascript", "language"),
    "markdown": ("tree_sitter_markdown", "language"),
    "php": ("tree_sitter_php", "language_php"),
    "python": ("tree_sitter_python", "language"),
    "ruby": ("tree_sitter_ruby", "language"),
    "rust": ("tree_sitter_rust", "language"),
    "tsx": ("tree_sitter_typescript", "language_tsx"),
    "typescript": ("tree_sitter_typescript", "language_typescript"),
}


def language_of(path: str) -> str | None:
    """The language of a file with this name, or None if the name is not known."""
    name = PurePosixPath(path)
    return _NAMES.get(name.name) or _LANGUAGES.get(name.suffix.lower())


@functools.cache
def grammar_of(language: str | None) -> tree_sitter.Language | None:
    """The language's grammar, or None."""
    if language not in _GRAMMARS:
        return None
    module, function = _GRAMMARS[language]
    try:
        return tree_sitter.Language(getattr(importlib.import_module(module), function)())
    except ImportError as error:
        raise MissingExtra("recall", f"the grammar of {language}") from error
