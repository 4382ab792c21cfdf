"""The first page of a project's console: figures of the loop, what blocks it, and the next step."""
