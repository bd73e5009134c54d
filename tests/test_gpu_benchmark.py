"""`make bench-gpu` is rehearsed with tiny sizes on this machine: every part runs and is recorded."""

import json
import sys

from benchmarks import gpu


def test_every_part_runs_and_is_recorded(tmp_path, monkeypatch):
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(sys, "argv", ["gpu", "--rehearse", "--device", "cpu", "--out", str(out)])
    monkeypatch.setattr("dfkd_cli.compression.pace.ENOUGH_S", 0.0)
    gpu.main()
    results = json.loads(out.read_text())
    found = {name: part["found"] for name, part in results.items() if isinstance(part, dict) and "found" in part}
    assert list(found) == ["throughput", "bare_loops", "plan", "compression", "resumption"]
    assert not [name for name, part in found.items() if "failed" in part]
    assert found["throughput"][0]["student"]["dfkd"] > 0.0
    assert found["plan"]["peak_bytes"] > 0
    assert found["resumption"] == {"stopped": "interrupted", "equal": True}
