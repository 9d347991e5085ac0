import json
from pathlib import Path

from bench.figures import Figures


def measured() -> Figures:
    figures = Figures()
    for ratio in (0.9, 0.7, 0.8):
        figures.add("rps_ratio", "ratio", ratio)
    figures.add("exchanges_per_s", "exchanges/s", 31234.5678)
    return figures


def test_a_figure_is_the_median_of_its_runs_with_their_spread() -> None:
    assert measured().summary()["rps_ratio"] == {
        "value": 0.8,
        "unit": "ratio",
        "low": 0.7,
        "high": 0.9,
        "runs": 3,
    }


def test_the_file_holds_every_figure_to_four_digits(tmp_path: Path) -> None:
    path = tmp_path / "build" / "bench.json"
    measured().write(path)
    figures = json.loads(path.read_text())["figures"]
    assert list(figures) == ["rps_ratio", "exchanges_per_s"]
    assert figures["exchanges_per_s"]["value"] == 31230


def test_the_table_has_a_line_for_each_figure_under_its_head() -> None:
    head, ratio, speed = measured().table().splitlines()
    assert head.split() == ["figure", "median", "low", "high", "runs", "unit"]
    assert ratio.split() == ["rps_ratio", "0.8", "0.7", "0.9", "3", "ratio"]
    assert speed.split() == ["exchanges_per_s", "31230", "31230", "31230", "1", "exchanges/s"]
