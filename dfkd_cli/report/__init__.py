"""The documents that a run writes: `report.json`, `report.md`, `report.html` and the model card."""
