"""Mutants of the code, one small change each, and whether a test notices: mutmut's run as a table and a list.

    python -m tests.faults.mutants                                   # every module that pyproject.toml names: hours
    python -m tests.faults.mutants --tenth 7                         # a tenth of their mutants
    python -m tests.faults.mutants artpaper/metrics.py --tests tests/test_metrics.py

`[tool.mutmut]` in pyproject.toml says which modules are changed and which tests may notice. mutmut puts a test to a
mutant only if it calls the changed function, quick ones first, up to the first that fails. A mutant of which only the
words of a string differ is not counted: what a message must say, tests hold by its gist. The run goes on in
small/mutants, a copy of the project, and takes up what an earlier one has left there. Results, with every survivor:
tests/faults/results/mutants.md. A survivor is killed by a sharper assertion, or it means the same as the code.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from pipeline.paper.style import markdown_table
from tests.pipeline import ROOT
from tests.small_run import take_over

RESULTS = Path(__file__).parent / "results"
WORLD = ROOT / "small" / "mutants"
KILLED = {1, 3, 24, 36, 152, 255, -24, -11}  # mutmut's codes: a test failed, ran too long, or the process died
STRING = re.compile(r"""[frbFRB]{0,2}("[^"]*"|'[^']*')""")


def main() -> None:
    """Run mutmut on all modules or some, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", help="paths from the project's folder; by default pyproject.toml's")
    parser.add_argument("--tests", nargs="+", help="files of tests; by default pyproject.toml's")
    parser.add_argument("--tenth", choices="0123456789", help="those mutants alone whose number ends in this digit")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    arguments = parser.parse_args()
    WORLD.mkdir(parents=True, exist_ok=True)
    take_over(WORLD)
    modules = configure(WORLD / "pyproject.toml", arguments.modules, arguments.tests)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", str(arguments.processes)]
    command += [f"*_mutmut_*{arguments.tenth}"] if arguments.tenth else []
    subprocess.run(command, cwd=WORLD, env=environment, check=True)
    found = {module: outcomes(module) for module in modules}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "mutants.md").write_text(markdown(found), encoding="utf-8")


def configure(path: Path, modules: list[str], tests: list[str] | None) -> list[str]:
    """Narrow mutmut's configuration in the copy; the modules that it then changes."""
    text = path.read_text(encoding="utf-8")
    settings = tomllib.loads(text)["tool"]["mutmut"]
    for key, values in (("only_mutate", modules), ("pytest_add_cli_args_test_selection", tests)):
        if values:
            text = re.sub(
                rf"^{key} = \[.*?^\]", lambda _, k=key, v=values: f"{k} = {json.dumps(v)}", text, flags=re.M | re.S
            )
            settings[key] = values
    path.write_text(text, encoding="utf-8")
    return sorted(p.relative_to(WORLD).as_posix() for line in settings["only_mutate"] for p in WORLD.glob(line))


def outcomes(module: str) -> dict[str, Any]:
    """Counts of a module's mutants, and the changes of those that survived."""
    codes: dict[str, int | None] = json.loads((WORLD / "mutants" / f"{module}.meta").read_text())["exit_code_by_key"]
    codes = {name: code for name, code in codes.items() if code is not None}  # of a run that was cut off
    alive = [name for name, code in codes.items() if code not in KILLED]
    changes = {name: change(name) for name in alive}
    survivors = {name: lines for name, lines in changes.items() if not only_words(*lines)}
    return {
        "mutants": len(codes) - len(alive) + len(survivors),
        "survivors": survivors,
        "words": len(alive) - len(survivors),
    }


def change(mutant: str) -> tuple[str, str]:
    """What was changed, and into what."""
    shown = subprocess.check_output([sys.executable, "-m", "mutmut", "show", mutant], cwd=WORLD, text=True)
    lines = {mark: "\n".join(re.findall(rf"^\{mark}(?!\{mark}\{mark})(.*)$", shown, re.M)) for mark in "-+"}
    return lines["-"], lines["+"]


def only_words(before: str, after: str) -> bool:
    """Whether nothing but the text of strings differs, or a whole string is missing."""
    return STRING.sub('""', before) == re.sub(r"\bNone\b", '""', STRING.sub('""', after)) != after


def markdown(found: dict[str, dict[str, Any]]) -> str:
    rows = []
    for module, part in found.items():
        killed = part["mutants"] - len(part["survivors"])
        score = f"{100 * killed / part['mutants']:.1f} %" if part["mutants"] else ""
        rows.append([module, f"{part['mutants']:,}", f"{killed:,}", score, str(part["words"])])
    head = ["module", "mutants", "killed", "score", "of words alone, alive"]
    command = " ".join(["python -m tests.faults.mutants", *sys.argv[1:]])
    lines = [f"# Mutants\n\n`{command}`\n\n{markdown_table(head, rows, 1)}\n\n## Survivors\n"]
    for module, part in found.items():
        for name, (before, after) in part["survivors"].items():
            lines.append(
                f"`{name.removeprefix(module)}`\n\n```diff\n{marked('-', before)}\n{marked('+', after)}\n```\n"
            )
    return "\n".join(lines)


def marked(mark: str, text: str) -> str:
    return "\n".join(f"{mark} {line}" for line in text.splitlines())


if __name__ == "__main__":
    main()
