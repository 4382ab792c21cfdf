"""The annotators' and managers' pages. A view finds what this person may see, checks the form, calls one function."""
