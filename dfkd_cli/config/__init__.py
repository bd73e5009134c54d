"""What users set as text: values of a recipe, checked against dataclasses, times and folders; and dfkd's version."""
