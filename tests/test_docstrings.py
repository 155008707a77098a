"""What the library exports says what it takes, gives and refuses, as far as a program can tell; the rest, a sentence.

Exported are the names in ``__all__`` of ``artpaper.attacks`` and ``artpaper.checks``, and the public names of
``MODULES``. Of any other public name, the pipeline's too, this holds: it has a docstring that begins with a sentence,
its arrays have shapes, and what it does list (parameters, errors) is there.
"""

import ast
import builtins
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES = ("models", "losses", "metrics", "attention", "ball", "settings")
PACKAGES = ("attacks", "checks")
UNITS = {"epsilon": "unit", "memory": "MiB"}  # a parameter of this name must give its unit
SHAPED = re.compile(r"(Float|U?Int|Integer|Bool|Num|Shaped)\d*")  # jaxtyping's
SHAPE = re.compile(r"\(\w+(?:, \w+)+\)|\(\w+,\)|\bshape\b|one (?:value )?per")


@dataclass(frozen=True)
class Public:
    """A public name, its syntax tree, and the functions of its module by name."""

    name: str
    node: ast.Module | ast.ClassDef | ast.FunctionDef
    functions: dict[str, ast.FunctionDef]
    owner: "Public | None" = None

    @property
    def doc(self) -> str:
        return ast.get_docstring(self.node) or ""

    @property
    def parameters(self) -> list[str]:
        return parameters(self.node)

    def section(self, title: str) -> str | None:
        """The text of a section, its own line of heading included; None without one."""
        found = re.search(rf"^{title}:(.*(?:\n(?: .*)?)*)", self.doc, re.M)
        return found and found[1]

    def entries(self, title: str) -> list[str]:
        """The names that a section explains: ``x, y: as above`` are two."""
        lines = re.findall(r"^ {4}(\w[\w, ]*):(?: |$)", self.section(title) or "", re.M)
        return [name.strip() for line in lines for name in line.split(",")]

    def explanation(self, name: str) -> str:
        """What the Args section says of one parameter; empty without an entry."""
        line = re.search(rf"^    (?:[\w, ]*, )?{name}\b[^:\n]*:(.*(?:\n {{8}}.*)*)", self.section("Args") or "", re.M)
        return line[1] if line else ""


def parameters(node: ast.AST) -> list[str]:
    if isinstance(node, ast.ClassDef):
        made = [line for line in node.body if isinstance(line, ast.FunctionDef) and line.name == "__init__"]
        return parameters(made[0]) if made else []
    if not isinstance(node, ast.FunctionDef):
        return []
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    every += [extra for extra in (node.args.vararg, node.args.kwarg) if extra]
    bound = "cls" if any(ast.unparse(line) == "classmethod" for line in node.decorator_list) else "self"
    return [argument.arg for argument in every if argument.arg != bound]


def is_public(node: ast.AST) -> bool:
    return isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")


