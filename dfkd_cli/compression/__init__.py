"""The functions of `dfkd compress`, `dfkd plan` and `dfkd inspect`, without the command line."""
