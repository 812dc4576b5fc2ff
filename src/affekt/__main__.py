"""Run the command line as `python -m affekt`."""

from affekt.cli import main

main()
