"""The version of dfkd."""

__version__ = "0.1.0"
