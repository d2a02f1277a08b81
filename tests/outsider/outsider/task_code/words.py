"""What a word is. Standard library alone: a node has neither labkit nor this distribution."""


def count(text, longer_than):
    """Return the number of words with more than so many characters."""
    return sum(len(word) > longer_than for word in text.split())
