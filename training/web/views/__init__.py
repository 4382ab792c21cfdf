"""Views of the console. A view fetches what this user may see, checks the form, calls one function and renders."""
