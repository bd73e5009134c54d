"""Loads any teacher: the form of the file is told by its content, and nothing in it is executed."""

from dfkd_cli.loading.load import load_classifier
from dfkd_cli.loading.options import LoadOptions

__all__ = ["LoadOptions", "load_classifier"]
