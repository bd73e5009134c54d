"""Scripts that measure dfkd. `benchmarks/README.md` and `benchmarks/notes/` hold their results."""
