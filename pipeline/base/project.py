"""Where the project lies."""

from pathlib import Path

from pipeline.base.errors import ConfigError

ROOT_MARK = "dvc.yaml"


def project_root(start: Path | None = None) -> Path:
    """The folder that holds ``dvc.yaml``, upwards from ``start`` (default: the current folder).

    papermill runs notebooks in the caller's folder, nbval and JupyterLab in the notebook's own; paths that start here
    mean the same in all three.
    """
    here = (start or Path.cwd()).resolve()
    for folder in (here, *here.parents):
        if (folder / ROOT_MARK).is_file():
            return folder
    raise ConfigError(f"{here}: not inside the project (no {ROOT_MARK} in it or above it); cd to its folder first")
