"""What git would see in a folder, compared with git itself, and what it would not."""

from __future__ import annotations

import os
import time
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.git_trees import git, seen_by_git, write
from worker.errors import ConfigurationError
from worker.recall.ignore_rules import IgnoreRules
from worker.recall.scanning import Found, Globs, Scan

NAMES = ["a", "b", "ab", "aab", "a.py", "b.log", "a]b", "-", "x y", "*", ".h", "#c", "!d", "ä", "a-c", "q"]
RULES = (
    """
a|b|*.py|*.log|a/|/a|a/b|a/*|a/**|**/a|**/a/b|a/**/b|*|*/|!a|!*.py|!*/|!a/|[ab]|[!a]|[^b]*|a?|?|\\#c|\\!d|#c|a\\|[a|a**|
a/b**|/a**/b|b**/a|*a*b*|**|**/|/**|***|a***/b|[]a]*|[a-]|[[:alpha:]]|[![:alpha:]]|[[:foo:]]|x y |x\\ y|x y\\ |ä|?ä|\\*|
a//b|//|/|!|a/b/|**/b/**|!b/**|[a-b]b|[b-a]|/*|!/a|*/b|*/*/a|a/!b|[a/]b|a[/]b|\ufeffa|[!/]|[[:]a]|[\\]]*|[\\a-\\b]*|.*|
!.gitignore|*.| a|\ta|a\t|?[!-z]
""".replace("|\n", "|")
    .strip("\n")
    .split("|")
)

rules = st.builds(
    lambda lines, ending, last: ending.join(lines) + last,
    st.lists(st.sampled_from(RULES), max_size=6),
    st.sampled_from(["\n", "\n", "\r\n"]),
    st.sampled_from(["", "\n"]),
)
names = st.sampled_from(NAMES)
folders = st.recursive(
    st.none(),
    lambda inside: st.tuples(st.dictionaries(names, inside, min_size=1, max_size=4), st.none() | rules),
    max_leaves=12,
)
Tree = tuple[dict[str, "Tree | None"], str | None]


def make(folder: Path, tree: Tree | None) -> None:
    if tree is None:
        folder.write_text("x")
        return
    folder.mkdir()
    entries, ignored = tree
    for name, inside in entries.items():
        make(folder / name, inside)
    if ignored is not None:
        (folder / ".gitignore").write_text(ignored, newline="")


def found(folder: Path, globs: Globs | None = None) -> dict[str, Found]:
    return {one.path: one for one in Scan(folder, globs or Globs()).files()}


def paths(folder: Path, globs: Globs | None = None) -> list[str]:
    return sorted(found(folder, globs))


@settings(max_examples=150)
@given(
    tree=st.tuples(st.dictionaries(names, folders, min_size=1, max_size=5), st.none() | rules),
    excluded=rules,
    tracked=st.lists(st.integers(min_value=0), max_size=3),
    version=st.sampled_from("24"),
)
def test_what_git_sees_is_found(
    tmp_path_factory: pytest.TempPathFactory, tree: Tree, excluded: str, tracked: list[int], version: str
) -> None:
    """Whatever the rules, wherever they are, and whatever is tracked in spite of them."""
    top = tmp_path_factory.mktemp("trees") / "top"
    make(top, tree)
    files = sorted(str(file.relative_to(top)) for file in top.rglob("*") if file.is_file())
    git(top, "init", "--quiet")
    (top / ".git/info/exclude").write_text(excluded, newline="")
    if files and tracked:
        forced = {files[number % len(files)] for number in tracked}
        git(top, "--literal-pathspecs", "add", "--force", "--", *forced)
        git(top, "update-index", "--index-version", version)
    assert paths(top) == seen_by_git(top)


def test_a_plain_folder_needs_no_git(tmp_path: Path) -> None:
    """Its rules count all the same, and those of its folders."""
    write(tmp_path, {"a.py": "1", "b.log": "1", "sub/c.log": "1", ".gitignore": "*.log", "sub/.gitignore": "!c.log"})
    assert paths(tmp_path) == [".gitignore", "a.py", "sub/.gitignore", "sub/c.log"]


def test_a_repository_within_another_is_scanned_by_its_own_rules(tmp_path: Path) -> None:
    """The outer one's do not reach into it, unless they ignore it as a whole."""
    write(tmp_path, {".gitignore": "*.log\n/hidden/\n", "a.log": "1", "inner/b.log": "1", "inner/c.tmp": "1"})
    write(tmp_path, {"inner/.gitignore": "*.tmp", "hidden/d.py": "1"})
    for folder in (tmp_path, tmp_path / "inner", tmp_path / "hidden"):
        git(folder, "init", "--quiet")
    assert paths(tmp_path) == [".gitignore", "inner/.gitignore", "inner/b.log"]


