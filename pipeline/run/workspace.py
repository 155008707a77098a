"""A folder of results and the parameters they belong to: what a notebook opens first."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pipeline.base.errors import ArtpaperError
from pipeline.base.identity import code, fingerprint
from pipeline.base.parameters import Params, as_dict, load_params
from pipeline.base.project import project_root


@dataclass(frozen=True)
class Workspace:
    """The pipeline's results under one folder: ``frames``, ``models``, ``predictions``, ``tables`` and so on.

    Attributes:
        params: the parameters in force.
        root: the project's folder in the pipeline; a scratch folder below ``small/`` when a notebook is run by hand,
            one for each set of parameters and version of the code.
        scratch: True for any other folder than the project's: there, what is missing is made on the fly.
    """

    params: Params
    root: Path
    scratch: bool

    @property
    def frames(self) -> Path:
        """The prepared frame stores."""
        return self.root / "frames"

    def model(self, name: str, seed: int) -> Path:
        """The folder of one trained model."""
        return self.root / "models" / name / f"seed{seed}"

    def predictions(self, name: str, seed: int) -> Path:
        """The predictions file of one model under the one-step attack."""
        return self.root / "predictions" / name / f"seed{seed}" / "one_step.parquet"

    def robustness(self, name: str, seed: int) -> Path:
        """The minimal perturbations of one model."""
        return self.root / "robustness" / name / f"seed{seed}" / "deepfool.parquet"

    @property
    def figures(self) -> Path:
        """Where figures and the tables behind them go."""
        return self.root / "figures"

    def need_frames(self) -> Path:
        """The frames, prepared now if this is a scratch workspace without them.

        Raises:
            ArtpaperError: they are missing in the pipeline's own workspace; the message names the command.
        """
        if self._missing(self.frames / "summary.json"):
            from pipeline.prepare.prepare import prepare

            prepare(self.params, self.root, progress=False)
        return self.frames

    def need_model(self, name: str, seed: int) -> Path:
        """One trained model, trained now if this is a scratch workspace without it.

        Raises:
            ArtpaperError: it is missing in the pipeline's own workspace.
        """
        if self._missing(self.model(name, seed) / "model.safetensors"):
            from pipeline.train.training import train

            self.need_frames()
            train(self.params, name, seed, self.root, progress=False)
        return self.model(name, seed)

    def need_predictions(self, name: str, seed: int) -> Path:
        """One model's predictions, made now if this is a scratch workspace without them.

        Raises:
            ArtpaperError: they are missing in the pipeline's own workspace.
        """
        if self._missing(self.predictions(name, seed)):
            from pipeline.predict.one_step import attack

            self.need_model(name, seed)
            attack(self.params, name, seed, self.root, progress=False)
        return self.predictions(name, seed)

    def need_robustness(self, name: str, seed: int) -> Path:
        """One model's minimal perturbations, made now if this is a scratch workspace without them.

        Raises:
            ArtpaperError: they are missing in the pipeline's own workspace.
        """
        if self._missing(self.robustness(name, seed)):
            from pipeline.predict.deepfool import minimal_perturbations

            self.need_model(name, seed)
            minimal_perturbations(self.params, name, seed, self.root, progress=False)
        return self.robustness(name, seed)

    def need_evidence(self) -> Path:
        """The tables that the claims are judged by, made now if this is a scratch workspace without them.

        Raises:
            ArtpaperError: one is missing in the pipeline's own workspace.
        """
        from pipeline.paper.attention import attention_table
        from pipeline.paper.robustness import robustness_table
        from pipeline.paper.style import save_table
        from pipeline.paper.tables import tables
        from pipeline.predict.sweep import sweep

        experiment = self.params.experiment

        def runs(need: Callable[[str, int], Path]) -> dict[str, list[Path]]:
            return {name: [need(name, seed) for seed in experiment.seeds] for name in experiment.models}

        if self._missing(self.root / "tables" / "table1.csv"):
            runs(self.need_predictions)
            tables(self.params, self.root)
        if self._missing(self.figures / "attention.csv"):
            save_table(attention_table(runs(self.need_predictions)), self.figures / "attention.csv")
        if self._missing(self.figures / "figure3.csv"):
            save_table(sweep(self.params, self.root, progress=False), self.figures / "figure3.csv")
        if self._missing(self.figures / "figure4.csv"):
            save_table(robustness_table(runs(self.need_robustness)), self.figures / "figure4.csv")
        return self.root

    def need_stress(self) -> Path:
        """The stress test's files, made now if this is a scratch workspace without them.

        Raises:
            ArtpaperError: they are missing in the pipeline's own workspace.
        """
        from pipeline.stress.attacks.stress import stress

        target = self.root / "stress"
        if self._missing(target / "training.csv", "dvc repro stress/dvc.yaml"):
            self.need_frames()
            stress(self.params, self.root, progress=False)
        return target

    def _missing(self, path: Path, maker: str = "dvc repro") -> bool:
        if path.exists():
            return False
        if not self.scratch:
            raise ArtpaperError(f"{path}: not made yet; `{maker}` makes it")
        return True


def open_workspace(params: str, workspace: str) -> Workspace:
    """Open a workspace from the two parameters every notebook has.

    Args:
        params: parameter file, relative to the project's folder.
        workspace: results folder, relative to the project's folder; "." in the pipeline.
    Raises:
        ConfigError: the parameters do not fit.
    """
    root = project_root()
    folder = (root / workspace).resolve()
    values = load_params(root / params)
    if folder == root or (folder / "provenance.json").is_file():  # the pipeline's, or a published run
        return Workspace(values, folder, scratch=False)
    return Workspace(values, folder / fingerprint([as_dict(values), code()]), scratch=True)
