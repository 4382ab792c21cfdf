"""Pages of the console: views, forms."""
