"""Figures: what was measured, as samples; their table and their JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from statistics import median


class Figures:
    """Samples by figure, in the order in which figures were first seen."""

    def __init__(self) -> None:
        self._samples: dict[str, list[float]] = {}
        self._units: dict[str, str] = {}

    def add(self, name: str, unit: str, sample: float) -> None:
        """Add one run's sample."""
        self._samples.setdefault(name, []).append(sample)
        self._units[name] = unit

    def add_all(self, unit: str, samples: Iterable[tuple[str, float]]) -> None:
        """Add one run's samples of several figures that have the same unit."""
        for name, sample in samples:
            self.add(name, unit, sample)

    def samples(self) -> list[tuple[str, str, list[float]]]:
        """Every figure's name, unit and samples."""
        return [(name, self._units[name], samples) for name, samples in self._samples.items()]

    def summary(self) -> dict[str, dict[str, float | int | str]]:
        """By figure: the median of its samples, the lowest, the highest, and how many they are."""
        return {
            name: {
                "value": _rounded(median(samples)),
                "unit": self._units[name],
                "low": _rounded(min(samples)),
                "high": _rounded(max(samples)),
                "runs": len(samples),
            }
            for name, samples in self._samples.items()
        }

    def write(self, path: Path) -> None:
        """Write the summary as JSON: `{"figures": {NAME: {"value", "unit", "low", "high", "runs"}}}`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"figures": self.summary()}, indent=2) + "\n")

    def table(self) -> str:
        """The summary as text, one line for each figure."""
        lines = [f"{'figure':40} {'median':>10} {'low':>10} {'high':>10} {'runs':>4}  unit"]
        for name, figure in self.summary().items():
            numbers = " ".join(f"{_short(figure[key]):>10}" for key in ("value", "low", "high"))
            lines.append(f"{name:40} {numbers} {figure['runs']:>4}  {figure['unit']}")
        return "\n".join(lines)


def _rounded(value: float) -> float:
    """Four significant digits: no benchmark here is better than that."""
    return float(f"{value:.4g}")


def _short(value: float | int | str) -> str:
    return f"{value:g}" if isinstance(value, float) and abs(value) < 1e4 else f"{float(value):.0f}"
