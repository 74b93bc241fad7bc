"""The exception meant for people: the command line prints it as one sentence."""


class UserError(ValueError):
    """Something the user asked for cannot be done; the message names the mistake and the remedy."""


def nearest(name: str, known: "list[str] | tuple[str, ...]") -> str:
    """A sentence naming the nearest known name, then all of them.

    Example:
        >>> nearest("simclear", ["moco", "simclr"])
        'did you mean "simclr"? Known: moco, simclr.'
    """
    import difflib

    close = difflib.get_close_matches(name, known, n=1)
    hint = f'did you mean "{close[0]}"? ' if close else ""
    return f"{hint}Known: {', '.join(sorted(known))}."
