"""``python -m hub`` is what `labhub` runs."""

from hub.cli import main

main()
