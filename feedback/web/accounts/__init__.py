"""Accounts by django-allauth: sign-in, sessions, second factors, single sign-on. The pages and their words are ours."""
