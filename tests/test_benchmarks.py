"""The benchmark keeps what it has measured."""

import json
from pathlib import Path

import pytest

from benchmarks import __main__ as benchmark
from benchmarks.figures import Figure, Results


def test_part_that_fails_loses_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "RESULTS", tmp_path / "results.json")
    monkeypatch.setattr(benchmark, "CHART", tmp_path / "scaling.svg")
    results = Results(machine={})

    def draw() -> list[Figure]:
        results.draw("sync", 1000, 12.5)
        return [Figure("sync", "1,000", 12.5, "ms", "the least possible", 10, 2, is_least=False)]

    def fail() -> list[Figure]:
        assert "sync" in benchmark.RESULTS.read_text()
        raise OSError("no browser")

    parts = {"sync": draw, "dashboard": fail, "boot": lambda: [Figure("boot", "all", 2500, "bytes", goal=2000)]}
    with pytest.raises(SystemExit, match="failed: dashboard: no browser"):
        benchmark.run(parts, results, is_kept=True)

    written = json.loads(benchmark.RESULTS.read_text())
    assert [one["name"] for one in written["figures"]] == ["sync", "boot"]
    assert written["failed"] == {"dashboard": "no browser"}
    assert "sync" in benchmark.CHART.read_text()
    printed = capsys.readouterr().out
    assert "| sync | 1,000 | 12.50 ms | the least possible: 10.00 | 1.25 | ≤ 2 | met |" in printed
    assert "| boot | all | 2,500 bytes |  |  | ≥ 2,000 | met |" in printed
