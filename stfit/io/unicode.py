"""Text that is none: half of a surrogate pair, as in a cut emoji, can't be encoded, and no tokenizer reads it."""


def is_unicode(text: str) -> bool:
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
