"""The error that is the user's."""

__all__ = ["UserError"]


class UserError(Exception):
    """Something the user can put right; its text is the one line they see."""
