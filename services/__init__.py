"""The apps behind the login, one folder each, and the gate before them."""