def names() -> Iterator[Public]:
    for path in sorted([*(ROOT / "artpaper").rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")]):
        place = path.relative_to(ROOT).as_posix()
        module = ast.parse(path.read_text(encoding="utf-8"))
        functions = {node.name: node for node in module.body if isinstance(node, ast.FunctionDef)}
        yield Public(place, module, functions)
        for node in filter(is_public, module.body):
            found = Public(f"{place}:{node.name}", node, functions)
            yield found
            if isinstance(node, ast.ClassDef):
                own = {member.name: member for member in node.body if isinstance(member, ast.FunctionDef)}
                for member in filter(is_public, node.body):
                    yield Public(f"{place}:{node.name}.{member.name}", member, functions | own, found)


def exported() -> Iterator[Public]:
    """The names that the library is imported for, with the methods of its classes."""
    listed = {name for package in PACKAGES for name in import_module(f"artpaper.{package}").__all__}
    for public in PUBLIC:
        place, _, name = public.name.partition(":")
        _, room, *_ = Path(place).with_suffix("").parts
        if room in MODULES or (room in PACKAGES and name.partition(".")[0] in listed):
            yield public


def functions(publics: Iterable[Public]) -> list[Public]:
    return [public for public in publics if isinstance(public.node, ast.FunctionDef)]


def classes(publics: Iterable[Public]) -> list[Public]:
    return [public for public in publics if isinstance(public.node, ast.ClassDef)]


PUBLIC = list(names())
EXPORTED = list(exported())


def test_everything_public_has_a_docstring_that_begins_with_a_sentence() -> None:
    assert len(PUBLIC) > 300
    assert not [public.name for public in PUBLIC if not public.doc.partition("\n")[0].endswith((".", "?", ":", "!"))]


def test_every_parameter_is_explained_and_none_that_is_not_there() -> None:
    """Three may be told in the sentence; of four, or where there is an Args section, each has its line there."""
    assert len(EXPORTED) > 60
    wrong = {}
    for public in PUBLIC:
        explained, there = set(public.entries("Args")), set(public.parameters)
        in_a_sentence = public not in EXPORTED or (public.section("Args") is None and len(there) <= 3)
        if explained - there or (explained != there and not in_a_sentence):
            wrong[public.name] = explained ^ there
    assert not wrong


def test_what_has_a_unit_gives_it() -> None:
    wrong = []
    for public in EXPORTED:
        for name in set(public.parameters) & set(UNITS):
            if UNITS[name] not in public.explanation(name) and "as " not in public.explanation(name):
                wrong.append(f"{public.name}: {name}")
    assert not wrong


def test_every_error_raised_is_listed() -> None:
    """By the function itself, or by its class for every method; a class lists those of making one."""
    wrong = {}
    for public in functions(EXPORTED):
        listed = {*public.entries("Raises"), *(public.owner.entries("Raises") if public.owner else ())}
        wrong[public.name] = raised(public.node, public.functions) - listed
    for public in classes(EXPORTED):
        own = {line.name: line for line in public.node.body if isinstance(line, ast.FunctionDef)}
        makers = [own[name] for name in ("__init__", "__post_init__") if name in own]
        errors = set().union(*(raised(maker, public.functions | own) for maker in makers))
        wrong[public.name] = errors - set(public.entries("Raises"))
    assert not {name: errors for name, errors in wrong.items() if errors}


def test_errors_listed_are_errors() -> None:
    """Python's own, or this project's: a name that has changed is found here."""
    ours = {
        public.node.name for public in classes(PUBLIC) if re.search("Error|Exception", " ".join(bases(public.node)))
    }
    known = ours | {name for name in vars(builtins) if name.endswith("Error")}
    wrong = {public.name: set(public.entries("Raises")) - known for public in PUBLIC}
    assert not {name: errors for name, errors in wrong.items() if errors}


def test_arrays_have_shapes() -> None:
    """In the annotation, as jaxtyping has it, or in words."""
    wrong = []
    for public in functions(PUBLIC):
        arguments = [*public.node.args.posonlyargs, *public.node.args.args, *public.node.args.kwonlyargs]
        for name in (one.arg for one in arguments if one.annotation and is_bare_array(one.annotation)):
            if not SHAPE.search(public.explanation(name) or public.doc):
                wrong.append(f"{public.name}: {name}")
        bare = public.node.returns is not None and is_bare_array(public.node.returns)
        if bare and not SHAPE.search(public.section("Returns") or public.doc):
            wrong.append(f"{public.name}: what it returns")
    for public in classes(PUBLIC):
        fields = [line for line in public.node.body if isinstance(line, ast.AnnAssign)]
        if any(is_bare_array(line.annotation) for line in fields) and not SHAPE.search(public.doc):
            wrong.append(public.name)
    assert not wrong


def test_several_results_are_told_apart() -> None:
    """What gives a tuple or a dictionary says what is in it: under Returns or Yields, or in its one sentence."""
    several = [
        public for public in functions(EXPORTED)
        if re.match(r"(tuple|dict)\[", ast.unparse(public.node.returns or public.node))
    ]  # fmt: skip
    assert several
    longer = [public for public in several if len(public.doc.splitlines()) > 1]
    assert not [public.name for public in longer if not public.section("Returns") and not public.section("Yields")]


def test_sections_have_their_names_and_their_order() -> None:
    order = ("Args", "Attributes", "Returns", "Yields", "Raises", "Source")
    wrong = {}
    for public in PUBLIC:
        found = re.findall(r"^(Source|\w+(?=:$)):", public.doc, re.M)
        known = [title for title in found if title in order]
        if known != sorted(known, key=order.index) or {"Arguments", "Parameters", "Return", "Yield"} & set(found):
            wrong[public.name] = found
    assert not wrong


def raised(node: ast.AST, functions: dict[str, ast.FunctionDef], seen: frozenset[str] = frozenset()) -> set[str]:
    """Names of the errors that leave a body: its own, and those of its module's functions and class's methods."""
    if isinstance(node, ast.Try):
        caught = {name.id for handler in node.handlers for name in ast.walk(handler.type or handler) if is_name(name)}
        rest = [*node.handlers, *node.orelse, *node.finalbody]
        inside = set().union(*(raised(part, functions, seen) for part in node.body)) - caught
        return inside.union(*(raised(part, functions, seen) for part in rest))
    found: set[str] = set()
    if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call) and isinstance(node.exc.func, ast.Name):
        found.add(node.exc.func.id)
    if isinstance(node, ast.Call):
        of_self = isinstance(node.func, ast.Attribute) and ast.unparse(node.func.value) in ("self", "cls")
        called = node.func.attr if of_self else getattr(node.func, "id", "")
        if called in functions and called not in seen:
            found |= raised(functions[called], functions, seen | {called})
    return found.union(*(raised(part, functions, seen) for part in ast.iter_child_nodes(node)))


def bases(node: ast.ClassDef) -> list[str]:
    return [ast.unparse(base) for base in node.bases]


def is_name(node: ast.AST) -> bool:
    return isinstance(node, ast.Name)


def is_bare_array(annotation: ast.expr) -> bool:
    """Whether it is or holds an array that says no shape; a callable's own arguments do not count."""
    if isinstance(annotation, ast.Subscript):
        head = ast.unparse(annotation.value)
        if SHAPED.fullmatch(head) or head == "Callable":
            return False
        return any(is_bare_array(part) for part in ast.iter_child_nodes(annotation))
    if isinstance(annotation, ast.Tuple | ast.BinOp):
        return any(is_bare_array(part) for part in ast.iter_child_nodes(annotation))
    return ast.unparse(annotation) in ("Tensor", "torch.Tensor", "np.ndarray", "Array")
