"""`python -m dfkd_cli`: the same as the command `dfkd`."""

from dfkd_cli.cli import main

if __name__ == "__main__":
    main()
