"""Pages of annotators, reviewers and managers: views, forms, presenters, middleware."""
