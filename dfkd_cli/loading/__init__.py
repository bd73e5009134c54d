"""Loads networks from files: the form is identified by the content, and nothing in a file is executed."""

from dfkd_cli.loading.load import load_classifier
from dfkd_cli.loading.options import LoadOptions

__all__ = ["LoadOptions", "load_classifier"]
