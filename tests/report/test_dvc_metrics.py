"""The rows of ``dvc metrics`` that come from Figure 4 and the attention figures; Tables 1-3's are in test_tables."""

import json

import pandas as pd

from pipeline.paper.dvc_metrics import attention_metrics, robustness_metrics, write_metrics


def test_rho_is_the_mean_over_all_seeds_in_percent() -> None:
    rows = [("top1_change", "art", "0", 9, 0.01), ("top1_change", "art", "all", 9, 0.02)]
    rows += [("multilabel", "art", "all", 4, 0.1), ("top1_change", "a_art", "all", 9, float("nan"))]
    table = pd.DataFrame(rows, columns=["criterion", "model", "seed", "videos", "mean_rho"])
    assert robustness_metrics(table) == {
        "art": {"videos": 9, "rho_top1_change": 2.0, "rho_multilabel": 10.0},
        "a_art": {"videos": 9},
    }


def test_the_change_of_attention_is_a_mean_over_seeds_of_one_modality() -> None:
    rows = [("art", 0, "rgb", 7, 1e-4), ("art", 1, "rgb", 7, 3e-4), ("art", 0, "audio", 7, 2.00049e-8)]
    table = pd.DataFrame(rows, columns=["model", "seed", "modality", "videos", "mse"])
    assert attention_metrics(table) == {
        "art": {"videos": 7, "attention_mse_rgb_e6": 200.0, "attention_mse_audio_e6": 0.0200049}
    }


def test_a_file_a_model(tmp_path) -> None:
    write_metrics({"art": {"gap": 1.5, "group": "Arts & Crafts"}, "a_art": {"gap": 2}}, tmp_path / "table1")
    read = {path.name: json.loads(path.read_text()) for path in (tmp_path / "table1").iterdir()}
    assert read == {"art.json": {"gap": 1.5, "group": "Arts & Crafts"}, "a_art.json": {"gap": 2}}