def test_a_submodule_is_scanned_by_its_own_rules(tmp_path: Path) -> None:
    """Its `.git` is a file that says where its repository is, whose own rules count too."""
    source = write(tmp_path / "source", {"keep.py": "1", ".gitignore": "*.tmp"})
    git(source, "init", "--quiet")
    git(source, "add", ".")
    git(source, "commit", "--quiet", "--message", "first")
    top = write(tmp_path / "top", {"a.py": "1"})
    git(top, "init", "--quiet")
    git(top, "-c", "protocol.file.allow=always", "submodule", "--quiet", "add", str(source), "part")
    write(top, {"part/x.tmp": "1", "part/y.old": "1", "part/z.py": "1"})
    (top / ".git/modules/part/info/exclude").write_text("*.old")
    assert (top / "part/.git").is_file()
    assert paths(top) == [".gitmodules", "a.py", "part/.gitignore", "part/keep.py", "part/z.py"]


def test_a_work_tree_shares_the_rules_of_its_repository(tmp_path: Path) -> None:
    """`info/exclude` is the repository's, which every work tree shares."""
    top = write(tmp_path / "top", {"a.py": "1"})
    git(top, "init", "--quiet")
    git(top, "add", ".")
    git(top, "commit", "--quiet", "--message", "first")
    git(top, "worktree", "add", "--quiet", str(tmp_path / "other"))
    (top / ".git/info/exclude").write_text("*.old")
    write(tmp_path / "other", {"b.old": "1", "c.py": "1"})
    assert paths(tmp_path / "other") == seen_by_git(tmp_path / "other") == ["a.py", "c.py"]


def test_rules_above_the_folder_count(tmp_path: Path) -> None:
    """A part of a repository has the rules that it has as a part."""
    write(tmp_path, {".gitignore": "*.log\n/part/x.py\n", "part/a.log": "1", "part/x.py": "1", "part/b.py": "1"})
    git(tmp_path, "init", "--quiet")
    assert paths(tmp_path / "part") == seen_by_git(tmp_path / "part") == ["b.py"]


def test_who_names_an_ignored_folder_wants_it(tmp_path: Path) -> None:
    """The rules that ignore it do not count inside it; its own do."""
    write(tmp_path, {".gitignore": ".venv\n*.log\n", ".venv/lib/a.log": "1", ".venv/lib/b.tmp": "1"})
    write(tmp_path, {".venv/lib/.gitignore": "*.tmp"})
    git(tmp_path, "init", "--quiet")
    assert paths(tmp_path / ".venv/lib") == [".gitignore", "a.log"]


def test_a_damaged_index_says_nothing(tmp_path: Path) -> None:
    """The tree is scanned by its rules."""
    write(tmp_path, {"a.py": "1", "b.log": "1", ".gitignore": "*.log"})
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--force", "b.log")
    index = tmp_path / ".git/index"
    whole = index.read_bytes()
    assert paths(tmp_path) == [".gitignore", "a.py", "b.log"]
    for damaged in (b"", b"DIRC", whole[:70], b"DIRC" + b"\xff" * 200, os.urandom(500)):
        index.write_bytes(damaged)
        assert paths(tmp_path) == [".gitignore", "a.py"]


def test_a_remote_may_be_called_after_a_hash(tmp_path: Path) -> None:
    """Only the setting says which one git uses."""
    write(tmp_path, {"b.log": "1", ".gitignore": "*.log"})
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--force", "b.log")
    git(tmp_path, "remote", "add", "origin", "https://localhost/sha256-simd.git")
    assert paths(tmp_path) == seen_by_git(tmp_path) == [".gitignore", "b.log"]


def test_a_repository_of_longer_hashes_is_read(tmp_path: Path) -> None:
    """Git's own new format."""
    write(tmp_path, {"b.log": "1", ".gitignore": "*.log"})
    git(tmp_path, "init", "--quiet", "--object-format=sha256")
    git(tmp_path, "add", "--force", "b.log")
    assert paths(tmp_path) == seen_by_git(tmp_path) == [".gitignore", "b.log"]


def test_a_hostile_index_takes_no_memory(tmp_path: Path) -> None:
    """A path that no system call takes would be a thousand folders in a thousand folders."""
    write(tmp_path, {"a.py": "1", ".git/HEAD": "ref: refs/heads/main"})
    path = b"a/" * 100_000 + b"a"
    entry = bytes(60) + (0xFFF).to_bytes(2) + path
    (tmp_path / ".git/index").write_bytes(b"DIRC" + (2).to_bytes(4) + (1).to_bytes(4) + entry + bytes(8))
    tracemalloc.start()
    assert paths(tmp_path) == ["a.py"]
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 10 * 2**20


