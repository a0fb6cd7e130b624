"""The login form, and the redirect for links from other websites."""

from html import escape

__all__ = ["REDIRECT", "login_page"]

REDIRECT = """<!doctype html>
<meta charset="utf-8"><title>patchattn</title><meta http-equiv="refresh" content="0; url=./">
<a href="./">patchattn</a>
"""
"""The response to a link on another website: browsers send this page's cookie from this page alone."""

FORM = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>patchattn</title>
<style>
  :root { color-scheme: light dark; }
  body { font: 16px/1.5 system-ui, sans-serif; max-width: 22rem; margin: 18vh auto 0; padding: 0 16px; }
  h1 { font-size: 28px; letter-spacing: -0.02em; margin: 0 0 4px; }
  input, button { font: inherit; width: 100%; box-sizing: border-box; padding: 8px 12px; border-radius: 6px; }
  input { border: 1px solid #8888; margin: 4px 0 12px; }
  button { border: 0; background: #0f766e; color: white; font-weight: 600; cursor: pointer; }
</style>
<h1>patchattn</h1>
<!-- message -->
<form method="post" action="./">
  <label>Password <input type="password" name="password" autocomplete="current-password" required autofocus></label>
  <button>Enter</button>
</form>
</html>
"""


def login_page(message: str = "") -> str:
    """The login form, with the error of the last attempt."""
    return FORM.replace("<!-- message -->", f'<p role="alert">{escape(message)}</p>' if message else "")
