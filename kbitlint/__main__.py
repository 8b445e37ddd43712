"""Entry point of ``python -m kbitlint``."""

from kbitlint.cli import main

main()
