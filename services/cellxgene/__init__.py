"""Published datasets: a catalogue, and one CellxGene per dataset in use."""