def test_what_cannot_be_indexed_is_told_with_the_reason(tmp_path: Path) -> None:
    """As far as that is told without reading it."""
    write(tmp_path, {"empty": "", "large": "x" * 20, "good": "x"})
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("good")
    (Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff"))).write_text("x")
    reasons = {one.path: one.left_out for one in Scan(tmp_path, largest=10).files()}
    assert reasons == {
        "empty": "empty",
        "large": "too large",
        "good": "",
        "pipe": "not a regular file",
        "link": "symbolic link",
        "\\xff": "name is not UTF-8",
    }


def test_no_link_is_followed(tmp_path: Path) -> None:
    """Neither out of the tree, nor in a circle, nor to rules elsewhere."""
    outside = write(tmp_path / "outside", {"secret.py": "1", "rules": "*.py"})
    top = write(tmp_path / "top", {"a.py": "1", "sub/b.py": "1"})
    (top / "out").symlink_to(outside)
    (top / "sub/loop").symlink_to(top)
    (top / "self").symlink_to("self")
    (top / ".gitignore").symlink_to(outside / "rules")
    seen = found(top)
    assert sorted(path for path, one in seen.items() if not one.left_out) == ["a.py", "sub/b.py"]
    assert {one.left_out for path, one in seen.items() if path in ("out", "sub/loop", "self")} == {"symbolic link"}


def test_a_folder_that_cannot_be_listed_costs_only_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with the reason."""
    write(tmp_path, {"a.py": "1", "closed/b.py": "1"})
    scandir = os.scandir

    def refuse(path: bytes) -> object:
        if path.endswith(b"closed/"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    # Root may list any folder.
    monkeypatch.setattr(os, "scandir", refuse)
    seen = found(tmp_path)
    assert {path: one.failed for path, one in seen.items()} == {"a.py": "", "closed": "Permission denied"}


def test_names_may_hold_anything(tmp_path: Path) -> None:
    """Newlines, quotes, backslashes, and what looks like a pattern."""
    names = ["a\nb.py", "'quoted'.py", '"double".py', "back\\slash.py", "*.py", "$(x).py", "-rf.py", "\x1b[31m.py"]
    write(tmp_path, dict.fromkeys(names, "1"))
    assert paths(tmp_path) == sorted(names)
    assert paths(tmp_path, Globs(include=["*.py"])) == sorted(names)


@pytest.mark.parametrize(
    ("include", "exclude", "wanted"),
    [
        ((), (), ["a.py", "docs/b.md", "src/c.py", "src/deep/docs/d.py"]),
        (("*.py",), (), ["a.py", "src/c.py", "src/deep/docs/d.py"]),
        (("src",), (), ["src/c.py", "src/deep/docs/d.py"]),
        (("/docs/", "a.*"), (), ["a.py", "docs/b.md"]),
        ((), ("docs/",), ["a.py", "src/c.py"]),
        (("*.py",), ("src/**/docs",), ["a.py", "src/c.py"]),
        (("#x",), (), []),
    ],
)
def test_globs_say_which_files_are_wanted(
    tmp_path: Path, include: tuple[str, ...], exclude: tuple[str, ...], wanted: list[str]
) -> None:
    """Written as in a `.gitignore`; what is excluded is not wanted, included or not."""
    write(tmp_path, dict.fromkeys(["a.py", "docs/b.md", "src/c.py", "src/deep/docs/d.py"], "1"))
    scan = Scan(tmp_path, Globs(include, exclude))
    assert sorted(one.path for one in scan.files()) == wanted
    assert scan.scanned == 4


@pytest.mark.parametrize("pattern", ["../x", "a/../../b", "..", "", "  ", "!a", "a\nb"])
def test_a_glob_that_cannot_be_meant_is_refused(pattern: str) -> None:
    """With the pattern in the message."""
    with pytest.raises(ConfigurationError, match="--exclude"):
        Globs(exclude=[pattern])


def test_a_hostile_pattern_takes_no_time() -> None:
    """Many stars, for which others try every way there is."""
    rules = IgnoreRules.parse(b"*a" * 40 + b"b\n" + b"**/a*/" * 20 + b"x\n/" + b"*?" * 60 + b"b\n")
    begun = time.process_time()
    assert rules.ignores(b"a" * 255, folder=False) is None
    assert rules.ignores(b"aa/" * 80 + b"y", folder=False) is None
    assert time.process_time() - begun < 10
