"""Commands that measure dfkd; `benchmarks/README.md` holds what they gave."""
