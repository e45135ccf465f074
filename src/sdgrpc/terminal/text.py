"""Text of unknown origin on its way to a terminal."""


def printable(text: str) -> str:
    """Return `text` with everything that could steer a terminal replaced: file names and metadata may lie."""
    return "".join(
        character if character.isprintable() else "\N{REPLACEMENT CHARACTER}" for character in text
    )
