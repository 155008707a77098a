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

    What ``need_*`` names and is not there is made on the fly in a ``scratch`` workspace, below ``small/`` when a
    notebook is run by hand; in any other, the project's folder or a published run, an error names what makes it.
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
        """The frames."""
        if self._lacks(self.frames / "summary.json"):
            from pipeline.prepare.prepare import prepare

            prepare(self.params, self.root, progress=False)
        return self.frames

    def need_model(self, name: str, seed: int) -> Path:
        """One trained model."""
        if self._lacks(self.model(name, seed) / "model.safetensors"):
            from pipeline.train.training import train

            self.need_frames()
            train(self.params, name, seed, self.root, progress=False)
        return self.model(name, seed)

    def need_predictions(self, name: str, seed: int) -> Path:
        """One model's predictions."""
        if self._lacks(self.predictions(name, seed)):
            from pipeline.predict.one_step import attack

            self.need_model(name, seed)
            attack(self.params, name, seed, self.root, progress=False)
        return self.predictions(name, seed)

    def need_robustness(self, name: str, seed: int) -> Path:
        """One model's minimal perturbations."""
        if self._lacks(self.robustness(name, seed)):
            from pipeline.predict.deepfool import minimal_perturbations

            self.need_model(name, seed)
            minimal_perturbations(self.params, name, seed, self.root, progress=False)
        return self.robustness(name, seed)

    def need_evidence(self) -> Path:
        """The root, with the tables that the claims are judged by."""
        files = [self.root / "tables" / "table1.csv"]
        files += [self.figures / f"{name}.csv" for name in ("attention", "figure3", "figure4")]
        lacking = {path.stem for path in files if self._lacks(path)}
        if not lacking:
            return self.root
        from pipeline.paper.attention import attention_table
        from pipeline.paper.robustness import robustness_table
        from pipeline.paper.style import save_table
        from pipeline.paper.tables import tables
        from pipeline.predict.sweep import sweep

        def every(need: Callable[[str, int], Path]) -> dict[str, list[Path]]:
            experiment = self.params.experiment
            return {name: [need(name, seed) for seed in experiment.seeds] for name in experiment.models}

        if "table1" in lacking:
            every(self.need_predictions)
            tables(self.params, self.root)
        if "attention" in lacking:
            save_table(attention_table(every(self.need_predictions)), self.figures / "attention.csv")
        if "figure3" in lacking:
            save_table(sweep(self.params, self.root, progress=False), self.figures / "figure3.csv")
        if "figure4" in lacking:
            save_table(robustness_table(every(self.need_robustness)), self.figures / "figure4.csv")
        return self.root

    def need_stress(self) -> Path:
        """The stress test's files."""
        target = self.root / "stress"
        if self._lacks(target / "training.csv", "dvc repro stress/dvc.yaml"):
            from pipeline.stress.attacks.stress import stress

            self.need_frames()
            stress(self.params, self.root, progress=False)
        return target

    def _lacks(self, path: Path, command: str = "dvc repro") -> bool:
        if not path.exists() and not self.scratch:
            raise ArtpaperError(f"{path}: not made yet; `{command}` makes it")
        return not path.exists()


def open_workspace(params: str, workspace: str) -> Workspace:
    """Open a workspace from the two parameters every notebook has, paths relative to the project's folder."""
    root = project_root()
    folder = (root / workspace).resolve()
    values = load_params(root / params)
    if folder == root or (folder / "provenance.json").is_file():  # the pipeline's, or a published run
        return Workspace(values, folder, scratch=False)
    return Workspace(values, folder / fingerprint([as_dict(values), code()]), scratch=True)  # one a version of the code
