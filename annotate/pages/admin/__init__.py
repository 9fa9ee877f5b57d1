"""The admin page: eight tabs, of which only the one that is shown reads the store."""

from annotate.pages.admin.frame import build_page

__all__ = ["build_page"]
