"""`dfkd compress` and `dfkd plan` from files to files."""
