"""A user's own functions by name: where they are found, and what is said of those that cannot be had."""

import sys

import pytest

import steppe
from steppe import extensions

FUNCTIONS = """
import functools

class Losses:
    @staticmethod
    def focal(): return "focal"

class Called:
    def __call__(self): return "called"

def make(): return "made"
short = lambda: "short"
instance = Called()
part = functools.partial(str, "part")
number = 3

def __getattr__(name):
    if name == "late": return lambda: "late"
    raise AttributeError(name)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(FUNCTIONS)
    return tmp_path


def function(text, **more):
    return extensions.function("test", "name", text, **more)


@pytest.mark.parametrize(
    ("name", "value"),
    [("make", "made"), ("short", "short"), ("instance", "called"), ("part", "part"), ("Losses.focal", "focal"),
     ("late", "late")],
)  # fmt: skip
def test_whatever_can_be_called_is_found_by_its_path(name, value):
    assert function(f"mine:{name}")() == value


def test_modules_of_one_name_in_two_folders_are_two_modules(folder):
    places = [folder / "one", folder / "two"]
    for place in places:
        place.mkdir()
        (place / "same.py").write_text(f"def make(): return {place.name!r}\n")
    digests = [extensions.source("test", "name", "same:make", [place])[1] for place in places]
    assert [function("same:make", digest=digest)() for digest in digests] == ["one", "two"]


def test_a_module_of_a_package_imports_from_beside_it_and_all_of_it_is_in_its_digest(folder):
    (folder / "pack").mkdir()
    (folder / "pack" / "__init__.py").write_text("")
    (folder / "pack" / "helper.py").write_text("value = 1\n")
    (folder / "pack" / "losses.py").write_text("from .helper import value\ndef make(): return value\n")
    assert function("pack.losses:make")() == 1
    before = extensions.source("test", "name", "pack.losses:make")[1]
    (folder / "pack" / "helper.py").write_text("value = 2\n")
    assert extensions.source("test", "name", "pack.losses:make")[1] != before
    assert function("pack.losses:make")() == 2 and function("pack.losses:make", digest=before)() == 1


@pytest.mark.parametrize(
    "statement",
    [
        "import aid; value = aid.value",
        "from aid import value",
        'value = __import__("aid").value',
        'value = importlib.import_module("aid").value',
    ],
)
def test_a_module_on_pythons_path_is_told_from_itself_after_an_edit_of_what_it_imports(folder, monkeypatch, statement):
    places = [folder / name for name in ("lib", "other")]
    for place in places:
        place.mkdir()
    monkeypatch.setattr(sys, "path", [*map(str, places), *sys.path])
    (folder / "lib" / "far.py").write_text(f"import importlib\n{statement}\ndef make(): return value\n")
    digests = []
    for value in (1, 2):
        (folder / "other" / "aid.py").write_text(f"value = {value}\n")
        digests.append(extensions.source("test", "name", "far:make")[1])
        assert function("far:make", digest=digests[-1])() == value
    assert len(set(digests)) == 2


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("mine:number", "a function of mine, got 'number', of type int"),
        ("mine:mak", "'mak', which is not there. Did you mean 'make'?"),
        ("mine:Losses.focl", "'focl', which is not there. Did you mean 'focal'?"),
        ("mien:make", "'mien'. Did you mean 'mine'?"),
        ("mine.py:make", "'mine.py'. Did you mean 'mine'?"),
        ("./mine:make", "Did you mean 'mine:make'?"),
        ("pack/losses:make", "Did you mean 'pack.losses:make'?"),
        ("with-dash:make", "by names that Python can import"),
        ("mine:class", "by names that Python can import"),
        ("a" * 500 + ":make", "by names that Python can import"),
        ("mine:" + "b" * 500, "by names that Python can import"),
    ],
)
def test_a_name_that_leads_nowhere_is_refused_with_what_is_near(text, words):
    with pytest.raises(steppe.InputError) as error:
        function(text)
    assert words in str(error.value) and len(str(error.value)) < 400


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("def make(:", "which fails: SyntaxError"),
        ("raise RuntimeError('no')", "which fails: RuntimeError: no"),
        ("import sys; sys.exit(0)", "which fails: SystemExit: 0"),
        ("def f(): f()\nf()", "which fails: RecursionError"),
        ("import circle\ncircle.make", "partially initialized module 'circle'"),
        ("import not_there", "got 'not_there', which circle imports"),
        ("x = 1\0", "null bytes"),
    ],
)
def test_a_module_that_cannot_be_imported_is_refused_with_its_reason(folder, source, words):
    (folder / "circle.py").write_text(source + "\n")
    with pytest.raises(steppe.InputError) as error:
        function("circle:make")
    assert words in str(error.value)


def test_a_file_that_hides_behind_an_installed_module_is_told():
    for name in ("optax", "json"):
        with open(f"{name}.py", "w") as file:
            file.write("def make(): pass\n")
        with pytest.raises(steppe.InputError, match="a name that another module has"):
            function(f"{name}:make")
