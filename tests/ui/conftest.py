"""The real app and a browser for it, see tests/apps.py."""

from tests.apps import app_url, browser, page

__all__ = ["app_url", "browser", "page"]
