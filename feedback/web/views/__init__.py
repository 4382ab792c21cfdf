"""Views of the pages. A view fetches what this user may see, checks the form, calls one function and renders."""
