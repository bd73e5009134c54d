"""What a run leaves behind: `report.json`, `report.md`, `report.html`, the model card and the pictures."""
