"""Pages of annotators and managers: views, forms, presenters, middleware."""
