"""What all commands of the command line share: how they are listed, what they read, and how each ends."""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from pipeline.base.errors import ArtpaperError


class Commands(click.Group):
    """Commands that the help lists under headings, each with the first sentence of its own help."""

    headings: Mapping[str, Sequence[str]]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """In the place of click's one list."""
        width = max(map(len, self.commands))
        for heading, names in self.headings.items():
            short = {name: self.commands[name].get_short_help_str(formatter.width - width - 4) for name in names}
            with formatter.section(heading):
                formatter.write_dl([(f"{name:{width}}", text) for name, text in short.items()])


class Place(click.Path):
    """A path whose ~ no shell has replaced, as in ``--path=~/data``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """What was typed, or the default."""
        return Path(os.path.expanduser(value))


PATH = Place()
PARAMS = click.option("--params", type=PATH, default="params.yaml", help="Parameter file.")
WORKSPACE = click.option("--workspace", type=PATH, default=".", help="Folder of the results.")


def part(text: str) -> tuple[int, int]:
    """``X,Y``: the X-th of Y parts."""
    chosen, _, parts = text.partition(",")
    if not chosen.isdecimal() or not parts.isdecimal() or not 1 <= int(chosen) <= int(parts):
        raise click.BadParameter(f"{text}: expected X,Y with 1 <= X <= Y, such as 1,100")
    return int(chosen), int(parts)


def change(text: str) -> tuple[str, str]:
    """``KEY=VALUE``: a parameter, and what it is to be."""
    key, equals, value = text.partition("=")
    if not equals:
        raise click.BadParameter(f"{text}: expected KEY=VALUE, such as train.max_steps=100")
    return key, value


def scalar(text: str) -> str | int | float:
    """A number if it is one, or else a text, in which ~ is replaced."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return os.path.expanduser(text)


def answer(commands: click.Group, name: str, arguments: Sequence[str]) -> int:
    """Run one command; the exit status: 0, or after one clear message 1, 2 if it is no command, 130 if interrupted."""
    _open_streams()
    if f"_{name.upper()}_COMPLETE" in os.environ:
        commands(prog_name=name)  # answers the shell, and ends
    try:
        # not click's own main, which has other words and statuses for a closed pipe and an interrupt
        with suppress(click.exceptions.Exit), commands.make_context(name, list(arguments)) as context:
            commands.invoke(context)
        sys.stdout.flush()
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except ArtpaperError as error:
        return _failed(name, str(error))
    except ModuleNotFoundError as error:
        remedy = "source .venv/bin/activate, or pip install -e . -e ./pipeline, in a checkout"
        return _failed(name, f"this command needs {error.name}, which {sys.executable} lacks: {remedy}")
    except UnicodeEncodeError as error:
        what = ascii(error.object[error.start : error.end])
        return _failed(name, f"the {error.encoding} of this system's locale has no {what}; run it with PYTHONUTF8=1")
    except BrokenPipeError:
        return _failed(name, "what reads the output has closed it; the same command goes on from here")
    except OSError as error:
        place = f"{error.filename}: " if error.filename is not None else ""
        return _failed(name, f"{place}{error.strerror or error}")
    except KeyboardInterrupt:
        _failed(name, "interrupted; the same command goes on from here")
        return 130
    return 0


def _open_streams() -> None:
    """What cannot be shown stops no work: a name that the terminal's encoding lacks, a stream that is closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def _failed(name: str, message: str) -> int:
    with suppress(OSError):
        print(f"{name}: {message}", file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:  # or Python would try again at its end, and complain
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1
