"""The gate: every request to an app of the lab passes it; see docs/explanation/gate.md."""
